// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"runtime"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// link is what the streams of a connection need of it, whatever HTTP version it speaks.
type link struct {
	m    *Manager
	c    *socket.Conn
	info *inspect.ConnInfo

	requests int // so far; the reading worker's
	shard    uint32
	byClient bool // it was the client that ended the connection
	inFlight bool // a request was cut off by the end

	// lingering says that our side has ended and the client's rest is read away; left is how much of it at most.
	lingering bool
	left      int
}

// lingerBytes is how much of what a client still sends is read away before its connection is closed. A client that was cut
// off for what it did to us may send without end: reading that away costs more than all that it was cut off for.
const lingerBytes, lingerBytesAbused = 1 << 20, 64 << 10

func (d *link) draining() bool { return d.info.Owner.Draining() }

// tooOld reports whether the connection has lasted as long as it may.
func (d *link) tooOld() bool {
	t := d.m.cfg.MaxConnectionDuration
	return t > 0 && mono.Now()-d.info.Accepted >= int64(t)
}

// opened counts a connection.
func (m *Manager) opened() {
	m.numbers.Inc(0, metrics.DownstreamCxTotal)
	m.numbers.Inc(0, metrics.DownstreamCxActive)
}

// beginLinger ends our side of the connection, and reads away for a moment what the client still sends: a close on unread
// bytes would reset the connection and could take the answer with it (RFC 9112 section 9.6). That is so, too, where the
// client has ended its side: bytes of before that may still be unread. It is no more than most bytes.
func (d *link) beginLinger(most int) (open bool) {
	delay := d.m.cfg.DelayedCloseTimeout
	if delay <= 0 || d.c.CloseWrite() != nil {
		return false
	}
	d.lingering, d.left = true, most
	d.c.SetExpire(mono.Now() + int64(delay))
	return d.linger()
}

// linger reads away what the client sends, until it closes or the time is over.
func (d *link) linger() (open bool) {
	if d.c.Expired() {
		d.m.numbers.Inc(d.shard, metrics.DownstreamCxDelayedCloseTimeout)
		return false
	}
	b := d.c.Bufs().Get()
	defer d.c.Bufs().Put(b)
	for d.left > 0 {
		n, err := d.c.TryRead(b.Free())
		if err == socket.ErrWouldBlock {
			return true
		}
		if err != nil {
			return false
		}
		d.left -= n
		runtime.Gosched() // the other connections' turns come in between
	}
	return false
}

// closed counts the end of the connection.
func (d *link) closed() {
	n := d.m.numbers
	n.Dec(d.shard, metrics.DownstreamCxActive)
	n.Observe(d.shard, metrics.DownstreamCxLengthMs, mono.Now()-d.info.Accepted)
	switch {
	case d.byClient && d.inFlight:
		n.Inc(d.shard, metrics.DownstreamCxDestroyRemoteActiveRq)
	case d.inFlight:
		n.Inc(d.shard, metrics.DownstreamCxDestroyLocalActiveRq)
	}
	if d.byClient {
		n.Inc(d.shard, metrics.DownstreamCxDestroyRemote)
	} else {
		n.Inc(d.shard, metrics.DownstreamCxDestroyLocal)
	}
}
