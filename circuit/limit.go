// SPDX-License-Identifier: Apache-2.0

package circuit

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/mesh"
)

// NoLimit as a maximum admits everything. Envoy writes it as the greatest 32 bit number, so that means it too.
const NoLimit uint64 = math.MaxUint32

// Limiter counts what is in use and admits up to a maximum. The zero value has nothing in use.
//
// It is exact for the whole process: however many callers come at once, Acquire never lets more than the maximum be in
// use, and refuses nobody while fewer are. Envoy's counters may go above the maximum for a moment.
type Limiter struct {
	n atomic.Int64
	// Neighbouring limiters are on different cache lines, because requests of all cores write them.
	_ [56]byte
}

// Acquire takes one if fewer than limit are in use, and reports whether it did. Each success is ended by one Release.
func (l *Limiter) Acquire(limit uint64) bool {
	if limit >= NoLimit {
		l.Force()
		return true
	}
	for {
		n := l.n.Load()
		if n >= int64(limit) {
			return false
		}
		if l.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Force takes one whatever the limit. It is ended by one Release too.
func (l *Limiter) Force() { l.n.Add(1) }

// Release gives one back.
func (l *Limiter) Release() {
	n := l.n.Add(-1)
	invariant.Check(n >= 0, "circuit: released more than was acquired: %d in use", n)
}

// InUse returns how many are in use.
func (l *Limiter) InUse() uint64 { return uint64(max(l.n.Load(), 0)) }

// Resource is something that circuit breaker thresholds bound.
type Resource uint8

// The resources.
const (
	// Connections are those of the pool, whether they serve a request or not.
	Connections Resource = iota
	// Pending are requests that wait for a connection.
	Pending
	// Requests are those that have a stream.
	Requests
	// Retries are attempts after the first, from the decision to their end.
	Retries
	numResources
)

var resourceNames = [numResources]string{"cx", "rq_pending", "rq", "rq_retry"}

// String returns the name that the resource has in Envoy's circuit breaker gauges, before "_open".
func (r Resource) String() string { return resourceNames[r] }

// Resources is what one cluster has in use at one routing priority, against its thresholds (Envoy, "Circuit breaking").
// Counting overflows is for the caller, who knows whose they are.
type Resources struct {
	limits atomic.Pointer[mesh.Limits]
	counts [numResources]Limiter
	// backOff and refuse are what SetRetries says; their zero values change nothing.
	backOff atomic.Int64
	refuse  atomic.Uint32
}

// NewResources returns resources with nothing in use. Limits must not change afterwards.
func NewResources(limits *mesh.Limits) *Resources {
	r := new(Resources)
	r.SetLimits(limits)
	return r
}

// SetLimits replaces the thresholds. What is in use stays, also where it is more than the new ones admit.
func (r *Resources) SetLimits(limits *mesh.Limits) { r.limits.Store(limits) }

// Limits returns the thresholds in force.
func (r *Resources) Limits() mesh.Limits { return *r.limits.Load() }

// SetRetries says how long, at the most, the first retry waits where its policy does not say, 0 for the default, and what
// part of the retries is made, in percent (Envoy's upstream.base_retry_backoff_ms and upstream.use_retry).
func (r *Resources) SetRetries(backOff time.Duration, percent uint32) {
	r.backOff.Store(int64(backOff))
	r.refuse.Store(100 - min(percent, 100))
}

// Acquire takes one of k if its threshold admits it. Each success is ended by one Release.
func (r *Resources) Acquire(k Resource) bool { return r.counts[k].Acquire(r.Max(k)) }

// Force takes one of k whatever its threshold. It is for the first connection to a host, without which a request that
// waits for the host would wait for ever while other hosts use up the cluster's connections; Envoy does so too.
func (r *Resources) Force(k Resource) { r.counts[k].Force() }

// Release gives one of k back.
func (r *Resources) Release(k Resource) { r.counts[k].Release() }

// InUse returns how many of k are in use.
func (r *Resources) InUse(k Resource) uint64 { return r.counts[k].InUse() }

// Max returns the threshold of k, NoLimit where there is none. With a retry budget, that of Retries moves with the
// requests in flight.
func (r *Resources) Max(k Resource) uint64 {
	l := r.limits.Load()
	switch k {
	case Connections:
		return uint64(l.Connections)
	case Pending:
		return uint64(l.Pending)
	case Requests:
		return uint64(l.Requests)
	}
	if l.Budget != nil {
		return budget(l.Budget, r.InUse(Requests)+r.InUse(Pending))
	}
	return uint64(l.Retries)
}

// Open reports whether the next Acquire of k would be refused: Envoy's gauge circuit_breakers.<priority>.<k>_open.
func (r *Resources) Open(k Resource) bool {
	limit := r.Max(k)
	return limit < NoLimit && r.InUse(k) >= limit
}

// Remaining returns how many of k would still be admitted. Envoy's gauge remaining_retries is 0 under a retry budget,
// because it would be out of date at once; this is the number of the moment.
func (r *Resources) Remaining(k Resource) uint64 {
	limit, used := r.Max(k), r.InUse(k)
	if used >= limit {
		return 0
	}
	return limit - used
}
