// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
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

// first are the changes that come before the heap is looked at: ten of each kind, after which what fills once is full (the history
// of snapshots, the tap's pools, the stats of new names).
const first = 70

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
	quiet := l.Quantile(0.99)
	var heap []int64 // in KiB
	weigh := func() {
		if !soak() {
			return
		}
		leaves(t, r)
		heap = append(heap, liveHeap(t, r.Admin)>>10)
	}
	all, counts := changes(), map[string]int{}
	asked := int64(0)
	for i := 1; i <= first+n; i++ {
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
		if i >= first && (i-first)%(n/4) == 0 {
			weigh()
		}
		if l.Failed() > 0 {
			break
		}
	}
	t.Logf("figure: 99%% of the requests within %v while nothing changed, within %v under the changes", quiet, l.Quantile(0.99))
	t.Logf("figure: KiB in use after the first %d changes, and after each quarter of the others: %d", first, heap)
	res := l.Stop()
	t.Logf("figure: %d changes, each seen in the answers: %v", first+n, counts)
	t.Logf("figure: %v", res)
	t.Logf("figure: %d acknowledged, %d refused", total(told.acks), total(told.nacks))
	if res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	}
	if len(heap) > 0 && heap[len(heap)-1] > heap[0]*11/10 {
		t.Errorf("%d KiB are in use in the end, and %d were: more than 10 %% more", heap[len(heap)-1], heap[0])
	}
	if len(told.nacks) > 0 {
		t.Errorf("refused: %v %q", told.nacks, told.details)
	}
	if got := r.A.Requests.Load() + r.B.Requests.Load(); got != res.Requests+asked {
		t.Errorf("%d requests were made and %d came to the origins: one was on its way when its connection ended", res.Requests+asked, got)
	}
	leaves(t, r)
}

// liveHeap returns what a proxy has in use, in bytes: the least that is allocated until its collector has run five times, which shows as
// a MiB less than before. Asking makes it run, and is counted, so that the question has to be a small one: /stats/prometheus takes 3 MiB.
func liveHeap(t *testing.T, a *sidecar.Admin) int64 {
	t.Helper()
	least, last, collected := int64(math.MaxInt64), int64(0), 0
	until(t, "the proxy's collector has run", func() bool {
		m := allocated.FindStringSubmatch(a.Get("/stats?filter=^server.memory_allocated$"))
		if m == nil {
			t.Fatal("there is no server.memory_allocated")
		}
		now, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if now < last-1<<20 {
			collected++
		}
		last, least = now, min(least, now)
		return collected == 5
	})
	return least
}

var allocated = regexp.MustCompile(`(?m)^server.memory_allocated: (\d+)$`)

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
