// SPDX-License-Identifier: Apache-2.0

package als

import (
	"cmp"
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/backoff"
	"github.com/meshtap/meshtap/mesh"
)

// Config says where entries go and how they are gathered. It is comparable: loggers with the same one share a stream.
type Config struct {
	Kind    Kind
	LogName string
	// Cluster names the cluster of the service, or Address is its gRPC target; one of them is "".
	Cluster, Address string
	// Authority is the stream's :authority; "" is Cluster. Metadata is more of its headers, names and values in turn, each
	// ended by a line feed, which is in none of them.
	Authority, Metadata string
	// FlushInterval is how long an entry waits at most, BufferBytes how many bytes wait before they are sent at once.
	FlushInterval time.Duration
	BufferBytes   int
}

// Deps is what clients need of the process.
type Deps struct {
	// Dial connects to a host of a cluster, TLS included.
	Dial func(ctx context.Context, cluster string) (net.Conn, error)
	// Node is who this proxy is, a serialized envoy.config.core.v3.Node.
	Node []byte
	// Count is told what became of so many entries. Any goroutine may call it.
	Count func(what Fate, entries int64)
	Log   *zap.Logger
	// Random returns numbers in [0, 1), for jitter. Any goroutine may call it.
	Random func() float64
	// MaxBytes bounds what waits for one service, in bytes; what comes on top is dropped. 0 is 1 MiB.
	MaxBytes int
}

const (
	defaultMaxBytes = 1 << 20
	// flushTime bounds the end of a client: what its service has not taken by then is dropped.
	flushTime = 2 * time.Second
	// The bounds of the wait before a service is connected to again.
	retryBase, retryMax = 100 * time.Millisecond, 10 * time.Second
)

// Fate is what became of an entry: there was room for it or not; of those that there was room for, it was written to a
// stream or given up.
type Fate int

// The fates.
const (
	Written Fate = iota
	Dropped
	Flushed
	Failed
)

// Clients are the clients of all loggers of the process. It may be used by several goroutines.
type Clients struct {
	deps    Deps
	buffers sync.Pool // of *[]byte: entries being made

	mu       sync.Mutex
	byConfig map[Config]*Client // guarded by mu
	wg       sync.WaitGroup     // the clients' goroutines
}

// NewClients returns Clients without any. Close has to be called in the end.
func NewClients(deps Deps) *Clients {
	deps.MaxBytes = cmp.Or(deps.MaxBytes, defaultMaxBytes)
	return &Clients{deps: deps, byConfig: map[Config]*Client{}}
}

// Share returns the client for a configuration, the same for everyone. Each call is matched by one of Release.
func (s *Clients) Share(cfg Config) *Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.byConfig[cfg]
	if c == nil {
		c = s.start(cfg)
		s.byConfig[cfg] = c
	}
	c.users++
	return c
}

// Close waits until the clients, which must have been released, have sent what they can.
func (s *Clients) Close() { s.wg.Wait() }

// Client gathers entries for one service and sends them. Its goroutine runs from start until a little after the last
// Release.
type Client struct {
	// Immutable.
	cfg     Config
	clients *Clients
	ctx     context.Context // of the stream
	cancel  context.CancelFunc
	wake    chan struct{} // capacity 1: a wake-up that is already pending is enough
	quit    chan struct{} // closed by the last Release
	late    *time.Timer   // set before quit is closed: ends what takes too long

	users int // guarded by Clients.mu

	mu      sync.Mutex
	pending batch // guarded by mu
	held    int   // guarded by mu: bytes of the batch that is being sent
	closed  bool  // guarded by mu

	// Owned by the goroutine.
	stream  *Stream
	sending batch
	backoff backoff.Backoff
	retryAt time.Time
	failing bool
}

// batch is entries in a row.
type batch struct {
	bytes   []byte
	entries int64
}

func (s *Clients) start(cfg Config) *Client {
	t := Target{Address: cfg.Address, Authority: cmp.Or(cfg.Authority, cfg.Cluster), Node: s.deps.Node, LogName: cfg.LogName}
	if cfg.Metadata != "" {
		t.Metadata = strings.Split(strings.TrimSuffix(cfg.Metadata, "\n"), "\n")
	}
	if cfg.Cluster != "" {
		t.Dial = func(ctx context.Context) (net.Conn, error) { return s.deps.Dial(ctx, cfg.Cluster) }
	}
	c := &Client{
		cfg: cfg, clients: s, wake: make(chan struct{}, 1), quit: make(chan struct{}),
		stream: NewStream(t), backoff: backoff.Backoff{Base: retryBase, Max: retryMax},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	s.wg.Go(c.run)
	return c
}

// Log adds an entry for an outcome. It never waits: where there is no room, the entry is dropped and counted.
func (c *Client) Log(o *mesh.Outcome, x *Extra) {
	s := c.clients
	buf, _ := s.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	*buf = Append((*buf)[:0], c.cfg.Kind, o, x)
	c.add(*buf)
	s.buffers.Put(buf)
}

func (c *Client) add(entry []byte) {
	c.mu.Lock()
	if c.closed || c.held+len(c.pending.bytes)+len(entry) > c.clients.deps.MaxBytes {
		c.mu.Unlock()
		c.clients.deps.Count(Dropped, 1)
		return
	}
	c.pending.bytes = append(c.pending.bytes, entry...)
	c.pending.entries++
	due := len(c.pending.bytes) >= c.cfg.BufferBytes
	c.mu.Unlock()
	c.clients.deps.Count(Written, 1)
	if due {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// Release gives the client back. The last one to do so ends it; it does not wait for that.
func (c *Client) Release() {
	s := c.clients
	s.mu.Lock()
	c.users--
	last := c.users == 0
	if last {
		delete(s.byConfig, c.cfg)
	}
	s.mu.Unlock()
	if !last {
		return
	}
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.late = time.AfterFunc(flushTime, c.cancel)
	close(c.quit)
}

func (c *Client) run() {
	defer c.cancel()
	tick := time.NewTicker(c.cfg.FlushInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.wake:
			c.flush()
		case <-tick.C:
			c.flush()
		case <-c.quit:
			c.last()
			return
		}
	}
}

// flush sends what waits. What cannot be sent stays for the next time.
func (c *Client) flush() {
	for c.take() && !time.Now().Before(c.retryAt) {
		err := c.stream.Open(c.ctx)
		if err == nil {
			err = c.stream.Send(c.ctx, c.cfg.Kind, c.sending.bytes)
		}
		if err != nil {
			c.retryAt = time.Now().Add(c.backoff.Next(c.clients.deps.Random))
			c.report(err)
			return
		}
		c.sent()
	}
}

// take makes what waits the batch that is being sent, unless there is one, and reports whether there is one then.
func (c *Client) take() bool {
	if c.sending.entries > 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending, c.pending = c.pending, batch{}
	c.held = len(c.sending.bytes)
	return c.sending.entries > 0
}

// sent notes that the batch was written to the stream, which keeps its bytes.
func (c *Client) sent() {
	c.clients.deps.Count(Flushed, c.drop())
	c.backoff.Reset()
	if c.failing {
		c.failing = false
		c.clients.deps.Log.Info("the access log service takes entries again", zap.String("log", c.cfg.LogName), zap.String("service", c.service()))
	}
}

// drop lets the batch go, and returns how many entries it had.
func (c *Client) drop() int64 {
	n := c.sending.entries
	c.sending = batch{}
	c.mu.Lock()
	c.held = 0
	c.mu.Unlock()
	return n
}

// last sends what waits, as far as that can be in time, and counts the rest as dropped.
func (c *Client) last() {
	defer c.late.Stop()
	c.retryAt = time.Time{}
	c.flush()
	c.stream.Finish(c.ctx)
	for c.take() {
		c.clients.deps.Count(Failed, c.drop())
	}
}

// report tells of an error once, until the service works again.
func (c *Client) report(err error) {
	if !c.failing {
		c.failing = true
		c.clients.deps.Log.Warn("the access log service cannot be written to; entries wait, and those for which there is no room are dropped and counted",
			zap.String("log", c.cfg.LogName), zap.String("service", c.service()), zap.Error(err))
	}
}

func (c *Client) service() string { return cmp.Or(c.cfg.Cluster, c.cfg.Address) }
