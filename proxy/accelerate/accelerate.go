// SPDX-License-Identifier: Apache-2.0

package accelerate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// MaxQueued is how many spliced bytes may wait for a reader, and MaxMessages how many messages, since the kernel keeps about
// a kibibyte with each, however short it is. Above that a direction is left to TCP.
const (
	MaxQueued   = 256 << 10
	MaxMessages = 2048
)

// DefaultSockets is the usual bound of the sockets that are entered at a time.
const DefaultSockets = 65535

// recent bounds the tables that are needed during a handshake only. They forget the oldest first.
const recent = 8192

// noPrealloc is BPF_F_NO_PREALLOC, which storage of sockets wants.
const noPrealloc = 1

// Config says what is spliced.
type Config struct {
	// Cgroup is the folder of a cgroup2; pairs of sockets of its processes, and those below it, are spliced. Empty means
	// the one of this process.
	Cgroup string
	// Sockets bounds how many are entered at a time; 0 means DefaultSockets. Further ones use plain TCP.
	Sockets int
}

// Sockmap splices until it is closed.
type Sockmap struct {
	cgroup string
	maps   maps
	msg    *ebpf.Program
	ops    *ebpf.Program
	hook   link.Link
}

// maps are what the programs work on.
type maps struct {
	socks      *ebpf.Map // pair id << 1 | side -> socket; the id is the cookie of the client's socket
	storage    *ebpf.Map // of each entered socket
	handshakes *ebpf.Map // by the client's address: that a listener got its SYN, and what the client knows
	servers    *ebpf.Map // pair id -> address of the server's socket in the kernel
	counts     *ebpf.Map
}

func (m *maps) tables() tables {
	return tables{m.socks.FD(), m.storage.FD(), m.handshakes.FD(), m.servers.FD(), m.counts.FD()}
}

// Start loads the programs, tries them out, and attaches them. The error is an UnavailableError: it says what is missing and
// what to do about it; nothing is left behind then.
func Start(cfg Config) (*Sockmap, error) {
	s := &Sockmap{cgroup: cfg.Cgroup}
	if err := s.start(cfg); err != nil {
		return nil, errors.Join(explain(err), s.Close())
	}
	return s, nil
}

func (s *Sockmap) start(cfg Config) (err error) {
	if s.cgroup == "" {
		if s.cgroup, err = ownCgroup("/proc"); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(s.cgroup, "cgroup.procs")); err != nil {
		return err
	}
	o, err := kernelOffsets()
	if err != nil {
		return err
	}
	if cfg.Sockets == 0 {
		cfg.Sockets = DefaultSockets
	}
	if err := s.maps.make(cfg.Sockets); err != nil {
		return err
	}
	if s.msg, err = load("splice", ebpf.SkMsg, ebpf.AttachSkMsgVerdict, s.maps.tables().splice(o)); err != nil {
		return err
	}
	if s.ops, err = load("pair", ebpf.SockOps, ebpf.AttachCGroupSockOps, s.maps.tables().pair()); err != nil {
		return err
	}
	// Not a link: the map and the sockets in it hold the program, so pairs go on when this process has ended.
	err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: s.maps.socks.FD(), Program: s.msg, Attach: ebpf.AttachSkMsgVerdict})
	if err != nil {
		return fmt.Errorf("attach to the hash of sockets: %w", err)
	}
	s.hook, err = link.AttachCgroup(link.CgroupOptions{Path: s.cgroup, Attach: ebpf.AttachCGroupSockOps, Program: s.ops})
	if err != nil {
		return fmt.Errorf("attach to the cgroup %s: %w", s.cgroup, err)
	}
	if err := s.try(); err != nil {
		return err
	}
	// Reading the kernel's types takes some MiB once. This is the start, where a collection costs nobody anything.
	debug.FreeOSMemory()
	return nil
}

func load(name string, t ebpf.ProgramType, at ebpf.AttachType, in asm.Instructions) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: t, AttachType: at, Instructions: in, License: "GPL"})
	if err != nil {
		return nil, fmt.Errorf("load the program %q: %w", name, err)
	}
	return p, nil
}

func (m *maps) make(sockets int) error {
	u32 := &btf.Int{Name: "u32", Size: 4}
	u64 := &btf.Int{Name: "u64", Size: 8}
	for _, s := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&m.socks, ebpf.MapSpec{Name: "socks", Type: ebpf.SockHash, KeySize: 8, ValueSize: 8, MaxEntries: uint32(sockets)}},
		{&m.storage, ebpf.MapSpec{
			Name: "ends", Type: ebpf.SkStorage, KeySize: 4, ValueSize: storageLen, Flags: noPrealloc,
			Key: u32, Value: &btf.Array{Index: u32, Type: u64, Nelems: storageLen / 8},
		}},
		{&m.handshakes, ebpf.MapSpec{Name: "handshakes", Type: ebpf.LRUHash, KeySize: handshakeKey, ValueSize: handshakeSz, MaxEntries: recent}},
		{&m.servers, ebpf.MapSpec{Name: "servers", Type: ebpf.LRUHash, KeySize: 8, ValueSize: 8, MaxEntries: recent}},
		{&m.counts, ebpf.MapSpec{Name: "counts", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8 * numbers, MaxEntries: 1}},
	} {
		made, err := ebpf.NewMap(&s.spec)
		if err != nil {
			return fmt.Errorf("make the table %q: %w", s.spec.Name, err)
		}
		*s.to = made
	}
	return nil
}

// Cgroup is the folder of the cgroup whose sockets are spliced.
func (s *Sockmap) Cgroup() string { return s.cgroup }

// Close ends the pairing of new sockets. Pairs that stand keep being spliced until they are closed.
func (s *Sockmap) Close() error {
	var errs []error
	if s.hook != nil {
		errs = append(errs, s.hook.Close())
	}
	// A nil program or map can be closed.
	errs = append(errs, s.ops.Close(), s.msg.Close())
	for _, m := range []*ebpf.Map{s.maps.socks, s.maps.storage, s.maps.handshakes, s.maps.servers, s.maps.counts} {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Counts are the numbers of the programs since the start.
type Counts struct {
	// Entered are the sockets that became one end of a pair, and Full those that found no place.
	Entered, Full uint64
	// Messages and Bytes were spliced.
	Messages, Bytes uint64
	// Left are the directions of pairs that went over to TCP, and Passed what entered sockets sent by it, in messages.
	Left, Passed uint64
}

// Counts adds the numbers of all processors up.
func (s *Sockmap) Counts() (c Counts, err error) {
	var all [][numbers]uint64
	if err := s.maps.counts.Lookup(uint32(0), &all); err != nil {
		return c, fmt.Errorf("accelerate: read the counts: %w", err)
	}
	for _, n := range all {
		c.Entered += n[nEntered]
		c.Full += n[nFull]
		c.Messages += n[nMessages]
		c.Bytes += n[nBytes]
		c.Left += n[nLeft]
		c.Passed += n[nPassed]
	}
	return c, nil
}

// Spliced says how many messages a socket of this process has had spliced, and whether it has gone over to TCP; ok is false
// for one that is not entered.
func (s *Sockmap) Spliced(fd int) (messages uint64, over, ok bool) {
	var v [storageLen]byte
	if err := s.maps.storage.Lookup(uint32(fd), &v); err != nil {
		return 0, false, false
	}
	return binary.NativeEndian.Uint64(v[stSpliced:]), binary.NativeEndian.Uint32(v[stState:]) == left, true
}
