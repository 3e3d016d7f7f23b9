// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
)

// session is one connection with HTTP/2: of clients, whose streams take turns on it, or of an upstream. It sends at the end
// of a turn of the loop whatever was gathered in it, as a client or server that is worth its name does.
type session struct {
	loop   *loop
	fd     int // -1: not connected
	client bool
	index  int     // of the upstream
	secure *secure // nil without TLS

	greeted    bool   // the client's preface has come
	begun      []byte // of a frame that has not come whole
	block      []byte // of fields that go on in CONTINUATION
	blockID    uint32
	blockFlags byte
	decoder    *hpack.Decoder
	decoding   *stream

	out     []byte
	queued  bool // among the loop's sessions with bytes to send
	full    bool // the socket takes no more
	named   bool // the first head has gone, so the peer's table has the fields
	bare    bool // the peer's table is too small for them
	last    uint32
	streams map[uint32]*stream
	waiting []*stream // for windows, in order
	spare   []*stream

	window   int64 // what may be sent on all streams
	initial  int64 // window of a new stream
	received int64 // what came since the window was given back
}

// stream is one request and its answer.
type stream struct {
	id       uint32
	owner    *client // of a client's stream
	unsent   []byte  // of the body
	trailers bool    // go behind it
	stands   bool    // nothing ends behind it: there will be more messages
	window   int64   // what may be sent
	received int64   // what came since the window was given back
	body     int64   // what came
	status   int
	ok       bool // grpc-status 0 has come
}

// sessions makes the clients' connections, if they speak HTTP/2.
func (l *loop) sessions() (all []*session) {
	if l.job.Down != HTTP2 {
		return nil
	}
	for range l.job.Conns {
		all = append(all, &session{loop: l, fd: -1, client: true})
	}
	return all
}

// serve returns the upstream's end of a new connection.
func (l *loop) serve(fd, index int) *session {
	s := &session{loop: l, index: index}
	s.begin(fd)
	s.out = appendSettings(s.output(), false)
	return s
}

// begin makes a session fresh.
func (s *session) begin(fd int) {
	*s = session{
		loop: s.loop, fd: fd, client: s.client, index: s.index, queued: s.queued, out: s.out[:0], begun: s.begun[:0],
		streams: map[uint32]*stream{}, window: startWindow, initial: startWindow,
	}
	s.decoder = hpack.NewDecoder(tableSize, s.field)
}

// connect opens a client's connection where it does not stand.
func (s *session) connect() bool {
	if s.fd >= 0 {
		return true
	}
	l := s.loop
	var from netip.Addr
	if l.job.Idle {
		from = l.sources.next()
	}
	fd, err := dial(from, sockaddr(l.job.Target))
	if err == nil {
		s.begin(fd)
		if err = l.add(fd, s, unix.EPOLLIN); err == nil && l.job.TLS {
			s.secure, err = handshake(fd, l.job.Host)
		}
	}
	if err != nil {
		l.fault(&l.result.Errors, "%v", err)
		s.close()
		return false
	}
	s.out = appendSettings(append(s.output(), preface...), true)
	return true
}

// request opens a stream, or goes on with the one that stands.
func (s *session) request(c *client) {
	if !s.connect() {
		c.busy = false
		return
	}
	st := c.open
	if st == nil {
		s.last += 2
		st = s.open(s.last - 1)
		st.owner = c
		flags := byte(flagEndHeaders)
		if len(s.loop.up) == 0 {
			flags |= flagEndStream
		}
		s.send(&s.loop.asks, flags, st.id)
		if st.stands = s.loop.job.Streaming; st.stands {
			c.open = st
		}
	}
	if st.unsent = s.loop.up; !s.push(st) {
		s.waiting = append(s.waiting, st)
	}
}

// send appends a head: the first one of a connection fills the peer's table, from which all others are made.
func (s *session) send(h *heads, flags byte, id uint32) {
	block := h.rest
	switch {
	case s.bare:
		block = h.bare
	case !s.named:
		s.named, block = true, h.first
	}
	s.out = append(appendFrame(s.output(), len(block), frameHeaders, flags, id), block...)
}

func (s *session) open(id uint32) *stream {
	var st *stream
	if n := len(s.spare); n > 0 {
		st, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		st = &stream{}
	}
	*st = stream{id: id, window: s.initial}
	s.streams[id] = st
	return st
}

// forget gives a stream back. One that may wait for windows is left to the collector.
func (s *session) forget(st *stream) {
	delete(s.streams, st.id)
	if len(st.unsent) == 0 {
		s.spare = append(s.spare, st)
	}
}

// head takes the fields of a request, of an answer or of trailers. Only status and grpc-status are looked at, and not even
// these where an answer begins as nearly all do: with one byte that says ":status: 200".
func (s *session) head(id uint32, flags byte, block []byte) error {
	st := s.streams[id]
	switch {
	case st == nil && !s.client && id > s.last && id%2 == 1:
		s.last = id
		st = s.open(id)
	case st == nil && s.client:
		return s.unknown(id)
	}
	plain := len(block) > 0 && block[0] == 0x88
	s.decoding = st
	if s.client && plain {
		st.status = 200
	}
	s.decoder.SetEmitEnabled(s.client && !plain)
	if _, err := s.decoder.Write(block); err != nil {
		return fmt.Errorf("load: fields: %w", err)
	}
	if err := s.decoder.Close(); err != nil {
		return fmt.Errorf("load: fields: %w", err)
	}
	if st != nil && flags&flagEndStream != 0 {
		return s.ended(st)
	}
	return nil
}

func (s *session) field(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		s.decoding.status, _ = strconv.Atoi(f.Value)
	case "grpc-status":
		s.decoding.ok = f.Value == "0"
	}
}

// ended is the end of a whole request or answer.
func (s *session) ended(st *stream) error {
	l := s.loop
	if st.stands {
		return fmt.Errorf("load: a stream that was to stand ended, with status %d", st.status)
	}
	if !s.client {
		return s.answer(st)
	}
	c, now := st.owner, l.deps.Now()
	if len(st.unsent) > 0 {
		return fmt.Errorf("load: an answer with status %d before the request was there", st.status)
	}
	status, body := st.status, st.body
	if l.job.GRPC && !st.ok {
		l.fault(&l.result.Bad, "an answer without grpc-status 0")
		status = 0
	}
	s.forget(st)
	l.account(c, now, status, body)
	l.done(c, now)
	return nil
}

// messages takes what is whole of the messages on a stream that stands: an upstream sends one back for each, a client the
// next.
func (s *session) messages(st *stream) {
	l := s.loop
	for size := int64(len(l.down)); s.client && st.body >= size; {
		st.body -= size
		now := l.deps.Now()
		l.account(st.owner, now, st.status, size)
		l.done(st.owner, now)
	}
	for size := int64(len(l.up)); !s.client && st.body >= size; {
		st.body -= size
		l.result.Answers[s.index]++
		if !st.stands {
			st.stands = true
			s.send(&l.answers, flagEndHeaders, st.id)
		}
		if st.unsent = l.down; !s.push(st) {
			s.waiting = append(s.waiting, st)
		}
	}
}

// answer sends what each request gets, unless it is held back.
func (s *session) answer(st *stream) error {
	l := s.loop
	l.result.Answers[s.index]++
	if st.body != int64(len(l.up)) {
		return fmt.Errorf("load: the proxy sent a request with %d bytes of body", st.body)
	}
	if l.job.Held {
		l.answered++
		return nil
	}
	st.unsent, st.trailers = l.down, l.job.GRPC
	flags := byte(flagEndHeaders)
	if len(st.unsent) == 0 && !st.trailers {
		flags |= flagEndStream
	}
	s.send(&l.answers, flags, st.id)
	if s.push(st) {
		s.forget(st)
	} else {
		s.waiting = append(s.waiting, st)
	}
	return nil
}

// reset is a stream that the peer gave up.
func (s *session) reset(id uint32, p []byte) error {
	if len(p) != 4 {
		return errFrame
	}
	st := s.streams[id]
	if st == nil {
		return nil
	}
	delete(s.streams, id)
	if s.client {
		l, c := s.loop, st.owner
		c.open = nil
		l.fault(&l.result.Errors, "the proxy reset a stream: code %d", binary.BigEndian.Uint32(p))
		l.done(c, l.deps.Now())
	}
	return nil
}
