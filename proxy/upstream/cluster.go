// SPDX-License-Identifier: Apache-2.0

// Package upstream is the runtime of clusters: their hosts with health, weights and pools, the limits and the circuit
// breaker that admit requests, the policy that picks a host, and what each attempt's end teaches them.
//
// It is step 10 and step 13 of a request: forward asks Admit, then Pick, uses the host's pool, and gives the Ticket back
// with how the attempt ended. A Cluster never blocks a request; membership changes swap one pointer.
//
// A cluster that a new configuration replaces hands its hosts' pools, its counters of what is in use and, where their
// settings are the same, its breaker and its ejections on to its successor, so that a change of one field costs no
// connection. Requests that are still on the old one go on undisturbed.
package upstream

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/health"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/pool"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/transport"
)

// Deps are what clusters need of the process.
type Deps struct {
	Log      *zap.Logger
	Engine   *socket.Engine
	Stats    *stats.Registry
	Notifier mesh.Notifier
	// Policies are the building side of the load balancing policies, by type URL.
	Policies map[string]lb.Builder
	// Runtime is looked at by New and Tune; nil says nothing.
	Runtime mesh.RuntimeValues
	// Own reports whether an address is one of our own intercepting listeners, which a request must not be sent to; nil
	// says never.
	Own func(netip.AddrPort) bool
	// Guard finds connections that come back to us; nil where none can.
	Guard pool.Guard
	// Secrets are what clusters name in place of certificates; nil where none does.
	Secrets *transport.Secrets
	// Dials owns the dials of all pools.
	Dials *pool.Dials
}

// Cluster is the runtime of one cluster.
type Cluster struct {
	// Config is the cluster's configuration. Stats are its numbers.
	Config *mesh.Cluster
	Stats  *metrics.Cluster

	deps    *Deps
	pools   *pool.Config
	offers  map[string]*pool.Config // guarded by mu: pools, by what their connections offer by ALPN
	client  *transport.Client       // nil where hosts are spoken to in plain text
	policy  lb.Builder
	res     [2]*circuit.Resources
	breaker *circuit.Breaker // the cluster's; nil where there is none or one for each host
	outlier *circuit.Outlier
	numbers numbers
	// used says that there has been a request, which active checks want to know.
	used atomic.Bool
	// maintenance is the share of requests in percent that the runtime has refused.
	maintenance atomic.Uint32

	now atomic.Pointer[state]
	// originals are the hosts of an original-destination cluster by netip.AddrPort, for picks without a lock.
	originals sync.Map

	mu       sync.Mutex
	hosts    map[mesh.Address]*Host // guarded by mu
	set      *mesh.EndpointSet      // guarded by mu: what discovery said last
	merges   uint64                 // guarded by mu: how often it said something
	tickAt   int64                  // guarded by mu: when outlier detection looks next
	closed   bool                   // guarded by mu
	heir     *Cluster               // guarded by mu: the successor, which has the pools
	stopping []*health.Checker      // guarded by mu: checks that joinChecks is to end
	// What the configuration or the runtime says, guarded by mu: tuned is the runtime's generation that was looked at.
	tuned          uint64
	panicThreshold float64
	interval       time.Duration
}

// state is the hosts at one moment. It is immutable but for next.
type state struct {
	hosts   []*Host
	set     *lb.Set
	version string
	next    *forecast // nil where nothing is picked ahead
}

// numbers are the parts of a cluster's metrics that not every cluster has; nil where this one does not.
type numbers struct {
	limits  [2]*metrics.Limits
	outlier *metrics.Outlier
	health  *metrics.HealthCheck
	circuit *metrics.Circuit
	tls     *metrics.TLS
	http2   *metrics.HTTP2
}

// New returns the runtime of a cluster. prev is the one that it replaces, nil where there is none. Endpoints of a static
// cluster are in force at once; others come with SetEndpoints.
func New(cfg *mesh.Cluster, deps *Deps, prev *Cluster) *Cluster {
	name := cfg.StatName
	if name == "" {
		name = cfg.Name
	}
	c := &Cluster{
		Config: cfg,
		Stats:  metrics.NewCluster(deps.Stats, name),
		deps:   deps,
		pools:  poolConfig(cfg, deps.Guard),
		policy: deps.Policies[cfg.Policy.TypeURL],
		offers: map[string]*pool.Config{},
		hosts:  map[mesh.Address]*Host{},
		set:    &mesh.EndpointSet{},

		panicThreshold: cfg.PanicThreshold,
	}
	c.secure(name)
	if cfg.HTTP.Protocol != mesh.UpstreamHTTP1 {
		c.numbers.http2 = metrics.NewClusterHTTP2(deps.Stats, name)
		c.pools.H2.Stats = c.numbers.http2
	}
	c.pools.Panicked = c.panicked
	c.now.Store(&state{set: lb.NewSet(nil, lb.Options{Build: c.policy}, nil)})
	now := mono.Now()
	for p := range c.res {
		c.res[p] = circuit.NewResources(&cfg.Limits[p])
	}
	if b := cfg.Breaker; b != nil && !b.PerHost {
		c.breaker = circuit.NewBreaker(*b, now)
	}
	if cfg.Outlier != nil {
		c.outlier = circuit.NewOutlier(*cfg.Outlier)
		c.interval = cfg.Outlier.Interval
		c.tickAt = now + int64(c.interval)
	}
	if prev != nil {
		c.inherit(prev)
	}
	c.tune()
	c.count(name)
	if cfg.Discovery == mesh.Static && cfg.Endpoints != nil {
		c.SetEndpoints(cfg.Endpoints)
	}
	return c
}

// inherit takes over what is not the configuration's: what is in use, what was learnt, and the connections.
func (c *Cluster) inherit(prev *Cluster) {
	c.used.Store(prev.used.Load())
	for p := range c.res {
		c.res[p] = prev.res[p]
		c.res[p].SetLimits(c.limits(p))
	}
	if c.breaker != nil && prev.breaker != nil && reflect.DeepEqual(c.Config.Breaker, prev.Config.Breaker) {
		c.breaker = prev.breaker
	}
	samePools := reflect.DeepEqual(connectsBy(c.Config), connectsBy(prev.Config))
	sameRules := reflect.DeepEqual(c.Config.Outlier, prev.Config.Outlier)
	sameBreaker := reflect.DeepEqual(c.Config.Breaker, prev.Config.Breaker)
	sameChecks := reflect.DeepEqual(c.Config.HealthChecks, prev.Config.HealthChecks)
	prev.mu.Lock()
	defer prev.mu.Unlock()
	if sameRules {
		c.outlier, c.tickAt = prev.outlier, prev.tickAt
	}
	prev.heir = c
	for addr, h := range prev.hosts {
		n := &Host{Address: addr, cluster: c, lbHost: &lb.Host{}, outlier: &circuit.HostState{}}
		if samePools {
			n.pools = h.pools
		} else {
			h.pools.drain()
		}
		if sameRules {
			n.outlier = h.outlier
		}
		if sameBreaker {
			n.breaker = h.breaker
		}
		n.checked.Store(c.assume(h.checked.Load(), sameChecks))
		if c.Config.Discovery == mesh.OriginalDestination && prev.Config.Discovery == c.Config.Discovery {
			n.info.Store(h.info.Load())
			n.used.Store(h.used.Load())
			c.originals.Store(addr.IP, c.complete(n))
		}
		c.hosts[addr] = n
	}
}

// assume returns what is taken to be the result of a host's active check before there is one. Where the checks are
// others than before, a host that was in service stays so until they say no: in Envoy the cluster that is replaced serves
// until then.
func (c *Cluster) assume(was uint32, sameChecks bool) uint32 {
	switch {
	case len(c.Config.HealthChecks) == 0:
		return unchecked
	case sameChecks:
		return was
	case was == unchecked || passes(was):
		return checkPassed
	}
	return checkPending
}

func poolConfig(cfg *mesh.Cluster, guard pool.Guard) *pool.Config {
	lim := h1.Defaults()
	if cfg.HTTP.MaxHeaderBytes > 0 {
		lim.HeadBytes = cfg.HTTP.MaxHeaderBytes
	}
	if cfg.HTTP.MaxHeaderCount > 0 {
		lim.Fields = cfg.HTTP.MaxHeaderCount
	}
	second := h2.From(&cfg.HTTP.HTTP2)
	second.HeadBytes, second.Fields = lim.HeadBytes, lim.Fields
	p := &pool.Config{
		H2:             second,
		Guard:          guard,
		H1:             lim,
		MaxRequests:    cfg.HTTP.MaxRequestsPerConnection,
		IdleTimeout:    cfg.HTTP.IdleTimeout,
		MaxDuration:    cfg.HTTP.MaxConnectionDuration,
		MaxConnections: cfg.MaxConnectionsPerHost,
		Preconnect:     cfg.Preconnect,
	}
	p.Dialer.Timeout = cfg.ConnectTimeout
	p.Dialer.Source = cfg.BindSource
	if k := cfg.KeepAlive; k != nil {
		const system = -1 // package net takes 0 for a default of its own
		p.Dialer.KeepAlive = net.KeepAliveConfig{
			Enable: true,
			Count:  cmp.Or(k.Probes, system), Idle: cmp.Or(k.Time, system), Interval: cmp.Or(k.Interval, system),
		}
	}
	return p
}

// panicked tells of a panic that has cost an upstream connection.
func (c *Cluster) panicked(v any) {
	c.deps.Log.Error("an upstream connection's handling panicked; it was closed", zap.String("cluster", c.Config.Name),
		zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
}

// Limits returns the thresholds in force, by priority.
func (c *Cluster) Limits() [2]mesh.Limits {
	return [2]mesh.Limits{c.res[0].Limits(), c.res[1].Limits()}
}

// Resources returns what is in use at a priority.
func (c *Cluster) Resources(p mesh.Priority) *circuit.Resources { return c.res[p] }

// EndpointVersion returns the version of the endpoints in force.
func (c *Cluster) EndpointVersion() string { return c.now.Load().version }

// Hosts returns the hosts of the moment. The caller must not change the slice.
func (c *Cluster) Hosts() []*Host {
	if c.Config.Discovery != mesh.OriginalDestination {
		return c.now.Load().hosts
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.hosts))
}

// Breaker returns the cluster's circuit, nil where it has none of its own.
func (c *Cluster) Breaker() *circuit.Breaker { return c.breaker }

// Close ends what the cluster does by itself, and its idle connections unless a successor has them. Requests that still
// hold it are served to their end. It may be called more than once.
func (c *Cluster) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	for _, h := range c.hosts {
		c.stopCheck(h)
		if c.heir == nil && h.pools.tcp != nil {
			h.pools.drain()
		}
	}
	c.mu.Unlock()
	c.joinChecks()
	c.release()
}

// seed gives each build of a set another place to start, so that many proxies do not start with the same host.
func seed() uint64 { return rand.Uint64() }
