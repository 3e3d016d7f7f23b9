// SPDX-License-Identifier: Apache-2.0

package zeromq

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/internal/zmtp"
)

// accept takes peers of a bound socket until it is closed.
func (s *Sink) accept(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			closing := s.closing
			s.mu.Unlock()
			if closing || ctx.Err() != nil {
				return
			}
			s.log.Warn("cannot accept a ZeroMQ peer", zap.Error(err))
			if !pause(ctx, retryBase) { // too many descriptors, mostly
				return
			}
			continue
		}
		s.mu.Lock()
		full := s.opening+len(s.peers) >= s.cfg.MaxPeers || s.closing
		if !full {
			s.opening++
		}
		s.mu.Unlock()
		if full {
			s.log.Warn("turned a ZeroMQ peer away: there are as many as max_peers allows", zap.Stringer("peer", c.RemoteAddr()))
			c.Close()
			continue
		}
		s.joined.Go(func() { s.welcome(ctx, c) })
	}
}

// welcome opens a connection that a peer has made, and serves it.
func (s *Sink) welcome(ctx context.Context, c net.Conn) {
	rw, err := s.handshake(ctx, c)
	s.mu.Lock()
	s.opening--
	s.mu.Unlock()
	if err != nil {
		s.log.Warn("turned a ZeroMQ peer away", zap.Stringer("peer", c.RemoteAddr()), zap.Error(err))
		c.Close()
		return
	}
	if p := s.add(c, rw); p != nil {
		s.serve(ctx, p)
	}
}

// keep holds a connection to a peer, the first of which may be there already.
func (s *Sink) keep(ctx context.Context, at string, p *peer) {
	wait := newBackoff()
	for {
		if p != nil {
			s.serve(ctx, p)
			wait.Reset()
		}
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		if closing || !pause(ctx, wait.Next(s.random)) {
			return
		}
		c, rw, err := s.dial(ctx, at)
		if p = nil; err == nil {
			p = s.add(c, rw)
			continue
		}
		s.mu.Lock()
		s.why = err
		s.mu.Unlock()
	}
}

// pause waits. It returns false where ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// dial connects to a peer and opens the connection.
func (s *Sink) dial(ctx context.Context, at string) (net.Conn, io.ReadWriter, error) {
	d := net.Dialer{Timeout: handshakeTimeout}
	c, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, nil, fmt.Errorf("zeromq: %w", err)
	}
	rw, err := s.handshake(ctx, c)
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("zeromq: %s: %w", at, err)
	}
	return c, rw, nil
}

// handshake opens a connection and returns where its frames are read and written. The secret is read each time, so that it
// can change.
func (s *Sink) handshake(ctx context.Context, c net.Conn) (io.ReadWriter, error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	h, err := s.credentials()
	if err != nil {
		return nil, err
	}
	h.SocketType, h.Peers, h.Server, h.MaxFrame = string(s.cfg.Pattern), peersOf[s.cfg.Pattern], s.cfg.Bind != "", zmtp.MaxFrame
	if s.cfg.Pattern == Pub {
		h.SocketType = "XPUB" // which is what takes subscriptions; the peers are the same
	}
	if err := c.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	rw, _, err := zmtp.Handshake(c, h)
	if err != nil {
		return nil, err
	}
	return rw, c.SetDeadline(time.Time{})
}

// credentials returns the part of a handshake that says who this side is and whom it trusts.
func (s *Sink) credentials() (h zmtp.Config, err error) {
	switch {
	case s.cfg.User != "":
		h.User = s.cfg.User
		h.Password, err = login.Secret(s.cfg.PasswordFile)
	case s.cfg.Curve != nil:
		h.Curve = &zmtp.Curve{Server: s.cfg.Curve.Server, Clients: s.cfg.Curve.Clients}
		var text string
		if text, err = login.Secret(s.cfg.Curve.SecretFile); err != nil {
			break
		}
		if h.Curve.Secret, err = zmtp.ParseKey(text); err != nil {
			err = fmt.Errorf("%s: %w", s.cfg.Curve.SecretFile, err)
		}
	}
	return h, err
}

// add has a peer among those that get events. It returns nil where none do any more.
func (s *Sink) add(c net.Conn, rw io.ReadWriter) *peer {
	p := newPeer(s, c, rw)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		c.Close()
		return nil
	}
	s.peers = append(s.peers, p)
	return p
}

// serve runs a peer until its connection ends.
func (s *Sink) serve(ctx context.Context, p *peer) {
	at := zap.Stringer("peer", p.c.RemoteAddr())
	s.log.Info("a ZeroMQ peer is connected", at)
	err := p.run(ctx)
	s.mu.Lock()
	s.peers = slices.DeleteFunc(s.peers, func(q *peer) bool { return q == p })
	s.why = err
	s.mu.Unlock()
	p.abandon(fmt.Errorf("zeromq: the connection to %s ended: %w", p.c.RemoteAddr(), err))
	s.log.Info("a ZeroMQ peer is gone", at, zap.Uint64("dropped", p.drops.Load()), zap.Error(err))
	close(p.ended)
}
