// SPDX-License-Identifier: Apache-2.0

// Package zmtp is the wire protocol of ZeroMQ, ZMTP 3.1 (ZeroMQ RFC 37), as far as a socket that sends needs it: the
// greeting, the mechanisms NULL, PLAIN and CURVE, frames, and the commands of heartbeats and subscriptions. Everything that a
// peer says is bounded. It owns no goroutine and knows no socket patterns; package eventtap/sink/zeromq has those.
package zmtp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The flags of a frame.
const (
	flagMore    = 1
	flagLong    = 2
	flagCommand = 4
)

// MaxFrame bounds what a peer may send in one frame, in bytes. It sends subscriptions, acknowledgements and commands.
const MaxFrame = 1 << 10

// Frame is one frame: a part of a message, or a command.
type Frame struct {
	// More says that another part of the message follows.
	More    bool
	Command bool
	Body    []byte
}

var errFrame = errors.New("zmtp: not a frame")

// ReadFrame reads a frame. Its body is in buf where it has room there, and at most max bytes.
func ReadFrame(r io.Reader, buf []byte, max int) (Frame, error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return Frame{}, err
	}
	flags, size := head[0], uint64(head[1])
	if flags&^(flagMore|flagLong|flagCommand) != 0 || flags&flagMore != 0 && flags&flagCommand != 0 {
		return Frame{}, fmt.Errorf("%w: the flags are %#x", errFrame, flags)
	}
	if flags&flagLong != 0 {
		if _, err := io.ReadFull(r, head[2:]); err != nil {
			return Frame{}, unexpected(err)
		}
		size = binary.BigEndian.Uint64(head[1:])
	}
	if size > uint64(max) {
		return Frame{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", errFrame, size, max)
	}
	if uint64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(r, buf); err != nil {
		return Frame{}, unexpected(err)
	}
	return Frame{More: flags&flagMore != 0, Command: flags&flagCommand != 0, Body: buf}, nil
}

// unexpected is the error of an end in the middle of a frame.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// AppendFrame appends a part of a message.
func AppendFrame(dst, body []byte, more bool) []byte {
	var flags byte
	if more {
		flags = flagMore
	}
	return append(appendHead(dst, flags, len(body)), body...)
}

func appendHead(dst []byte, flags byte, size int) []byte {
	if size > 255 {
		return binary.BigEndian.AppendUint64(append(dst, flags|flagLong), uint64(size))
	}
	return append(dst, flags, byte(size))
}

// AppendCommand appends a command.
func AppendCommand(dst []byte, name string, data []byte) []byte {
	dst = appendHead(dst, flagCommand, 1+len(name)+len(data))
	return append(append(append(dst, byte(len(name))), name...), data...)
}

// ParseCommand splits the body of a command.
func ParseCommand(body []byte) (name string, data []byte, err error) {
	if len(body) == 0 || body[0] == 0 || int(body[0]) > len(body)-1 {
		return "", nil, errors.New("zmtp: a command without a name")
	}
	n := int(body[0])
	return string(body[1 : 1+n]), body[1+n:], nil
}

// The names of commands.
const (
	Ready     = "READY"
	Error     = "ERROR"
	Hello     = "HELLO"
	Welcome   = "WELCOME"
	Initiate  = "INITIATE"
	Ping      = "PING"
	Pong      = "PONG"
	Subscribe = "SUBSCRIBE"
	Cancel    = "CANCEL"
)

// maxContext bounds what a PING asks to be sent back.
const maxContext = 16

// ParsePing returns the context of a PING, which the PONG carries.
func ParsePing(data []byte) (context []byte, err error) {
	if len(data) < 2 || len(data) > 2+maxContext {
		return nil, fmt.Errorf("zmtp: a PING of %d bytes", len(data))
	}
	return data[2:], nil
}

// AppendPing appends a PING that allows the peer to give up after a time-to-live in tenths of a second.
func AppendPing(dst []byte, ttl uint16) []byte {
	return AppendCommand(dst, Ping, binary.BigEndian.AppendUint16(nil, ttl))
}

// Subscription reads a frame as a change of subscriptions: a command of ZMTP 3.1, or a message of 3.0.
func Subscription(f Frame) (topic []byte, add, ok bool) {
	if f.Command {
		name, data, err := ParseCommand(f.Body)
		return data, name == Subscribe, err == nil && (name == Subscribe || name == Cancel)
	}
	if f.More || len(f.Body) == 0 || f.Body[0] > 1 {
		return nil, false, false
	}
	return f.Body[1:], f.Body[0] == 1, true
}
