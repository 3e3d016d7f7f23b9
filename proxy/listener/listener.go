// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/transport"
)

// listener is one listener in force: what outlives a change of its configuration.
type listener struct {
	set  *Set
	name string
	// looking are the connections that the listener filters look at.
	looking group

	// Atomic.
	cfg   atomic.Pointer[config]
	drain atomic.Bool
	// open counts the connections: those of chains, of looking, and in between.
	open atomic.Int64

	// draining are the chains that are gone from the configuration and still have connections. Guarded by set.mu.
	draining map[*chain]struct{}
}

// config is a listener's configuration, built. It does not change.
type config struct {
	*mesh.Listener
	filters  *inspect.Filters
	match    *Matcher
	chains   map[*mesh.FilterChain]*chain
	byKey    map[string]*chain
	observer mesh.Observer
	metrics  *metrics.Listener
	max      int64 // connections
	// intercepts says that connections are served by their original destination.
	intercepts bool
}

// limit is how many connections the listener may have now.
func (c *config) limit() int64 {
	if c.Listener.MaxConnectionsRuntime == nil {
		return c.max
	}
	return int64(min(c.Listener.MaxConnectionsRuntime.Integer(uint64(c.max)), math.MaxInt64))
}

// build makes the runtime of a listener's configuration. Chains of old that are of equal content are taken over.
func (l *listener) build(m *mesh.Listener, old *config) (*config, error) {
	filters, err := inspect.Compile(m.Filters, l.set.cfg.Filters, l.set.cfg.Configs)
	if err != nil {
		return nil, err
	}
	if m.UseOriginalDst {
		filters = filters.WithOriginalDst()
	}
	c := &config{
		Listener:   m,
		filters:    filters,
		chains:     map[*mesh.FilterChain]*chain{},
		byKey:      map[string]*chain{},
		max:        int64(m.MaxConnections),
		intercepts: filters.FindsOriginalDst(),
	}
	if c.max == 0 {
		c.max = DefaultPerListener
	}
	if c.match, err = NewMatcher(m); err != nil {
		return nil, err
	}
	if c.observer, err = l.set.cfg.Observer(m); err != nil {
		return nil, fmt.Errorf("access_log: %w", err)
	}
	for i, fc := range m.Chains {
		if err := l.addChain(c, fc, old, nameOf(m, i)); err != nil {
			return nil, err
		}
	}
	if m.DefaultChain != nil {
		if err := l.addChain(c, m.DefaultChain, old, "default_filter_chain"); err != nil {
			return nil, err
		}
	}
	if len(c.chains) == 0 {
		return nil, fmt.Errorf("it has no filter chain")
	}
	if name := metrics.ListenerName(m); old != nil && metrics.ListenerName(old.Listener) == name {
		c.metrics = old.metrics
	} else {
		c.metrics = metrics.NewListener(l.set.cfg.Stats, name)
	}
	return c, nil
}

func (l *listener) addChain(c *config, fc *mesh.FilterChain, old *config, name string) error {
	if ch := old.same(c.Listener, fc); ch != nil {
		c.take(fc, ch)
		return nil
	}
	ch := &chain{FilterChain: fc, listener: l}
	var err error
	if fc.Discovery != nil {
		ch.discovered, err = l.discover(c.Listener, fc)
	} else {
		ch.handler, err = l.set.cfg.Build(c.Listener, fc)
	}
	if err != nil {
		return fmt.Errorf("filter chain %s: %w", name, err)
	}
	if fc.TLS != nil {
		stats := metrics.NewListenerTLS(l.set.cfg.Stats, metrics.ListenerName(c.Listener))
		if ch.tls, err = transport.NewServer(fc.TLS, l.set.cfg.Secrets, stats); err != nil {
			stats.Release()
			return fmt.Errorf("filter chain %s: transport_socket: %w", name, err)
		}
		ch.tlsStats = stats
	}
	if o, ok := ch.handler.(OriginalDster); ok {
		ch.toOriginalDst = o.ToOriginalDst()
	}
	c.take(fc, ch)
	return nil
}

func (c *config) take(fc *mesh.FilterChain, ch *chain) {
	c.chains[fc] = ch
	if fc.Key != "" {
		c.byKey[fc.Key] = ch
	}
}

// same returns the chain of the old configuration whose handler serves fc as well: of equal content, below a listener
// that says the same about what handlers take from it.
func (c *config) same(m *mesh.Listener, fc *mesh.FilterChain) *chain {
	if c == nil || c.Direction != m.Direction || c.StatPrefix != m.StatPrefix || c.BufferLimit != m.BufferLimit ||
		c.Address != m.Address {
		return nil
	}
	if ch := c.chains[fc]; ch != nil {
		return ch
	}
	return c.byKey[fc.Key]
}

// gone returns the chains of c that next does not use.
func (c *config) gone(next *config) []*chain {
	used := map[*chain]bool{}
	for _, ch := range next.chains {
		used[ch] = true
	}
	var out []*chain
	for _, ch := range c.chains {
		if !used[ch] {
			used[ch] = true
			out = append(out, ch)
		}
	}
	return out
}

// chain is one filter chain with its handler and its connections.
type chain struct {
	*mesh.FilterChain
	listener      *listener
	handler       ChainHandler      // nil where it is discovered
	discovered    *discovered       // nil where it is not
	tls           *transport.Server // nil for plain connections
	tlsStats      *metrics.TLS      // nil likewise
	toOriginalDst bool
	drain         atomic.Bool
	conns         group
}

// Draining implements inspect.Owner.
func (ch *chain) Draining() bool { return ch.drain.Load() || ch.listener.drain.Load() }

// retire tells the handler that its configuration is about to go.
func (ch *chain) retire() {
	if ch.discovered != nil {
		ch.discovered.retire()
	}
	retire(ch.handler)
}

func retire(h ChainHandler) {
	if r, ok := h.(Retirer); ok {
		r.Retire()
	}
}

// release tells the handler that its last connection has ended.
func (ch *chain) release() {
	if ch.tlsStats != nil {
		ch.tlsStats.Release()
	}
	if ch.discovered != nil {
		ch.discovered.release()
	}
	release(ch.handler)
}

func release(h ChainHandler) {
	if r, ok := h.(Retirer); ok {
		r.Release()
	}
}
