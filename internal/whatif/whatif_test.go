// SPDX-License-Identifier: Apache-2.0

package whatif

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
)

const ms = int64(time.Millisecond)

// outcome is a request's event: when it came, which host answered what after how long.
func outcome(at int64, host int, status, took int64) *event.Event {
	e := &event.Event{}
	e.Reset(event.Request)
	e.Time = at
	e.Texts[event.Cluster], e.Texts[event.Method] = []byte("orders"), []byte("GET")
	e.Texts[event.PeerAddress], e.Numbers[event.PeerPort] = []byte("10.0.0.1"), int64(8000+host)
	e.Numbers[event.Status], e.Numbers[event.UpstreamTook], e.Numbers[event.Duration] = status, took, took+ms/10
	if status >= 500 {
		e.Texts[event.ErrorType] = []byte("500")
	}
	return e
}

// record makes a recording of n requests, 1 ms apart, of which each takes what of says.
func record(n int, of func(i int) (host int, status, took int64)) *Recording {
	r := &Recording{Cluster: "orders"}
	for i := range n {
		host, status, took := of(i)
		r.Add(outcome(int64(i)*ms, host, status, took))
	}
	return r
}

func policy(change ...func(*Policy)) Policy {
	p := Policy{Cluster: &mesh.Cluster{Name: "orders", Policy: mesh.Extension{Config: lb.DefaultRoundRobin()}}, Build: lb.BuildRoundRobin}
	for i := range p.Cluster.Limits {
		p.Cluster.Limits[i] = mesh.Limits{Connections: math.MaxUint32, Pending: math.MaxUint32, Requests: math.MaxUint32, Retries: math.MaxUint32}
	}
	for _, f := range change {
		f(&p)
	}
	return p
}

// TestSame: hosts that are all alike give, under round robin, what was recorded.
func TestSame(t *testing.T) {
	t.Parallel()
	r := record(3000, func(i int) (int, int64, int64) { return i % 3, 200, 5 * ms })
	was, is := r.Recorded(), Run(r, policy(), Model{}, 1)
	if !reflect.DeepEqual(was, is) {
		t.Errorf("recorded\n%+v, and run again\n%+v", was, is)
	}
	if is.P50 != 5*ms+ms/10 || is.Attempts != 3000 || len(is.Hosts) != 3 {
		t.Errorf("%+v", is)
	}
}

// TestDeterministic: the same seed gives the same result, another one another.
func TestDeterministic(t *testing.T) {
	t.Parallel()
	r := record(5000, func(i int) (int, int64, int64) { return i % 4, []int64{200, 200, 200, 503}[i%7%4], int64(1+i%50) * ms })
	random := policy(func(p *Policy) { p.Build, p.Cluster.Policy.Config = lb.BuildRandom, lb.DefaultRandom() })
	a, b, c := Run(r, random, Model{}, 7), Run(r, random, Model{}, 7), Run(r, random, Model{}, 8)
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%+v and %+v", a, b)
	}
	if reflect.DeepEqual(a, c) {
		t.Error("another seed gives the same")
	}
}

// TestRetries: of a host that always fails, a retry elsewhere leaves nothing.
func TestRetries(t *testing.T) {
	t.Parallel()
	r := record(4000, func(i int) (int, int64, int64) { return i % 2, []int64{200, 503}[i%2], ms })
	is := Run(r, policy(func(p *Policy) {
		p.Default.Retry = &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 2, SkipPreviousHosts: true, HostSelectionTries: 5}
	}), Model{}, 1)
	if was := r.Recorded(); was.Failed != 2000 || is.Failed > 10 || is.Retries < 1500 || is.Attempts != is.Requests+is.Retries {
		t.Errorf("%d failed, then %+v", was.Failed, is)
	}
	if is.P99 <= r.Recorded().P99 {
		t.Errorf("retries take no time: %d", is.P99)
	}
}

// TestOutlier: a host that fails in a row is ejected, and its errors end with that.
func TestOutlier(t *testing.T) {
	t.Parallel()
	r := record(9000, func(i int) (int, int64, int64) { return i % 3, []int64{200, 200, 500}[i%3], ms })
	is := Run(r, policy(func(p *Policy) {
		o := circuit.DefaultOutlier()
		o.MaxEjectionPercent = 50
		p.Cluster.Outlier = &o
	}), Model{}, 1)
	if is.Ejections == 0 || is.Failed > 100 || is.Hosts["10.0.0.1:8002"].Attempts > 100 {
		t.Errorf("%+v", is)
	}
}

// TestBreaker: an open circuit answers at once, and lets through again what succeeds.
func TestBreaker(t *testing.T) {
	t.Parallel()
	r := record(20000, func(i int) (int, int64, int64) {
		if i >= 5000 && i < 10000 {
			return 0, 500, 100 * ms
		}
		return 0, 200, ms
	})
	is := Run(r, policy(func(p *Policy) {
		b := circuit.DefaultBreaker()
		b.ConsecutiveFailures, b.OpenFor = 20, time.Second
		p.Cluster.Breaker = &b
	}), Model{Window: 100 * time.Millisecond}, 1)
	if is.Openings == 0 || is.CircuitOpen < 4000 || is.CircuitOpen > 7500 || is.Hosts["10.0.0.1:8000"].Failed > 500 {
		t.Errorf("%+v", is)
	}
}

// TestTimeouts: no request takes longer than its route says, and what a timeout cut off hangs.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	r := record(1000, func(i int) (int, int64, int64) { return 0, 200, int64(1+i%100) * ms })
	is := Run(r, policy(func(p *Policy) { p.Default.Timeout = 50 * time.Millisecond }), Model{}, 1)
	if is.Max > 50*ms+ms || is.Timeouts != is.Failed || is.Failed < 400 || is.Failed > 600 {
		t.Errorf("%+v", is)
	}
	cut := &Recording{Cluster: "orders"}
	for i := range 100 {
		e := outcome(int64(i)*ms, 0, 504, 10*ms)
		e.Texts[event.ErrorType], e.Texts[event.FailureSide] = []byte("request_timeout"), []byte("upstream")
		cut.Add(e)
	}
	is = Run(cut, policy(func(p *Policy) { p.Default.Timeout = time.Second }), Model{}, 1)
	if is.Timeouts != 100 || is.P50 < 1000*ms {
		t.Errorf("%+v", is)
	}
	perTry := Run(r, policy(func(p *Policy) {
		p.Default.Retry = &mesh.RetryPolicy{On: mesh.RetryOnReset, Retries: 5, PerTryTimeout: 20 * time.Millisecond}
	}), Model{}, 1)
	if perTry.Retries < 1000 || perTry.Max > (6*20+625)*ms+ms {
		t.Errorf("%+v", perTry)
	}
}

// TestLimits: what is beyond a limit is refused, and no host sees it.
func TestLimits(t *testing.T) {
	t.Parallel()
	r := record(1000, func(int) (int, int64, int64) { return 0, 200, 10 * ms })
	is := Run(r, policy(func(p *Policy) { p.Cluster.Limits[0].Requests = 5 }), Model{}, 1)
	if is.Overflow != is.Failed || is.Overflow < 400 || is.Overflow > 600 || is.Attempts+is.Overflow != 1000 {
		t.Errorf("%+v", is)
	}
}

// TestLoad: weights and endpoints of the policy count, also those that were never recorded.
func TestLoad(t *testing.T) {
	t.Parallel()
	r := record(4000, func(i int) (int, int64, int64) { return i % 2, 200, ms })
	ends := &mesh.EndpointSet{Localities: []mesh.LocalityEndpoints{{Endpoints: []mesh.Endpoint{
		{Address: addr("10.0.0.1:8000"), Weight: 3}, {Address: addr("10.0.0.9:80"), Weight: 1},
	}}}}
	is := Run(r, policy(func(p *Policy) { p.Cluster.Endpoints = ends }), Model{}, 1)
	if is.Hosts["10.0.0.1:8000"].Attempts != 3000 || is.Hosts["10.0.0.9:80"].Attempts != 1000 || is.Failed != 0 || is.P50 != ms+ms/10 {
		t.Errorf("%+v", is)
	}
}

// TestDistribution: the percentiles are those that were asked for.
func TestDistribution(t *testing.T) {
	t.Parallel()
	r := record(50000, func(int) (int, int64, int64) { return 0, 200, ms })
	is := Run(r, policy(), Model{P50: 20 * time.Millisecond, P99: 200 * time.Millisecond}, 1)
	for got, want := range map[int64]int64{is.P50: 20 * ms, is.P99: 200 * ms} {
		if math.Abs(float64(got-want))/float64(want) > 0.1 {
			t.Errorf("%v, want %v", time.Duration(got), time.Duration(want))
		}
	}
	if fixed := Run(r, policy(), Model{P50: 7 * time.Millisecond, P99: 7 * time.Millisecond}, 1); fixed.P50 != 7*ms+ms/10 || fixed.Max != fixed.P50 {
		t.Errorf("%+v", fixed)
	}
}

// TestRecording: attempts before the last count for their hosts, other clusters and kinds do not, and requests that no
// host saw are there.
func TestRecording(t *testing.T) {
	t.Parallel()
	r := &Recording{Cluster: "orders"}
	e := outcome(0, 1, 200, ms)
	it := e.AddItem()
	it.Texts[event.ItemHost], it.Texts[event.ItemFailure], it.Numbers[event.ItemTook] = []byte("10.0.0.1:8000"), []byte("connect_failure"), 2*ms
	refused := &event.Event{}
	refused.Reset(event.Request)
	refused.Time, refused.Texts[event.Cluster], refused.Texts[event.ErrorType] = ms, []byte("orders"), []byte("circuit_open")
	other := outcome(0, 0, 200, ms)
	other.Texts[event.Cluster] = []byte("web")
	for i, e := range []*event.Event{e, refused, other, {Kind: event.Circuit}} {
		if r.Add(e) != (i < 2) {
			t.Errorf("event %d", i)
		}
	}
	was := r.Recorded()
	want := map[string]Load{"10.0.0.1:8000": {1, 1}, "10.0.0.1:8001": {1, 0}}
	if was.Requests != 2 || was.Failed != 1 || was.CircuitOpen != 1 || was.Retries != 1 || !reflect.DeepEqual(was.Hosts, want) {
		t.Errorf("%+v", was)
	}
	if empty := Run(&Recording{}, policy(), Model{}, 1); empty.Requests != 0 || empty.P99 != 0 {
		t.Errorf("%+v", empty)
	}
	lost := &Recording{Cluster: "orders"}
	lost.Add(refused)
	if none := Run(lost, policy(), Model{}, 1); none.NoHost != 1 {
		t.Errorf("%+v", none)
	}
}

// FuzzAdd: whatever an event says, it can be recorded and run.
func FuzzAdd(f *testing.F) {
	for i := range 3 {
		f.Add(outcome(int64(i), i, 500, ms).AppendProto(nil), int64(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, shift int64) {
		var e event.Event
		if e.DecodeProto(b) != nil {
			return
		}
		r := &Recording{Cluster: string(e.Texts[event.Cluster])}
		r.Add(&e)
		e.Time += shift % 1e15
		r.Add(&e)
		is := Run(r, policy(func(p *Policy) {
			p.Default = Route{Timeout: time.Second, Retry: &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 1}}
		}), Model{}, 1)
		if is.Requests != uint64(r.Len()) || is.Attempts < is.Retries {
			t.Errorf("%+v", is)
		}
	})
}

func BenchmarkRun(b *testing.B) {
	r := record(1_000_000, func(i int) (int, int64, int64) { return i % 10, []int64{200, 503}[i%100/99], int64(1+i%40) * ms })
	o := circuit.DefaultOutlier()
	p := policy(func(p *Policy) {
		p.Cluster.Outlier = &o
		p.Build, p.Cluster.Policy.Config = lb.BuildLeastRequest, lb.DefaultLeastRequest()
		p.Default = Route{Timeout: 5 * time.Second, Retry: &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 2, PerTryTimeout: time.Second}}
	})
	for b.Loop() {
		if is := Run(r, p, Model{}, 1); is.Requests != 1_000_000 {
			b.Fatal(fmt.Sprint(is))
		}
	}
}

func addr(s string) mesh.Address { return mesh.Address{IP: netip.MustParseAddrPort(s)} }
