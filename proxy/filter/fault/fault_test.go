// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
)

// set is a runtime key that has a value: a number, or that many percent.
type set uint64

func (s set) Fraction(uint32, uint32) (uint32, uint32) { return uint32(s), 100 }
func (s set) Integer(uint64) uint64                    { return uint64(s) }
func (s set) Double(float64) float64                   { return float64(s) }
func (s set) Bool(bool) bool                           { return s != 0 }

var (
	every = Share{Fraction: mesh.Fraction{Numerator: 100, Denominator: 100}}
	asked = func(header string) Share { return Share{every.Fraction, header} }
)

// TestRuntimeKeys: what a key says takes the place of what the message says, where that says anything; a status that is
// none does not.
func TestRuntimeKeys(t *testing.T) {
	t.Parallel()
	x := &exchange.Exchange{}
	none := Share{Fraction: mesh.Fraction{Denominator: 100}}
	off, on := every, none
	off.Runtime, on.Runtime = set(0), set(100)
	for _, c := range []struct {
		name   string
		a      Abort
		status int
		grpc   int64
	}{
		{"as written", Abort{Share: every, Status: 503}, 503, -1},
		{"another status", Abort{Share: every, Status: 503, StatusKey: set(418)}, 418, -1},
		{"a status that is none", Abort{Share: every, Status: 503, StatusKey: set(99)}, 503, -1},
		{"another grpc-status", Abort{Share: every, GRPC: 14, GRPCKey: set(8), StatusKey: set(418)}, 200, 8},
		{"nobody", Abort{Share: off, Status: 503}, 0, -1},
		{"everybody", Abort{Share: on, Status: 503}, 503, -1},
		{"nothing was asked for", Abort{Share: every, Header: true, StatusKey: set(418), GRPCKey: set(8)}, 0, -1},
	} {
		if status, grpc := c.a.status(x); status != c.status || grpc != c.grpc {
			t.Errorf("%s: %d, %d", c.name, status, grpc)
		}
	}
	for name, c := range map[string]struct {
		d    Delay
		want time.Duration
	}{
		"as written":   {Delay{Share: every, Millis: 5}, 5 * time.Millisecond},
		"longer":       {Delay{Share: every, Millis: 5, Key: set(7)}, 7 * time.Millisecond},
		"not at all":   {Delay{Share: every, Millis: 5, Key: set(0)}, 0},
		"for ever":     {Delay{Share: every, Key: set(1<<64 - 1)}, mostMillis * time.Millisecond},
		"nobody asked": {Delay{Share: every, Header: true, Key: set(7)}, 0},
	} {
		if got := c.d.duration(x); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestHeaders: what a request asks for is read by Envoy's rules, and cannot be more than the configuration allows.
func TestHeaders(t *testing.T) {
	t.Parallel()
	half := Share{mesh.Fraction{Numerator: 50, Denominator: 100}, hdrAbortPercent}
	for _, c := range []struct {
		name, header, value string
		status              int
	}{
		{"the least", hdrAbort, "200", 200}, {"below", hdrAbort, "199", 0}, {"the greatest", hdrAbort, "599", 599}, {"above", hdrAbort, "600", 0},
		{"a word", hdrAbort, "many", 0}, {"negative", hdrAbort, "-200", 0}, {"far too large", hdrAbort, "99999999999999999999", 0},
		{"grpc", hdrAbortGRPC, "5", 200},
	} {
		x := &exchange.Exchange{}
		x.Request.Header.AddString(c.header, c.value)
		a := Abort{Share: asked(hdrAbortPercent), Header: true}
		if got, _ := a.status(x); got != c.status {
			t.Errorf("%s: %d, want %d", c.name, got, c.status)
		}
	}
	hits := func(percent string) (n int) {
		x := &exchange.Exchange{}
		x.Request.Header.AddString(hdrAbortPercent, percent)
		for range 10_000 {
			if half.covers(x) {
				n++
			}
		}
		return n
	}
	// Half of 10,000 is 5,000, with a standard deviation of 50.
	for percent, want := range map[string]int{"0": 0, "10": 1000, "50": 5000, "100": 5000, "x": 5000} {
		if n := hits(percent); n < want-500 || n > want+500 || want == 0 && n != 0 {
			t.Errorf("%s percent: %d of 10,000", percent, n)
		}
	}
	x := &exchange.Exchange{}
	x.Request.Header.AddString(hdrLimit, "999999999999999")
	x.Request.Header.AddString(hdrDelay, "999999999999999")
	if got := (&Limit{Share: every, Header: true}).rate(x); got != mostKiB<<10 {
		t.Errorf("a rate of %d", got)
	}
	if got := (&Delay{Share: every, Header: true}).duration(x); got != mostMillis*time.Millisecond {
		t.Errorf("a delay of %s", got)
	}
}
