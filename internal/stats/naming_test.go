// SPDX-License-Identifier: Apache-2.0

package stats_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/stats"
)

// seriesOf lists the families with their series.
func seriesOf(r *stats.Registry) string {
	var b strings.Builder
	for _, f := range r.Families() {
		for m := range f.Each {
			b.WriteString(f.Name)
			for t := range m.Tags {
				fmt.Fprintf(&b, " %s=%s", t.Name, t.Value)
			}
			fmt.Fprintf(&b, ": %d\n", m.Value)
		}
	}
	return b.String()
}

// named is a registry with two clusters under a Naming.
func named(n *stats.Naming) (*stats.Registry, *stats.Group) {
	r := stats.NewRegistry(stats.Options{Shards: 1, Naming: n})
	s := &stats.Schema{
		Name: "cluster",
		Defs: []stats.Def{
			{Name: "rq_total"}, {Name: "live", Kind: stats.Gauge},
			{Name: "rq_2xx", Prom: "rq_xx", Tags: []stats.Tag{{Name: "envoy.class", Value: "2"}}},
		},
		Codes:      []stats.CodeFamily{{Prefix: "up_"}},
		Histograms: []stats.HistDef{{Name: "time"}},
	}
	a := r.Group(s, "cluster.a", stats.Tag{Name: "envoy.cluster_name", Value: "a"})
	r.Group(s, "cluster.b.c", stats.Tag{Name: "envoy.cluster_name", Value: "b.c"})
	a.Inc(0, 0)
	a.Code(0, 0, 200)
	a.Code(0, 0, 503)
	return r, a
}

func rule(name, expr string) stats.TagRule {
	return stats.TagRule{Name: name, Regex: regexp.MustCompile(expr)}
}

func TestNaming(t *testing.T) {
	t.Parallel()
	only := func(part string) func(string) bool { return func(n string) bool { return strings.Contains(n, part) } }
	for name, c := range map[string]struct {
		n    stats.Naming
		want string
	}{
		"no more than before": {stats.Naming{Keep: only("rq_")}, `
			envoy_cluster_rq_total envoy.cluster_name=a: 1
			envoy_cluster_rq_total envoy.cluster_name=b.c: 0
			envoy_cluster_rq_xx envoy.cluster_name=a envoy.class=2: 0
			envoy_cluster_rq_xx envoy.cluster_name=b.c envoy.class=2: 0`},
		"no tags": {stats.Naming{NoDefaults: true, Keep: only("rq_")}, `
			envoy_cluster_a_rq_2xx: 0
			envoy_cluster_a_rq_total: 1
			envoy_cluster_b_c_rq_2xx: 0
			envoy_cluster_b_c_rq_total: 0`},
		"tags of one's own, all of the whole name": {stats.Naming{
			NoDefaults: true, Fixed: []stats.Tag{{Name: "zone", Value: "z 1"}},
			Tags: []stats.TagRule{
				rule("cluster", `^cluster\.((.*?)\.)`), rule("kind", `_(total)$`), rule("kind", `rq_(t)`), rule("whole", `(cluster\.a)`),
				rule("zone", `(rq)`), rule("none", `rq`), rule("alternative", `(absent)|total`),
			}, Keep: only("rq_total")}, `
			envoy_cluster_c_rq_ zone=z 1 cluster=b kind=total: 0
			envoy_rq_ zone=z 1 cluster=a kind=total whole=cluster.a: 1`},
		"tags beside the defaults": {stats.Naming{Tags: []stats.TagRule{
			rule("envoy.cluster_name", `^cluster\.((.*?)\.)`), rule("kind", `(rq_)`)}, Keep: only("rq_total")}, `
			envoy_cluster_total envoy.cluster_name=a kind=rq_: 1
			envoy_cluster_total envoy.cluster_name=b.c kind=rq_: 0`},
		"codes": {stats.Naming{NoDefaults: true, Tags: []stats.TagRule{rule("code", `up(_(\d{3}))$`), rule("class", `up(_(\dxx))$`)},
			Keep: func(n string) bool { return strings.Contains(n, "up_") && !strings.HasSuffix(n, "_503") }}, `
			envoy_cluster_a_up code=200: 1
			envoy_cluster_a_up class=2xx: 1
			envoy_cluster_a_up class=5xx: 1
			envoy_cluster_a_up_completed: 2`},
		"nothing": {stats.Naming{Keep: func(string) bool { return false }}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := named(&c.n)
			want := strings.TrimPrefix(strings.ReplaceAll(c.want, "\t", ""), "\n")
			for range 2 { // what is remembered is the same
				if got := strings.TrimSpace(seriesOf(r)); got != want {
					t.Errorf("got:\n%s\nwant:\n%s", got, want)
				}
			}
		})
	}
}

// TestNamingOfListing: names stay as they are, and what is left out of one listing is left out of the other.
func TestNamingOfListing(t *testing.T) {
	t.Parallel()
	r, _ := named(&stats.Naming{NoDefaults: true, Tags: []stats.TagRule{rule("c", `^cluster\.((.*?)\.)`)},
		Keep: func(n string) bool {
			return !strings.HasSuffix(n, "live") && !strings.Contains(n, "b.c") && !strings.HasSuffix(n, "200")
		}})
	var got []string
	r.Each(func(stats.Kind) bool { return true }, func(m *stats.Metric) bool {
		got = append(got, string(m.AppendName(nil)))
		return true
	})
	want := "meshtap_stats_folded_total cluster.a.rq_2xx cluster.a.rq_total cluster.a.time cluster.a.up_2xx cluster.a.up_503 cluster.a.up_5xx cluster.a.up_completed"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestBucketsOfOnesOwn(t *testing.T) {
	t.Parallel()
	r, a := named(&stats.Naming{Buckets: []stats.BucketRule{
		{Match: func(n string) bool { return n == "cluster.a.time" }, Bounds: []float64{1, 7.5}},
		{Match: func(string) bool { return true }, Bounds: []float64{9}},
	}})
	for _, ms := range []int64{1, 2, 7, 8} {
		a.Observe(0, 0, ms*1e6)
	}
	r.Each(func(k stats.Kind) bool { return k == stats.Histogram }, func(m *stats.Metric) bool {
		name, want := string(m.AppendName(nil)), "[9] [0]"
		if name == "cluster.a.time" {
			want = "[1 7.5] [1 3]"
		}
		if got := fmt.Sprint(m.Bounds(), m.Snapshot(false).Below(m.Bounds())); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		return true
	})
}

// TestNamingCostsNothingToCount: whoever counts does not know of names.
func TestNamingCostsNothingToCount(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector allocates")
	}
	_, a := named(&stats.Naming{NoDefaults: true, Keep: func(string) bool { t.Error("asked for a name"); return true }})
	if n := testing.AllocsPerRun(1000, func() {
		a.Inc(0, 0)
		a.Code(0, 0, 200)
		a.Observe(0, 0, 1e6)
	}); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
