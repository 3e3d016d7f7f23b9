// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// Config is where and how the server listens.
type Config struct {
	Address mesh.Address
	// Mode is that of a unix socket. The default is 0600.
	Mode fs.FileMode
	// Exposed lets the server listen on an address that can be reached from outside this host. It is set only where the
	// bootstrap names such an address.
	Exposed bool
	// FlushInterval is the interval of histograms, Envoy's stats_flush_interval. The default is 5 s.
	FlushInterval time.Duration
	// Profiles lets /profile answer: profiles tell of what a process does, and taking them costs.
	Profiles bool
}

// Deps are what the server works with.
type Deps struct {
	Stats *stats.Registry
	Log   *zap.Logger
}

// The limits of the server. A connection beyond maxConns-reserve serves one short request, and soon; one beyond maxConns is
// refused.
const (
	maxConns   = 64
	reserve    = 16
	maxDumps   = 8
	maxStreams = 16

	maxBody    = 4 << 10
	maxHead    = 16 << 10
	readTime   = 10 * time.Second
	hurryTime  = 2 * time.Second
	idleTime   = 60 * time.Second
	writeTime  = 10 * time.Second // for each write, not for the whole answer
	closeGrace = 2 * time.Second
)

// Server is the administration server.
type Server struct {
	// Immutable.
	config Config
	views  Views
	deps   Deps
	routes map[string]*endpoint
	help   string
	http   fasthttp.Server

	// dumps, streams and profiles have a place for each long answer at work.
	dumps, streams, profiles chan struct{}

	wg   sync.WaitGroup
	done chan struct{}

	mu sync.Mutex
	// Guarded by mu.
	listener net.Listener
	conns    map[*conn]struct{}
	closed   bool
}

// New returns a server that does not listen yet.
func New(c Config, v Views, d Deps) *Server {
	if c.Mode == 0 {
		c.Mode = 0o600
	}
	if c.FlushInterval == 0 {
		c.FlushInterval = 5 * time.Second
	}
	s := &Server{
		config: c, views: v, deps: d,
		dumps: make(chan struct{}, maxDumps), streams: make(chan struct{}, maxStreams),
		profiles: make(chan struct{}, 1), // Go takes one CPU profile at a time
		done:     make(chan struct{}), conns: map[*conn]struct{}{},
	}
	s.route()
	s.http = fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 s.refuse,
		Logger:                       quiet{},
		Concurrency:                  2 * maxConns, // connections are bounded by accept
		ReadBufferSize:               maxHead,
		ReadTimeout:                  readTime,
		IdleTimeout:                  idleTime,
		MaxRequestBodySize:           maxBody,
		NoDefaultServerHeader:        true,
		NoDefaultDate:                true, // fasthttp's comes from a goroutine that never ends, and it takes no other
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		SecureErrorLogMessage:        true,
	}
	return s
}

// quiet drops what fasthttp would log: clients that break off are no news.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// Start binds the address, for which ctx bounds the time, and begins to serve.
func (s *Server) Start(ctx context.Context) error {
	ln, err := listen(ctx, &s.config)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed || s.listener != nil {
		s.mu.Unlock()
		ln.Close()
		return errors.New("admin: the server was started or closed before")
	}
	s.listener = ln
	s.wg.Go(func() { s.accept(ln) })
	s.wg.Go(s.cut)
	s.mu.Unlock()
	return nil
}

// Run is Start, then serves until ctx is done, then Close.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return s.Close()
}

// Addr returns the address that the server listens on, nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Close stops to listen, ends event streams and idle connections at once, gives other answers a short time to be written,
// and waits for all goroutines.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.wg.Wait()
		return nil
	}
	s.closed = true
	ln := s.listener
	for c := range s.conns {
		c.stop()
	}
	s.mu.Unlock()
	close(s.done)
	var err error
	if ln != nil {
		err = ln.Close()
	}
	timer := time.AfterFunc(closeGrace, s.cutOff)
	defer timer.Stop()
	s.wg.Wait()
	return err
}

// cutOff closes the connections that are left.
func (s *Server) cutOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Conn.Close()
	}
}

// cut ends the histograms' intervals.
func (s *Server) cut() {
	t := time.NewTicker(s.config.FlushInterval)
	defer t.Stop()
	s.cutAt(t.C)
}

func (s *Server) cutAt(tick <-chan time.Time) {
	for {
		select {
		case <-s.done:
			return
		case <-tick:
			s.deps.Stats.Cut()
		}
	}
}

// accept serves each connection on a goroutine of its own.
func (s *Server) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			if !s.pause() {
				return
			}
			continue
		}
		if k := s.admit(c); k != nil {
			s.wg.Go(func() { s.serve(k) })
		}
	}
}

// pause waits a little after a failed accept, as when there are no descriptors left. It returns false once the server is
// closed.
func (s *Server) pause() bool {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-s.done:
		return false
	case <-t.C:
		return true
	}
}

// admit registers a connection, or refuses it and returns nil.
func (s *Server) admit(c net.Conn) *conn {
	s.mu.Lock()
	n, closed := len(s.conns), s.closed
	if !closed && n < maxConns {
		k := &conn{Conn: c, hurried: n >= maxConns-reserve}
		s.conns[k] = struct{}{}
		s.mu.Unlock()
		return k
	}
	s.mu.Unlock()
	c.SetWriteDeadline(time.Now().Add(time.Millisecond)) // there is room in a new socket's buffer
	_, _ = c.Write([]byte("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
	c.Close()
	return nil
}

func (s *Server) serve(c *conn) {
	defer func() {
		c.Conn.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	_ = s.http.ServeConn(c) // its error is the client's
}
