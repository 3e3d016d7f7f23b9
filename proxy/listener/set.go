// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/sys"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/transport"
)

// The limits of contracts.md section 3.
const (
	// DefaultMaxConnections bounds the connections of the process, where half of its descriptors is not less.
	DefaultMaxConnections = 50_000
	// DefaultPerListener bounds the connections of a listener that does not say.
	DefaultPerListener = 10_000
	// DefaultDrainTime is how long connections of a removed listener or chain may go on.
	DefaultDrainTime = 30 * time.Second
	// reservedFiles are descriptors that connections never take: the admin interface must answer when all others are in
	// use.
	reservedFiles = 16
	// minFiles is what a proxy needs to begin with: the reserve, what the process holds anyway, and some connections.
	minFiles = 64
)

// ChainHandler is the runtime of one filter chain.
type ChainHandler interface {
	// Accept returns the handler of a new connection, nil to refuse it. With now, its Ready is called at once, before the
	// client has sent anything: a server may speak first. c must not be used before that call. info stays valid and
	// unchanged until the handler's Closed has returned.
	//
	// Accept must not block and must not call the Set. The handler ends the connection by returning false from Ready, and only so; it may replace
	// itself with c.Handle. When the listener ends the connection (at the end of a drain), the handler finds it hung up.
	Accept(c *socket.Conn, info *inspect.ConnInfo) (h socket.Handler, now bool)
}

// Retirer is a ChainHandler that wants to know of its own end.
type Retirer interface {
	// Retire is called when the chain is no longer configured, while all that it was configured with is still there. Its
	// connections may go on for the drain time.
	Retire()
	// Release is called once, when the last of them has ended.
	Release()
}

// OriginalDster is a ChainHandler that may connect to the destination of its connections.
type OriginalDster interface {
	// ToOriginalDst reports whether it does, as far as it is known before the first request.
	ToOriginalDst() bool
}

// Builder makes the runtime of a chain. The chain's end never comes by itself: what has come is filled in. Its error names the field and what is allowed; the listener is then rejected. It
// is called by Apply and must not call the Set. What it makes is dropped without a word when the chain has gone and its
// last connection is closed, or when the listener is rejected for another reason.
type Builder func(*mesh.Listener, *mesh.FilterChain) (ChainHandler, error)

// Config is what a Set needs. Engine, Build, Filters, Stats and Log must be set.
type Config struct {
	Engine *socket.Engine
	Build  Builder
	// Filters are the listener filters by type URL (registry.Builders of inspect.Rows).
	Filters map[string]inspect.Build
	// Configs gives the configurations of listener filters, and of the ends of filter chains, that come by themselves; nil where
	// none does. Renew is to be called when one of the latter has come.
	Configs inspect.Configs
	// Observer makes what is told of connections that ended before a chain took them: the listener's access logs and
	// whoever else wants to know. nil tells nobody.
	Observer func(*mesh.Listener) (mesh.Observer, error)
	Stats    *stats.Registry
	Log      *zap.Logger

	// MaxConnections bounds the connections of the process; 0 means DefaultMaxConnections or half of the descriptors the
	// process may hold, whichever is less.
	MaxConnections int
	// MaxConnectionsRuntime, where it is not nil, replaces MaxConnections by the value that a key of the runtime has.
	MaxConnectionsRuntime mesh.RuntimeKey
	// Secrets are what filter chains name in place of certificates; nil where none does.
	Secrets *transport.Secrets
	// Handshakes bounds the TLS handshakes under way; 0 means transport.DefaultHandshakes. Connections above it wait.
	Handshakes int
	// DrainTime is how long the connections of a removed listener or chain may go on; 0 means DefaultDrainTime.
	DrainTime time.Duration
	// LocalAddrs returns the addresses of this host; nil asks the system. It is called for connections whose original
	// destination has the port of one of our own wildcard listeners.
	LocalAddrs func() ([]netip.Addr, error)
}

// Set is the listeners of one proxy.
type Set struct {
	// Immutable.
	cfg     Config
	limit   int64 // of connections
	ceiling int   // descriptors from here on are reserved
	manager *metrics.ListenerManager
	numbers *metrics.ListenerOwn
	guard   *Guard
	gate    *transport.Gate
	closing chan struct{} // closed by Close: drains end now
	wg      sync.WaitGroup

	mu sync.Mutex // held by Apply, Drain, StopAccepting and Close, not on the path of a connection
	// Guarded by mu.
	live    map[string]*listener
	sockets map[socketKey]*boundSocket
	ending  map[*listener]struct{} // removed, and still with connections
	stopped []Scope                // what must not listen any more
	closed  bool

	// Atomic.
	routes   atomic.Pointer[routes]
	versions atomic.Pointer[mesh.Versions]
	conns    atomic.Int64 // that count towards limit
	ids      atomic.Uint64
	quiet    broadcast // told when a listener or chain that drains has no more connections
}

// New returns a set without listeners.
func New(c Config) (*Set, error) {
	files, err := sys.MaxFiles()
	if err != nil {
		return nil, fmt.Errorf("listener: how many descriptors may this process hold: %w", err)
	}
	if files < minFiles {
		return nil, fmt.Errorf("listener: this process may hold %d descriptors (ulimit -n); at least %d are needed", files, minFiles)
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = min(DefaultMaxConnections, files/2)
	}
	if c.DrainTime == 0 {
		c.DrainTime = DefaultDrainTime
	}
	if c.Observer == nil {
		c.Observer = func(*mesh.Listener) (mesh.Observer, error) { return nobody{}, nil }
	}
	if c.LocalAddrs == nil {
		c.LocalAddrs = systemAddrs
	}
	s := &Set{
		cfg:     c,
		limit:   int64(c.MaxConnections),
		ceiling: files - reservedFiles,
		manager: metrics.NewListenerManager(c.Stats),
		numbers: metrics.NewListenerOwn(c.Stats),
		guard:   newGuard(),
		gate:    transport.NewGate(cmp.Or(c.Handshakes, transport.DefaultHandshakes)),
		closing: make(chan struct{}),
		live:    map[string]*listener{},
		sockets: map[socketKey]*boundSocket{},
		ending:  map[*listener]struct{}{},
	}
	s.routes.Store(&routes{})
	s.versions.Store(&mesh.Versions{})
	return s, nil
}

// Guard returns what finds our own connections among those that come in.
func (s *Set) Guard() *Guard { return s.guard }

// most is how many connections there may be now.
func (s *Set) most() int64 {
	if s.cfg.MaxConnectionsRuntime == nil {
		return s.limit
	}
	return int64(min(s.cfg.MaxConnectionsRuntime.Integer(uint64(s.limit)), math.MaxInt64))
}

// Connections returns how many connections count towards the limit of the process.
func (s *Set) Connections() int64 { return s.conns.Load() }

// Status is what the admin interface shows of a listener.
type Status struct {
	Listener *mesh.Listener
	// Bound is the address it listens on, with the port that the system chose where the configuration says 0. It is the
	// zero value where it listens nowhere.
	Bound mesh.Address
	// Connections are those that the listener counts now, in all states.
	Connections int64
	Draining    bool
}

// Status returns all listeners in force, by name.
func (s *Set) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Status
	for _, l := range s.live {
		st := Status{Listener: l.cfg.Load().Listener, Connections: l.open.Load(), Draining: l.drain.Load()}
		for _, b := range s.sockets {
			if b.owner.Load() == l {
				st.Bound = b.address()
			}
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Listener.Name, b.Listener.Name) })
	return out
}

type nobody struct{}

func (nobody) Observe(*mesh.Outcome) {}

// broadcast wakes everyone who waits.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that the next call of wake closes.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
