// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
)

// counted is a filter that counts the requests it has, from their first call to their end, and its own end.
type counted struct {
	name         string
	seen, active atomic.Int64
	closed       atomic.Int64
}

func (c *counted) OnRequest(x *exchange.Exchange) (Verdict, []byte) {
	c.seen.Add(1)
	c.active.Add(1)
	x.Outcome.Details = c.name
	return Continue, nil
}

func (c *counted) OnResponse(x *exchange.Exchange) { x.Outcome.Details += " " + c.name }
func (c *counted) OnEnd(*exchange.Exchange)        { c.active.Add(-1) }

func (c *counted) Close() {
	if c.closed.Add(1) > 1 || c.active.Load() != 0 {
		panic(fmt.Sprint("closed again, or with requests: ", c.name))
	}
}

// built makes counted filters of configurations that are their names.
type built struct {
	mu   sync.Mutex
	made map[string]*counted
}

func (b *built) build(config any, _ Deps) (Filter, error) {
	name := config.(string)
	if name == "bad" {
		return nil, errors.New("it is bad")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &counted{name: name}
	b.made[name] = c
	return c, nil
}

func (b *built) of(name string) *counted {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.made[name]
}

func named(name string) *mesh.Extension { return &mesh.Extension{TypeURL: "t", Config: name} }

func discovered(t *testing.T, c *Configs, def *mesh.Extension) (*Discovered, *built) {
	t.Helper()
	b := &built{made: map[string]*counted{}}
	d, err := NewDiscovered(&mesh.FilterDiscovery{Key: "k", Types: "t", Default: def}, c, map[string]Builder{"t": b.build}, Deps{Name: "f"}, 1, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return d, b
}

// TestDiscovered: without a configuration requests are answered 500; a new one is for new requests alone, and the one before
// ends with its last request. One that cannot be built changes nothing.
func TestDiscovered(t *testing.T) {
	t.Parallel()
	configs := NewConfigs()
	d, b := discovered(t, configs, nil)
	chain := Chain{{Name: "f", Filter: d}}

	none := &exchange.Exchange{}
	stopped, _ := chain.Request(none)
	chain.Response(none, stopped)
	chain.End(none)
	if stopped != 0 || none.Response.Status != 500 || none.Outcome.Flags != mesh.FlagNFCF || none.Outcome.Details != "missing_filter_config" {
		t.Errorf("without a configuration: stopped at %d, %d, %v, %q", stopped, none.Response.Status, none.Outcome.Flags, none.Outcome.Details)
	}

	configs.Set("k", named("one"))
	long := &exchange.Exchange{}
	chain.Request(long)
	for _, name := range []string{"two", "bad", "three"} {
		configs.Set("k", named(name))
		x := &exchange.Exchange{}
		stopped, _ = chain.Request(x)
		chain.Response(x, stopped)
		chain.End(x)
		want := name
		if name == "bad" {
			want = "two"
		}
		if x.Outcome.Details != want+" "+want {
			t.Errorf("with %s in force: %q", name, x.Outcome.Details)
		}
	}
	if b.of("one").closed.Load() != 0 || b.of("two").closed.Load() != 1 {
		t.Errorf("closed: one %d, two %d", b.of("one").closed.Load(), b.of("two").closed.Load())
	}
	chain.Response(long, 1)
	chain.End(long)
	if long.Outcome.Details != "one one" || b.of("one").closed.Load() != 1 {
		t.Errorf("the long request had %q, its filter was closed %d times", long.Outcome.Details, b.of("one").closed.Load())
	}
	// What nothing names any more is forgotten; who is on the way out keeps it.
	configs.Set("k", nil)
	x := &exchange.Exchange{}
	if stopped, _ := chain.Request(x); stopped != 1 {
		t.Error("it stopped")
	}
	chain.End(x)
	chain.Close()
	if b.of("three").closed.Load() != 1 {
		t.Error("the last one was not closed")
	}
}

// TestDiscoveredDefault: the default serves until a configuration comes, and not after.
func TestDiscoveredDefault(t *testing.T) {
	t.Parallel()
	configs := NewConfigs()
	d, b := discovered(t, configs, named("default"))
	configs.Set("k", &mesh.Extension{TypeURL: "other", Config: 1})
	for _, want := range []string{"default", "own"} {
		x := &exchange.Exchange{}
		d.OnRequest(x)
		d.OnEnd(x)
		if x.Outcome.Details != want {
			t.Errorf("got %q, want %q", x.Outcome.Details, want)
		}
		configs.Set("k", named("own"))
	}
	d.Close()
	if b.of("default").closed.Load() != 1 || b.of("own").closed.Load() != 1 {
		t.Error("not closed")
	}
	if _, err := NewDiscovered(&mesh.FilterDiscovery{Default: named("bad")}, configs, map[string]Builder{"t": b.build}, Deps{}, 1, zap.NewNop()); err == nil {
		t.Error("a default that cannot be built is taken")
	}
}

// TestDiscoveredUnderLoad: while the configuration changes again and again, each request has one filter from its begin to its
// end, none is lost, and each filter is closed once, without requests.
func TestDiscoveredUnderLoad(t *testing.T) {
	t.Parallel()
	const workers, changes, each = 4, 200, 10
	configs := NewConfigs()
	configs.Set("k", named("0"))
	d, b := discovered(t, configs, nil)
	chain := Chain{{Name: "f", Filter: d}}
	made, stop := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	var requests atomic.Int64
	for range workers {
		wg.Go(func() {
			for {
				x := &exchange.Exchange{}
				stopped, _ := chain.Request(x)
				first := x.Outcome.Details
				chain.Response(x, stopped)
				chain.End(x)
				requests.Add(1)
				if stopped != 1 || x.Outcome.Details != first+" "+first {
					t.Errorf("stopped at %d with %q", stopped, x.Outcome.Details)
				}
				select {
				case made <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	for i := range changes {
		for range each {
			<-made
		}
		configs.Set("k", named(fmt.Sprint(i+1)))
	}
	close(stop)
	wg.Wait()
	chain.Close()
	var seen int64
	for name, c := range b.made {
		seen += c.seen.Load()
		if c.closed.Load() != 1 || c.active.Load() != 0 {
			t.Errorf("%s was closed %d times, with %d requests", name, c.closed.Load(), c.active.Load())
		}
	}
	if seen != requests.Load() {
		t.Errorf("%d requests were seen of %d", seen, requests.Load())
	}
}
