// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
)

// answer is a list of header names that are there.
type answer []string

func (a answer) Matches(m *mesh.HeaderMatch) bool { return slices.Contains(a, m.Name) }

// failed is an attempt that failed; sent says that some of the request was written.
func failed(k mesh.FailureKind, v mesh.RetryVerdict, sent bool) circuit.Attempt {
	return circuit.Attempt{Failure: mesh.Failure{Kind: k, Retry: v}, Sent: sent, Replayable: true}
}

// answered is an attempt that got an answer.
func answered(status int, headers ...string) circuit.Attempt {
	return circuit.Attempt{Status: status, Answer: answer(headers), Sent: true, Replayable: true}
}

// grpc is an attempt that got an answer with a grpc-status in its head.
func grpc(code int64) circuit.Attempt {
	a := answered(200)
	a.HasGRPC, a.IsGRPC, a.GRPC = true, true, code
	return a
}

// TestRetryConditions asks of many attempts under which conditions, each alone, they are repeated.
func TestRetryConditions(t *testing.T) {
	t.Parallel()
	const resets = "reset gateway-error 5xx"
	tests := map[string]struct {
		attempt circuit.Attempt
		want    string
	}{
		"200":                     {answered(200), ""},
		"404":                     {answered(404), ""},
		"409":                     {answered(409), "retriable-4xx"},
		"418, which is listed":    {answered(418), "retriable-status-codes"},
		"500":                     {answered(500), "5xx"},
		"502":                     {answered(502), "gateway-error 5xx"},
		"503":                     {answered(503), "gateway-error 5xx"},
		"504":                     {answered(504), "gateway-error 5xx"},
		"505":                     {answered(505), "5xx"},
		"600":                     {answered(600), ""},
		"200 with a listed field": {answered(200, "try-again"), "retriable-headers"},
		"503 that was limited":    {answered(503, "try-again", "x-envoy-ratelimited"), "envoy-ratelimited"},
		"200 that was limited":    {answered(200, "x-envoy-ratelimited"), "envoy-ratelimited"},
		"grpc ok":                 {grpc(0), ""},
		"grpc cancelled":          {grpc(1), "cancelled"},
		"grpc unknown":            {grpc(2), ""},
		"grpc deadline exceeded":  {grpc(4), "deadline-exceeded"},
		"grpc exhausted":          {grpc(8), "resource-exhausted"},
		"grpc internal":           {grpc(13), "internal"},
		"grpc unavailable":        {grpc(14), "unavailable"},
		"a code without gRPC":     {circuit.Attempt{Status: 200, GRPC: 14, Replayable: true}, ""},

		"connect failure":           {failed(mesh.ConnectFailure, mesh.RetryAlways, false), "connect-failure reset-before-request " + resets},
		"connect timeout":           {failed(mesh.ConnectTimeout, mesh.RetryAlways, false), "connect-failure reset-before-request " + resets},
		"refused stream":            {failed(mesh.UpstreamReset, mesh.RetryAlways, true), "refused-stream " + resets},
		"reset":                     {failed(mesh.UpstreamReset, mesh.RetryNever, true), resets},
		"reset before the request":  {failed(mesh.UpstreamReset, mesh.RetryNever, false), "reset-before-request " + resets},
		"closed":                    {failed(mesh.UpstreamClosed, mesh.RetryNever, true), resets},
		"closed when taken":         {failed(mesh.UpstreamClosed, mesh.RetryIfReused, true), resets},
		"closed before the request": {failed(mesh.UpstreamClosed, mesh.RetryAlways, false), "reset-before-request " + resets},
		"protocol error":            {failed(mesh.UpstreamProtocolError, mesh.RetryNever, true), resets},
		"per try timeout":           {failed(mesh.PerTryTimeout, mesh.RetryNever, true), resets},
		"longest duration":          {failed(mesh.MaxDuration, mesh.RetryNever, true), resets},
		"reset from here":           {failed(mesh.LocalReset, mesh.RetryNever, true), resets},

		"request timeout":   {failed(mesh.RequestTimeout, mesh.RetryNever, true), ""},
		"overflow":          {failed(mesh.Overflow, mesh.RetryAlways, false), ""},
		"open circuit":      {failed(mesh.CircuitOpen, mesh.RetryAlways, false), ""},
		"no healthy host":   {failed(mesh.NoHealthyHost, mesh.RetryAlways, false), ""},
		"client went away":  {failed(mesh.DownstreamClosed, mesh.RetryNever, true), ""},
		"stream idle":       {failed(mesh.StreamIdleTimeout, mesh.RetryNever, true), ""},
		"internal error":    {failed(mesh.InternalError, mesh.RetryNever, true), ""},
		"nothing happened":  {circuit.Attempt{Replayable: true}, ""},
		"limited and reset": {circuit.Attempt{Status: 503, Answer: answer{"x-envoy-ratelimited"}, Failure: mesh.Failure{Kind: mesh.UpstreamReset}, Sent: true, Replayable: true}, resets},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, condition := range strings.Fields(conditions) {
				on, unknown := circuit.ParseRetryOn(condition)
				if on == 0 || unknown != nil {
					t.Fatalf("%s is not known", condition)
				}
				policy := mesh.RetryPolicy{
					On: on, Retries: 1, StatusCodes: []int{418, 599}, Headers: []mesh.HeaderMatch{{Name: "nowhere"}, {Name: "try-again"}},
				}
				p := circuit.NewPlan(&policy, nil)
				d := p.Next(&test.attempt, 0)
				if d.Retry {
					got = append(got, condition)
				}
				if want := map[bool]string{true: condition, false: circuit.ReasonNotRetriable}[d.Retry]; d.Reason != want {
					t.Errorf("on %s: the reason is %q, want %q", condition, d.Reason, want)
				}
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("is repeated on %q, want %q", got, test.want)
			}
		})
	}
}

// conditions are all that there are, in the order of their names' table.
const conditions = "connect-failure refused-stream reset-before-request reset gateway-error 5xx retriable-4xx " +
	"retriable-status-codes retriable-headers envoy-ratelimited cancelled deadline-exceeded internal resource-exhausted " +
	"unavailable"

func TestPlanLimits(t *testing.T) {
	t.Parallel()
	policy := &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 2}
	change := func(f func(*circuit.Attempt)) circuit.Attempt {
		a := answered(500)
		f(&a)
		return a
	}
	tests := map[string]struct {
		policy   *mesh.RetryPolicy
		attempts []circuit.Attempt
		reasons  string
	}{
		"no policy":      {nil, []circuit.Attempt{answered(500)}, "not_retriable"},
		"no retries":     {&mesh.RetryPolicy{On: mesh.RetryOn5xx}, []circuit.Attempt{answered(500)}, "limit_exceeded"},
		"two retries":    {policy, []circuit.Attempt{answered(500), answered(503), answered(500)}, "5xx 5xx limit_exceeded"},
		"then a success": {policy, []circuit.Attempt{answered(500), answered(200)}, "5xx not_retriable"},
		"the client has a part": {
			policy, []circuit.Attempt{change(func(a *circuit.Attempt) { a.Committed = true })}, "committed",
		},
		"the request is gone": {
			policy, []circuit.Attempt{change(func(a *circuit.Attempt) { a.Replayable = false })}, "not_replayable",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := circuit.NewPlan(test.policy, nil)
			var got []string
			retries := 0
			for _, a := range test.attempts {
				d := p.Next(&a, 0)
				got = append(got, d.Reason)
				if d.Retry {
					retries++
				}
			}
			if strings.Join(got, " ") != test.reasons || p.Retries() != retries {
				t.Errorf("decided %q with %d retries, want %q", got, p.Retries(), test.reasons)
			}
		})
	}
}

// TestPlanHoldsOneRetry follows what a plan takes of the cluster's retries.
func TestPlanHoldsOneRetry(t *testing.T) {
	t.Parallel()
	r := circuit.NewResources(&mesh.Limits{Retries: 1})
	policy := &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 10}
	bad, good := answered(500), answered(200)
	p, other := circuit.NewPlan(policy, r), circuit.NewPlan(policy, r)
	inUse := func(want uint64) {
		t.Helper()
		if got := r.InUse(circuit.Retries); got != want {
			t.Fatalf("%d retries in use, want %d", got, want)
		}
	}
	for range 3 {
		if d := p.Next(&bad, 0); !d.Retry {
			t.Fatalf("refused its own place: %+v", d)
		}
		inUse(1)
	}
	if d := other.Next(&bad, 0); d.Retry || d.Reason != circuit.ReasonRetryOverflow || other.Retries() != 0 {
		t.Fatalf("a second retry at a time: %+v", d)
	}
	inUse(1)
	p.Next(&good, 0)
	inUse(0)
	if d := other.Next(&bad, 0); !d.Retry {
		t.Fatalf("refused with room: %+v", d)
	}
	other.Close()
	other.Close()
	p.Close()
	inUse(0)
}

func TestPlansTogether(t *testing.T) {
	t.Parallel()
	r := circuit.NewResources(&mesh.Limits{Requests: 1000, Budget: &mesh.RetryBudget{MinConcurrency: 4}})
	policy := &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 3}
	var retried, over atomic.Int64
	together(16, func(g int) {
		rnd := rand.New(rand.NewPCG(1, uint64(g)))
		for range 1000 {
			p := circuit.NewPlan(policy, r)
			for {
				a := answered([]int{200, 500}[rnd.IntN(2)])
				if !p.Next(&a, rnd.Uint64()).Retry {
					break
				}
				retried.Add(1)
				if r.InUse(circuit.Retries) > 4 {
					over.Add(1)
				}
			}
			p.Close()
		}
	})
	if retried.Load() == 0 || over.Load() != 0 || r.InUse(circuit.Retries) != 0 {
		t.Errorf("%d retries, %d times over the budget, %d left", retried.Load(), over.Load(), r.InUse(circuit.Retries))
	}
}

func TestPlanBackOff(t *testing.T) {
	t.Parallel()
	const unit = time.Millisecond
	tests := map[string]struct {
		base, longest time.Duration
		want          []time.Duration
	}{
		"default":                    {0, 0, []time.Duration{25, 50, 100, 200, 250, 250, 250}},
		"ten times the base":         {10 * unit, 0, []time.Duration{10, 20, 40, 80, 100, 100}},
		"own maximum":                {100 * unit, 1000 * unit, []time.Duration{100, 200, 400, 800, 1000, 1000}},
		"base and maximum are equal": {30 * unit, 30 * unit, []time.Duration{30, 30, 30}},
		"maximum below the base":     {30 * unit, 20 * unit, []time.Duration{20, 20, 20}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := answered(500)
			for _, rnd := range []uint64{0, 1 << 63, math.MaxUint64} {
				p := circuit.NewPlan(&mesh.RetryPolicy{
					On: mesh.RetryOn5xx, Retries: 100, BackOffBase: test.base, BackOffMax: test.longest,
				}, nil)
				for n, want := range test.want {
					got := p.Next(&bad, rnd).Wait
					// All of the interval is random: its start, its middle and its end, which it does not reach.
					exact := map[uint64]time.Duration{0: 0, 1 << 63: want * unit / 2, math.MaxUint64: want*unit - 1}[rnd]
					if got != exact {
						t.Errorf("retry %d with %x waits %v, want %v", n+1, rnd, got, exact)
					}
				}
			}
		})
	}
}

func TestPlanRenew(t *testing.T) {
	t.Parallel()
	of := func(k mesh.FailureKind, v mesh.RetryVerdict, f func(*circuit.Attempt)) circuit.Attempt {
		a := failed(k, v, true)
		a.Idempotent = true
		if f != nil {
			f(&a)
		}
		return a
	}
	tests := map[string]struct {
		attempt circuit.Attempt
		want    bool
	}{
		"used connection closed":           {of(mesh.UpstreamClosed, mesh.RetryIfReused, nil), true},
		"used connection reset":            {of(mesh.UpstreamReset, mesh.RetryIfReused, nil), true},
		"new connection closed":            {of(mesh.UpstreamClosed, mesh.RetryNever, nil), false},
		"not idempotent":                   {of(mesh.UpstreamClosed, mesh.RetryIfReused, func(a *circuit.Attempt) { a.Idempotent = false }), false},
		"never left, not idempotent":       {of(mesh.UpstreamClosed, mesh.RetryAlways, func(a *circuit.Attempt) { a.Idempotent = false }), true},
		"body is gone":                     {of(mesh.UpstreamClosed, mesh.RetryIfReused, func(a *circuit.Attempt) { a.Replayable = false }), false},
		"answer began":                     {of(mesh.UpstreamClosed, mesh.RetryIfReused, func(a *circuit.Attempt) { a.Status = 200 }), false},
		"client has a part":                {of(mesh.UpstreamClosed, mesh.RetryIfReused, func(a *circuit.Attempt) { a.Committed = true }), false},
		"refused stream is for the policy": {of(mesh.UpstreamReset, mesh.RetryAlways, nil), false},
		"connect failure is, too":          {of(mesh.ConnectFailure, mesh.RetryAlways, nil), false},
		"timeout":                          {of(mesh.PerTryTimeout, mesh.RetryIfReused, nil), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := circuit.NewPlan(nil, nil)
			if got := p.Renew(&test.attempt); got != test.want {
				t.Errorf("Renew() = %v, want %v", got, test.want)
			}
			if p.Renew(&test.attempt) && test.want {
				t.Error("allowed it twice")
			}
			if p.Retries() != 0 {
				t.Error("counts as a retry of the policy")
			}
		})
	}
}

func TestIdempotent(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]bool{
		"GET": true, "HEAD": true, "OPTIONS": true, "TRACE": true, "PUT": true, "DELETE": true,
		"POST": false, "PATCH": false, "CONNECT": false, "get": false, "": false,
	} {
		if got := circuit.Idempotent([]byte(method)); got != want {
			t.Errorf("Idempotent(%q) = %v, want %v", method, got, want)
		}
	}
}

func TestParseRetryOn(t *testing.T) {
	t.Parallel()
	const istio = mesh.RetryOnConnectFailure | mesh.RetryOnRefusedStream | mesh.RetryOnGRPCUnavailable | mesh.RetryOnGRPCCancelled
	tests := map[string]struct {
		in      string
		on      mesh.RetryOn
		unknown []string
	}{
		"empty":            {"", 0, nil},
		"commas":           {" ,, ", 0, nil},
		"one":              {"5xx", mesh.RetryOn5xx, nil},
		"what Istio sends": {"connect-failure,refused-stream,unavailable,cancelled", istio, nil},
		"spaces":           {" connect-failure , refused-stream,\tunavailable,cancelled ", istio, nil},
		"twice":            {"5xx,5xx", mesh.RetryOn5xx, nil},
		"unknown":          {"http3-post-connect-failure,5xx,503", mesh.RetryOn5xx, []string{"http3-post-connect-failure", "503"}},
		"case counts":      {"5XX", 0, []string{"5XX"}},
		"all":              {strings.ReplaceAll(conditions, " ", ","), 1<<15 - 1, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if on, unknown := circuit.ParseRetryOn(test.in); on != test.on || !slices.Equal(unknown, test.unknown) {
				t.Errorf("ParseRetryOn(%q) = %b, %q, want %b, %q", test.in, on, unknown, test.on, test.unknown)
			}
		})
	}
}

// TestSetRetries: what the cluster says of the first wait counts where the policy does not say, and a share of the retries
// can be turned off.
func TestSetRetries(t *testing.T) {
	t.Parallel()
	const half, all = uint64(1) << 63, math.MaxUint64 // of the wait; their last two digits are 08 and 15
	for name, test := range map[string]struct {
		set    time.Duration
		share  uint32
		base   time.Duration
		rnd    uint64
		reason string
		wait   time.Duration
	}{
		"nothing said":          {0, 100, 0, half, "5xx", 12500 * time.Microsecond},
		"a wait":                {time.Second, 100, 0, half, "5xx", 500 * time.Millisecond},
		"the policy says":       {time.Second, 100, time.Minute, half, "5xx", 30 * time.Second},
		"none are made":         {0, 0, 0, all, circuit.ReasonTurnedOff, 0},
		"one that is made":      {0, 85, 0, all, "5xx", 25*time.Millisecond - 1},
		"one that is not made":  {0, 84, 0, all, circuit.ReasonTurnedOff, 0},
		"more than all of them": {0, 1000, 0, half, "5xx", 12500 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := circuit.NewResources(&mesh.Limits{Retries: 1})
			r.SetRetries(test.set, test.share)
			p := circuit.NewPlan(&mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 1, BackOffBase: test.base}, r)
			defer p.Close()
			a := answered(500)
			d := p.Next(&a, test.rnd)
			if d.Reason != test.reason || d.Wait != test.wait || d.Retry != (test.reason == "5xx") {
				t.Errorf("got %+v, want %s after %s", d, test.reason, test.wait)
			}
			if used := r.InUse(circuit.Retries); d.Retry != (used == 1) {
				t.Errorf("%d retries are in use", used)
			}
		})
	}
}

func TestRetryHeadersMerge(t *testing.T) {
	t.Parallel()
	base := &mesh.RetryPolicy{
		On: mesh.RetryOnReset, Retries: 3, BackOffBase: time.Second,
		StatusCodes: append(make([]int, 0, 8), 418), Headers: append(make([]mesh.HeaderMatch, 0, 8), mesh.HeaderMatch{Name: "a"}),
	}
	with := func(f func(*mesh.RetryPolicy)) *mesh.RetryPolicy {
		p := *base
		f(&p)
		return &p
	}
	present := func(name string) mesh.HeaderMatch {
		return mesh.HeaderMatch{Name: name, Kind: mesh.HeaderPresent, Present: true}
	}
	tests := map[string]struct {
		policy  *mesh.RetryPolicy
		headers circuit.RetryHeaders
		want    *mesh.RetryPolicy
	}{
		"nothing at all":       {nil, circuit.RetryHeaders{}, nil},
		"the policy alone":     {base, circuit.RetryHeaders{}, base},
		"a header alone":       {nil, circuit.RetryHeaders{On: "5xx"}, &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 1}},
		"a gRPC header alone":  {nil, circuit.RetryHeaders{GRPCOn: "internal"}, &mesh.RetryPolicy{On: mesh.RetryOnGRPCInternal, Retries: 1}},
		"names of the other":   {nil, circuit.RetryHeaders{On: "internal", GRPCOn: "5xx"}, &mesh.RetryPolicy{Retries: 1}},
		"retries without more": {nil, circuit.RetryHeaders{MaxRetries: "5"}, nil},
		"conditions are added": {base, circuit.RetryHeaders{On: "5xx,what", GRPCOn: "cancelled"}, with(func(p *mesh.RetryPolicy) {
			p.On |= mesh.RetryOn5xx | mesh.RetryOnGRPCCancelled
		})},
		"retries replace": {base, circuit.RetryHeaders{MaxRetries: "0"}, with(func(p *mesh.RetryPolicy) { p.Retries = 0 })},
		"many retries":    {base, circuit.RetryHeaders{MaxRetries: "18446744073709551615"}, with(func(p *mesh.RetryPolicy) { p.Retries = math.MaxInt32 })},
		"no number":       {base, circuit.RetryHeaders{MaxRetries: "-1"}, base},
		"codes are added": {base, circuit.RetryHeaders{StatusCodes: "503, 504,x,"}, with(func(p *mesh.RetryPolicy) { p.StatusCodes = []int{418, 503, 504} })},
		"headers are added": {base, circuit.RetryHeaders{HeaderNames: "X-Retry, b ,"}, with(func(p *mesh.RetryPolicy) {
			p.Headers = []mesh.HeaderMatch{{Name: "a"}, present("x-retry"), present("b")}
		})},
		"all without policy": {nil, circuit.RetryHeaders{On: "5xx", MaxRetries: "2", StatusCodes: "1", HeaderNames: "c"}, &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 2, StatusCodes: []int{1}, Headers: []mesh.HeaderMatch{present("c")}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := fmt.Sprintf("%+v %v", *base, base.StatusCodes[:2])
			if got := test.headers.Merge(test.policy); !reflect.DeepEqual(got, test.want) {
				t.Errorf("Merge() = %+v, want %+v", got, test.want)
			}
			if after := fmt.Sprintf("%+v %v", *base, base.StatusCodes[:2]); after != before {
				t.Errorf("the shared policy changed from %s to %s", before, after)
			}
		})
	}
}

func FuzzParseRetryOn(f *testing.F) {
	f.Add("5xx,reset")
	f.Add(" connect-failure , what")
	f.Fuzz(func(t *testing.T, s string) {
		on, unknown := circuit.ParseRetryOn(s)
		again, none := circuit.ParseRetryOn(strings.Join(append(namesOf(on), unknown...), ","))
		if again != on || len(none) != len(unknown) {
			t.Errorf("%q gives %b and %q, then %b and %q", s, on, unknown, again, none)
		}
	})
}

// namesOf returns the names of the conditions in on.
func namesOf(on mesh.RetryOn) (names []string) {
	for _, name := range strings.Fields(conditions) {
		if one, _ := circuit.ParseRetryOn(name); on&one != 0 {
			names = append(names, name)
		}
	}
	return names
}
