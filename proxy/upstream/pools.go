// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net/netip"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/pool"
)

// pools are a host's connections. Of http1 and http2 there are those that the cluster's protocol can need.
type pools struct {
	http1, http2 pool.Streams
	tcp          *pool.Pool // of connections that carry no HTTP, none of which is ever idle
}

func (c *Cluster) newPools(addr mesh.Address) (p pools) {
	first := func() *pool.Pool { return pool.New(c.offering("http/1.1"), addr, c.deps.Engine, c.Stats, c.deps.Dials) }
	second := func(offer ...string) *pool.Mux {
		return pool.NewMux(c.offering(offer...), addr, c.deps.Engine, c.Stats, c.deps.Dials)
	}
	switch c.Config.HTTP.Protocol {
	case mesh.UpstreamHTTP1:
		p.http1 = first()
	case mesh.UpstreamHTTP2:
		p.http2 = second("h2")
	case mesh.UpstreamAsDownstream:
		p.http1, p.http2 = first(), second("h2")
	case mesh.UpstreamNegotiated:
		p.http1 = pool.NewNegotiated(second("h2", "http/1.1"), first())
	}
	p.tcp = pool.NewSingle(c.pools, addr, c.deps.Engine, c.Stats, c.deps.Dials)
	return p
}

// offering returns how connections are made that speak one of these protocols, in order of preference. They are offered by
// ALPN where there is TLS, and its configuration does not say what to offer (Envoy's fallback).
func (c *Cluster) offering(alpn ...string) *pool.Config {
	if c.client == nil || len(c.Config.TLS.ALPN) > 0 {
		return c.pools
	}
	key := alpn[0]
	if len(alpn) > 1 {
		key = "auto"
	}
	cfg := c.offers[key]
	if cfg == nil {
		own := *c.pools
		own.Dialer.Secure = c.client.WithALPN(alpn)
		cfg = &own
		c.offers[key] = cfg
	}
	return cfg
}

// connecting is what of a cluster's configuration its connections go by.
type connecting struct {
	stats          string
	timeout        time.Duration
	source         netip.AddrPort
	keepAlive      *mesh.TCPKeepAlive
	http           mesh.UpstreamHTTP
	tls            *mesh.TLSContext
	maxConnections int
	preconnect     float64
}

func connectsBy(c *mesh.Cluster) connecting {
	return connecting{c.StatName, c.ConnectTimeout, c.BindSource, c.KeepAlive, c.HTTP, c.TLS, c.MaxConnectionsPerHost, c.Preconnect}
}

// all returns the pools that there are.
func (p *pools) all() []pool.Streams {
	list := make([]pool.Streams, 0, 3)
	for _, s := range [...]pool.Streams{p.http1, p.http2} {
		if s != nil {
			list = append(list, s)
		}
	}
	if p.tcp != nil {
		list = append(list, p.tcp)
	}
	return list
}

// closeIdle closes the HTTP connections that nobody uses.
func (p *pools) closeIdle() {
	for _, s := range p.all() {
		s.CloseIdle()
	}
}

// setHealthy says whether connections are opened ahead.
func (p *pools) setHealthy(healthy bool) {
	for _, s := range p.all() {
		s.SetHealthy(healthy)
	}
}

// drain is for a host that has left its cluster.
func (p *pools) drain() {
	for _, s := range p.all() {
		s.Drain()
	}
}
