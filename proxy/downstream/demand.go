// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/route"
	"github.com/meshtap/meshtap/proxy/socket"
)

const (
	// maxHeld bounds the requests of the process that wait for virtual hosts, and heldFor each of these waits. Envoy bounds
	// neither.
	maxHeld = 1024
	heldFor = 6 * time.Second
)

// Demands are the requests that wait for virtual hosts which are asked for on demand. Each sleeps in its own worker.
type Demands struct {
	// ask asks for a virtual host among those that come to a table, and does not block; false says that it cannot.
	ask func(hostSet, host string) bool

	mu      sync.Mutex
	waiting map[wanted][]*held // guarded by mu
	held    int                // guarded by mu
}

// wanted is a virtual host that is asked for.
type wanted struct{ hostSet, host string }

// held is one request that waits.
type held struct {
	worker *socket.Worker
	done   atomic.Bool
}

// NewDemands returns Demands without requests.
func NewDemands(ask func(hostSet, host string) bool) *Demands {
	return &Demands{ask: ask, waiting: map[wanted][]*held{}}
}

// Answered lets the requests go on that wait for a virtual host: what came of it is in force.
func (d *Demands) Answered(hostSet, host string) {
	d.mu.Lock()
	key := wanted{hostSet, host}
	list := d.waiting[key]
	delete(d.waiting, key)
	d.held -= len(list)
	d.mu.Unlock()
	for _, h := range list {
		h.done.Store(true)
		h.worker.Signal()
	}
}

// join adds a request, and asks for the first one. It returns false where the request cannot be held.
func (d *Demands) join(key wanted, h *held) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held >= maxHeld || len(d.waiting[key]) == 0 && !d.ask(key.hostSet, key.host) {
		return false
	}
	d.waiting[key] = append(d.waiting[key], h)
	d.held++
	return true
}

// leave takes out a request that does not wait any longer.
func (d *Demands) leave(key wanted, h *held) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.waiting[key]
	for i := range list {
		if list[i] != h {
			continue
		}
		list[i] = list[len(list)-1]
		if d.waiting[key] = list[:len(list)-1]; len(list) == 1 {
			delete(d.waiting, key)
		}
		d.held--
		return
	}
}

// wait holds the request of x until its virtual host has come, or will not.
func (d *Demands) wait(x *exchange.Exchange, key wanted) error {
	h := &held{worker: x.Worker}
	if !d.join(key, h) {
		return nil
	}
	defer d.leave(key, h)
	until := mono.Now() + int64(heldFor)
	t := time.AfterFunc(heldFor, x.Worker.Signal)
	defer t.Stop()
	for !h.done.Load() && mono.Now() < until {
		if err := x.Worker.Sleep(); err != nil {
			return err
		}
	}
	return nil
}

// demand holds a request for a virtual host that is not there, where the configuration says so, and looks for its route once
// more. It returns the reason where the request ended meanwhile.
func (st *stream) demand() error {
	x, m := &st.x, st.d.m
	if m.onDemand == "" || m.deps.Demands == nil || x.Table == nil || x.Table.HostSet == "" || x.Match.Host != nil {
		return nil
	}
	if o, ok := filter.Override(x, m.onDemand); ok && o.Disabled {
		return nil
	}
	domain, ok := route.Domain(x.Table, x.Request.Authority)
	if !ok {
		return nil
	}
	x.ClearDeadline(exchange.ReadDeadline) // it is for the client to send its request, which is not read meanwhile
	if x.Request.Length == 0 {
		x.RequestRead()
	}
	x.WatchClient()
	if err := m.deps.Demands.wait(x, wanted{x.Table.HostSet, domain}); err != nil {
		return err
	}
	if x.Request.Length != 0 {
		x.After(exchange.ReadDeadline, m.cfg.RequestTimeout)
	}
	st.live = m.state()
	x.Outcome.Versions = st.live.Versions()
	t := m.table(st.live, &x.Request)
	st.tell(t)
	if t != nil {
		x.Match = t.Routes.Match(&x.Request, x.RouteRandom)
	}
	return nil
}
