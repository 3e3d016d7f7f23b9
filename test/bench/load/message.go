// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"errors"
	"strconv"
)

// maxHead bounds a head; what the proxies send here is below 2 KiB.
const maxHead = 16 << 10

var (
	errHead  = errors.New("load: a head that is no HTTP/1.1, or longer than 16 KiB")
	errChunk = errors.New("load: a chunk whose size is no number")
)

// message reads one message after another, and of each only what the measurement needs. It trusts its peers: they are the
// proxies that are measured, and what they send was looked at before.
type message struct {
	head   []byte // begun, where a head did not come in one piece
	status int    // of a response; 0 is a request
	body   int64  // bytes of body so far
	left   int64  // of the body or chunk
	state  state
	close  bool // the peer wants to close
}

type state uint8

const (
	inHead state = iota
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
)

// feed takes bytes until a message is complete, and returns how many it took.
func (m *message) feed(b []byte) (n int, done bool, err error) {
	for n < len(b) {
		if m.state == inHead || m.state == inChunkSize || m.state == inTrailer {
			used, line, ok := m.line(b[n:])
			n += used
			if !ok {
				return n, false, m.tooLong()
			}
			done, err = m.text(line)
			m.head = m.head[:0]
		} else {
			k := min(m.left, int64(len(b)-n))
			n += int(k)
			m.left -= k
			if m.state != inChunkEnd {
				m.body += k
			}
			done = m.left == 0 && m.ended()
		}
		if done || err != nil {
			return n, done, err
		}
	}
	return n, false, nil
}

func (m *message) tooLong() error {
	if len(m.head) > maxHead {
		return errHead
	}
	return nil
}

// line returns a whole head, or a line of the chunked coding, without a copy where it came in one piece.
func (m *message) line(b []byte) (used int, line []byte, ok bool) {
	end := []byte("\r\n\r\n")
	if m.state != inHead {
		end = end[:2]
	}
	if len(m.head) == 0 {
		if i := bytes.Index(b, end); i >= 0 {
			return i + len(end), b[:i+len(end)], true
		}
		m.head = append(m.head, b...)
		return len(b), nil, false
	}
	was := len(m.head)
	m.head = append(m.head, b...)
	i := bytes.Index(m.head[max(0, was-len(end)+1):], end)
	if i < 0 {
		return len(b), nil, false
	}
	total := max(0, was-len(end)+1) + i + len(end)
	m.head = m.head[:total]
	return total - was, m.head, true
}

// text takes a head, the size of a chunk, or a line of a trailer.
func (m *message) text(line []byte) (done bool, err error) {
	switch m.state {
	case inHead:
		return m.begin(line)
	case inChunkSize:
		size, _, _ := bytes.Cut(line[:len(line)-2], []byte(";"))
		m.left, err = strconv.ParseInt(string(size), 16, 64)
		switch {
		case err != nil:
			return false, errChunk
		case m.left == 0:
			m.state = inTrailer
		default:
			m.state = inChunk
		}
		return false, nil
	default:
		if len(line) > 2 {
			return false, nil
		}
		m.state = inHead
		return true, nil
	}
}

// ended goes on behind the bytes that were counted.
func (m *message) ended() (done bool) {
	switch m.state {
	case inChunk:
		m.state, m.left = inChunkEnd, 2
	case inChunkEnd:
		m.state = inChunkSize
	default:
		m.state = inHead
		return true
	}
	return false
}

// begin reads a head.
func (m *message) begin(head []byte) (done bool, err error) {
	i := bytes.IndexByte(head, '\n')
	if i < 12 {
		return false, errHead
	}
	m.status, m.close, m.left, m.body = 0, false, 0, 0
	if string(head[:7]) == "HTTP/1." {
		m.status = int(head[9]-'0')*100 + int(head[10]-'0')*10 + int(head[11]-'0')
	}
	for rest := head[i+1:]; len(rest) > 2; rest = rest[i+1:] {
		if i = bytes.IndexByte(rest, '\n'); i < 0 {
			return false, errHead
		}
		// Most fields go by their length alone.
		switch line := rest[:i]; {
		case len(line) > 15 && line[14] == ':' && is(line[:14], "content-length"):
			if m.left, err = strconv.ParseInt(string(bytes.TrimSpace(line[15:])), 10, 64); err != nil {
				return false, errHead
			}
			if m.left > 0 {
				m.state = inBody
			}
		case len(line) > 18 && line[17] == ':' && is(line[:17], "transfer-encoding"):
			m.state = inChunkSize
		case len(line) > 11 && line[10] == ':' && is(line[:10], "connection"):
			m.close = is(bytes.TrimSpace(line[11:]), "close")
		}
	}
	return m.state == inHead, nil
}

// is compares without regard to case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
