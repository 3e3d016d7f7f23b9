// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"fmt"
	"hash/maphash"
	"math"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
)

// Policy says which requests and connections there are events of, and what of them is told. It is immutable. A route
// carries one in its PerFilter, and so in mesh.Outcome.Policy.
type Policy struct {
	Off bool
	// OneIn keeps one of so many; 0 and 1 keep all.
	OneIn uint32
	// Slow is from when on a request is slow, in nanoseconds; 0 means DefaultSlow.
	Slow int64
	// Mask is what is told.
	Mask Mask
	// Filter, where it is not nil, says of which there are events. It sees what Mask does not tell.
	Filter *filter.Filter
}

// Selection is a policy for what matches all of its names; "" matches all.
type Selection struct {
	Listener, Route, Cluster string
	Policy                   *Policy
}

// The limits of policies.
const (
	DefaultSlow   = int64(time.Second)
	MaxOneIn      = 1_000_000
	MaxSelections = 64
)

// Mask is which fields of an event are told. The zero value tells all.
type Mask struct {
	// Limited says that nothing is told but what is in Texts and Numbers, the trace with Trace, and the tries with Tries.
	Limited, Trace, Tries bool
	Texts, Numbers        uint64
	// Redacted are texts whose value is replaced.
	Redacted uint64
}

func (m *Mask) isZero() bool { return !m.Limited && m.Redacted == 0 }

// selects returns the policy of an outcome.
func (s *settings) selects(o *mesh.Outcome) *Policy {
	if p, ok := o.Policy.(*Policy); ok {
		return p
	}
	for i := range s.cfg.Selections {
		c := &s.cfg.Selections[i]
		if (c.Listener == "" || c.Listener == o.Listener) && (c.Route == "" || c.Route == o.RouteName) &&
			(c.Cluster == "" || c.Cluster == o.Cluster) {
			return c.Policy
		}
	}
	return &s.cfg.Policy
}

// important tells what no sampling leaves out: errors, and what was slow, repeated, refused by a circuit or answered
// instead of it.
func (p *Policy) important(o *mesh.Outcome) bool {
	slow := p.Slow
	if slow == 0 {
		slow = DefaultSlow
	}
	return o.Failure != mesh.NoFailure || o.Status >= 500 || o.GRPC && grpcwire.HTTPStatus(o.GRPCStatus) >= 500 ||
		o.Duration >= slow || o.Attempts > 1 || o.Fallback || o.Circuit > mesh.CircuitClosed
}

// rate returns for how many an outcome stands that is kept; 0 where it is left out.
func (p *Policy) rate(o *mesh.Outcome, trace []byte, important bool) uint32 {
	if p.OneIn <= 1 || important {
		return 1
	}
	id := o.RequestID
	if len(id) > maxRequestID || !isRequestID(id) {
		id = nil
	}
	if sampleHash(trace, id, o.ConnectionID, o.Start) > math.MaxUint64/uint64(p.OneIn) {
		return 0
	}
	return p.OneIn
}

// sampleHash is the number by which events are sampled. It is the same in every proxy that sees the same trace, or else
// the same request id; what has neither is sampled by itself. With a rate of n, those up to 2^64/n are kept, so that a
// higher rate keeps a part of what a lower one keeps.
func sampleHash(trace, requestID []byte, connection uint64, start int64) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	add := func(b []byte) {
		for _, c := range b {
			h = (h ^ uint64(c)) * prime
		}
	}
	switch {
	case isTraceParent(trace):
		add(trace[3:35])
	case len(requestID) > 0:
		add(requestID)
	default:
		h ^= connection*0x9e3779b97f4a7c15 + uint64(start)
	}
	// FNV does not spread to the upper bits (the finalizer is MurmurHash3's).
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// apply takes out of an event what is not to be told. scratch holds what it writes.
func (m *Mask) apply(e *event.Event, seed maphash.Seed, scratch []byte) []byte {
	if m.Limited {
		for i := range e.Texts {
			if m.Texts>>i&1 == 0 {
				e.Texts[i] = nil
			}
		}
		for i := range e.Numbers {
			if m.Numbers>>i&1 == 0 {
				e.Numbers[i] = event.Default(event.Number(i))
			}
		}
		if !m.Trace {
			e.TraceParent = nil
		}
		if !m.Tries {
			e.NumItems = 0
		}
	}
	for i := range e.Texts {
		if m.Redacted>>i&1 == 0 || len(e.Texts[i]) == 0 {
			continue
		}
		at := len(scratch)
		scratch = fmt.Appendf(scratch, "[redacted id=%08x]", uint32(maphash.Bytes(seed, e.Texts[i])))
		e.Texts[i] = scratch[at:]
	}
	return scratch
}
