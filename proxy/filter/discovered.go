// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
)

// Configs are the configurations of filters that come by themselves (ECDS), by key. They may be used by many goroutines.
type Configs struct {
	mu    sync.Mutex
	byKey map[string]*slot // guarded by mu
}

// slot is the place of one configuration: nil until it comes.
type slot struct {
	now atomic.Pointer[mesh.Extension]
}

// NewConfigs returns a table without configurations.
func NewConfigs() *Configs { return &Configs{byKey: map[string]*slot{}} }

// Set puts a configuration into force, for new requests. A nil one gives its place back, since nothing new names it; filters
// that are on their way out keep what they have.
func (c *Configs) Set(key string, config *mesh.Extension) {
	if config == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.byKey, key)
		return
	}
	c.slot(key).now.Store(config)
}

// Place returns where the configuration with a key is: what it returns gives nil before one has come, and may be called by
// many goroutines.
func (c *Configs) Place(key string) func() *mesh.Extension { return c.slot(key).now.Load }

func (c *Configs) slot(key string) *slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.byKey[key]
	if s == nil {
		s = &slot{}
		c.byKey[key] = s
	}
	return s
}

// Discovered is a filter whose configuration comes by itself. A request has the filter that was in force at its begin, to
// its end; the one before is closed with its last request. Without a configuration, requests are answered 500.
type Discovered struct {
	// Immutable. own is the place where a request keeps its filter.
	slot     *slot
	fallback *mesh.Extension // nil where there is none
	builders map[string]Builder
	deps     Deps
	own      int
	log      *zap.Logger

	now atomic.Pointer[version]
	mu  sync.Mutex // held while a filter is built
}

// version is a filter with the configuration that it was built of. The filter is nil where it could not be.
type version struct {
	config *mesh.Extension
	filter Filter
	// users are the requests that have it, and one more while it is in force. 0 is the end.
	users atomic.Int64
}

// NewDiscovered returns the filter for d. deps.Place is that of the filter itself, and own another one.
func NewDiscovered(d *mesh.FilterDiscovery, configs *Configs, builders map[string]Builder, deps Deps, own int, log *zap.Logger) (*Discovered, error) {
	x := &Discovered{
		slot: configs.slot(d.Key), fallback: d.Default, builders: builders, deps: deps, own: own, log: log,
	}
	first := x.config()
	if first == nil {
		return x, nil
	}
	f, err := x.build(first)
	if err != nil {
		return nil, err
	}
	x.put(first, f)
	return x, nil
}

// config returns what is to be in force. What has come may be something else, where others that name it allow that.
func (d *Discovered) config() *mesh.Extension {
	if c := d.slot.now.Load(); c != nil && d.builders[c.TypeURL] != nil {
		return c
	}
	return d.fallback
}

func (d *Discovered) build(c *mesh.Extension) (Filter, error) {
	b := d.builders[c.TypeURL]
	if b == nil {
		return nil, fmt.Errorf("no filter for %s", c.TypeURL)
	}
	return b(c.Config, d.deps)
}

func (d *Discovered) put(c *mesh.Extension, f Filter) *version {
	v := &version{config: c, filter: f}
	v.users.Store(1)
	if old := d.now.Swap(v); old != nil {
		old.leave()
	}
	return v
}

// take returns the filter for a request that begins now, nil where there is none. It is to be left.
func (d *Discovered) take() *version {
	for {
		v := d.now.Load()
		if v == nil || v.config != d.config() {
			if v = d.renew(); v == nil {
				return nil
			}
		}
		if v.enter() {
			return v
		}
	}
}

// renew builds the filter of another configuration. Where that fails, the one before goes on.
func (d *Discovered) renew() *version {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, c := d.now.Load(), d.config() // read here, so that none is built again that was replaced meanwhile
	if c == nil || v != nil && v.config == c {
		return v
	}
	f, err := d.build(c)
	if err != nil {
		d.log.Error("the configuration of a filter cannot be used", zap.String("filter", d.deps.Name), zap.String("type", c.TypeURL), zap.Error(err))
		if v != nil {
			f = keep{v}
			v.enter()
		}
	}
	return d.put(c, f)
}

// keep is the filter of an earlier version in the place of one that could not be built.
type keep struct{ v *version }

// OnRequest implements Filter.
func (k keep) OnRequest(x *exchange.Exchange) (Verdict, []byte) { return k.v.filter.OnRequest(x) }

// OnResponse implements Filter.
func (k keep) OnResponse(x *exchange.Exchange) { k.v.filter.OnResponse(x) }

// OnEnd implements Ender.
func (k keep) OnEnd(x *exchange.Exchange) { onEnd(k.v.filter, x) }

// Close implements Closer.
func (k keep) Close() { k.v.leave() }

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
		if c, ok := v.filter.(Closer); ok {
			c.Close()
		}
	}
}

// of returns the version that a request has, which it takes with its first call.
func (d *Discovered) of(x *exchange.Exchange) *version {
	if v, ok := x.Kept(d.own).(*version); ok {
		return v
	}
	v := d.take()
	x.Keep(d.own, v)
	return v
}

// OnRequest implements Filter.
func (d *Discovered) OnRequest(x *exchange.Exchange) (Verdict, []byte) {
	v := d.of(x)
	if v == nil || v.filter == nil {
		x.Outcome.Flags |= mesh.FlagNFCF
		x.Answer(500, "missing_filter_config", nil)
		return Stop, nil
	}
	return v.filter.OnRequest(x)
}

// OnResponse implements Filter.
func (d *Discovered) OnResponse(x *exchange.Exchange) {
	if v := d.of(x); v != nil && v.filter != nil {
		v.filter.OnResponse(x)
	}
}

// OnEnd implements Ender.
func (d *Discovered) OnEnd(x *exchange.Exchange) {
	v, _ := x.Kept(d.own).(*version)
	if v == nil {
		return
	}
	onEnd(v.filter, x)
	x.Keep(d.own, nil)
	v.leave()
}

func onEnd(f Filter, x *exchange.Exchange) {
	if e, ok := f.(Ender); ok {
		e.OnEnd(x)
	}
}

// Close implements Closer. There is no request any more.
func (d *Discovered) Close() {
	if v := d.now.Swap(nil); v != nil {
		v.leave()
	}
}

// Interface guards.
var (
	_ Filter = (*Discovered)(nil)
	_ Ender  = (*Discovered)(nil)
	_ Closer = (*Discovered)(nil)
)
