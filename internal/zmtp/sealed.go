// SPDX-License-Identifier: Apache-2.0

package zmtp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"

	"golang.org/x/crypto/nacl/box"
)

// message is the command that carries each frame of a connection with CURVE.
const message = "MESSAGE"

// The flags of a frame within a MESSAGE. The second is not of the RFC, but of libzmq.
const (
	sealedMore    = 1
	sealedCommand = 2
)

// sealedHead is what a MESSAGE has before and around the body of the frame, in bytes.
const sealedHead = 1 + len(message) + nonceSize + box.Overhead + 1

// sealed is a connection with CURVE: frames that are written to it travel in MESSAGEs, and are what is read from it. One
// goroutine may read while another one writes.
type sealed struct {
	w      io.Writer
	shared [32]byte

	// The writer's.
	prefix          string // of the nonces
	sent            uint64 // the last number
	body, text, out []byte

	// The reader's.
	r           *bufio.Reader
	theirPrefix string
	got         uint64 // the last number
	max         int    // bytes of a frame
	in, plain   []byte
	frame, rest []byte // the frame, and what of it nobody has read
}

func newSealed(rw io.ReadWriter, max int, theirs, secret *[32]byte, server bool) *sealed {
	s := &sealed{w: rw, prefix: "CurveZMQMESSAGEC", r: bufio.NewReader(rw), theirPrefix: "CurveZMQMESSAGES", max: max}
	if server {
		s.prefix, s.theirPrefix = s.theirPrefix, s.prefix
	}
	box.Precompute(&s.shared, theirs, secret)
	return s
}

// seal appends the next number and the box of a text.
func (s *sealed) seal(dst []byte, prefix string, text []byte) []byte {
	s.sent++
	return box.SealAfterPrecomputation(binary.BigEndian.AppendUint64(dst, s.sent), text, counted(prefix, s.sent), &s.shared)
}

// open appends the text of what seal made. Its number must be higher than the last one.
func (s *sealed) open(dst []byte, prefix string, data []byte) ([]byte, error) {
	if len(data) < nonceSize+box.Overhead {
		return nil, errCurve
	}
	n := binary.BigEndian.Uint64(data)
	text, ok := box.OpenAfterPrecomputation(dst, data[nonceSize:], counted(prefix, n), &s.shared)
	if !ok || n <= s.got {
		return nil, errCurve
	}
	s.got = n
	return text, nil
}

// Write sends frames, which must be whole.
func (s *sealed) Write(b []byte) (int, error) {
	s.out = s.out[:0]
	for r := bytes.NewReader(b); r.Len() > 0; {
		f, err := ReadFrame(r, s.body, len(b))
		if err != nil {
			return 0, err
		}
		s.body = f.Body
		var flags byte
		if f.More {
			flags |= sealedMore
		}
		if f.Command {
			flags |= sealedCommand
		}
		s.text = append(append(s.text[:0], flags), f.Body...)
		// As libzmq does, and not as the RFC has it, the frame is no command.
		s.out = appendHead(s.out, 0, sealedHead+len(f.Body))
		s.out = append(append(s.out, byte(len(message))), message...)
		s.out = s.seal(s.out, s.prefix, s.text)
	}
	if _, err := s.w.Write(s.out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Read reads frames, in pieces as large as b.
func (s *sealed) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// fill reads the next frame. It must come in a MESSAGE, be that a command or not.
func (s *sealed) fill() error {
	f, err := ReadFrame(s.r, s.in, s.max+sealedHead)
	if err != nil {
		return err
	}
	s.in = f.Body
	name, data, err := ParseCommand(f.Body)
	if err != nil || name != message || f.More {
		return errCurve
	}
	if s.plain, err = s.open(s.plain[:0], s.theirPrefix, data); err != nil {
		return err
	}
	if len(s.plain) == 0 || s.plain[0] > sealedCommand {
		return errCurve
	}
	// The flags of a frame are others.
	flags := [...]byte{0, sealedMore: flagMore, sealedCommand: flagCommand}[s.plain[0]]
	body := s.plain[1:]
	s.frame = append(appendHead(s.frame[:0], flags, len(body)), body...)
	s.rest = s.frame
	return nil
}
