// SPDX-License-Identifier: Apache-2.0

// Package downstream serves clients' HTTP connections: Envoy's HTTP connection manager. It turns the bytes of a
// connection into requests, one after the other, takes each through the manager's own rules, the route and the filters to
// the router, and ends each in exactly one Outcome, on every path (steps 6, 7, 8 and 15 of a request).
//
// A Manager is the runtime of one connection manager of the configuration and is immutable. A conn is one connection: it
// is small, and while it is idle it is all that the connection costs. A stream is what a request needs while it is in
// flight; it is taken from a pool and reused.
package downstream

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/forward"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/route"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// Live is the state that a request is pinned to from its route on.
type Live interface {
	forward.Clusters
	// Table returns the named route table, nil where there is none.
	Table(name string) *Table
	// Scopes returns the set of scopes with this key, nil where there is none.
	Scopes(key string) *Scopes
	// Versions are those of the configuration in force.
	Versions() mesh.Versions
}

// Table is a route table with its compiled form.
type Table struct {
	Config *mesh.RouteTable
	Routes *route.Table
}

// Logs are access logs. Close gives back what they hold.
type Logs interface {
	mesh.Observer
	Close()
}

// Deps are what connection managers need of the process.
type Deps struct {
	Log   *zap.Logger
	Stats *stats.Registry
	// Live returns the state of the moment.
	Live func() Live
	// Filters are the building side of the HTTP filters, by type URL, and Configs the configurations of those whose
	// configuration comes by itself; nil where there are none. Logs builds access logs.
	Filters map[string]filter.Builder
	Configs *filter.Configs
	Logs    func([]mesh.AccessLog) (Logs, error)
	// Observers are told of every outcome, behind the metrics and the access logs.
	Observers []mesh.Observer
	Env       *format.Env
	// Demands hold requests for virtual hosts that are asked for on demand; nil where nothing can be asked for.
	Demands *Demands
	// Busy is held by each connection of HTTP/2 until its last stream has ended, which may be after its own end. What a
	// request uses may not be closed before.
	Busy *sync.WaitGroup
	// Together bounds what all connections of HTTP/2 hold; nil does not.
	Together *h2.Together
}

// Manager is the runtime of one HTTP connection manager.
type Manager struct {
	cfg      *mesh.HTTPManager
	listener *mesh.Listener
	chain    *mesh.FilterChain
	deps     *Deps

	filters filter.Chain
	router  *forward.Router
	// discovered is the router where its configuration comes by itself, nil where it does not. router has no options then.
	discovered *discoveredRouter
	logs       Logs
	numbers    *metrics.HTTP
	limits     h1.Limits
	http2      h2.Config
	inline     *Table  // nil where the table has a name
	scopes     *Scopes // nil where the scopes do not stand in the configuration
	scopeKey   *route.ScopeKey
	// onDemand is the name of the filter by which requests are held for virtual hosts, "" where there is none.
	onDemand string
	clock    clock
	upgrades map[string]bool

	// pinned is the state at the time when the manager was retired, with all that its routes name; nil before.
	pinned             atomic.Pointer[pin]
	streams1, streams2 sync.Pool // of *stream1 and *stream2
	// users is the chain, until Release, and each connection of HTTP/2 that is open or has streams.
	users atomic.Int64
}

type pin struct{ live Live }

// headersTimeout is how long a client may take for a request's head where the configuration does not say.
const headersTimeout = 10 * time.Second

// New returns the runtime of the connection manager of a filter chain.
func New(l *mesh.Listener, fc *mesh.FilterChain, deps *Deps) (*Manager, error) {
	cfg := fc.HTTP
	m := &Manager{cfg: cfg, listener: l, chain: fc, deps: deps, limits: limits(cfg), http2: options2(cfg), upgrades: map[string]bool{}}
	for _, u := range cfg.Upgrades {
		m.upgrades[u.Type] = u.Enabled
	}
	if cfg.Routes != nil {
		t, err := route.Compile(cfg.Routes)
		if err != nil {
			return nil, err
		}
		m.inline = &Table{cfg.Routes, t}
	}
	if s := cfg.Scoped; s != nil {
		m.scopeKey = route.NewScopeKey(s.Fragments)
		if s.Scopes != nil {
			var err error
			if m.scopes, err = NewScopes(s.Scopes); err != nil {
				return nil, err
			}
		}
	}
	if err := m.build(); err != nil {
		m.filters.Close()
		return nil, err
	}
	logs, err := deps.Logs(cfg.AccessLogs)
	if err != nil {
		m.filters.Close()
		return nil, err
	}
	// From here on nothing fails, and Release gives back what is taken.
	m.logs = logs
	m.users.Store(1)
	m.numbers = metrics.NewHTTP(deps.Stats, cfg.StatPrefix, metrics.ListenerName(l))
	m.http2.Stats, m.http2.Together = metrics.NewDownstreamHTTP2(deps.Stats), deps.Together
	router := func(c mesh.Router) *forward.Router { return forward.New(c, m.numbers, deps.Env) }
	m.router = router(cfg.Router)
	if d := cfg.RouterDiscovery; d != nil {
		m.discovered = &discoveredRouter{config: deps.Configs.Place(d.Key), fallback: d.Default, build: router}
	}
	m.streams1.New = func() any { return &stream1{} }
	m.streams2.New = func() any { return &stream2{} }
	return m, nil
}

// build makes the filters.
func (m *Manager) build() error {
	for i := range m.cfg.Filters {
		f := &m.cfg.Filters[i]
		deps := filter.Deps{Name: f.Name, Place: i, Stats: m.deps.Stats, StatPrefix: m.cfg.StatPrefix}
		if f.Discovery != nil {
			made, err := filter.NewDiscovered(f.Discovery, m.deps.Configs, m.deps.Filters, deps, len(m.cfg.Filters)+i, m.deps.Log)
			if err != nil {
				return fmt.Errorf("HTTP filter %q: %w", f.Name, err)
			}
			m.filters = append(m.filters, filter.Entry{Name: f.Name, Filter: made, Disabled: f.Disabled})
			continue
		}
		build := m.deps.Filters[f.TypeURL]
		if build == nil {
			return fmt.Errorf("HTTP filter %q: no filter for %s", f.Name, f.TypeURL)
		}
		made, err := build(f.Config, deps)
		if err != nil {
			return fmt.Errorf("HTTP filter %q: %w", f.Name, err)
		}
		if _, holds := made.(filter.Holder); holds && !f.Disabled {
			m.onDemand = f.Name
		}
		m.filters = append(m.filters, filter.Entry{Name: f.Name, Filter: made, Disabled: f.Disabled})
	}
	return nil
}

func limits(cfg *mesh.HTTPManager) h1.Limits {
	l := h1.Defaults()
	if cfg.MaxHeaderBytes > 0 {
		l.HeadBytes = cfg.MaxHeaderBytes
	}
	if cfg.MaxHeaderCount > 0 {
		l.Fields = cfg.MaxHeaderCount
	}
	l.HTTP10, l.DefaultHost = cfg.AcceptHTTP10, cfg.DefaultHost
	return l
}

func options2(cfg *mesh.HTTPManager) h2.Config {
	c := h2.From(&cfg.HTTP2)
	if cfg.MaxHeaderBytes > 0 {
		c.HeadBytes = cfg.MaxHeaderBytes
	}
	if cfg.MaxHeaderCount > 0 {
		c.Fields = cfg.MaxHeaderCount
	}
	if cfg.DrainTimeout > 0 {
		c.DrainTimeout = cfg.DrainTimeout
	}
	return c
}

// Retire implements the listener's Retirer: what is still served from here on goes on to see what there is now.
func (m *Manager) Retire() { m.pinned.CompareAndSwap(nil, &pin{m.deps.Live()}) }

// Release implements the listener's Retirer. A stream of HTTP/2 may outlive its connection for a moment: the last that
// there is gives back what they all use.
func (m *Manager) Release() { m.leave() }

func (m *Manager) leave() {
	if m.users.Add(-1) > 0 {
		return
	}
	m.pinned.Store(nil)
	m.logs.Close()
	m.filters.Close()
	m.numbers.Release()
	m.http2.Stats.Release()
}

// state returns the state that a new request is pinned to. A manager that was retired follows the configuration as long as that
// has its routes. Afterwards, and where the routes are its own, it falls back to what there was for all that has gone since.
func (m *Manager) state() Live {
	now, p := m.deps.Live(), m.pinned.Load()
	if p == nil || m.named(now) {
		return now
	}
	return &behind{now, p.live}
}

// named reports whether a state has the routes that the manager takes by name.
func (m *Manager) named(l Live) bool {
	switch {
	case m.inline != nil || m.scopes != nil:
		return false
	case m.scopeKey != nil:
		return l.Scopes(m.cfg.Scoped.Set) != nil
	default:
		return l.Table(m.cfg.RouteTable) != nil
	}
}

// behind is a state with what it does not have any more.
type behind struct {
	Live
	before Live
}

// Cluster implements Live.
func (b *behind) Cluster(name string) *upstream.Cluster {
	return cmp.Or(b.Live.Cluster(name), b.before.Cluster(name))
}

// Table implements Live.
func (b *behind) Table(name string) *Table { return cmp.Or(b.Live.Table(name), b.before.Table(name)) }

// Scopes implements Live.
func (b *behind) Scopes(key string) *Scopes { return cmp.Or(b.Live.Scopes(key), b.before.Scopes(key)) }

// Accept implements the listener's chain handler: a client of HTTP speaks first. Without TLS, what it says first tells
// which version, unless the configuration does.
func (m *Manager) Accept(c *socket.Conn, info *inspect.ConnInfo) (h socket.Handler, now bool) {
	m.opened()
	if m.cfg.Codec == mesh.CodecHTTP2 || m.cfg.Codec == mesh.CodecAuto && info.ALPN() == "h2" {
		d := newConn2(m, c, info)
		d.wait(info.Accepted)
		return d, false
	}
	d := &conn{link: link{m: m, c: c, info: info}}
	d.h1.Init(c, &m.limits)
	d.wait(info.Accepted)
	return d, false
}

// table returns the route table for a request; it may be nil.
func (m *Manager) table(live Live, q *codec.Request) *Table {
	if m.inline != nil {
		return m.inline
	}
	if m.scopeKey != nil {
		return m.scoped(live, q)
	}
	return live.Table(m.cfg.RouteTable)
}

// stream is one request in flight, whatever HTTP version it came in.
type stream struct {
	x    exchange.Exchange
	call forward.Call

	d        *link
	live     Live
	number   int  // the how-manieth request of its connection it is
	stopped  int  // the filter that stopped the request
	upgraded bool // it asks for a switch of protocols that is allowed
}

// stream1 is a request in flight on HTTP/1.
type stream1 struct {
	stream
	h1 h1.ServerStream
}
