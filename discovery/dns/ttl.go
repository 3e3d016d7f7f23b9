// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// ttls collects the times to live of the answers of one look-up. Go's resolver does not tell them, so they are read off
// its connections. It may be used by several goroutines: the resolver asks for IPv4 and IPv6 at the same time.
type ttls struct {
	mu  sync.Mutex
	min *time.Duration // guarded by mu
}

func (t *ttls) least() *time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.min
}

func (t *ttls) see(ttl time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.min == nil || ttl < *t.min {
		t.min = &ttl
	}
}

// read takes the times to live of a response to a query. A message that does not belong to it, such as a forged one that
// the resolver passes over, says nothing.
func (t *ttls) read(query, response []byte) {
	var p dnsmessage.Parser
	asked, err := p.Start(query)
	if err != nil {
		return
	}
	question, err := p.Question()
	if err != nil {
		return
	}
	h, err := p.Start(response)
	if err != nil || !h.Response || h.ID != asked.ID || h.RCode != dnsmessage.RCodeSuccess {
		return
	}
	q, err := p.Question()
	if err != nil || q.Type != question.Type || q.Class != question.Class ||
		!strings.EqualFold(q.Name.String(), question.Name.String()) || p.SkipAllQuestions() != nil {
		return
	}
	for range MaxAnswers {
		h, err := p.AnswerHeader()
		if err != nil {
			return
		}
		switch h.Type {
		case dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeCNAME:
			t.see(time.Duration(h.TTL) * time.Second)
		}
		if p.SkipAnswer() != nil {
			return
		}
	}
}

// tap returns a connection that shows the messages on it to seen. The resolver tells datagrams from streams by the
// connection's type.
func tap(conn net.Conn, seen *ttls) net.Conn {
	if udp, ok := conn.(*net.UDPConn); ok {
		return &datagrams{UDPConn: udp, seen: seen}
	}
	return &byteStream{Conn: conn, seen: seen}
}

// datagrams is a UDP connection: each Read and each Write is one message.
type datagrams struct {
	*net.UDPConn
	seen  *ttls
	query []byte
}

// Write sends a query and keeps it.
func (c *datagrams) Write(b []byte) (int, error) {
	c.query = append(c.query[:0], b...)
	return c.UDPConn.Write(b)
}

// Read reads a message and shows it.
func (c *datagrams) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	if err == nil {
		c.seen.read(c.query, b[:n])
	}
	return n, err
}

// byteStream is a TCP connection: each message has its length in front (RFC 1035 4.2.2), and reads may cut it anywhere.
type byteStream struct {
	net.Conn
	seen  *ttls
	query []byte
	got   []byte
}

const lengthBytes = 2

// Write sends a query and keeps it.
func (c *byteStream) Write(b []byte) (int, error) {
	if len(b) > lengthBytes {
		c.query = append(c.query[:0], b[lengthBytes:]...)
	}
	return c.Conn.Write(b)
}

// Read reads bytes, and shows the first message once it is whole. The resolver sends one query on each connection.
func (c *byteStream) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if len(c.got) < lengthBytes+1<<16 {
		c.got = append(c.got, b[:n]...)
	}
	if len(c.got) < lengthBytes {
		return n, err
	}
	if whole := lengthBytes + int(c.got[0])<<8 + int(c.got[1]); len(c.got) >= whole {
		c.seen.read(c.query, c.got[lengthBytes:whole])
	}
	return n, err
}
