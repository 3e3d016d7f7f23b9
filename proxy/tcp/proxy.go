// SPDX-License-Identifier: Apache-2.0

// Package tcp forwards connections whose bytes are nobody's business: Envoy's tcp_proxy, where the way of a connection
// ends that is not HTTP (step 5). It connects to a host of the cluster at once, since servers may speak first, moves bytes
// in both directions with back-pressure, passes a half-close on, and ends in exactly one Outcome.
//
// A connection takes two workers while it lasts: the one that serves it moves what the upstream says, another what the
// client says. A direction holds a buffer only while it has bytes.
package tcp

import (
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// Live is the state that a connection is pinned to.
type Live interface {
	// Cluster returns the cluster with this name, nil where there is none.
	Cluster(name string) *upstream.Cluster
	Versions() mesh.Versions
}

// Logs are access logs. Close gives back what they hold.
type Logs interface {
	mesh.Observer
	Close()
}

// Deps are what TCP proxies need of the process.
type Deps struct {
	Log   *zap.Logger
	Stats *stats.Registry
	Live  func() Live
	Logs  func([]mesh.AccessLog) (Logs, error)
	// Observers are told of every outcome, behind the metrics and the access logs.
	Observers []mesh.Observer
}

// Proxy is the runtime of one tcp_proxy filter.
type Proxy struct {
	// Immutable.
	cfg      *mesh.TCPProxy
	listener *mesh.Listener
	chain    *mesh.FilterChain
	deps     *Deps
	numbers  *metrics.TCP
	logs     Logs
	weight   uint64

	// retired is the state at the time when the proxy was retired, with all that it names; nil before.
	retired atomic.Pointer[Live]
}

// New returns the runtime of the TCP proxy of a filter chain.
func New(l *mesh.Listener, fc *mesh.FilterChain, deps *Deps) (*Proxy, error) {
	p := &Proxy{cfg: fc.TCP, listener: l, chain: fc, deps: deps}
	for i := range p.cfg.Clusters {
		p.weight += uint64(p.cfg.Clusters[i].Weight)
	}
	logs, err := deps.Logs(p.cfg.AccessLogs)
	if err != nil {
		return nil, err
	}
	p.logs, p.numbers = logs, metrics.NewTCP(deps.Stats, fc.TCP.StatPrefix)
	return p, nil
}

// Retire implements the listener's Retirer: a connection that was taken before, and begins after, finds what there is now. It has
// all it needs from its beginning on.
func (p *Proxy) Retire() {
	now := p.deps.Live()
	p.retired.Store(&now)
}

// cluster returns the cluster of a connection that begins, nil where there is none.
func (p *Proxy) cluster(live Live, name string) *upstream.Cluster {
	c := live.Cluster(name)
	if before := p.retired.Load(); c == nil && before != nil {
		c = (*before).Cluster(name)
	}
	return c
}

// Release implements the listener's Retirer.
func (p *Proxy) Release() {
	p.retired.Store(nil)
	p.logs.Close()
	p.numbers.Release()
}

// ToOriginalDst reports whether connections may go to where they were going.
func (p *Proxy) ToOriginalDst() bool {
	for i := range p.cfg.Clusters {
		if c := p.deps.Live().Cluster(p.cfg.Clusters[i].Name); c != nil && c.Config.Discovery == mesh.OriginalDestination {
			return true
		}
	}
	return false
}

// Accept implements the listener's chain handler.
func (p *Proxy) Accept(c *socket.Conn, info *inspect.ConnInfo) (h socket.Handler, now bool) {
	return &conn{p: p, c: c, info: info}, true
}

// pick chooses a cluster by weight.
func (p *Proxy) pick(random uint64) string {
	at := random % max(p.weight, 1)
	for i := range p.cfg.Clusters {
		w := uint64(p.cfg.Clusters[i].Weight)
		if at < w {
			return p.cfg.Clusters[i].Name
		}
		at -= w
	}
	return p.cfg.Clusters[0].Name
}
