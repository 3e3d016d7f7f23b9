// SPDX-License-Identifier: Apache-2.0

package zeromq

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/zmtp"
)

// The bounds of what a subscriber may ask for.
const maxSubscriptions, maxTopicBytes = 256, 64 << 10

// entry is an event in a peer's queue whose flight wants to know what became of it; one of PUB has no flight.
type entry struct {
	f     *flight
	i     int
	acked bool // it lands when the peer acknowledges, not when it is written
}

// peer is one connection. Its reader and its writer are two goroutines; run joins both.
type peer struct {
	s       *Sink
	c       net.Conn
	rw      io.ReadWriter // of frames, over c
	session [8]byte
	dealt   uint64 // the last number given; guarded by Sink.mu
	ended   chan struct{}
	wake    chan struct{} // has room for one
	drops   atomic.Uint64
	told    uint64 // drops that are logged; guarded by Sink.mu
	toldAt  time.Time

	mu        sync.Mutex
	buf       []byte // what is not written
	writing   int    // bytes of the buffer that is being written
	entries   []entry
	unacked   []entry
	acked     uint64 // the last number acknowledged
	progress  time.Time
	finishing bool           // nothing more is queued
	shut      bool           // nothing more is written
	gone      bool           // nor read
	topics    map[string]int // subscriptions, counted
	topicSize int
}

func newPeer(s *Sink, c net.Conn, rw io.ReadWriter) *peer {
	p := &peer{s: s, c: c, rw: rw, ended: make(chan struct{}), wake: make(chan struct{}, 1), topics: map[string]int{}}
	_, _ = rand.Read(p.session[:])
	return p
}

func (p *peer) number() (b [8]byte) {
	binary.BigEndian.PutUint64(b[:], p.dealt+1)
	return b
}

// wants tells whether the peer subscribed to the topic.
func (p *peer) wants(topic []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t := range p.topics {
		if bytes.HasPrefix(topic, []byte(t)) {
			return true
		}
	}
	return false
}

// queue puts a message into the peer's queue. It returns false where there is no room.
func (p *peer) queue(m []byte, e entry) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone || p.finishing || len(p.buf)+p.writing+len(m) > p.s.cfg.PeerBytes {
		return false
	}
	p.buf = append(p.buf, m...)
	switch {
	case e.acked:
		if len(p.unacked) == 0 {
			p.progress = time.Now()
		}
		p.unacked = append(p.unacked, e)
	case e.f != nil:
		p.entries = append(p.entries, e)
	}
	p.rouse()
	return true
}

// control queues a command, which finds room as long as the peer takes some.
func (p *peer) control(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.buf) > p.s.cfg.PeerBytes+zmtp.MaxFrame {
		return errors.New("the peer sends and does not read")
	}
	p.buf = append(p.buf, b...)
	p.rouse()
	return nil
}

func (p *peer) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// finish has the writer end when all is written and, of a DEALER, acknowledged.
func (p *peer) finish() {
	p.mu.Lock()
	p.finishing = true
	p.mu.Unlock()
	p.rouse()
}

// run reads and writes until the connection ends, and returns why.
func (p *peer) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.c.Close() })
	defer stop()
	written := make(chan error, 1)
	go func() {
		err := p.write()
		if err != nil {
			p.c.Close()
		}
		written <- err
	}()
	err := p.read()
	p.c.Close()
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	p.rouse()
	if werr := <-written; werr != nil {
		return werr
	}
	return err
}

// errSilent is why a peer is given up.
var errSilent = errors.New("it has been silent, or its acknowledgements have")

// write writes what is queued, and a PING now and then.
func (p *peer) write() error {
	beat := time.NewTicker(p.s.cfg.Heartbeat)
	defer beat.Stop()
	ping := zmtp.AppendPing(nil, uint16(min(2*p.s.cfg.Heartbeat/(100*time.Millisecond), 1<<16-1)))
	var spare []byte
	var landing []entry
	for {
		select {
		case <-p.wake:
		case <-beat.C:
			if err := p.control(ping); err != nil {
				return err
			}
			if p.overdue() {
				return errSilent
			}
		}
		for {
			p.mu.Lock()
			b := p.buf
			landing = append(landing[:0], p.entries...)
			if p.gone {
				p.mu.Unlock()
				return nil
			}
			if len(b) == 0 {
				over := p.finishing && len(p.unacked) == 0
				p.mu.Unlock()
				if over {
					return p.closeWrite()
				}
				break
			}
			p.buf, p.writing, p.entries = spare[:0], len(b), p.entries[:0]
			p.mu.Unlock()
			// A peer that takes nothing for so long is gone, or as good as that.
			err := p.c.SetWriteDeadline(time.Now().Add(p.s.cfg.AckTimeout))
			if err == nil {
				_, err = p.rw.Write(b)
			}
			p.mu.Lock()
			p.writing = 0
			p.mu.Unlock()
			spare = b
			for _, e := range landing {
				if err == nil {
					e.f.batch.Events[e.i].Sent = true
				}
				e.f.land(err)
			}
			if err != nil {
				return err
			}
		}
	}
}

// overdue tells whether an acknowledgement is.
func (p *peer) overdue() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.unacked) > 0 && time.Since(p.progress) > p.s.cfg.AckTimeout
}

// closeWrite tells the peer that no more comes; it has what was written when it closes its side.
func (p *peer) closeWrite() error {
	p.mu.Lock()
	p.shut = true
	err := p.c.SetReadDeadline(time.Now().Add(linger))
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if t, ok := p.c.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return p.c.Close()
}

// read reads what the peer sends until the connection ends. Any byte is a sign of life.
func (p *peer) read() error {
	r := bufio.NewReaderSize(&patient{p}, 2*zmtp.MaxFrame)
	buf := make([]byte, zmtp.MaxFrame)
	var parts [][]byte
	for {
		f, err := zmtp.ReadFrame(r, buf, zmtp.MaxFrame)
		if err != nil {
			var nerr net.Error
			if errors.As(err, &nerr) && nerr.Timeout() {
				return errSilent
			}
			return err
		}
		if topic, add, ok := zmtp.Subscription(f); ok && p.s.cfg.Pattern == Pub {
			if err := p.subscribe(topic, add); err != nil {
				return err
			}
			continue
		}
		if f.Command {
			if err := p.command(f); err != nil {
				return err
			}
			continue
		}
		if p.s.cfg.Pattern == Dealer {
			if parts = append(parts, bytes.Clone(f.Body)); len(parts) > maxParts {
				return errors.New("an acknowledgement has two parts")
			}
			if !f.More {
				if err := p.acknowledge(parts); err != nil {
					return err
				}
				parts = parts[:0]
			}
		} // what others send us is not for us
	}
}

// patient gives a peer the time of two heartbeats and a half for each read. One of PUSH may be silent for as long as it
// takes what is sent: libzmq does not answer while its own queue is full.
type patient struct{ p *peer }

// Read reads.
func (r *patient) Read(b []byte) (int, error) {
	if err := r.p.expectLife(); err != nil {
		return 0, err
	}
	return r.p.rw.Read(b)
}

// expectLife sets until when the peer must send something.
func (p *peer) expectLife() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut || p.s.cfg.Pattern == Push {
		return nil
	}
	beat := p.s.cfg.Heartbeat
	return p.c.SetReadDeadline(time.Now().Add(2*beat + beat/2))
}

// maxParts is what a message to a DEALER may have: an empty delimiter, as REQ and many ROUTERs send, and two parts.
const maxParts = 3

func (p *peer) command(f zmtp.Frame) error {
	name, data, err := zmtp.ParseCommand(f.Body)
	if err != nil {
		return err
	}
	switch name {
	case zmtp.Ping:
		context, err := zmtp.ParsePing(data)
		if err != nil {
			return err
		}
		return p.control(zmtp.AppendCommand(nil, zmtp.Pong, context))
	case zmtp.Error:
		return fmt.Errorf("the peer says %q", data)
	}
	return nil // others are to be ignored
}

func (p *peer) subscribe(topic []byte, add bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := string(topic)
	if !add {
		if p.topics[t]--; p.topics[t] <= 0 {
			if p.topics[t] == 0 {
				p.topicSize -= len(t)
			}
			delete(p.topics, t)
		}
		return nil
	}
	if p.topics[t] == 0 {
		if p.topicSize += len(t); len(p.topics) == maxSubscriptions || p.topicSize > maxTopicBytes {
			return fmt.Errorf("more than %d subscriptions", maxSubscriptions)
		}
	}
	p.topics[t]++
	return nil
}

// acknowledge takes note of an acknowledgement: the session and the last number, of which all before are meant too.
func (p *peer) acknowledge(parts [][]byte) error {
	if len(parts) == maxParts && len(parts[0]) == 0 {
		parts = parts[1:]
	}
	if len(parts) != 2 || len(parts[0]) != 8 || len(parts[1]) != 8 {
		return errors.New("an acknowledgement has two parts of 8 bytes, the session and a number")
	}
	if !bytes.Equal(parts[0], p.session[:]) {
		return nil // of an earlier connection
	}
	n := binary.BigEndian.Uint64(parts[1])
	p.mu.Lock()
	if n > p.acked+uint64(len(p.unacked)) {
		p.mu.Unlock()
		return fmt.Errorf("it acknowledges number %d, which was not sent", n)
	}
	var landing []entry
	for p.acked < n {
		landing = append(landing, p.unacked[0])
		p.unacked = p.unacked[1:]
		p.acked++
	}
	p.progress = time.Now()
	p.mu.Unlock()
	for _, e := range landing {
		e.f.batch.Events[e.i].Sent = true
		e.f.land(nil)
	}
	p.rouse()
	return nil
}

// abandon fails what the peer will not have. Its goroutines have ended.
func (p *peer) abandon(err error) {
	p.mu.Lock()
	p.gone = true
	left := append(p.entries, p.unacked...)
	p.entries, p.unacked = nil, nil
	p.mu.Unlock()
	for _, e := range left {
		e.f.land(err)
	}
}

// tellDrops logs what a slow subscriber has missed, now and then. Sink.mu must be held.
func (p *peer) tellDrops() {
	n := p.drops.Load()
	if n == p.told || time.Since(p.toldAt) < time.Minute {
		return
	}
	p.s.log.Warn("a ZeroMQ subscriber is too slow; events are dropped for it", zap.Stringer("peer", p.c.RemoteAddr()), zap.Uint64("dropped", n))
	p.told, p.toldAt = n, time.Now()
}

var _ io.Reader = (*patient)(nil)
