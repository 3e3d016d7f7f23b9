// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"

	"github.com/meshtap/meshtap/mesh"
)

// maxAround bounds what is read around the blocks that a TCP check looks for.
const maxAround = 64 << 10

// tcpExchange returns the exchange of a TCP check: it sends what there is to send, and looks for what there is to look
// for. Without the latter, connecting is all (as in Envoy, which then sends nothing).
func tcpExchange(cfg *mesh.TCPHealthCheck) exchange {
	limit := maxAround
	for _, b := range cfg.Receive {
		limit += len(b)
	}
	return func(s *stream) answer {
		s.limit = limit
		if len(cfg.Send) > 0 {
			if _, err := s.Write(cfg.Send); err != nil {
				return s.failed("write")
			}
		}
		if len(cfg.Receive) == 0 {
			return answer{verdict: passed}
		}
		f := finder{blocks: cfg.Receive}
		for buf := make([]byte, 4<<10); ; {
			n, err := s.Read(buf)
			switch {
			case f.feed(buf[:n]):
				return answer{verdict: passed, keep: true}
			case err != nil:
				return s.failed("read")
			}
		}
	}
}

// finder looks for blocks of bytes in a stream: each has to come behind the one before, with anything in between. Taking
// the first place where a block fits leaves the most for the blocks behind it, so there is never a need to look back.
type finder struct {
	blocks [][]byte // not found yet
	// rest holds the end of the stream, in which the next block may have begun: fewer bytes than that block has.
	rest []byte
}

// feed takes the next bytes of the stream and reports whether all blocks were found.
func (f *finder) feed(p []byte) bool {
	f.rest = append(f.rest, p...)
	for len(f.blocks) > 0 {
		b := f.blocks[0]
		i := bytes.Index(f.rest, b)
		if i < 0 {
			if n := len(f.rest) - len(b) + 1; n > 0 {
				f.rest = append(f.rest[:0], f.rest[n:]...)
			}
			return false
		}
		f.rest, f.blocks = f.rest[i+len(b):], f.blocks[1:]
	}
	return true
}
