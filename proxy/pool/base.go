// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Stream is one attempt's stream together with the connection that it is on.
type Stream interface {
	codec.ClientStream
	// LocalAddr is our address of the connection, Protocol what it speaks.
	LocalAddr() netip.AddrPort
	Protocol() mesh.Protocol
	// Failed counts a stream that did not end as it should; Abort is called next.
	Failed(kind mesh.FailureKind)
	// ResetTunnel makes the Abort of a tunnel that ended badly a reset, so that the upstream does not take what it has for
	// all.
	ResetTunnel()
}

// Streams are where a host's streams come from: a *Pool or a *Mux.
type Streams interface {
	// Stream begins an exchange. With fresh it is on a connection that has not served before, where the protocol has one
	// exchange at a time: for a request that has just met a stale one. The error is a *mesh.Failure, or the reason for which
	// the worker was interrupted.
	Stream(w *socket.Worker, res *circuit.Resources, fresh bool) (Stream, error)
	// Drain is for a host that has left its cluster: nothing is kept from now on. CloseIdle closes what nobody uses.
	Drain()
	CloseIdle()
	// SetHealthy says whether connections are opened ahead. Predict opens one for a stream that is to be expected, unless
	// there are enough for ratio times the streams that there are, or a limit is reached; it reports whether it did.
	SetHealthy(healthy bool)
	Predict(res *circuit.Resources, ratio float64) (opened bool)
	// Open is the number of connections, Tried how many were to be opened so far and how many of these could not be.
	Open() int
	Tried() (all, failed int64)
}

// Guard finds connections that come back to the proxy that made them.
type Guard interface {
	// Dialed tells of a new connection; false means that it goes in a circle and must be closed. Gone follows otherwise.
	Dialed(local, remote netip.AddrPort) (ok bool)
	Gone(local, remote netip.AddrPort)
}

// Config is what the pools of a cluster have in common. It is immutable.
type Config struct {
	Dialer socket.Dialer
	// Guard is told of every TCP connection; nil where no connection can come back.
	Guard Guard
	// H1 and H2 bound what the upstream may send.
	H1 h1.Limits
	H2 h2.Config
	// Panicked is told of a panic in a connection's own turn, which ends that connection alone. It must be set for HTTP/2.
	Panicked func(v any)
	// MaxRequests bounds the requests of one connection; 0 does not.
	MaxRequests int
	// IdleTimeout closes a connection that was idle for so long; one that is as old as MaxDuration is not used again. 0
	// does neither.
	IdleTimeout, MaxDuration time.Duration
	// MaxConnections bounds the connections to one host; 0 does not.
	MaxConnections int
	// Preconnect is for how many streams, for each that is open or waits, there are to be connections (Envoy's
	// per_upstream_preconnect_ratio); up to 1 opens none ahead.
	Preconnect float64
}

// base is what a Pool and a Mux have in common: who waits for a connection, and the limits on opening one.
type base struct {
	cfg    *Config
	addr   mesh.Address
	engine *socket.Engine
	stats  *metrics.Cluster
	dials  *Dials

	tried, missed atomic.Int64 // connections that were to be opened, and those that could not be

	mu       sync.Mutex
	waiting  []*waiter
	open     int // connections, idle or not
	dialing  int
	draining bool
	// unhealthy says that nothing is opened ahead, as in Envoy: it would be work for nothing.
	unhealthy bool
}

// waiter is a request that waits for a connection.
type waiter struct {
	w     *socket.Worker
	res   *circuit.Resources
	fresh bool // it wants one that has not served before
	conn  *Conn
	lease *lease
	fail  *mesh.Failure
}

func overflow(detail string) *mesh.Failure {
	return &mesh.Failure{Kind: mesh.Overflow, Side: mesh.SideInternal, Retry: mesh.RetryAlways, Detail: detail}
}

// pend counts a request that will wait, as far as that is allowed; unpend follows.
func (b *base) pend(w *socket.Worker, res *circuit.Resources) (ok bool) {
	if !res.Acquire(circuit.Pending) {
		return false
	}
	b.stats.Inc(w.Shard, metrics.UpstreamRqPendingTotal)
	b.stats.Inc(w.Shard, metrics.UpstreamRqPendingActive)
	return true
}

func (b *base) unpend(w *socket.Worker, res *circuit.Resources) {
	b.stats.Dec(w.Shard, metrics.UpstreamRqPendingActive)
	res.Release(circuit.Pending)
}

// wait sleeps until wt has a connection. With an error it may have one all the same, which is the caller's to give back:
// the reason to stop is told once, and would be lost.
func (b *base) wait(wt *waiter) error {
	for {
		err := wt.w.Sleep()
		b.mu.Lock()
		served, fail := wt.conn != nil || wt.lease != nil, wt.fail
		if !served && fail == nil && err != nil {
			b.waiting = slices.DeleteFunc(b.waiting, func(o *waiter) bool { return o == wt })
		}
		b.mu.Unlock()
		switch {
		case err != nil:
			b.stats.Inc(wt.w.Shard, metrics.UpstreamRqCancelled)
			return err
		case served:
			return nil
		case fail != nil:
			return fail
		}
	}
}

// admit takes a place for one more connection, where the limits allow it. Where the cluster's limit is reached by other
// hosts and this one has no connection at all, one is opened all the same: nothing would ever come free here for the
// request that waits (Envoy does so too). b.mu is held.
func (b *base) admit(res *circuit.Resources) bool {
	if (b.cfg.MaxConnections == 0 || b.open+b.dialing < b.cfg.MaxConnections) && res.Acquire(circuit.Connections) {
		return true
	}
	b.stats.Inc(0, metrics.UpstreamCxOverflow)
	if b.open+b.dialing == 0 {
		res.Force(circuit.Connections)
		return true
	}
	return false
}

// preconnects bounds the connections that one request has opened ahead, as in Envoy.
const preconnects = 3

// short reports whether there is room for fewer streams than are to be expected: capacity is what the connections that
// there are, or are being made, could still take. b.mu is held.
func (b *base) short(active, capacity int) bool {
	expected := float64(len(b.waiting)+active) * b.cfg.Preconnect
	return b.cfg.Preconnect > 1 && !b.draining && !b.unhealthy && expected > float64(capacity+active)
}

// SetHealthy implements Streams.
func (b *base) SetHealthy(healthy bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unhealthy = !healthy
}

// predict takes a place for a connection that a stream which has not come yet would need, where there is to be one: see
// short. b.mu is held.
func (b *base) predict(res *circuit.Resources, ratio float64, active, capacity int) bool {
	switch {
	case b.draining, b.unhealthy, float64(len(b.waiting)+active+1)*ratio <= float64(capacity+active),
		b.cfg.MaxConnections > 0 && b.open+b.dialing >= b.cfg.MaxConnections, !res.Acquire(circuit.Connections):
		return false
	}
	b.dialing++
	return true
}

// fail tells the i-th of the queue, if there is one. b.mu is held.
func (b *base) fail(i int, f *mesh.Failure) {
	if i >= len(b.waiting) {
		return
	}
	wt := b.waiting[i]
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.stats.Inc(wt.w.Shard, metrics.UpstreamRqPendingFailureEject)
	wt.fail = f
	wt.w.Signal()
}

// leave takes a connection out of the count. b.mu is held.
func (b *base) leave(res *circuit.Resources) {
	b.open--
	res.Release(circuit.Connections)
}

// Open implements Streams.
func (b *base) Open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// Tried implements Streams.
func (b *base) Tried() (all, failed int64) { return b.tried.Load(), b.missed.Load() }
