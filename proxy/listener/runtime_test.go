// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"sync/atomic"
	"testing"
)

// runtimeLimit is a key of the runtime; 0 has no value.
type runtimeLimit struct{ atomic.Uint64 }

func (l *runtimeLimit) Integer(otherwise uint64) uint64 {
	if n := l.Load(); n > 0 {
		return n
	}
	return otherwise
}
func (l *runtimeLimit) Fraction(num, den uint32) (uint32, uint32) { return num, den }
func (l *runtimeLimit) Double(otherwise float64) float64          { return otherwise }
func (l *runtimeLimit) Bool(otherwise bool) bool                  { return otherwise }

// TestLimitsOfTheRuntime count from the next connection on, without a change of the listener.
func TestLimitsOfTheRuntime(t *testing.T) {
	t.Parallel()
	var one, all runtimeLimit
	r := newRig(t, func(c *Config) { c.MaxConnectionsRuntime = &all })
	l := plain("l", chainOf("greeter", toyKind{banner: "hi"}))
	l.MaxConnections, l.MaxConnectionsRuntime = 1, &one
	r.apply(l)
	r.dial("l").want("hi")
	r.dial("l").wantEnd()
	one.Store(3)
	r.dial("l").want("hi")
	all.Store(2)
	r.dial("l").wantEnd()
	r.waitOutcomes(2)
	all.Store(3)
	r.dial("l").want("hi")
	if n := r.stat(l, "downstream_cx_overflow"); n != 1 {
		t.Errorf("overflow is %d", n)
	}
	if n := r.stat(l, "downstream_global_cx_overflow"); n != 1 {
		t.Errorf("global overflow is %d", n)
	}
}
