// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Acceptor takes the streams of a Server. It is called on the turn's worker, without locks.
type Acceptor interface {
	// Open returns a place for a new stream and for its request, which the server resets and fills.
	Open() (*ServerStream, *codec.Request)
	// Serve takes a stream whose head is complete, for the next HandOut. Where Refused is set, the stream is to be answered
	// with that.
	Serve(st *ServerStream)
	// HandOut hands each stream of Serve to a worker, which calls the stream's Finish at its end, and must not block. It comes
	// before others run: a stream that was reset at once (HungUp) need not have a worker.
	HandOut(w *socket.Worker)
	// Drop takes back the place of a stream that was malformed and has been reset. why is short and constant.
	Drop(st *ServerStream, why string)
	// Refused tells of a stream that was one too many and has been refused, without a look at its head.
	Refused()
}

// Server is the codec's state of a downstream connection. Turn, Drain and Close belong to the connection's worker.
type Server struct {
	conn
	accept Acceptor
}

// Init prepares s for a new connection, whose client's preface has not been read. s is not used for another one later:
// streams may outlive their connection.
func (s *Server) Init(nc Conn, bufs *bytebuf.Pool, cfg *Config, a Acceptor) {
	s.accept = a
	s.conn.init(nc, bufs, cfg, s, false)
}

// Preload gives the server bytes that came before it was made, which it owns from then on. They are handled in the first
// turn.
func (s *Server) Preload(b *bytebuf.Buf) { s.in, s.loaded = b, true }

// Turn reads what is there, hands out the requests in it, sends, and returns when nothing more can be read. now is the
// time (mono). It is to be called whenever the connection is ready, and when the time is over that the server has set with
// Conn.SetExpire.
//
// An error is the connection's end: all its streams have been told, nothing will be read or written any more, and the
// caller closes it. It is ErrDrained after a drain, io.EOF or an error of the system where the client has gone, and
// *ConnError where either side ended the connection for cause.
func (s *Server) Turn(w *socket.Worker, now int64) error { return s.turn(w, now) }

// Drain ends the connection gracefully (RFC 9113 section 6.8): the client is asked to open no more streams, those that it
// has are served, and then Turn returns ErrDrained.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drain()
	s.flush(nil, false)
}

// Close ends the connection at once, with this code in a GOAWAY. The caller closes the socket then. After an error of Turn
// it does nothing.
func (s *Server) Close(w *socket.Worker, code Code) { s.close(w, code) }

// SetExpire makes a turn come at t (mono) in any case, 0 ends that. It is the owner's part of Conn.SetExpire, which the
// server uses for itself.
func (s *Server) SetExpire(t int64) { s.setExpire(t) }

// Streams returns the number of streams that are not finished. A connection without any is idle.
func (s *Server) Streams() int { return s.users() }

// headers implements role: a request's head, or its trailers.
func (s *Server) headers(id uint32, p []byte, end bool) error {
	c := &s.conn
	if id&1 == 0 {
		return connError(ProtocolError, "a client's stream has an even number")
	}
	c.mu.Lock()
	if c.streams[id] != nil {
		c.mu.Unlock()
		return c.takeTrailers(id, p, end)
	}
	if id <= c.lastID {
		c.count(metrics.HTTP2HeadersNoStream)
		err := c.closed(id)
		c.mu.Unlock()
		if err == nil {
			err = c.sec.skip(p)
		}
		return err
	}
	if c.goingAway == final {
		c.ignored = max(c.ignored, id)
		c.mu.Unlock()
		return c.sec.skip(p) // the client was told, and sends it again elsewhere
	}
	c.lastID = id
	c.abuse.opened++
	// A stream that was reset counts until its work has ended, too; one that has its answer counts as half.
	full := c.active-c.over >= c.cfg.Streams || c.active >= 2*c.cfg.Streams || c.headsFull()
	if !full {
		c.active++
	}
	c.mu.Unlock()
	if full {
		return s.full(id, p)
	}
	return s.open(id, p, end)
}

// full refuses a stream that is one too many.
func (s *Server) full(id uint32, p []byte) error {
	c := &s.conn
	if err := c.sec.skip(p); err != nil {
		return err
	}
	s.accept.Refused()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendReset(id, RefusedStream)
	// A client that does not know of the limits yet opens no more streams beyond them than may be reset at once.
	return c.abused(false)
}

// open begins a stream.
func (s *Server) open(id uint32, p []byte, end bool) error {
	c := &s.conn
	st, q := s.accept.Open()
	q.Reset()
	bad, err := c.sec.request(p, q, end)
	if err != nil || bad != nil && bad.malformed {
		why := "hpack"
		if bad != nil {
			why = bad.Code
		}
		s.accept.Drop(st, why)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.active--
		if err != nil {
			return err
		}
		c.countRefusal(bad)
		return c.streamError(id, nil, ProtocolError, nil)
	}
	c.mu.Lock()
	st.begin(c, id, q, end)
	st.size = c.sec.size
	c.heads += st.size
	c.heldChanged()
	if bad != nil {
		c.countRefusal(bad)
		st.refused = &bad.ProtocolError
	} else {
		st.length = c.sec.length
	}
	c.streams[id] = &st.stream
	c.mu.Unlock()
	s.accept.Serve(st)
	return nil
}

// idle implements role.
func (s *Server) idle(id uint32) bool { return id&1 == 0 || id > max(s.lastID, s.ignored) }

// peerGoes implements role. A client that goes away still wants its answers.
func (s *Server) peerGoes(uint32, Code) error { return nil }

// settings implements role.
func (s *Server) settings() {}

// wake implements role.
func (s *Server) wake() {}

// handOut implements role.
func (s *Server) handOut(w *socket.Worker) { s.accept.HandOut(w) }

// failed implements role.
func (s *Server) failed(_ *stream, err error) error { return err }
