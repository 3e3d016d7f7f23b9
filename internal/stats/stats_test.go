// SPDX-License-Identifier: Apache-2.0

package stats_test

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/stats"
)

// The schema of the tests: indices of its numbers, families and histograms.
const (
	total = iota
	active
	members
	version
	sum
	lazy
	classed
)

const (
	internal = iota
	external
	both
)

func schema() *stats.Schema {
	return &stats.Schema{
		Name: "cluster",
		Defs: []stats.Def{
			total:   {Name: "rq_total"},
			active:  {Name: "rq_active", Kind: stats.Gauge},
			members: {Name: "membership.total", Kind: stats.Gauge},
			version: {Name: "version_text", Kind: stats.Text},
			sum:     {Name: "rq_sum", Sum: []int{total, classed}},
			lazy:    {Name: "lazy", Lazy: true},
			classed: {Name: "rq_2xx", Prom: "rq_xx", Tags: []stats.Tag{{Name: "envoy.response_code_class", Value: "2"}}},
		},
		Codes: []stats.CodeFamily{
			internal: {Prefix: "internal.rq_"},
			external: {Prefix: "external.rq_"},
			both:     {Prefix: "code_", Sum: []int{internal, external}},
		},
		Histograms: []stats.HistDef{{Name: "rq_time"}},
	}
}

// listing is what Each and the families show, one line each.
func listing(r *stats.Registry) string {
	var b strings.Builder
	r.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		b.Write(m.AppendName(nil))
		switch m.Kind {
		case stats.Text:
			fmt.Fprintf(&b, " %q", m.Text)
		case stats.Histogram:
			fmt.Fprintf(&b, " n=%d", m.Snapshot(false).Count)
		default:
			fmt.Fprintf(&b, " %d", m.Value)
		}
		if !m.Used {
			b.WriteString(" unused")
		}
		b.WriteByte('\n')
		return true
	})
	return b.String()
}

func families(r *stats.Registry) string {
	var b strings.Builder
	for _, f := range r.Families() {
		for m := range f.Each {
			b.WriteString(f.Name)
			for t := range m.Tags {
				fmt.Fprintf(&b, " %s=%s", t.Name, t.Value)
			}
			fmt.Fprintf(&b, " %d\n", m.Value)
		}
	}
	return b.String()
}

func TestListing(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{Shards: 4})
	s := schema()
	b := r.Group(s, "cluster.b", stats.Tag{Name: "envoy.cluster_name", Value: "b"})
	a := r.Group(s, "cluster.a", stats.Tag{Name: "envoy.cluster_name", Value: "a"})
	a.Add(0, total, 2)
	a.Inc(3, total)
	a.Inc(9, classed) // shard 1
	a.Inc(1, active)
	a.Dec(2, active)
	a.Set(members, 7)
	a.SetText(version, "v1")
	a.Code(0, internal, 204)
	a.Code(1, external, 204)
	a.Code(2, external, 503)
	a.Code(2, external, 799)
	a.Observe(1, 0, 1_000_000)
	b.Inc(0, lazy)
	b.SetFunc(members, func() int64 { return 42 })

	want := `meshtap_stats_folded_total 0 unused
cluster.a.code_204 2
cluster.a.code_2xx 2
cluster.a.code_503 1
cluster.a.code_5xx 1
cluster.a.code_completed 4
cluster.a.external.rq_204 1
cluster.a.external.rq_2xx 1
cluster.a.external.rq_503 1
cluster.a.external.rq_5xx 1
cluster.a.external.rq_completed 3
cluster.a.internal.rq_204 1
cluster.a.internal.rq_2xx 1
cluster.a.internal.rq_completed 1
cluster.a.membership.total 7
cluster.a.rq_2xx 1
cluster.a.rq_active 0
cluster.a.rq_sum 4
cluster.a.rq_time n=1
cluster.a.rq_total 3
cluster.a.version_text "v1"
cluster.b.lazy 1
cluster.b.membership.total 42
cluster.b.rq_2xx 0 unused
cluster.b.rq_active 0 unused
cluster.b.rq_sum 0 unused
cluster.b.rq_time n=0 unused
cluster.b.rq_total 0 unused
cluster.b.version_text "" unused
`
	if got := listing(r); got != want {
		t.Errorf("listing:\n%s\nwant:\n%s", got, want)
	}
	want = `envoy_cluster_code envoy.cluster_name=a envoy.response_code=204 2
envoy_cluster_code envoy.cluster_name=a envoy.response_code=503 1
envoy_cluster_code_completed envoy.cluster_name=a 4
envoy_cluster_code_xx envoy.cluster_name=a envoy.response_code_class=2 2
envoy_cluster_code_xx envoy.cluster_name=a envoy.response_code_class=5 1
envoy_cluster_external_rq envoy.cluster_name=a envoy.response_code=204 1
envoy_cluster_external_rq envoy.cluster_name=a envoy.response_code=503 1
envoy_cluster_external_rq_completed envoy.cluster_name=a 3
envoy_cluster_external_rq_xx envoy.cluster_name=a envoy.response_code_class=2 1
envoy_cluster_external_rq_xx envoy.cluster_name=a envoy.response_code_class=5 1
envoy_cluster_internal_rq envoy.cluster_name=a envoy.response_code=204 1
envoy_cluster_internal_rq_completed envoy.cluster_name=a 1
envoy_cluster_internal_rq_xx envoy.cluster_name=a envoy.response_code_class=2 1
envoy_cluster_lazy envoy.cluster_name=b 1
envoy_cluster_membership_total envoy.cluster_name=a 7
envoy_cluster_membership_total envoy.cluster_name=b 42
envoy_cluster_rq_active envoy.cluster_name=a 0
envoy_cluster_rq_active envoy.cluster_name=b 0
envoy_cluster_rq_sum envoy.cluster_name=a 4
envoy_cluster_rq_sum envoy.cluster_name=b 0
envoy_cluster_rq_time envoy.cluster_name=a 0
envoy_cluster_rq_time envoy.cluster_name=b 0
envoy_cluster_rq_total envoy.cluster_name=a 3
envoy_cluster_rq_total envoy.cluster_name=b 0
envoy_cluster_rq_xx envoy.cluster_name=a envoy.response_code_class=2 1
envoy_cluster_rq_xx envoy.cluster_name=b envoy.response_code_class=2 0
envoy_cluster_version_text envoy.cluster_name=a 0
envoy_cluster_version_text envoy.cluster_name=b 0
meshtap_stats_folded_total 0
`
	if got := families(r); got != want {
		t.Errorf("families:\n%s\nwant:\n%s", got, want)
	}
}

func TestEachStops(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{})
	g := r.Group(schema(), "cluster.a")
	g.Code(0, internal, 200)
	g.Code(0, internal, 201)
	n := 0
	r.Each(func(k stats.Kind) bool { return k == stats.Counter }, func(m *stats.Metric) bool {
		n++
		return string(m.AppendName(nil)) != "cluster.a.internal.rq_200"
	})
	rest := 0
	r.Each(func(k stats.Kind) bool { return k == stats.Counter }, func(*stats.Metric) bool { rest++; return true })
	if n == 0 || n >= rest {
		t.Errorf("the listing went on after yield returned false: %d of %d", n, rest)
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{Shards: 2})
	g := r.Group(schema(), "cluster.a")
	g.Add(0, total, 5)
	g.Add(1, total, 5)
	g.Inc(0, active)
	g.Set(members, 3)
	g.Code(0, external, 503)
	g.Code(0, external, 600)
	g.Observe(0, 0, 1)
	r.ResetCounters()
	g.Inc(0, total)
	g.Code(1, external, 200)

	check := func(what string, got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("%s = %d, want %d", what, got, want)
		}
	}
	check("counter", g.Value(total), 1)
	check("sum", g.Value(sum), 1)
	check("counted gauge", g.Value(active), 1)
	check("set gauge", g.Value(members), 3)
	check("code before", g.CodeValue(external, 503), 0)
	check("code after", g.CodeValue(both, 200), 1)
	check("observations", g.Snapshot(0).Count, 1)
	if !g.Used(total) {
		t.Error("a counter that was reset is still used")
	}
	if l := listing(r); !strings.Contains(l, "cluster.a.external.rq_503 0\n") ||
		!strings.Contains(l, "cluster.a.external.rq_completed 1\n") {
		t.Errorf("after a reset, codes stay listed and completed counts from 0:\n%s", l)
	}
}

func TestGroupIsShared(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{})
	s, other := schema(), schema()
	a := r.Group(s, "cluster.a")
	a.Inc(0, total)
	again := r.Group(s, "cluster.a")
	if a != again {
		t.Fatal("the same schema and prefix gave two groups")
	}
	if b := r.Group(other, "cluster.a"); b == a {
		t.Fatal("another schema gave the same group")
	}
	a.Release()
	if again.Value(total) != 1 || !strings.Contains(listing(r), "cluster.a.rq_total 1\n") {
		t.Error("a group that is still held lost its numbers")
	}
	again.Release()
	if strings.Contains(listing(r), "cluster.a.rq_total 1\n") {
		t.Error("a group that nobody holds is still listed")
	}
	again.Inc(0, total) // a late request
	if c := r.Group(s, "cluster.a"); c.Value(total) != 0 {
		t.Error("a new group has the numbers of a released one")
	}
}

func TestFold(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{MaxGroups: 2})
	s := schema()
	tag := func(v string) stats.Tag { return stats.Tag{Name: "envoy.cluster_name", Value: v} }
	a := r.Group(s, "cluster.a", tag("a"))
	r.Group(s, "cluster.b", tag("b"))
	c := r.Group(s, "cluster.c", tag("c"))
	d := r.Group(s, "cluster.d", tag("d"))
	if c != d || c == a {
		t.Fatal("groups beyond the limit are to be one")
	}
	if r.Group(s, "cluster.a") != a {
		t.Error("a group that was there before the limit is not found any more")
	}
	c.Inc(0, total)
	d.Inc(0, total)
	d.Set(members, 5)
	d.SetText(version, "x")
	d.SetFunc(active, func() int64 { return 9 })
	l := listing(r)
	for _, want := range []string{"cluster.other.rq_total 2\n", "meshtap_stats_folded_total 2\n",
		"cluster.other.membership.total 0 unused\n", "cluster.other.version_text \"\" unused\n", "cluster.other.rq_active 0 unused\n"} {
		if !strings.Contains(l, want) {
			t.Errorf("no %q in\n%s", want, l)
		}
	}
	if !strings.Contains(families(r), "envoy_cluster_rq_total envoy.cluster_name=other 2\n") {
		t.Error("the folded group is not labelled other")
	}
	c.Release()
	d.Release()
	a.Release()
	a.Release()
	if e := r.Group(s, "cluster.e", tag("e")); e == c || strings.Contains(listing(r), "cluster.other") {
		t.Error("after a release there is room again")
	}
}

// TestExact counts from many goroutines and wants every single one to be there.
func TestExact(t *testing.T) {
	t.Parallel()
	const workers, rounds = 32, 2000
	r := stats.NewRegistry(stats.Options{Shards: 8})
	s := schema()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			g := r.Group(s, "cluster.a")
			defer g.Release()
			for i := range rounds {
				shard := uint32(w * (1 + i%3))
				g.Add(shard, total, 3)
				g.Inc(shard, active)
				g.Code(shard, i%2, 200+i%5)
				g.Observe(shard, 0, int64(i)*1000)
				g.Dec(shard+1, active)
				if i%100 == 0 {
					listing(r)
					r.Cut()
				}
			}
		})
	}
	keep := r.Group(s, "cluster.a")
	wg.Wait()
	if got, want := keep.Value(total), int64(3*workers*rounds); got != want {
		t.Errorf("total = %d, want %d", got, want)
	}
	if got := keep.Value(active); got != 0 {
		t.Errorf("active = %d, want 0", got)
	}
	var codes int64
	for c := 200; c < 205; c++ {
		codes += keep.CodeValue(both, c)
	}
	if codes != workers*rounds {
		t.Errorf("codes = %d, want %d", codes, workers*rounds)
	}
	snap := keep.Snapshot(0)
	if want := float64(workers) * rounds * (rounds - 1) / 2 * 1000 / 1e6; snap.Count != workers*rounds || snap.Sum != want {
		t.Errorf("observed %d with sum %v, want %d with %v", snap.Count, snap.Sum, workers*rounds, want)
	}
}

// TestShardsDoNotShareLines looks at where the cells are.
func TestShardsDoNotShareLines(t *testing.T) {
	t.Parallel()
	r := stats.NewRegistry(stats.Options{Shards: 8})
	s := schema()
	owner := map[uintptr]string{}
	for n := range 50 {
		g := r.Group(s, fmt.Sprint("cluster.", n))
		for shard := range uint32(8) {
			g.Inc(shard, total)
			for _, i := range []int{total, classed} {
				line := reflect.ValueOf(g.Cell(shard, i)).Pointer() / 128
				me := fmt.Sprint(n, "/", shard)
				if o := owner[line]; o != "" && o != me {
					t.Fatalf("group/shard %s and %s share 128 bytes", me, o)
				}
				owner[line] = me
			}
		}
	}
}

func TestShardCount(t *testing.T) {
	t.Parallel()
	for in, want := range map[int]int{1: 1, 2: 2, 3: 4, 8: 8, 33: 64, 64: 64, 1000: 64} {
		if got := stats.NewRegistry(stats.Options{Shards: in}).NumShards(); got != want {
			t.Errorf("%d shards asked for: %d, want %d", in, got, want)
		}
	}
	n := stats.NewRegistry(stats.Options{}).NumShards()
	if p := runtime.GOMAXPROCS(0); n < min(p, 64) || n >= 2*p && n > 1 {
		t.Errorf("%d shards for GOMAXPROCS %d", n, p)
	}
}

func TestNoAllocations(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector allocates")
	}
	r := stats.NewRegistry(stats.Options{})
	g := r.Group(schema(), "cluster.a")
	request := func() {
		g.Inc(1, total)
		g.Inc(1, active)
		g.Code(1, external, 200)
		g.Observe(1, 0, 123_456)
		g.Dec(1, active)
		g.Set(members, 4)
	}
	request()
	if n := testing.AllocsPerRun(1000, request); n != 0 {
		t.Errorf("%v allocations per request, want 0", n)
	}
}

func TestBadSchemaPanics(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*stats.Schema{
		"too many numbers":    {Name: "x", Defs: make([]stats.Def, 129)},
		"too many histograms": {Name: "x", Histograms: make([]stats.HistDef, 9)},
		"a name twice":        {Name: "x", Defs: []stats.Def{{Name: "a"}}, Histograms: []stats.HistDef{{Name: "a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			stats.NewRegistry(stats.Options{}).Group(s, "x")
		})
	}
}
