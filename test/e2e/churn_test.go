// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// change is one change of the world, and how an answer shows it.
type change struct {
	kind string
	// types are those of the resources that change.
	types []string
	do    func(w *world, r *examples.Rig, i int)
	// path is where it shows, on the listener of this name; show says whether it does.
	path     string
	listener func(w *world) string
	show     func(w *world, s seen) bool
}

func mainListener(*world) string { return "main" }

// changes are all kinds of them.
func changes() []change {
	return []change{
		{
			kind: "endpoints", types: []string{fakexds.EndpointType}, path: "/", listener: mainListener,
			do: func(w *world, r *examples.Rig, i int) {
				w.host, w.endpoint = fmt.Sprint("e", i), r.A.Addr()
				if i%2 == 0 {
					w.endpoint = r.B.Addr()
				}
			},
			show: func(w *world, s seen) bool { return s.host == w.host },
		},
		{
			kind: "a route", types: []string{fakexds.RouteType}, path: "/", listener: mainListener,
			do:   func(w *world, _ *examples.Rig, i int) { w.route = fmt.Sprint("r", i) },
			show: func(w *world, s seen) bool { return s.route == w.route },
		},
		{
			kind: "another cluster", types: []string{fakexds.ClusterType, fakexds.EndpointType, fakexds.RouteType}, path: "/", listener: mainListener,
			do:   func(w *world, _ *examples.Rig, i int) { w.cluster = fmt.Sprint("c", i) },
			show: func(w *world, s seen) bool { return s.cluster == w.cluster },
		},
		{
			kind: "a listener", types: []string{fakexds.ListenerType}, path: "/", listener: mainListener,
			do:   func(w *world, _ *examples.Rig, i int) { w.server = fmt.Sprint("l", i) },
			show: func(w *world, s seen) bool { return s.server == w.server },
		},
		{
			kind: "a cluster in place", types: []string{fakexds.ClusterType}, path: "/fixed", listener: mainListener,
			do:   func(w *world, _ *examples.Rig, i int) { w.fixed = fmt.Sprint("f", i) },
			show: func(w *world, s seen) bool { return s.host == w.fixed },
		},
		{
			kind: "another listener", types: []string{fakexds.ListenerType}, path: "/",
			do:       func(w *world, _ *examples.Rig, i int) { w.extra = fmt.Sprint("x", i) },
			listener: func(w *world) string { return w.extra },
			show:     func(_ *world, s seen) bool { return s.origin != "" },
		},
		{
			kind: "everything", path: "/", listener: mainListener,
			types: []string{fakexds.ClusterType, fakexds.EndpointType, fakexds.RouteType, fakexds.ListenerType},
			do: func(w *world, _ *examples.Rig, i int) {
				w.cluster, w.host, w.route, w.server = fmt.Sprint("c", i), fmt.Sprint("e", i), fmt.Sprint("r", i), fmt.Sprint("l", i)
			},
			show: func(w *world, s seen) bool {
				return s.cluster == w.cluster && s.host == w.host && s.route == w.route && s.server == w.server
			},
		},
	}
}

// A thousand changes of configuration, half in each variant, while requests are made: each shows in the answers, and no request fails (F01, F16).
func TestChangesUnderLoad(t *testing.T) { inBoth(t, changesUnderLoad) }

func changesUnderLoad(t *testing.T, example string) {
	n := 500
	if soak() {
		n = 10_000
	}
	r, w := controlledAs(t, example)
	var told answers
	l := load.Start(t, load.Options{Workers: 8, Rate: 800, Addr: func() string { return r.Addr("main") }, Check: oneTruth})
	l.After(int64(n))
	quiet, heap := l.Quantile(0.99), []int64{liveHeap(t, r.Admin) >> 10}
	_ = l.Quantile(0.99)
	all, counts := changes(), map[string]int{}
	asked := int64(0)
	for i := 1; i <= n; i++ {
		c := all[i%len(all)]
		c.do(w, r, i)
		now, some := w.all(t), map[string][]types.Resource{}
		for _, typ := range c.types {
			some[typ] = now[typ]
		}
		r.ControlPlane.SetAll(fmt.Sprint("v", i), some)
		asked += observe(t, r, w, c, i)
		counts[c.kind]++
		l.After(4)
		told.collect(r.ControlPlane)
		if i%(n/4) == 0 {
			heap = append(heap, liveHeap(t, r.Admin)>>10)
		}
		if l.Failed() > 0 {
			break
		}
	}
	t.Logf("figure: 99%% of the requests within %v while nothing changed, within %v under the changes", quiet, l.Quantile(0.99))
	t.Logf("figure: KiB allocated before the changes and after each quarter of them: %d", heap)
	res := l.Stop()
	t.Logf("figure: %d changes, each seen in the answers: %v", n, counts)
	t.Logf("figure: %v", res)
	t.Logf("figure: %d acknowledged, %d refused", total(told.acks), total(told.nacks))
	if res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	}
	if len(told.nacks) > 0 {
		t.Errorf("refused: %v %q", told.nacks, told.details)
	}
	if got := r.A.Requests.Load() + r.B.Requests.Load(); got != res.Requests+asked {
		t.Errorf("%d requests were made and %d came to the origins: one was on its way when its connection ended", res.Requests+asked, got)
	}
	leaves(t, r)
}

var collections = regexp.MustCompile(`(?m)^go_gc_duration_seconds_count (\d+)$`)

// liveHeap returns what a proxy has in use: the least that is allocated while its collector runs some times. Asking makes it do
// so, and counts, too: a megabyte or two more or less mean nothing.
func liveHeap(t *testing.T, a *sidecar.Admin) int64 {
	t.Helper()
	least, count, changes := int64(math.MaxInt64), "", 0
	until(t, "the proxy's collector has run", func() bool {
		least = min(least, a.Stats()["server.memory_allocated"])
		m := collections.FindStringSubmatch(a.Get("/stats/prometheus?go"))
		if m == nil {
			t.Fatal("there is no go_gc_duration_seconds_count")
		}
		if m[1] != count {
			count, changes = m[1], changes+1
		}
		return changes > 10
	})
	return least
}

// oneTruth: the route and the cluster of an answer are of one configuration.
func oneTruth(status int, h http.Header, body []byte) error {
	if status != http.StatusOK || h.Get("X-Cluster") == "" || h.Get("X-Cluster") != h.Get("X-Routed-To") {
		return fmt.Errorf("status %d, routed to %q, came to %q: %.100s", status, h.Get("X-Routed-To"), h.Get("X-Cluster"), body)
	}
	return nil
}

// observe makes requests on new connections until one shows the change, and returns how many came to an origin.
func observe(t *testing.T, r *examples.Rig, w *world, c change, i int) (n int64) {
	t.Helper()
	for limit := time.Now().Add(sidecar.Hang); ; {
		name := c.listener(w)
		if !r.Has(name) {
			r.Relisten()
		}
		if r.Has(name) {
			a := r.Do(examples.Request{Name: c.kind, Listener: name, Path: c.path})
			n++
			if err := oneTruth(a.Status, a.Header, []byte(a.Body)); err != nil {
				t.Fatalf("change %d, of %s: %v", i, c.kind, err)
			}
			if c.show(w, see(a)) {
				return n
			}
		}
		if time.Now().After(limit) {
			t.Fatalf("change %d, of %s, does not show; control plane: %+v", i, c.kind, r.Admin.XDS())
		}
	}
}

// leaves: what was replaced is gone at the end.
func leaves(t *testing.T, r *examples.Rig) {
	t.Helper()
	s := r.Admin.UntilStats(func(s sidecar.Stats) bool {
		return s["listener_manager.total_filter_chains_draining"] == 0 && s["listener_manager.total_listeners_draining"] == 0 &&
			s["cluster_manager.active_clusters"] == 3
	})
	if n := s["listener_manager.total_listeners_active"]; n != 2 {
		t.Errorf("%d listeners at the end, want 2", n)
	}
}
