// SPDX-License-Identifier: Apache-2.0

package zeromq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/backoff"
	"github.com/meshtap/meshtap/internal/zmtp"
)

// Pattern is the kind of a socket.
type Pattern string

// The patterns.
const (
	Pub    Pattern = "PUB"
	Push   Pattern = "PUSH"
	Dealer Pattern = "DEALER"
)

// peersOf says which sockets may be at the other end.
var peersOf = map[Pattern][]string{Pub: {"SUB", "XSUB"}, Push: {"PULL"}, Dealer: {"ROUTER", "DEALER"}}

// Config is where and how a Sink sends.
type Config struct {
	Pattern Pattern
	// Either Bind or Connect is set, to addresses, host:port.
	Bind    string
	Connect []string
	Prefix  string
	Proto   bool
	// User is "" where nobody logs in, else its password is in PasswordFile.
	User, PasswordFile string
	// Curve is nil where nothing is encrypted; else there is no User.
	Curve *Curve
	// PeerBytes bounds what is queued for one peer, MaxPeers the peers of a bound socket.
	PeerBytes, MaxPeers int
	// Heartbeat is how long a peer may be silent before it is asked.
	Heartbeat, AckTimeout time.Duration
}

// Curve are the keys of the mechanism CURVE. A sink that connects knows the one of the Server, one that binds those of the
// Clients that it lets in.
type Curve struct {
	SecretFile string
	Server     zmtp.Key
	Clients    []zmtp.Key
}

const (
	handshakeTimeout = 5 * time.Second
	// The bounds of the wait before a peer is connected to again.
	retryBase, retryMax = 50 * time.Millisecond, 2 * time.Second
	// linger is how long a peer that has everything may take to close its side.
	linger = time.Second
	// inFlight is how many batches wait for a PUSH's system or a DEALER's peer.
	inFlight = 4
)

// Sink sends to ZeroMQ peers. Its methods are called by one goroutine; those of its peers end with Close.
type Sink struct {
	cfg       Config
	log       *zap.Logger
	random    func() float64
	mediaType []byte
	topic     []byte // memory for one
	message   []byte // memory for one
	next      int    // the peer whose turn it is
	dropped   atomic.Uint64

	order  eventtap.Order
	joined sync.WaitGroup
	stop   context.CancelFunc
	listen net.Listener

	mu      sync.Mutex
	peers   []*peer // in the order in which they came
	opening int     // handshakes of a bound socket
	why     error   // for which there is no peer
	closing bool
}

// New returns a sink without peers.
func New(c Config, deps eventtap.SinkDeps) *Sink {
	s := &Sink{cfg: c, log: deps.Log, random: deps.Random, mediaType: []byte(event.TypeJSON)}
	if c.Proto {
		s.mediaType = []byte(event.TypeProto)
	}
	return s
}

// Caps returns what the sink promises.
func (s *Sink) Caps() eventtap.Caps {
	c := eventtap.Caps{InFlight: inFlight, Keyed: true}
	if s.cfg.Pattern == Pub {
		c.InFlight = 1 // it answers at once
	}
	if s.cfg.Proto {
		c.Encoding = eventtap.Proto
	}
	return c
}

// Dropped returns how many messages slow subscribers had no room for, one for each subscriber.
func (s *Sink) Dropped() uint64 { return s.dropped.Load() }

// Open binds, or connects to one peer at least; the others are tried again until Close. Peers end with ctx.
func (s *Sink) Open(ctx context.Context) error {
	if _, err := s.credentials(); err != nil {
		return fmt.Errorf("zeromq: %w", err)
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.closing = false
	s.order.Reset()
	if s.cfg.Bind != "" {
		var c net.ListenConfig
		l, err := c.Listen(ctx, "tcp", s.cfg.Bind)
		if err != nil {
			s.stop()
			return fmt.Errorf("zeromq: %w", err)
		}
		s.listen = l
		s.joined.Go(func() { s.accept(ctx, l) })
		return nil
	}
	var all error
	first := make([]*peer, len(s.cfg.Connect))
	for i, at := range s.cfg.Connect {
		c, rw, err := s.dial(ctx, at)
		if err == nil {
			first[i], all = s.add(c, rw), nil
			break
		}
		all = errors.Join(all, err)
	}
	if all != nil {
		s.stop()
		return all
	}
	for i, at := range s.cfg.Connect {
		s.joined.Go(func() { s.keep(ctx, at, first[i]) })
	}
	return nil
}

// Addr returns where a bound socket is.
func (s *Sink) Addr() string { return s.listen.Addr().String() }

// Send hands the batch to peers, as the pattern says.
func (s *Sink) Send(_ context.Context, b *eventtap.Batch, done func(error)) {
	if s.cfg.Pattern == Pub {
		s.publish(b)
		done(nil)
		return
	}
	if err := s.order.Begin(b); err != nil {
		done(fmt.Errorf("zeromq: %w", err))
		return
	}
	f := &flight{s: s, batch: b, done: done}
	f.left.Store(1)
	if s.cfg.Pattern == Push {
		s.push(f)
	} else {
		s.deal(f)
	}
	f.land(nil)
}

// flight is a batch on its way.
type flight struct {
	s     *Sink
	batch *eventtap.Batch
	done  func(error)
	left  atomic.Int32 // events without an answer, and one for Send
	err   atomic.Pointer[error]
}

// land takes note of what became of an event; the last one ends the flight.
func (f *flight) land(err error) {
	if err != nil {
		f.fail(err)
	}
	if f.left.Add(-1) > 0 {
		return
	}
	var outcome error
	if first := f.err.Load(); first != nil {
		outcome = *first
	}
	f.s.order.End(f.batch, outcome)
	f.done(outcome)
}

// fail notes an error of a flight that has not landed.
func (f *flight) fail(err error) { f.err.CompareAndSwap(nil, &err) }

// encode lays an event out as a message of parts: those of head, the topic, the media type and the event.
func (s *Sink) encode(e *eventtap.Event, head ...[]byte) []byte {
	m := s.message[:0]
	for _, part := range head {
		m = zmtp.AppendFrame(m, part, true)
	}
	m = zmtp.AppendFrame(m, s.topicOf(e), true)
	m = zmtp.AppendFrame(m, s.mediaType, true)
	s.message = zmtp.AppendFrame(m, e.Body, false)
	return s.message
}

// topicOf returns the event's topic, until the next call.
func (s *Sink) topicOf(e *eventtap.Event) []byte {
	b := append(append(s.topic[:0], s.cfg.Prefix...), '.')
	b = append(append(b, e.Kind.String()...), '.')
	s.topic = append(b, e.Key...)
	return s.topic
}

// publish offers each event to the peers that subscribed to its topic.
func (s *Sink) publish(b *eventtap.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.Events {
		e := &b.Events[i]
		topic, encoded := s.topicOf(e), []byte(nil)
		for _, p := range s.peers {
			if !p.wants(topic) {
				continue
			}
			if encoded == nil {
				encoded = s.encode(e)
			}
			if !p.queue(encoded, entry{}) {
				s.dropped.Add(1)
				p.drops.Add(1)
			}
		}
	}
	for _, p := range s.peers {
		p.tellDrops()
	}
}

// errNoRoom is why a batch is not sent: all peers are slower than events come.
var errNoRoom = errors.New("zeromq: no peer has room")

// push gives each event to the next peer that has room.
func (s *Sink) push(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range f.batch.Events {
		e := &f.batch.Events[i]
		if e.Sent {
			continue
		}
		m := s.encode(e)
		taken := false
		for range s.peers {
			s.next = (s.next + 1) % len(s.peers)
			f.left.Add(1)
			if taken = s.peers[s.next].queue(m, entry{f: f, i: i}); taken {
				break
			}
			f.left.Add(-1)
		}
		if !taken {
			f.fail(s.nobody())
			return
		}
	}
}

// nobody is the error of an event that no peer takes. s.mu must be held.
func (s *Sink) nobody() error {
	switch {
	case len(s.peers) > 0:
		return errNoRoom
	case s.why != nil:
		return fmt.Errorf("zeromq: no peer is connected: %w", s.why)
	}
	return errors.New("zeromq: no peer is connected")
}

// deal gives the batch to the peer that has been there longest, numbered.
func (s *Sink) deal(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.peers) == 0 {
		f.fail(s.nobody())
		return
	}
	p := s.peers[0]
	for i := range f.batch.Events {
		e := &f.batch.Events[i]
		if e.Sent {
			continue
		}
		number := p.number()
		f.left.Add(1)
		if !p.queue(s.encode(e, p.session[:], number[:]), entry{f: f, i: i, acked: true}) {
			f.left.Add(-1)
			f.fail(errNoRoom)
			return
		}
		p.dealt++
	}
}

// Close lets peers have what is queued for them, for as long as ctx lasts, disconnects, and joins all goroutines.
func (s *Sink) Close(ctx context.Context) error {
	if s.stop == nil {
		return nil
	}
	s.mu.Lock()
	s.closing = true
	peers := append([]*peer(nil), s.peers...)
	s.mu.Unlock()
	if s.listen != nil {
		s.listen.Close()
	}
	for _, p := range peers {
		p.finish()
	}
	for _, p := range peers {
		select {
		case <-p.ended:
		case <-ctx.Done():
		}
	}
	s.stop()
	s.joined.Wait()
	s.stop, s.listen = nil, nil
	return nil
}

var _ eventtap.Sink = (*Sink)(nil)

// newBackoff returns the wait between attempts to connect.
func newBackoff() backoff.Backoff {
	return backoff.Backoff{Base: retryBase, Max: retryMax, Floor: retryBase / 4}
}
