// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// on is a retry policy with a short back-off.
func on(c mesh.RetryOn, retries int) *mesh.RetryPolicy {
	return &mesh.RetryPolicy{On: c, Retries: retries, BackOffBase: time.Millisecond, BackOffMax: time.Millisecond}
}

func withRetry(p *mesh.RetryPolicy) func(*mesh.RouteAction) {
	return func(a *mesh.RouteAction) { a.Retry = p }
}

// TestRetryOn: each condition against each way in which an attempt can fail.
func TestRetryOn(t *testing.T) {
	t.Parallel()
	limited := "HTTP/1.1 429 X\r\nContent-Length: 0\r\nX-Envoy-RateLimited: true\r\n\r\n"
	marked := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Again: no\r\nX-Again: yes\r\n\r\n"
	garbage := "what?\r\n\r\n close"
	all := map[string]string{
		"500": status(500), "503": status(503), "409": status(409), "429": status(429), "limited": limited, "marked": marked,
		"closes": closing, "resets": resetting, "garbage": garbage, "dead": "", "hangs": hanging,
	}
	codes := on(mesh.RetryOnRetriableStatusCodes, 1)
	codes.StatusCodes = []int{429, 409}
	fields := on(mesh.RetryOnRetriableHeaders, 1)
	// Each value counts on its own: joined, "no,yes" would not be yes.
	fields.Headers = []mesh.HeaderMatch{{Name: "x-again", Kind: mesh.HeaderString, String: mesh.StringMatch{Kind: mesh.MatchExact, Value: "yes"}}}
	try := func(p *mesh.RetryPolicy) *mesh.RetryPolicy { p.PerTryTimeout = 500 * time.Millisecond; return p }
	for _, c := range []struct {
		name   string
		policy *mesh.RetryPolicy
		again  string // what is repeated
	}{
		{"none", nil, ""},
		{"5xx", try(on(mesh.RetryOn5xx, 1)), "500 503 closes resets garbage dead hangs"},
		{"gateway-error", try(on(mesh.RetryOnGatewayError, 1)), "503 closes resets garbage dead hangs"},
		{"reset", try(on(mesh.RetryOnReset, 1)), "closes resets garbage dead hangs"},
		{"reset-before-request", on(mesh.RetryOnResetBeforeRequest, 1), "dead"},
		{"connect-failure", on(mesh.RetryOnConnectFailure, 1), "dead"},
		{"refused-stream", on(mesh.RetryOnRefusedStream, 1), ""},
		{"retriable-4xx", on(mesh.RetryOnRetriable4xx, 1), "409"},
		{"retriable-status-codes", codes, "409 429"},
		{"retriable-headers", fields, "marked"},
		{"envoy-ratelimited", on(mesh.RetryOnEnvoyRateLimited, 1), "limited"},
	} {
		for how, step := range all {
			if how == "hangs" && (c.policy == nil || c.policy.PerTryTimeout == 0) {
				continue // would last for ever
			}
			t.Run(c.name+" "+how, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, mesh.Router{})
				good := play(t, ok)
				first := dead
				if how != "dead" {
					first = play(t, step).addr
				}
				// The second attempt goes to the other host.
				policy := c.policy
				if policy != nil {
					p := *policy
					p.SkipPreviousHosts, p.HostSelectionTries = true, 10
					policy = &p
				}
				r.add("both", nil, first, good.addr)
				want := strings.Contains(" "+c.again+" ", " "+how+" ")
				attempts := 0
				for range 2 { // one of the two begins with the first host
					q := get(to("both", withRetry(policy)))
					q.method = "POST"
					p := r.do(q)
					attempts = max(attempts, p.Attempts)
					if p.Attempts == 2 && (p.Status != 200 || len(p.Tries) != 1 || p.Upstream.IP.String() != good.addr || p.Tries[0].Upstream.IP.String() != first) {
						t.Errorf("%d after %+v", p.Status, p.Tries)
					}
				}
				if want != (attempts == 2) {
					t.Errorf("%d attempts", attempts)
				}
			})
		}
	}
}

// TestRetryNumbers: the number of attempts, the flag when they are used up, what each attempt tells, and that the last
// answer is the one that is passed on.
func TestRetryNumbers(t *testing.T) {
	t.Parallel()
	for retries := range 4 {
		r := newRig(t, mesh.Router{})
		s := play(t, "HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nfail")
		r.add("c", nil, s.addr)
		q := get(to("c", withRetry(on(mesh.RetryOn5xx, retries))))
		q.match.Host.AttemptCountInRequest, q.match.Host.AttemptCountInResponse = true, true
		p := r.do(q)
		if p.Status != 503 || p.body != "fail" || p.Attempts != retries+1 || len(p.Tries) != retries || p.Flags != mesh.FlagURX || p.field("x-envoy-attempt-count") != fmt.Sprint(retries+1) {
			t.Errorf("%d retries: %d %q, %d attempts, %s", retries, p.Status, p.body, p.Attempts, p.Flags)
		}
		heads, _ := s.got()
		for i, h := range heads {
			if !strings.Contains(h, fmt.Sprintf("x-envoy-attempt-count: %d\r\n", i+1)) || strings.Count(h, "attempt-count") != 1 {
				t.Errorf("attempt %d: %q", i+1, h)
			}
		}
		if n := s.conns.Load(); n != 1 {
			t.Errorf("%d connections, though each answer was read to its end", n)
		}
	}
}

// TestRetryHeaders: what a client may change by its headers, which go no further.
func TestRetryHeaders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		policy   *mesh.RetryPolicy
		fields   [][2]string
		step     string
		attempts int
	}{
		{"retry-on makes a policy", nil, [][2]string{{"x-envoy-retry-on", "5xx"}}, status(500), 2},
		{"max-retries alone does not", nil, [][2]string{{"x-envoy-max-retries", "3"}}, status(500), 1},
		{"max-retries", on(mesh.RetryOn5xx, 1), [][2]string{{"x-envoy-max-retries", "3"}}, status(500), 4},
		{"max-retries of none", on(mesh.RetryOn5xx, 1), [][2]string{{"x-envoy-max-retries", "0"}}, status(500), 1},
		{"codes", nil, [][2]string{{"x-envoy-retry-on", "retriable-status-codes"}, {"x-envoy-retriable-status-codes", "418"}}, status(418), 2},
		{"names", nil, [][2]string{{"x-envoy-retry-on", "retriable-headers"}, {"x-envoy-retriable-header-names", "x-a,content-length"}}, ok, 2},
		{"conditions add up", on(mesh.RetryOn5xx, 2), [][2]string{{"x-envoy-retry-on", "retriable-4xx"}}, status(409), 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			s := play(t, c.step)
			r.add("c", nil, s.addr)
			q := get(to("c", withRetry(c.policy)))
			q.fields = c.fields
			if p := r.do(q); p.Attempts != c.attempts {
				t.Errorf("%d attempts", p.Attempts)
			}
			if heads, _ := s.got(); strings.Contains(heads[0], "x-envoy-") {
				t.Errorf("the upstream got %q", heads[0])
			}
		})
	}
}

// TestRetryBody: a body is sent again as far as it was kept, and never in part.
func TestRetryBody(t *testing.T) {
	t.Parallel()
	small := []string{"one ", "two ", "three"}
	large := strings.Split(strings.Repeat(strings.Repeat("x", 8<<10)+"|", 20), "|") // 160 KiB
	large = large[:len(large)-1]
	for _, c := range []struct {
		name     string
		body     []string
		here     int
		steps    []string
		status   int
		attempts int
	}{
		{"none", nil, 0, []string{status(503), ok}, 200, 2},
		{"whole with the head", small, 3, []string{status(503), ok}, 200, 2},
		{"still coming", small, 1, []string{status(503), ok}, 200, 2},
		{"all still coming", small, 0, []string{status(503), ok}, 200, 2},
		{"closed in the middle", small, 1, []string{closing, ok}, 200, 2},
		{"larger than what is kept", large, 0, []string{status(503), ok}, 503, 1},
		{"larger, with its beginning", large, 2, []string{status(503), ok}, 503, 1},
		{"larger, whole with the head", large, 20, []string{status(503), ok}, 200, 2},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, " chunked ", chunked), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, mesh.Router{})
				s := play(t, c.steps...)
				r.add("c", nil, s.addr)
				q := get(to("c", withRetry(on(mesh.RetryOn5xx, 1))))
				q.method, q.body, q.here = "POST", append([]string(nil), c.body...), c.here
				whole := strings.Join(c.body, "")
				q.length = int64(len(whole))
				if chunked && len(c.body) > 0 {
					q.length = codec.Unknown
				}
				p := r.do(q)
				if p.Status != c.status || p.Attempts != c.attempts {
					t.Errorf("%d after %d attempts", p.Status, p.Attempts)
				}
				_, bodies := s.got()
				if len(bodies) == 0 || bodies[len(bodies)-1] != whole {
					t.Errorf("the upstream got %d bodies, the last of %d bytes", len(bodies), len(bodies[len(bodies)-1]))
				}
				if p.BytesReceived != int64(len(whole)) {
					t.Errorf("%d bytes received", p.BytesReceived)
				}
			})
		}
	}
}

// TestNoRetryOfPartOfABody: the answer comes early, while a body is on its way of which too much has gone to send it
// again. It is passed on; no attempt begins in the middle of the body.
func TestNoRetryOfPartOfABody(t *testing.T) {
	t.Parallel()
	for range 20 {
		r := newRig(t, mesh.Router{})
		s := play(t, "early "+status(503)+" close", ok)
		r.add("c", nil, s.addr)
		q := get(to("c", withRetry(on(mesh.RetryOn5xx, 3))))
		q.method, q.length = "POST", codec.Unknown
		for range 64 {
			q.body = append(q.body, strings.Repeat("x", 8<<10))
		}
		p := r.do(q)
		_, bodies := s.got()
		for i, b := range bodies {
			if n := strings.Count(b, "x"); i > 0 && n != 512<<10 {
				t.Fatalf("attempt %d got %d bytes of the body; answered %d", i+1, n, p.Status)
			}
		}
		if p.Status != 503 && p.Attempts == 1 {
			t.Errorf("%d after %d attempts", p.Status, p.Attempts)
		}
	}
}

// TestRenew: a request that meets a pooled connection which the upstream has just closed is sent again at once where
// that cannot repeat an effect, without any policy (F33).
func TestRenew(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, method string
		steps        []string // the first is for the request that leaves the connection in the pool
		length       int64
		body         []string
		status       int
		attempts     int
	}{
		{"GET on a dead connection", "GET", []string{ok, closing, ok}, 0, nil, 200, 2},
		{"GET on a reset one", "GET", []string{ok, resetting, ok}, 0, nil, 200, 2},
		{"PUT with a body", "PUT", []string{ok, closing, ok}, 4, []string{"body"}, 200, 2},
		{"POST is never sent twice", "POST", []string{ok, closing, ok}, 4, []string{"body"}, 503, 1},
		{"POST without a body neither", "POST", []string{ok, closing, ok}, 0, nil, 503, 1},
		{"once only", "GET", []string{ok, closing, closing, ok}, 0, nil, 503, 2},
		{"not after a byte of an answer", "GET", []string{ok, "H close", ok}, 0, nil, 503, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			s := play(t, c.steps...)
			cl := r.add("c", nil, s.addr)
			if p := r.do(get(to("c"))); p.Status != 200 {
				t.Fatalf("%+v", p.Outcome)
			}
			q := get(to("c"))
			q.method, q.length, q.body, q.here = c.method, c.length, c.body, len(c.body)
			p := r.do(q)
			if p.Status != c.status || p.Attempts != c.attempts || p.Flags&mesh.FlagURX != 0 {
				t.Errorf("%d after %d attempts, %s", p.Status, p.Attempts, p.Flags)
			}
			heads, _ := s.got()
			if len(heads) != 1+c.attempts {
				t.Errorf("%d requests reached the upstream", len(heads))
			}
			if n := cl.Stats.Value(metrics.UpstreamRqActive); n != 0 {
				t.Errorf("%d active", n)
			}
		})
	}
}

// TestRenewIsNotForFreshConnections: a close on a connection that was made for the request says that the upstream may
// have acted on it.
func TestRenewIsNotForFreshConnections(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	s := play(t, closing, ok)
	r.add("c", nil, s.addr)
	if p := r.do(get(to("c"))); p.Status != 503 || p.Attempts != 1 || p.Flags != mesh.FlagUC {
		t.Errorf("%+v", p.Outcome)
	}
}

// TestRetryLimits: the cluster's limit of retries, and its budget, refuse a retry: the answer is passed on then, with UO.
func TestRetryLimits(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*mesh.Cluster){
		"limit":  func(c *mesh.Cluster) { c.Limits[0].Retries = 0 },
		"budget": func(c *mesh.Cluster) { c.Limits[0].Budget = &mesh.RetryBudget{Percent: 20} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			s := play(t, status(503))
			cl := r.add("c", limit, s.addr)
			p := r.do(get(to("c", withRetry(on(mesh.RetryOn5xx, 3)))))
			if p.Status != 503 || p.Attempts != 1 || p.Flags != mesh.FlagUO || !p.whole {
				t.Errorf("%+v", p.Outcome)
			}
			if n := cl.Stats.Value(metrics.UpstreamRqRetryOverflow); n != 1 {
				t.Errorf("%d overflows counted", n)
			}
		})
	}
}

// TestRetryStorm: with every answer bad, the budget holds what is added to the load (F32).
func TestRetryStorm(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	s := play(t, status(503))
	r.add("c", func(c *mesh.Cluster) { c.Limits[0].Budget = &mesh.RetryBudget{Percent: 20, MinConcurrency: 0} }, s.addr)
	const n = 200
	var all []<-chan *reply
	for range n {
		q := get(to("c", withRetry(on(mesh.RetryOn5xx, 3))))
		all = append(all, r.start(q))
	}
	attempts := 0
	for _, done := range all {
		attempts += wait(t, done).Attempts
	}
	heads, _ := s.got()
	if len(heads) != attempts {
		t.Errorf("%d attempts, %d requests upstream", attempts, len(heads))
	}
	// The budget bounds retries in flight by the requests in flight, not their sum: in a burst like this they are 10 to 45 %
	// of the requests. Without it each request would be tried four times.
	if attempts > 2*n {
		t.Errorf("%d attempts for %d requests", attempts, n)
	}
}

// TestBackOff: the wait before a retry is kept, ends with the client's leaving and with the request's timeout, and holds
// its place among the retries meanwhile.
func TestBackOff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		timeout time.Duration
		leave   bool
		kind    mesh.FailureKind
	}{
		{"the client leaves", 0, true, mesh.DownstreamClosed},
		{"the request's timeout", 100 * time.Millisecond, false, mesh.RequestTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			s := play(t, status(503), ok)
			cl := r.add("c", func(c *mesh.Cluster) { c.Limits[0].Retries = 1 }, s.addr)
			policy := &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 1, BackOffBase: 1 << 55, BackOffMax: 1 << 55}
			q := get(to("c", withRetry(policy), func(a *mesh.RouteAction) { a.Timeout = c.timeout }))
			q.client = &client{}
			done := r.start(q)
			<-s.asked
			if c.leave {
				q.client.leave()
			}
			p := wait(t, done)
			if p.Failure != c.kind || p.Attempts != 1 {
				t.Errorf("%s after %d attempts", p.Failure, p.Attempts)
			}
			if open := cl.Resources(mesh.PriorityDefault).Remaining(3); open != 1 {
				t.Errorf("%d retries are free", open)
			}
			if heads, _ := s.got(); len(heads) != 1 {
				t.Errorf("%d requests", len(heads))
			}
		})
	}
}

// TestRetryGRPC: the conditions of gRPC go by the grpc-status in the head of an answer.
func TestRetryGRPC(t *testing.T) {
	t.Parallel()
	answer := func(code string) string {
		return "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\ngrpc-status: " + code + "\r\n\r\n"
	}
	for _, c := range []struct {
		name, contentType, code string
		on                      mesh.RetryOn
		attempts                int
	}{
		{"unavailable", "application/grpc", "14", mesh.RetryOnGRPCUnavailable, 2},
		{"cancelled", "application/grpc+proto", "1", mesh.RetryOnGRPCCancelled, 2},
		{"deadline exceeded", "application/grpc", "4", mesh.RetryOnGRPCDeadlineExceeded, 2},
		{"resource exhausted", "application/grpc", "8", mesh.RetryOnGRPCResourceExhausted, 2},
		{"internal", "application/grpc", "13", mesh.RetryOnGRPCInternal, 2},
		{"another code", "application/grpc", "14", mesh.RetryOnGRPCInternal, 1},
		{"no number", "application/grpc", "1x", mesh.RetryOnGRPCCancelled, 1},
		{"a long one", "application/grpc", "0014", mesh.RetryOnGRPCUnavailable, 2},
		{"no gRPC", "application/json", "14", mesh.RetryOnGRPCUnavailable, 2}, // as in Envoy,
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			r.add("c", nil, play(t, answer(c.code)).addr)
			q := get(to("c", withRetry(on(c.on, 1))))
			q.fields = [][2]string{{"content-type", c.contentType}}
			if p := r.do(q); p.Attempts != c.attempts || p.Status != 200 {
				t.Errorf("%d after %d attempts", p.Status, p.Attempts)
			}
		})
	}
}
