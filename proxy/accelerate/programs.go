// SPDX-License-Identifier: Apache-2.0

package accelerate

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
)

// Offsets in the contexts of the two programs (linux/bpf.h, struct bpf_sock_ops and struct sk_msg_md).
const (
	opsOp, opsFamily         = 0, 20
	opsRemoteIP4, opsLocalIP = 24, 28
	opsRemoteIP6, opsLocal6  = 32, 48
	opsRemotePort, opsPort   = 64, 68 // network's order in the high bytes; the host's
	opsFull                  = 72
	opsRcvNxt, opsSndNxt     = 100, 104
	opsSk                    = 184

	msgSize, msgSk = 68, 72
	sockState      = 72 // of struct bpf_sock
)

// Events of a socket (enum in linux/bpf.h), and flags.
const (
	onRwndInit, onActive, onPassive = 2, 4, 5

	flagIngress  = 1 // BPF_F_INGRESS
	flagCreate   = 1 // BPF_SK_STORAGE_GET_F_CREATE
	verdictPass  = 1
	sockopsTaken = 1
)

// The record of a handshake, by the client's address: whose key is {netns u64, address 16, port u32, 0 u32}.
const (
	handshakeKey                               = 32
	hsCookie, hsPtr, hsSnd, hsRcv, handshakeSz = 0, 8, 16, 20, 24
)

// What is kept with each entered socket.
const (
	stPeerKey  = 0  // u64: the other end in the hash of sockets
	stPeerPtr  = 8  // u64: its address in the kernel, 0 if not known yet; it may be stale and is only ever read through
	stStart    = 16 // u32: the sequence number of the first byte it sends
	stQueued   = 20 // u32: messages since the reader was last seen to have taken all
	stState    = 24 // u32
	stSpliced  = 32 // u64: messages that were spliced
	storageLen = 40
)

// States of a direction.
const (
	// splicing is what it begins with.
	splicing = iota
	// left: it is TCP's for good.
	left
	// early: the client has sent before the system was done with the server's handshake, which is rare. As soon as the server
	// is there and has read all of that, the direction begins anew.
	early
)

// States of a socket in which it may send (enum in linux/bpf.h).
const (
	tcpEstablished = 1
	tcpCloseWait   = 8
)

// Numbers, by index of u64 in the value of the counting map.
const (
	nEntered = iota
	nFull
	nMessages
	nBytes
	nLeft
	nPassed
	numbers
)

// offsets are where this kernel keeps what the second program looks at.
type offsets struct {
	rmem     int16 // sk_backlog.rmem_alloc of struct sock: the bytes that wait for the reader
	writeSeq int16 // of struct tcp_sock: behind the last byte that was given to TCP
	copied   int16 // copied_seq of struct tcp_sock: behind the last byte of TCP that was read
}

// tables are the descriptors of the maps that the programs work on.
type tables struct{ socks, storage, handshakes, servers, counts int }

// inc adds the value of a register, or 1, to a number of this processor. It uses R0 ... R5.
func (m tables) inc(label string, add map[int]asm.Register) asm.Instructions {
	out := asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.counts),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, label),
	}
	for i := range numbers {
		r, ok := add[i]
		if !ok {
			continue
		}
		out = append(out, asm.LoadMem(asm.R1, asm.R0, int16(8*i), asm.DWord))
		if r == one {
			out = append(out, asm.Add.Imm(asm.R1, 1))
		} else {
			out = append(out, asm.Add.Reg(asm.R1, r))
		}
		out = append(out, asm.StoreMem(asm.R0, int16(8*i), asm.R1, asm.DWord))
	}
	return out
}

// one stands for the number 1 in inc; R0 is never a source there.
const one = asm.R0

// address writes the key of a handshake to the stack at keyAt: the client is the local or the remote end. IPv4 is written in
// its mapped form, which dual-stack sockets show, too. R6 is the context; it uses R0 ... R5.
func address(client string, ip4, ip6 int16) asm.Instructions {
	// ::ffff:0:0/96, its third word as it lies in memory
	mapped := int32(binary.NativeEndian.Uint32([]byte{0, 0, 0xff, 0xff}))
	out := asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetNetnsCookie.Call(),
		asm.StoreMem(asm.RFP, keyAt, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R6, opsFamily, asm.Word),
		asm.JNE.Imm(asm.R1, 2, client+" v6"),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, keyAt+8, asm.R1, asm.DWord),
		asm.Mov.Imm32(asm.R1, mapped),
		asm.StoreMem(asm.RFP, keyAt+16, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, ip4, asm.Word),
		asm.StoreMem(asm.RFP, keyAt+20, asm.R1, asm.Word),
		asm.Ja.Label(client + " port"),
	}
	for i := range int16(4) {
		in := asm.LoadMem(asm.R1, asm.R6, ip6+4*i, asm.Word)
		if i == 0 {
			in = in.WithSymbol(client + " v6")
		}
		out = append(out, in, asm.StoreMem(asm.RFP, keyAt+8+4*i, asm.R1, asm.Word))
	}
	if ip4 == opsRemoteIP4 {
		out = append(out,
			asm.LoadMem(asm.R1, asm.R6, opsRemotePort, asm.Word).WithSymbol(client+" port"),
			asm.HostTo(asm.BE, asm.R1, asm.Word))
	} else {
		out = append(out, asm.LoadMem(asm.R1, asm.R6, opsPort, asm.Word).WithSymbol(client+" port"))
	}
	return append(out,
		asm.StoreMem(asm.RFP, keyAt+24, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, keyAt+28, 0, asm.Word),
	)
}

// Places on the stack of the first program.
const (
	keyAt  = -40 // the key of a handshake
	valAt  = -64 // its record
	hashAt = -72 // the key in the hash of sockets
	ptrAt  = -80
)

// handshake leaves the record for the key on the stack in R0.
func (m tables) handshake() asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.handshakes),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, keyAt),
		asm.FnMapLookupElem.Call(),
	}
}

// enter makes the storage of the socket (R7) and puts the socket into the hash under R9, the pair's id. R8 is the record of
// the handshake. side is 0 for the client and 1 for the server.
func (m tables) enter(name string, side int32) asm.Instructions {
	out := asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.storage),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, flagCreate),
		asm.FnSkStorageGet.Call(),
		asm.JEq.Imm(asm.R0, 0, "full"),
		asm.Mov.Reg(asm.R1, asm.R9),
		asm.LSh.Imm(asm.R1, 1),
		asm.Or.Imm(asm.R1, 1-side),
		asm.StoreMem(asm.R0, stPeerKey, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R6, opsSndNxt, asm.Word),
		asm.StoreMem(asm.R0, stStart, asm.R1, asm.Word),
	}
	if side == 1 {
		out = append(out,
			asm.LoadMem(asm.R1, asm.R8, hsPtr, asm.DWord),
			asm.StoreMem(asm.R0, stPeerPtr, asm.R1, asm.DWord))
	}
	return append(out,
		asm.Mov.Reg(asm.R1, asm.R9),
		asm.LSh.Imm(asm.R1, 1),
		asm.Or.Imm(asm.R1, side),
		asm.StoreMem(asm.RFP, hashAt, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, m.socks),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, hashAt),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSockHashUpdate.Call(),
		asm.JNE.Imm(asm.R0, 0, "full"),
	)
}

// socketOr loads the socket into R7.
func socketOr(out string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R7, asm.R6, opsSk, asm.DWord),
		asm.JEq.Imm(asm.R7, 0, out),
	}
}

func join(parts ...asm.Instructions) (all asm.Instructions) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func at(label string, in asm.Instructions) asm.Instructions {
	in[0] = in[0].WithSymbol(label)
	return in
}

// pair is the first program: it is called for the events of the cgroup's sockets and enters those that are a pair.
func (m tables) pair() asm.Instructions {
	return join(
		asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMem(asm.R1, asm.R6, opsOp, asm.Word),
			asm.JEq.Imm(asm.R1, onRwndInit, "syn"),
			asm.JEq.Imm(asm.R1, onActive, "client"),
			asm.JEq.Imm(asm.R1, onPassive, "server"),
			asm.Ja.Label("out"),
		},
		// A listener got a SYN; the socket is a request yet. The same event of a whole socket is a client's.
		at("syn", asm.Instructions{
			asm.LoadMem(asm.R1, asm.R6, opsFull, asm.Word),
			asm.JNE.Imm(asm.R1, 0, "out"),
		}),
		address("syn", opsRemoteIP4, opsRemoteIP6),
		asm.Instructions{
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(asm.RFP, valAt+hsCookie, asm.R1, asm.DWord),
			asm.StoreMem(asm.RFP, valAt+hsPtr, asm.R1, asm.DWord),
			asm.StoreMem(asm.RFP, valAt+hsSnd, asm.R1, asm.DWord), // and hsRcv
			asm.LoadMapPtr(asm.R1, m.handshakes),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, keyAt),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, valAt),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnMapUpdateElem.Call(),
			asm.Ja.Label("out"),
		},
		m.client(), m.server(),
		at("entered", m.inc("out", map[int]asm.Register{nEntered: one})),
		asm.Instructions{asm.Ja.Label("out")},
		at("full", m.inc("out", map[int]asm.Register{nFull: one})),
		asm.Instructions{
			asm.Mov.Imm(asm.R0, sockopsTaken).WithSymbol("out"),
			asm.Return(),
		},
	)
}

// client: the handshake of a client is over for it. It enters if a listener here has seen its SYN, and says what it knows.
func (m tables) client() asm.Instructions {
	return join(
		at("client", socketOr("out")),
		address("from here", opsLocalIP, opsLocal6),
		m.handshake(),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Reg(asm.R8, asm.R0),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.FnGetSocketCookie.Call(),
			asm.Mov.Reg(asm.R9, asm.R0),
		},
		m.enter("client", 0),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R6, opsSndNxt, asm.Word),
			asm.StoreMem(asm.R8, hsSnd, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, asm.R6, opsRcvNxt, asm.Word),
			asm.StoreMem(asm.R8, hsRcv, asm.R1, asm.Word),
			asm.StoreMem(asm.R8, hsPtr, asm.R7, asm.DWord),
			asm.StoreMem(asm.R8, hsCookie, asm.R9, asm.DWord),
			asm.Ja.Label("entered"),
		},
	)
}

// server: the handshake is over for the server, too. It enters if the sequence numbers are those of the client that entered.
func (m tables) server() asm.Instructions {
	return join(
		at("server", socketOr("out")),
		address("from there", opsRemoteIP4, opsRemoteIP6),
		m.handshake(),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Reg(asm.R8, asm.R0),
			asm.LoadMem(asm.R9, asm.R8, hsCookie, asm.DWord),
			asm.JEq.Imm(asm.R9, 0, "out"),
			asm.LoadMem(asm.R1, asm.R6, opsRcvNxt, asm.Word),
			asm.LoadMem(asm.R2, asm.R8, hsSnd, asm.Word),
			asm.JNE.Reg(asm.R1, asm.R2, "out"),
			asm.LoadMem(asm.R1, asm.R6, opsSndNxt, asm.Word),
			asm.LoadMem(asm.R2, asm.R8, hsRcv, asm.Word),
			asm.JNE.Reg(asm.R1, asm.R2, "out"),
		},
		m.enter("server", 1),
		asm.Instructions{
			asm.StoreMem(asm.RFP, hashAt, asm.R9, asm.DWord),
			asm.StoreMem(asm.RFP, ptrAt, asm.R7, asm.DWord),
			asm.LoadMapPtr(asm.R1, m.servers),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, hashAt),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, ptrAt),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnMapUpdateElem.Call(),
			asm.LoadMapPtr(asm.R1, m.handshakes),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, keyAt),
			asm.FnMapDeleteElem.Call(),
			asm.Ja.Label("entered"),
		},
	)
}

// peek reads four bytes of the kernel at R3 plus an offset into a register. What cannot be read is 0.
func peek(into asm.Register, off int16) asm.Instructions {
	return asm.Instructions{
		asm.Add.Imm(asm.R3, int32(off)),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -16),
		asm.Mov.Imm(asm.R2, 4),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMem(into, asm.RFP, -16, asm.Word),
	}
}

// splice is the second program: it is called for what an entered socket sends, and hands it to the other end or lets it go
// by TCP. It runs under the sender's lock. R6 is the context, R8 the socket's storage, R9 the size.
func (m tables) splice(o offsets) asm.Instructions {
	return join(
		asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMem(asm.R2, asm.R6, msgSk, asm.DWord),
			asm.LoadMapPtr(asm.R1, m.storage),
			asm.Mov.Imm(asm.R3, 0),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnSkStorageGet.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Reg(asm.R8, asm.R0),
			asm.LoadMem(asm.R1, asm.R8, stState, asm.Word),
			asm.JEq.Imm(asm.R1, left, "passed"),
			asm.LoadMem(asm.R9, asm.R6, msgSize, asm.Word),
			asm.LoadMem(asm.R1, asm.R6, msgSk, asm.DWord),
			asm.FnSkcToTcpSock.Call(),
			asm.JEq.Imm(asm.R0, 0, "leave"),
			asm.LoadMem(asm.R7, asm.R0, o.writeSeq, asm.Word),
			asm.LoadMem(asm.R3, asm.R8, stPeerPtr, asm.DWord),
			asm.JNE.Imm(asm.R3, 0, "known"),
			// A client's first message: who is the server?
			asm.LoadMem(asm.R1, asm.R8, stPeerKey, asm.DWord),
			asm.RSh.Imm(asm.R1, 1),
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
			asm.LoadMapPtr(asm.R1, m.servers),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -16),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "early"),
			asm.LoadMem(asm.R3, asm.R0, 0, asm.DWord),
			asm.StoreMem(asm.R8, stPeerPtr, asm.R3, asm.DWord),
			asm.LoadMem(asm.R1, asm.R8, stState, asm.Word).WithSymbol("known"),
			asm.JEq.Imm(asm.R1, early, "begin"),
			// Has any byte gone by TCP, past this program, or the end?
			asm.LoadMem(asm.R1, asm.R8, stStart, asm.Word),
			asm.JNE.Reg(asm.R1, asm.R7, "leave"),
			asm.Ja.Label("look"),
		},
		m.begin(o), m.hand(o),
		m.inc("out", map[int]asm.Register{nMessages: one, nBytes: asm.R9}),
		asm.Instructions{
			asm.Ja.Label("out"),
			asm.StoreImm(asm.R8, stState, early, asm.Word).WithSymbol("early"),
			asm.Ja.Label("passed"),
			asm.StoreImm(asm.R8, stState, left, asm.Word).WithSymbol("leave"),
		},
		m.inc("out", map[int]asm.Register{nLeft: one, nPassed: one}),
		asm.Instructions{asm.Ja.Label("out")},
		at("passed", m.inc("out", map[int]asm.Register{nPassed: one})),
		asm.Instructions{
			asm.Mov.Imm(asm.R0, verdictPass).WithSymbol("out"),
			asm.Return(),
		},
	)
}

// begin goes over to splicing if the server has read all that went by TCP. The own end, too, can be read to the last byte:
// behind it there is nothing to splice. R3 is the address of the other end, R7 the sequence number of what comes next.
func (m tables) begin(o offsets) asm.Instructions {
	return join(
		at("begin", asm.Instructions{
			asm.LoadMem(asm.R1, asm.R6, msgSk, asm.DWord),
			asm.LoadMem(asm.R1, asm.R1, sockState, asm.Word),
			asm.JEq.Imm(asm.R1, tcpEstablished, "may"),
			asm.JNE.Imm(asm.R1, tcpCloseWait, "passed"),
		}),
		at("may", peek(asm.R1, o.copied)),
		asm.Instructions{
			asm.JNE.Reg(asm.R1, asm.R7, "passed"),
			asm.StoreMem(asm.R8, stStart, asm.R7, asm.Word),
			asm.StoreImm(asm.R8, stState, splicing, asm.Word),
			asm.LoadMem(asm.R3, asm.R8, stPeerPtr, asm.DWord),
		},
	)
}

// hand looks how much the reader has not taken and gives it the message. What cannot be read is 0: then the other end has
// gone, and the hash of sockets does not have it any more.
func (m tables) hand(o offsets) asm.Instructions {
	return join(
		at("look", peek(asm.R7, o.rmem)),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R8, stQueued, asm.Word),
			asm.JNE.Imm(asm.R7, 0, "waits"),
			asm.Mov.Imm(asm.R1, 0),
			asm.Add.Imm(asm.R1, 1).WithSymbol("waits"),
			asm.StoreMem(asm.R8, stQueued, asm.R1, asm.Word),
			asm.JGT.Imm(asm.R1, MaxMessages, "leave"),
			asm.Add.Reg(asm.R7, asm.R9),
			asm.JGT.Imm(asm.R7, MaxQueued, "leave"),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.LoadMapPtr(asm.R2, m.socks),
			asm.Mov.Reg(asm.R3, asm.R8), // stPeerKey is its first field
			asm.Mov.Imm(asm.R4, flagIngress),
			asm.FnMsgRedirectHash.Call(),
			asm.JEq.Imm(asm.R0, 0, "leave"),
			asm.LoadMem(asm.R1, asm.R8, stSpliced, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R8, stSpliced, asm.R1, asm.DWord),
		},
	)
}
