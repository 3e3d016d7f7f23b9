// SPDX-License-Identifier: Apache-2.0

package grpcwire

import "encoding/binary"

// HeadSize is the size of what stands in front of each message: one byte of flags and four of length.
const HeadSize = 5

// AppendHead appends the head of a frame.
func AppendHead(dst []byte, flags byte, length int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, flags), uint32(length))
}

// Counter counts the messages in a body that comes in pieces. The zero value is ready. Nothing is kept of the messages:
// a frame costs a few instructions, whatever its length.
type Counter struct {
	// Messages are those whose head has come.
	Messages int64

	head [HeadSize]byte
	have int    // bytes of head that have come
	left uint32 // bytes of the message that are still to come
	bad  bool
}

// Write counts the next piece.
func (c *Counter) Write(p []byte) {
	for len(p) > 0 && !c.bad {
		var n int
		n, _ = c.Next(p)
		p = p[n:]
	}
}

// Next takes from the front of p what belongs to one frame, at least one byte of a p that is not empty: n bytes, which
// end the frame where ended is true. A frame of which nothing but the head is to come ends with its head. From bytes on
// that are not gRPC's, all is taken and there is no end any more.
func (c *Counter) Next(p []byte) (n int, ended bool) {
	if c.bad {
		return len(p), false
	}
	if c.left == 0 {
		n = copy(c.head[c.have:], p)
		if c.have == 0 && c.head[0] > 1 {
			c.bad = true // a flag that is not defined, as in Envoy's decoder
			return len(p), false
		}
		if c.have += n; c.have < HeadSize {
			return n, false
		}
		c.have = 0
		c.Messages++
		c.left = binary.BigEndian.Uint32(c.head[1:])
	}
	body := min(uint64(len(p)-n), uint64(c.left))
	c.left -= uint32(body)
	return n + int(body), c.left == 0
}
