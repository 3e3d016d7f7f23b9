// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/mesh"
)

// discovered is the end of a filter chain whose configuration comes by itself (ECDS): one handler for each configuration. A
// connection has the one that was in force when the chain took it, to its end; the one before is released with its last
// connection, and is not drained.
type discovered struct {
	// Immutable.
	build    func(*mesh.Extension) (ChainHandler, error)
	config   func() *mesh.Extension
	types    []string        // of the configurations that serve
	fallback *mesh.Extension // nil where there is none
	log      *zap.Logger

	// built is what was built last, or could not be. Guarded by set.mu.
	built *mesh.Extension
	now   atomic.Pointer[version] // nil until there is a configuration
}

// version is the handler of one configuration.
type version struct {
	handler       ChainHandler
	toOriginalDst bool
	// users are the connections that have it, and one more while it is in force. 0 is the end.
	users atomic.Int64
}

func (l *listener) discover(m *mesh.Listener, fc *mesh.FilterChain) (*discovered, error) {
	cfg := &l.set.cfg
	d := &discovered{
		config: cfg.Configs(fc.Discovery.Key), types: strings.Fields(fc.Discovery.Types), fallback: fc.Discovery.Default,
		log: cfg.Log.With(zap.String("listener", m.Name), zap.String("filter_chain", fc.Name)),
	}
	d.build = func(c *mesh.Extension) (ChainHandler, error) {
		whole := *fc
		whole.Discovery = nil
		whole.HTTP, _ = c.Config.(*mesh.HTTPManager)
		whole.TCP, _ = c.Config.(*mesh.TCPProxy)
		return cfg.Build(m, &whole)
	}
	return d, d.renew()
}

// renew puts into force what has come, or the default. Where it cannot be built, the one before goes on.
func (d *discovered) renew() error {
	c := d.config()
	if c == nil || !slices.Contains(d.types, c.TypeURL) { // others may name it too, and allow it to be something else
		c = d.fallback
	}
	if c == nil || c == d.built {
		return nil
	}
	d.built = c
	h, err := d.build(c)
	if err != nil {
		return err
	}
	v := &version{handler: h}
	v.users.Store(1)
	if o, ok := h.(OriginalDster); ok {
		v.toOriginalDst = o.ToOriginalDst()
	}
	if old := d.now.Swap(v); old != nil { // told while all that it was configured with is there
		old.retire()
		old.leave()
	}
	return nil
}

// take returns the version for a new connection, which is to leave it; nil where there is none.
func (d *discovered) take() *version {
	for {
		if v := d.now.Load(); v == nil || v.enter() {
			return v
		}
	}
}

// retire is that of the chain.
func (d *discovered) retire() {
	if v := d.now.Load(); v != nil {
		v.retire()
	}
}

// release is that of the chain: there is no connection any more.
func (d *discovered) release() {
	if v := d.now.Swap(nil); v != nil {
		v.leave()
	}
}

// enter counts a user, and returns false where the version has ended meanwhile.
func (v *version) enter() bool {
	for {
		n := v.users.Load()
		if n == 0 {
			return false
		}
		if v.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (v *version) leave() {
	if v.users.Add(-1) == 0 {
		release(v.handler)
	}
}

func (v *version) retire() { retire(v.handler) }

// Renew puts the configurations into force that have come for filter chains (Config.Configs), for new connections.
func (s *Set) Renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.live {
		for _, ch := range l.cfg.Load().chains {
			if ch.discovered == nil {
				continue
			}
			if err := ch.discovered.renew(); err != nil {
				ch.discovered.log.Error("the configuration of a network filter cannot be used; the one before stays", zap.Error(err))
			}
		}
	}
}
