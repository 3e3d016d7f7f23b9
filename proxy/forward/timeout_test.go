// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestTimeouts: each deadline of the router, with what the client gets and what is said of it.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	const short, long = 50 * time.Millisecond, time.Hour
	begun := "early HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin"
	timeout := func(d time.Duration) func(*mesh.RouteAction) { return func(a *mesh.RouteAction) { a.Timeout = d } }
	try := func(d time.Duration, retries int) func(*mesh.RouteAction) {
		return func(a *mesh.RouteAction) {
			a.Retry = on(mesh.RetryOn5xx, retries)
			a.Retry.PerTryTimeout = d
		}
	}
	for _, c := range []struct {
		name     string
		change   []func(*mesh.RouteAction)
		cluster  func(*mesh.Cluster)
		fields   [][2]string
		steps    []string
		status   int
		kind     mesh.FailureKind
		flags    mesh.Flags
		details  string
		body     string
		attempts int
	}{
		{"request", []func(*mesh.RouteAction){timeout(short)}, nil, nil, []string{hanging}, 504, mesh.RequestTimeout, mesh.FlagUT, "response_timeout", "upstream request timeout", 1},
		{"request, in the answer", []func(*mesh.RouteAction){timeout(10 * short)}, nil, nil, []string{begun, hanging}, 200, mesh.RequestTimeout, mesh.FlagUT, "response_timeout", "begin", 1},
		{"try", []func(*mesh.RouteAction){timeout(long), try(short, 0)}, nil, nil, []string{hanging}, 504, mesh.PerTryTimeout, mesh.FlagUT | mesh.FlagURX, "upstream_per_try_timeout", "upstream request timeout", 1},
		{"tries", []func(*mesh.RouteAction){timeout(long), try(short, 2)}, nil, nil, []string{hanging}, 504, mesh.PerTryTimeout, mesh.FlagUT | mesh.FlagURX, "upstream_per_try_timeout", "upstream request timeout", 3},
		{"a try, then an answer", []func(*mesh.RouteAction){try(10*short, 2)}, nil, nil, []string{hanging, ok}, 200, mesh.NoFailure, 0, "via_upstream", "ok", 2},
		{"the request's comes first", []func(*mesh.RouteAction){timeout(short), try(long, 2)}, nil, nil, []string{hanging}, 504, mesh.RequestTimeout, mesh.FlagUT, "response_timeout", "upstream request timeout", 1},
		{"by the client's header", []func(*mesh.RouteAction){timeout(long)}, nil, [][2]string{{"x-envoy-upstream-rq-timeout-ms", "50"}}, []string{hanging}, 504, mesh.RequestTimeout, mesh.FlagUT, "response_timeout", "upstream request timeout", 1},
		{
			"a try by the client's header", []func(*mesh.RouteAction){timeout(long)}, nil,
			[][2]string{{"x-envoy-upstream-rq-per-try-timeout-ms", "50"}, {"x-envoy-retry-on", "5xx"}}, []string{hanging}, 504, mesh.PerTryTimeout, mesh.FlagUT | mesh.FlagURX, "upstream_per_try_timeout", "upstream request timeout", 2,
		},
		{
			"try idle", []func(*mesh.RouteAction){func(a *mesh.RouteAction) { a.Retry = &mesh.RetryPolicy{PerTryIdleTimeout: short} }}, nil, nil,
			[]string{hanging}, 504, mesh.PerTryTimeout, mesh.FlagUT, "upstream_per_try_timeout", "upstream request timeout", 1,
		},
		{
			"route's idle", []func(*mesh.RouteAction){func(a *mesh.RouteAction) { d := short; a.IdleTimeout = &d }}, nil, nil,
			[]string{hanging}, 504, mesh.StreamIdleTimeout, mesh.FlagSI, "stream_idle_timeout", "stream timeout", 1,
		},
		{
			"route's longest", []func(*mesh.RouteAction){func(a *mesh.RouteAction) { d := short; a.MaxStreamDuration = &d }}, nil, nil,
			[]string{hanging}, 504, mesh.MaxDuration, 0, "max_duration_timeout", "downstream duration timeout", 1,
		},
		{
			"cluster's longest", nil, func(c *mesh.Cluster) { c.HTTP.MaxStreamDuration = short }, nil,
			[]string{hanging}, 504, mesh.MaxDuration, mesh.FlagUMSDR, "upstream_max_stream_duration_reached", "upstream max stream duration reached", 1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			s := play(t, c.steps...)
			cl := r.add("c", c.cluster, s.addr)
			q := get(to("c", c.change...))
			q.fields = c.fields
			p := r.do(q)
			if p.Status != c.status || p.Failure != c.kind || p.Flags != c.flags || p.Details != c.details || p.body != c.body || p.Attempts != c.attempts {
				t.Errorf("%d %q %s %s %s after %d", p.Status, p.body, p.Failure, p.Flags, p.Details, p.Attempts)
			}
			if broken := c.status == 200 && c.kind != mesh.NoFailure; p.aborted != broken || p.whole == broken {
				t.Errorf("aborted %v, whole %v", p.aborted, p.whole)
			}
			if n := cl.Stats.Value(metrics.UpstreamRqActive); n != 0 {
				t.Errorf("%d active", n)
			}
		})
	}
}

// TestTimeoutBeginsWithTheEnd: the route's timeout does not run while the client still sends.
func TestTimeoutBeginsWithTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	s := play(t, ok)
	r.add("c", nil, s.addr)
	q := get(to("c", func(a *mesh.RouteAction) { a.Timeout = time.Second }))
	q.method, q.length = "POST", -1
	for range 30 {
		q.body = append(q.body, strings.Repeat("x", 100))
	}
	q.slow = 50 * time.Millisecond
	if p := r.do(q); p.Status != 200 || p.BytesReceived != 3000 || p.RequestEnd < int64(time.Second) {
		t.Errorf("%+v", p.Outcome)
	}
}

// TestExpectedTimeout: what the upstream is told of the time that it has.
func TestExpectedTimeout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		opts         mesh.Router
		timeout, try time.Duration
		fields       [][2]string
		want         string
	}{
		{"none", mesh.Router{}, 0, 0, nil, ""},
		{"the request's", mesh.Router{}, 3 * time.Second, 0, nil, "3000"},
		{"the try's", mesh.Router{}, 3 * time.Second, time.Second, nil, "1000"},
		{"a try longer than the request", mesh.Router{}, time.Second, 3 * time.Second, nil, "1000"},
		{"the client's", mesh.Router{}, 3 * time.Second, 0, [][2]string{{"x-envoy-upstream-rq-timeout-ms", "700"}}, "700"},
		{"the client's, unreadable", mesh.Router{}, 3 * time.Second, 0, [][2]string{{"x-envoy-upstream-rq-timeout-ms", "1h"}}, "3000"},
		{"suppressed", mesh.Router{SuppressEnvoyHeaders: true}, 3 * time.Second, 0, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.opts)
			s := play(t, ok)
			r.add("c", nil, s.addr)
			q := get(to("c", func(a *mesh.RouteAction) {
				a.Timeout, a.Retry = c.timeout, &mesh.RetryPolicy{PerTryTimeout: c.try}
			}))
			q.fields = c.fields
			p := r.do(q)
			if p.Status != 200 || (p.field("x-envoy-upstream-service-time") == "") != c.opts.SuppressEnvoyHeaders {
				t.Errorf("%+v", p.Outcome)
			}
			heads, _ := s.got()
			_, after, _ := strings.Cut(heads[0], "x-envoy-expected-rq-timeout-ms: ")
			got, _, _ := strings.Cut(after, "\r\n")
			if got != c.want || strings.Contains(heads[0], "x-envoy-upstream") {
				t.Errorf("%q in %q", got, heads[0])
			}
		})
	}
}

// arriving is a body that is not here when the router looks first, and whole when it looks again, as in HTTP/2.
type arriving struct{ looked bool }

func (b *arriving) Buffered() (bytebuf.Piece, bool, error) {
	if !b.looked {
		b.looked = true
		return bytebuf.Piece{}, false, nil
	}
	return bytebuf.Of([]byte("body")), true, nil
}

func (*arriving) Next(*socket.Worker) (bytebuf.Piece, bool, error) { return bytebuf.Piece{}, true, nil }
func (*arriving) Trailers() *header.List                           { return nil }

// TestTimeoutOfArrivingBody: the request's timeout begins with its end, also where that comes between two looks.
func TestTimeoutOfArrivingBody(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	r.add("c", nil, play(t, hanging).addr)
	q := get(to("c", func(a *mesh.RouteAction) { a.Timeout = 50 * time.Millisecond }))
	q.method, q.length = "POST", 4
	q.prepare = func(x *exchange.Exchange) { x.RequestBody = &arriving{} }
	if p := r.do(q); p.Status != 504 || p.Failure != mesh.RequestTimeout || p.RequestEnd < 0 {
		t.Errorf("%d %v, the request's end %d", p.Status, p.Failure, p.RequestEnd)
	}
}
