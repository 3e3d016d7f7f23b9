// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// TestFallback: each reason, with a static answer and with another cluster; what is not asked for does not fall back.
func TestFallback(t *testing.T) {
	t.Parallel()
	const every = mesh.FallbackOnOpenCircuit | mesh.FallbackOnNoHealthyHost | mesh.FallbackOnOverflow | mesh.FallbackOnConnectFailure
	breaker := func(c *mesh.Cluster) {
		c.Breaker = &mesh.Breaker{ConsecutiveFailures: 1, OpenFor: time.Hour}
	}
	for _, c := range []struct {
		name   string
		reason mesh.FallbackOn
		kind   mesh.FailureKind
		status int // without a fallback
		change func(*mesh.Cluster)
		addrs  func(t *testing.T) []string
		first  int // requests before the one that counts
	}{
		{"open circuit", mesh.FallbackOnOpenCircuit, mesh.CircuitOpen, 503, breaker, func(t *testing.T) []string { return []string{play(t, status(500)).addr} }, 1},
		{"no healthy host", mesh.FallbackOnNoHealthyHost, mesh.NoHealthyHost, 503, nil, func(*testing.T) []string { return nil }, 0},
		{
			"overflow", mesh.FallbackOnOverflow, mesh.Overflow, 503, func(c *mesh.Cluster) { c.Limits[0].Requests = 0 },
			func(t *testing.T) []string { return []string{play(t, ok).addr} }, 0,
		},
		{"connect failure", mesh.FallbackOnConnectFailure, mesh.ConnectFailure, 503, nil, func(*testing.T) []string { return []string{dead} }, 0},
		{"a closed connection is no reason", 0, mesh.UpstreamClosed, 503, nil, func(t *testing.T) []string { return []string{play(t, closing).addr} }, 0},
		{"an answer is no reason", 0, mesh.NoFailure, 500, nil, func(t *testing.T) []string { return []string{play(t, status(500)).addr} }, 0},
	} {
		for _, how := range []string{"static", "cluster", "missing cluster", "not asked for"} {
			t.Run(c.name+" "+how, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, mesh.Router{})
				r.add("c", c.change, c.addrs(t)...)
				spare := play(t, ok)
				r.add("spare", nil, spare.addr)
				rt := to("c")
				fb := &mesh.Fallback{On: c.reason, Cluster: "spare"}
				if c.reason == 0 {
					fb.On = every
				}
				switch how {
				case "static":
					fb.Cluster, fb.Response = "", &mesh.DirectResponse{Status: 203, Body: []byte("cached")}
					fb.Headers = []mesh.HeaderAdd{{Name: "x-cache", Literal: "stale"}}
				case "missing cluster":
					fb.Cluster = "missing"
				case "not asked for":
					fb.On = every &^ c.reason
				}
				rt.Fallback = fb
				for range c.first {
					r.do(get(rt))
				}
				q := get(rt)
				q.method, q.length, q.body = "POST", 6, []string{"b", "o", "d", "y", "..", ""}
				q.here = 1
				p := r.do(q)
				fell := c.reason != 0 && (how == "static" || how == "cluster")
				if p.Fallback != fell {
					t.Errorf("fallback %v", p.Fallback)
				}
				switch {
				case !fell && (p.Status != c.status || p.Failure != c.kind):
					t.Errorf("%d %s", p.Status, p.Failure)
				case fell && how == "static" && (p.Status != 203 || p.body != "cached" || p.field("x-cache") != "stale" || p.Failure != c.kind || p.Side == mesh.SideNone ||
					p.Details != "fallback" || p.Flags&c.kind.Info().Flag == 0 || p.Cluster != "c"):
					t.Errorf("%d %q %+v", p.Status, p.body, p.Outcome)
				case fell && how == "cluster":
					_, bodies := spare.got()
					if p.Status != 200 || p.body != "ok" || p.Cluster != "spare" || p.Failure != mesh.NoFailure || len(p.Tries) != 1 || p.Tries[0].Failure != c.kind || len(bodies) != 1 || bodies[0] != "body.." {
						t.Errorf("%d %q %+v, upstream got %q", p.Status, p.body, p.Outcome, bodies)
					}
				}
			})
		}
	}
}

// TestFallbackOnce: a fallback cluster that fails too is the end; and the retry policy counts anew for it.
func TestFallbackOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	r.add("c", nil)
	spare := play(t, status(503), status(503), ok)
	r.add("spare", nil, spare.addr)
	r.add("empty", nil)
	rt := to("c", withRetry(on(mesh.RetryOn5xx, 2)))
	rt.Fallback = &mesh.Fallback{On: mesh.FallbackOnNoHealthyHost, Cluster: "spare"}
	if p := r.do(get(rt)); p.Status != 200 || p.Attempts != 4 || len(p.Tries) != 3 {
		t.Errorf("%+v", p.Outcome)
	}
	rt.Fallback.Cluster = "empty"
	if p := r.do(get(rt)); p.Status != 503 || p.Failure != mesh.NoHealthyHost || p.Attempts != 2 || !p.Fallback {
		t.Errorf("%+v", p.Outcome)
	}
}

// TestClusterStat: the name under which a cluster is counted follows the cluster that is tried.
func TestClusterStat(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	r.add("c", func(c *mesh.Cluster) { c.StatName = "alt" }, play(t, ok).addr)
	r.add("empty", func(c *mesh.Cluster) { c.StatName = "alt" })
	r.add("plain", nil, play(t, ok).addr)
	if p := r.do(get(to("c"))); p.Cluster != "c" || p.ClusterStat != "alt" {
		t.Errorf("%q %q", p.Cluster, p.ClusterStat)
	}
	rt := to("empty")
	rt.Fallback = &mesh.Fallback{On: mesh.FallbackOnNoHealthyHost, Cluster: "plain"}
	if p := r.do(get(rt)); p.Cluster != "plain" || p.ClusterStat != "" {
		t.Errorf("%q %q", p.Cluster, p.ClusterStat)
	}
}
