// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

// come is what has come of one filter, and the handlers that were built of it, by the stat_prefix of their configurations.
type come struct {
	now   atomic.Pointer[mesh.Extension]
	mu    sync.Mutex
	built map[string]*counted
}

// counted is a chain's handler that counts its ends.
type counted struct {
	*toyChain
	retired, released atomic.Int64
}

func (c *counted) Retire()  { c.retired.Add(1) }
func (c *counted) Release() { c.released.Add(1) }

func discovering(t *testing.T, kind toyKind) (*rig, *come) {
	d := &come{built: map[string]*counted{}}
	var r *rig
	r = newRig(t, func(c *Config) {
		c.Configs = func(string) func() *mesh.Extension { return d.now.Load }
		c.Build = func(_ *mesh.Listener, fc *mesh.FilterChain) (ChainHandler, error) {
			if fc.Discovery != nil || fc.TCP == nil {
				return nil, errors.New("nothing is filled in")
			}
			name := fc.TCP.StatPrefix
			if name == "bad" {
				return nil, errors.New("it is bad")
			}
			h := &counted{toyChain: &toyChain{rig: r, name: name, kind: kind}}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.built[name] = h
			return h, nil
		}
	})
	return r, d
}

// set is the arrival of a configuration, as Server.SetExtension tells of it.
func (d *come) set(r *rig, name string) {
	d.now.Store(&mesh.Extension{TypeURL: "t", Config: &mesh.TCPProxy{StatPrefix: name}})
	r.set.Renew()
}

func (d *come) of(name string) *counted {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.built[name]
}

func endless() *mesh.FilterChain {
	return &mesh.FilterChain{Name: "fc", Key: "k", Discovery: &mesh.FilterDiscovery{Key: "f", Types: "t"}}
}

// A connection that comes before the configuration of its chain's end is closed, counted and told. A change is for new
// connections alone; the handler before is released with its last, once. One that cannot be built changes nothing, and a listener
// that is built anew keeps all.
func TestFilterChainComesByItself(t *testing.T) {
	t.Parallel()
	r, d := discovering(t, toyKind{})
	l := plain("l", endless())
	r.apply(l)
	r.dial("l").wantEnd()
	if o := r.waitOutcomes(1)[0]; o.Failure != mesh.InternalError || o.Details != "network_filter_config_missing" {
		t.Errorf("outcome %+v", o)
	}
	if n := r.stat(l, "network_extension_config_missing"); n != 1 {
		t.Errorf("%d are counted as missing", n)
	}
	d.now.Store(&mesh.Extension{TypeURL: "other", Config: &mesh.TCPProxy{StatPrefix: "other"}})
	r.set.Renew()
	r.dial("l").wantEnd()
	d.set(r, "one")
	old := r.dial("l")
	old.send("hello")
	old.want("one:5")
	for _, name := range []string{"two", "bad", "three"} {
		d.set(r, name)
		again := *l
		r.apply(&again)
		c := r.dial("l")
		c.send("hello")
		if name == "bad" {
			name = "two"
		}
		c.want(name + ":5")
		c.Close()
		if got := r.waitClosed(); got != name {
			t.Errorf("%s was closed, want %s", got, name)
		}
	}
	old.send("still")
	old.want("one:5")
	one, two, three := d.of("one"), d.of("two"), d.of("three")
	if one.retired.Load() != 1 || one.released.Load() != 0 || two.retired.Load() != 1 || three.retired.Load() != 0 {
		t.Errorf("one: retired %d, released %d; retired two %d, three %d", one.retired.Load(), one.released.Load(), two.retired.Load(), three.retired.Load())
	}
	old.Close()
	r.waitClosed()
	r.apply()
	r.set.Close()
	for name, h := range d.built {
		if h.retired.Load() != 1 || h.released.Load() != 1 {
			t.Errorf("%s: retired %d times, released %d", name, h.retired.Load(), h.released.Load())
		}
	}
}

// The end of a chain begins with its default; one that cannot be built refuses the listener.
func TestFilterChainDefault(t *testing.T) {
	t.Parallel()
	r, d := discovering(t, toyKind{})
	fc := endless()
	fc.Discovery.Default = &mesh.Extension{TypeURL: "t", Config: &mesh.TCPProxy{StatPrefix: "default"}}
	r.apply(plain("l", fc))
	for _, want := range []string{"default", "own"} {
		c := r.dial("l")
		c.send("hello")
		c.want(want + ":5")
		d.set(r, "own")
	}
	bad := endless()
	bad.Discovery.Default = &mesh.Extension{TypeURL: "t", Config: &mesh.TCPProxy{StatPrefix: "bad"}}
	d.now.Store(nil)
	if rej := r.set.Apply([]*mesh.Listener{plain("m", bad)}, mesh.Versions{}); len(rej) != 1 || rej[0].Name != "m" {
		t.Errorf("rejected %+v", rej)
	}
}

// A chain that would pass a connection on to where it was going closes one that was going to the listener itself, as soon as what
// has come says so.
func TestFilterChainComesToPassOn(t *testing.T) {
	t.Parallel()
	r, d := discovering(t, toyKind{toOriginal: true})
	l := plain("l", endless())
	r.apply(l)
	d.set(r, "one")
	r.dial("l").wantEnd()
	if o := r.waitOutcomes(1)[0]; o.Details != "redirect_loop" {
		t.Errorf("outcome %+v", o)
	}
}

// While the configuration changes again and again, each connection has one handler from its begin to its end, none is lost, and
// each handler is retired and released once.
func TestFilterChainChangesUnderLoad(t *testing.T) {
	t.Parallel()
	const workers, changes, each = 4, 50, 5
	r, d := discovering(t, toyKind{})
	r.apply(plain("l", endless()))
	d.set(r, "0")
	made, stop := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				c := r.dial("l")
				c.send("hello")
				first, err := c.r.ReadString('\n')
				if err == nil {
					c.send("again")
					var second string
					if second, err = c.r.ReadString('\n'); second != first {
						t.Errorf("%q, and then %q", first, second)
					}
				}
				if err != nil {
					t.Error(err)
				}
				c.Close()
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
		d.set(r, string(rune('a'+i)))
	}
	close(stop)
	wg.Wait()
	r.set.Close()
	if len(d.built) != changes+1 {
		t.Errorf("%d handlers were built", len(d.built))
	}
	for name, h := range d.built {
		if h.retired.Load() != 1 || h.released.Load() != 1 {
			t.Errorf("%s: retired %d times, released %d", name, h.retired.Load(), h.released.Load())
		}
	}
}
