// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// count makes a request many times and counts the answers by the origin that gave them.
func (r *Rig) count(n int, q Request) map[string]int {
	r.T.Helper()
	seen := map[string]int{}
	for range n {
		a := r.Do(q)
		if a.Status != 200 {
			r.T.Fatalf("%s: %d %s", q.Name, a.Status, a.Body)
		}
		seen[a.Header.Get("X-Origin")]++
	}
	return seen
}

func split(t *testing.T, r *Rig) {
	const n = 400
	var canary int
	for range n {
		a := r.Do(Request{Name: "split"})
		v2 := a.Header.Get("X-Canary") == "yes"
		if v2 != strings.HasPrefix(a.Body, "b ") || v2 != strings.Contains(a.Body, "\nx-release: v2\n") {
			t.Fatalf("canary %v, got %s", v2, a.Body)
		}
		if v2 {
			canary++
		}
	}
	// A quarter is 100; this is 5 standard deviations.
	if canary < 57 || canary > 143 {
		t.Errorf("%d of %d requests went to a cluster of 25 %%", canary, n)
	}
}

// otherHost: a retry goes to a host that has not failed yet.
func otherHost(t *testing.T, r *Rig) {
	for i := range 20 {
		a, b := r.A.Requests.Load(), r.B.Requests.Load()
		r.Do(Request{Name: "retry", Header: []string{"x-do: fail=1", fmt.Sprint("x-case: other-", i)}})
		if a, b = r.A.Requests.Load()-a, r.B.Requests.Load()-b; a != 1 || b != 1 {
			t.Errorf("of two attempts, %d went to one host and %d to the other", a, b)
		}
	}
}

func policies(t *testing.T, r *Rig) {
	if seen := r.count(40, Request{Path: "/in-turn"}); seen["a"] != 30 || seen["b"] != 10 {
		t.Errorf("round robin with the weights 3 and 1: %v", seen)
	}
	for _, path := range []string{"/fewest", "/random"} {
		if seen := r.count(100, Request{Path: path}); seen["a"] == 0 || seen["b"] == 0 {
			t.Errorf("%s: %v", path, seen)
		}
	}
	if seen := r.count(3, Request{Header: []string{"x-where: " + r.B.Addr().String()}}); seen["b"] != 3 {
		t.Errorf("the destination of a header: %v", seen)
	}
}

// settle makes requests until so many in a row came from these origins, all of them.
func (r *Rig) settle(path string, origins ...string) {
	r.T.Helper()
	const inARow = 40
	seen, n := map[string]int{}, 0
	r.Admin.Until("/ready", func(int, string) bool {
		for n = 0; n < inARow; n++ {
			a := r.Do(Request{Name: "settle", Path: path})
			if got := a.Header.Get("X-Origin"); a.Status != 200 || !strings.Contains(strings.Join(origins, " "), got) {
				clear(seen)
				return false
			}
			seen[a.Header.Get("X-Origin")]++
		}
		return len(seen) == len(origins)
	})
}

func health(t *testing.T, r *Rig) {
	r.settle("/checked", "a", "b")
	r.B.Unhealthy.Store(true)
	r.settle("/checked", "a")
	r.B.Unhealthy.Store(false)
	r.settle("/checked", "a", "b")
	if r.A.Checks.Load() == 0 {
		t.Error("nobody asked for the health")
	}
	r.settle("/connected", "a")
	for i := range 3 * 2 { // three in a row for each of the two hosts
		if a := r.Do(Request{Path: "/watched", Header: []string{"x-do: status=500"}}); a.Status != 500 {
			t.Errorf("failure %d: %d %s", i, a.Status, a.Body)
		}
	}
	// One host is ejected; the other may not be, since half of them have to stay.
	var hosts struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Health struct {
					Outlier bool `json:"failed_outlier_check"`
				} `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	r.Admin.JSON("/clusters?format=json", &hosts)
	ejected := 0
	for _, c := range hosts.Clusters {
		for _, h := range c.Hosts {
			if c.Name == "watched" && h.Health.Outlier {
				ejected++
			}
		}
	}
	if ejected != 1 {
		t.Errorf("%d hosts are ejected, want 1", ejected)
	}
	if seen := r.count(10, Request{Path: "/watched"}); len(seen) != 1 {
		t.Errorf("an ejected host is used: %v", seen)
	}
}

// limits: what is beyond the thresholds is refused, and what is not is served.
func limits(t *testing.T, r *Rig) {
	ctx, cancel := context.WithCancel(t.Context())
	var held sync.WaitGroup
	for i := range int64(2) {
		req, err := r.request(ctx, Request{Header: []string{"x-do: hang"}})
		if err != nil {
			t.Fatal(err)
		}
		held.Go(func() {
			if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
				t.Errorf("a request that hangs was answered: %d", resp.StatusCode)
				resp.Body.Close()
			}
		})
		// One after the other: while it waits for its connection, a request is pending, of which there may be one.
		r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["cluster.web.upstream_rq_active"] == i+1 })
	}
	const refused = 10
	for range refused {
		q := Request{Name: "a third request", Want: Want{
			Status: 503, Line: "upstream connect error or disconnect/reset before headers. reset reason: overflow",
			Header: []string{"x-envoy-overloaded: true"},
		}}
		q.Check(t, r.Do(q))
	}
	// A request is counted at its very end, when its client may have its answer already. Envoy 1.40 has moved the requests
	// beyond max_requests to a counter of their own; dashboards know the old one.
	s := r.Admin.UntilStats(func(s sidecar.Stats) bool {
		return s["cluster.web.upstream_rq_pending_overflow"]+s["cluster.web.upstream_rq_active_overflow"] == refused
	})
	if s["cluster.web.circuit_breakers.default.rq_open"] != 1 || s["cluster.web.circuit_breakers.default.remaining_rq"] != 0 {
		t.Errorf("rq_open %d, remaining_rq %d", s["cluster.web.circuit_breakers.default.rq_open"], s["cluster.web.circuit_breakers.default.remaining_rq"])
	}
	cancel()
	held.Wait()
	r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["cluster.web.upstream_rq_active"] == 0 })
	q := Request{Name: "there is room again", Want: Want{Status: 200}}
	q.Check(t, r.Do(q))
}

// circuit returns the state of a cluster's circuit.
func (r *Rig) circuit(cluster string) string {
	r.T.Helper()
	var doc struct {
		Circuits []struct {
			Cluster, State string
		}
	}
	r.Admin.JSON("/circuits", &doc)
	for _, c := range doc.Circuits {
		if c.Cluster == cluster {
			return c.State
		}
	}
	return ""
}

func breaker(t *testing.T, r *Rig) {
	for _, path := range []string{"/orders", "/bare"} {
		for range 5 {
			q := Request{Name: "a failure", Path: path, Header: []string{"x-do: status=500"}, Want: Want{Status: 500}}
			q.Check(t, r.Do(q))
		}
		if s := r.circuit(path[1:]); s != "open" {
			t.Errorf("after five failures the circuit of %s is %q", path, s)
		}
	}
	asked := r.A.Requests.Load()
	for _, q := range []Request{
		{Name: "open, another cluster answers", Path: "/orders", Want: Want{Status: 200, Line: "b GET /orders localhost"}},
		{Name: "open, without a fallback", Path: "/bare", Want: Want{Status: 503}},
	} {
		q.Check(t, r.Do(q))
	}
	if n := r.A.Requests.Load() - asked; n != 0 {
		t.Errorf("behind the open circuit %d requests came through", n)
	}
	// Probes find that it serves again, and it closes.
	r.settle("/orders", "a")
	r.Admin.Until("/circuits", func(int, string) bool {
		r.Do(Request{Path: "/orders"})
		return r.circuit("orders") == "closed"
	})
}

// webSocket: what follows the upgrade goes both ways.
func webSocket(t *testing.T, r *Rig) {
	c := r.Dial("")
	_, _ = io.WriteString(c, "GET /chat HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"+
		"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	br := newReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		t.Fatalf("%v, %v", resp, err)
	}
	for i := range 100 {
		talk(t, c, br, fmt.Sprint("line ", i), fmt.Sprint("a line ", i))
	}
}
