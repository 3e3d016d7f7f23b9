// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
)

// cluster returns a detector with n hosts.
func cluster(c mesh.Outlier, n int) (*circuit.Outlier, []*circuit.HostState) {
	o := circuit.NewOutlier(c)
	hosts := make([]*circuit.HostState, n)
	for i := range hosts {
		hosts[i] = new(circuit.HostState)
		o.Add(hosts[i])
	}
	return o, hosts
}

// eject reports answers of 500 until the host is out, or five of them.
func eject(o *circuit.Outlier, now int64, h *circuit.HostState) []circuit.Detection {
	for range 5 {
		if d := o.Report(now, h, &circuit.Attempt{Status: 500}, 0); d != nil {
			return d
		}
	}
	return nil
}

func TestOutlierCounts(t *testing.T) {
	t.Parallel()
	attempt := func(status int, k mesh.FailureKind) circuit.Attempt {
		return circuit.Attempt{Status: status, Failure: mesh.Failure{Kind: k}}
	}
	grpc := func(code int64) circuit.Attempt {
		return circuit.Attempt{Status: 200, HasGRPC: true, IsGRPC: true, GRPC: code}
	}
	// What one attempt counts for, found out by making it the last of a row: with thresholds of 1, each kind is detected
	// at once.
	const xx, gateway, local = circuit.ReasonConsecutive5xx, circuit.ReasonConsecutiveGateway, circuit.ReasonConsecutiveLocal
	tests := map[string]struct {
		attempt      circuit.Attempt
		want, wantSp []string // together, and with local failures split off
	}{
		"200":                       {attempt(200, 0), nil, nil},
		"499":                       {attempt(499, 0), nil, nil},
		"500":                       {attempt(500, 0), []string{xx}, []string{xx}},
		"501":                       {attempt(501, 0), []string{xx}, []string{xx}},
		"502":                       {attempt(502, 0), []string{gateway, xx}, []string{gateway, xx}},
		"503":                       {attempt(503, 0), []string{gateway, xx}, []string{gateway, xx}},
		"504":                       {attempt(504, 0), []string{gateway, xx}, []string{gateway, xx}},
		"505":                       {attempt(505, 0), []string{xx}, []string{xx}},
		"600":                       {attempt(600, 0), nil, nil},
		"connect failure":           {attempt(0, mesh.ConnectFailure), []string{gateway, xx}, []string{local}},
		"connect timeout":           {attempt(0, mesh.ConnectTimeout), []string{gateway, xx}, []string{local}},
		"reset":                     {attempt(0, mesh.UpstreamReset), []string{gateway, xx}, []string{local}},
		"closed":                    {attempt(0, mesh.UpstreamClosed), []string{gateway, xx}, []string{local}},
		"protocol error":            {attempt(0, mesh.UpstreamProtocolError), []string{gateway, xx}, []string{local}},
		"per try timeout":           {attempt(0, mesh.PerTryTimeout), []string{gateway, xx}, []string{local}},
		"request timeout":           {attempt(0, mesh.RequestTimeout), []string{gateway, xx}, []string{local}},
		"good answer that broke":    {attempt(200, mesh.UpstreamReset), []string{gateway, xx}, []string{local}},
		"overflow is ours":          {attempt(0, mesh.Overflow), nil, nil},
		"open circuit is ours":      {attempt(0, mesh.CircuitOpen), nil, nil},
		"client went away":          {attempt(0, mesh.DownstreamClosed), nil, nil},
		"client, during the answer": {attempt(503, mesh.DownstreamClosed), []string{gateway, xx}, []string{gateway, xx}},
		"a connection":              {attempt(0, 0), nil, nil},
		"grpc ok":                   {grpc(0), nil, nil},
		"grpc not found":            {grpc(5), nil, nil},
		"grpc cancelled":            {grpc(1), nil, nil},
		"grpc unknown":              {grpc(2), []string{xx}, []string{xx}},
		"grpc deadline exceeded":    {grpc(4), []string{gateway, xx}, []string{gateway, xx}},
		"grpc unimplemented":        {grpc(12), []string{xx}, []string{xx}},
		"grpc unavailable":          {grpc(14), []string{gateway, xx}, []string{gateway, xx}},
		"grpc of no meaning":        {grpc(99), []string{xx}, []string{xx}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for split, want := range map[bool][]string{false: test.want, true: test.wantSp} {
				// Nothing is enforced, so that all kinds show.
				c := mesh.Outlier{Consecutive5xx: 1, ConsecutiveGateway: 1, ConsecutiveLocal: 1, MaxEjectionPercent: 100, SplitLocal: split}
				o, hosts := cluster(c, 1)
				var got []string
				for _, d := range o.Report(0, hosts[0], &test.attempt, 0) {
					got = append(got, d.Reason)
					if d.Notice.Enforced || !d.Notice.Ejected || d.Notice.Reason != d.Reason {
						t.Errorf("split %v: notice %+v", split, d.Notice)
					}
				}
				if len(got) != len(want) {
					t.Errorf("split %v: detected %v, want %v", split, got, want)
					continue
				}
				for i := range got {
					if got[i] != want[i] {
						t.Errorf("split %v: detected %v, want %v", split, got, want)
					}
				}
			}
		})
	}
}

// TestOutlierRows checks what ends a row of which kind.
func TestOutlierRows(t *testing.T) {
	t.Parallel()
	c := mesh.Outlier{
		Consecutive5xx: 3, ConsecutiveGateway: 3, ConsecutiveLocal: 3, MaxEjectionPercent: 100,
		Enforcing5xx: 100, EnforcingGateway: 100, EnforcingLocal: 100,
	}
	reset := -1 // in place of a status
	tests := map[string]struct {
		split    bool
		attempts []int
		want     string
	}{
		"three of 500":                         {false, []int{500, 500, 500}, circuit.ReasonConsecutive5xx},
		"a success between":                    {false, []int{500, 500, 200, 500, 500}, ""},
		"gateway failures first":               {false, []int{502, 503, 504}, circuit.ReasonConsecutiveGateway},
		"500 ends the row of gateway failures": {false, []int{503, 503, 500}, circuit.ReasonConsecutive5xx},
		"resets are gateway failures":          {false, []int{reset, 503, reset}, circuit.ReasonConsecutiveGateway},
		"split: resets":                        {true, []int{reset, reset, reset}, circuit.ReasonConsecutiveLocal},
		"split: an answer ends the row":        {true, []int{reset, reset, 404, reset}, ""},
		"split: even a bad answer":             {true, []int{reset, reset, 500, reset, reset}, ""},
		"split: a reset ends no other row":     {true, []int{500, reset, 500, reset, 500}, circuit.ReasonConsecutive5xx},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := c
			c.SplitLocal = test.split
			o, hosts := cluster(c, 1)
			got := ""
			for _, status := range test.attempts {
				a := circuit.Attempt{Status: status}
				if status == reset {
					a = circuit.Attempt{Failure: mesh.Failure{Kind: mesh.UpstreamReset}}
				}
				for _, d := range o.Report(0, hosts[0], &a, 0) {
					got += d.Reason
				}
			}
			if got != test.want || hosts[0].Ejected() != (test.want != "") {
				t.Errorf("detected %q, ejected %v; want %q", got, hosts[0].Ejected(), test.want)
			}
		})
	}
}

func TestOutlierBounds(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		hosts     int
		percent   uint32
		alwaysOne bool
		want      int
	}{
		"ten percent of nine":           {9, 10, false, 0},
		"ten percent of ten":            {10, 10, false, 1},
		"ten percent of 25":             {25, 10, false, 2},
		"all":                           {4, 100, false, 4},
		"none":                          {4, 0, false, 0},
		"always one of one":             {1, 10, true, 1},
		"always one, but one only":      {9, 10, true, 1},
		"always one even at no percent": {3, 0, true, 1},
		"a third of three":              {3, 33, false, 0},
		"more than a third":             {3, 34, false, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := circuit.DefaultOutlier()
			c.MaxEjectionPercent, c.AlwaysEjectOne = test.percent, test.alwaysOne
			o, hosts := cluster(c, test.hosts)
			out, overflow := 0, 0
			for _, h := range hosts {
				for _, d := range eject(o, 0, h) {
					if d.Overflow {
						overflow++
					}
				}
				if h.Ejected() {
					out++
				}
			}
			if out != test.want || o.Active() != test.want || overflow != test.hosts-test.want {
				t.Errorf("%d ejected, %d active, %d overflows; want %d ejected", out, o.Active(), overflow, test.want)
			}
		})
	}
}

func TestOutlierEnforcing(t *testing.T) {
	t.Parallel()
	c := circuit.DefaultOutlier()
	c.Enforcing5xx, c.MaxEjectionPercent = 30, 100
	o, hosts := cluster(c, 1000)
	r := rand.New(rand.NewPCG(1, 2))
	for _, h := range hosts {
		for range 5 {
			for _, d := range o.Report(0, h, &circuit.Attempt{Status: 500}, r.Uint64()) {
				if d.Notice.Enforced != h.Ejected() {
					t.Fatalf("enforced %v, ejected %v", d.Notice.Enforced, h.Ejected())
				}
			}
		}
	}
	if n := o.Active(); n < 250 || n > 350 {
		t.Errorf("%d of 1000 ejected with a chance of 30 percent", n)
	}
	// What chance kept in starts a new row.
	for _, h := range hosts {
		if !h.Ejected() && o.Report(0, h, &circuit.Attempt{Status: 500}, 0) != nil {
			t.Fatal("the first failure after a detection that was not enforced is a detection")
		}
	}
}

func TestOutlierJitter(t *testing.T) {
	t.Parallel()
	c := circuit.DefaultOutlier()
	c.MaxEjectionPercent, c.Jitter = 100, 10*time.Second
	o, hosts := cluster(c, 1000)
	r := rand.New(rand.NewPCG(1, 2))
	sum := int64(0)
	for _, h := range hosts {
		for range 5 {
			for _, d := range o.Report(0, h, &circuit.Attempt{Status: 500}, r.Uint64()) {
				jitter := d.Notice.For - int64(c.BaseEjection)
				if jitter < 0 || jitter > int64(c.Jitter) {
					t.Fatalf("jitter of %v", time.Duration(jitter))
				}
				sum += jitter
			}
		}
	}
	if mean := time.Duration(sum / 1000); mean < 4700*time.Millisecond || mean > 5300*time.Millisecond {
		t.Errorf("the mean jitter of 10s is %v", mean)
	}
}

func TestOutlierRemove(t *testing.T) {
	t.Parallel()
	c := circuit.DefaultOutlier()
	c.MaxEjectionPercent = 50
	o, hosts := cluster(c, 2)
	eject(o, 0, hosts[0])
	if o.Active() != 1 {
		t.Fatal("not ejected")
	}
	o.Remove(hosts[0])
	o.Remove(hosts[0])
	if o.Active() != 0 || hosts[0].Ejected() {
		t.Errorf("after the removal: %d active, ejected %v", o.Active(), hosts[0].Ejected())
	}
	if d := eject(o, 0, hosts[0]); d != nil || hosts[0].Ejected() {
		t.Errorf("a host that left was ejected: %+v", d)
	}
	// One host is left, and half of one is none.
	if d := eject(o, 0, hosts[1]); len(d) != 1 || !d[0].Overflow {
		t.Errorf("detected %+v, want an overflow", d)
	}
	o.Add(hosts[0])
	o.Add(hosts[0])
	if eject(o, 0, hosts[1]); o.Active() != 1 {
		t.Error("one of two must be ejected again")
	}
}

func TestOutlierCheckPassed(t *testing.T) {
	t.Parallel()
	for _, unejects := range []bool{true, false} {
		c := circuit.DefaultOutlier()
		c.MaxEjectionPercent, c.HealthyUnejects = 100, unejects
		o, hosts := cluster(c, 1)
		if _, ok := o.CheckPassed(0, hosts[0]); ok {
			t.Error("let back a host that was in")
		}
		eject(o, 0, hosts[0])
		n, ok := o.CheckPassed(7, hosts[0])
		if ok != unejects || hosts[0].Ejected() == unejects {
			t.Errorf("uneject %v: let back %v, ejected %v", unejects, ok, hosts[0].Ejected())
		}
		if want := (mesh.EjectionNotice{Reason: circuit.ReasonActiveCheck, Times: 1, For: 7, Enforced: true}); ok && n != want {
			t.Errorf("notice %+v, want %+v", n, want)
		}
	}
}

// TestOutlierConcurrently reports failures of all hosts from many goroutines, while ticks and checks let hosts back: each
// ejection and each return is told once, what is active adds up, and the bound holds all the time.
func TestOutlierConcurrently(t *testing.T) {
	t.Parallel()
	const hostCount, goroutines = 10, 8
	c := circuit.DefaultOutlier()
	c.MaxEjectionPercent = 50
	c.BaseEjection, c.Interval = time.Millisecond, time.Millisecond
	o, hosts := cluster(c, hostCount)
	var in, out, over atomic.Int64
	var clock atomic.Int64
	together(goroutines, func(g int) {
		r := rand.New(rand.NewPCG(3, uint64(g)))
		for range 5000 {
			now, h := clock.Add(1000), hosts[r.IntN(hostCount)]
			switch r.IntN(50) {
			case 0:
				in.Add(int64(len(o.Tick(now, hosts))))
			case 1:
				if _, ok := o.CheckPassed(now, h); ok {
					in.Add(1)
				}
			case 2:
				o.Report(now, h, &circuit.Attempt{Status: 200}, r.Uint64())
			default:
				for _, d := range o.Report(now, h, &circuit.Attempt{Status: 500}, r.Uint64()) {
					if d.Notice.Enforced {
						out.Add(1)
					}
				}
			}
			if o.Active() > hostCount/2 {
				over.Add(1)
			}
		}
	})
	ejected := 0
	for _, h := range hosts {
		if h.Ejected() {
			ejected++
		}
	}
	if o.Active() != ejected || out.Load()-in.Load() != int64(ejected) || over.Load() != 0 {
		t.Errorf("%d active, %d hosts ejected, %d told out, %d told in, %d times over the bound",
			o.Active(), ejected, out.Load(), in.Load(), over.Load())
	}
	if out.Load() == 0 || in.Load() == 0 {
		t.Errorf("%d out and %d in: nothing was tested", out.Load(), in.Load())
	}
}

// TestOutlierOneDetection lets many goroutines complete one row.
func TestOutlierOneDetection(t *testing.T) {
	t.Parallel()
	for range 100 {
		c := circuit.DefaultOutlier()
		c.MaxEjectionPercent = 100
		c.Consecutive5xx = 32
		o, hosts := cluster(c, 1)
		var found atomic.Int64
		together(32, func(int) {
			found.Add(int64(len(o.Report(0, hosts[0], &circuit.Attempt{Status: 500}, 0))))
		})
		if found.Load() != 1 || o.Active() != 1 {
			t.Fatalf("%d detections, %d active, want one each", found.Load(), o.Active())
		}
	}
}

// TestOutlierAgainstModel plays random timelines on one host against the rules of Envoy's documentation.
func TestOutlierAgainstModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		c := circuit.DefaultOutlier()
		c.MaxEjectionPercent = 100
		c.Consecutive5xx = 1 + r.Uint32N(4)
		c.BaseEjection = time.Duration(1+r.IntN(5)) * time.Second
		c.MaxEjection = c.BaseEjection * time.Duration(1+r.IntN(5))
		c.Interval = time.Duration(1+r.IntN(3)) * time.Second
		o, hosts := cluster(c, 1)
		h := hosts[0]

		row, multiplier := uint32(0), 0
		out, back, ejectedAt, backAt := false, false, 0.0, 0.0
		for step := range 200 {
			now := float64(step) * c.Interval.Seconds() / 3
			if step%3 == 0 {
				length := math.Min(float64(multiplier)*c.BaseEjection.Seconds(), c.MaxEjection.Seconds())
				if out && now-ejectedAt >= length-1e-9 {
					out, back, backAt, row = false, true, now, 0
				}
				if !out && back && now-backAt >= c.Interval.Seconds()-1e-9 && multiplier > 0 {
					multiplier--
				}
				o.Tick(int64(math.Round(now*1e9)), hosts)
			}
			status := []int{200, 500, 500, 500}[r.IntN(4)]
			if row++; status == 200 {
				row = 0
			}
			if !out && row == c.Consecutive5xx {
				out, ejectedAt, row = true, now, 0
				if float64(multiplier)*c.BaseEjection.Seconds() < (c.MaxEjection + c.BaseEjection).Seconds() {
					multiplier++
				}
			}
			o.Report(int64(math.Round(now*1e9)), h, &circuit.Attempt{Status: status}, 0)
			if h.Ejected() != out {
				t.Fatalf("%+v, step %d at %vs: ejected %v, want %v", c, step, now, h.Ejected(), out)
			}
		}
	}
}
