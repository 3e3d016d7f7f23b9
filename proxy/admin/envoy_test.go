// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// testdata/envoy holds what Envoy 1.40 answered. Where the same state can be shown here, the answer has to be the same;
// elsewhere each field has to be one that Envoy has, of the same JSON type.

func recorded(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/envoy/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func parse(t *testing.T, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, s)
	}
	return v
}

// recordedClusters is the state that Envoy was in.
func recordedClusters() []*admin.Cluster {
	l := mesh.Limits{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3}
	limits := [2]mesh.Limits{l, l}
	return []*admin.Cluster{
		{Name: "x:1", StatName: "alt:x", Outlier: true, Limits: limits, Hosts: []admin.Host{
			{Address: ip("[::1]:29090"), Hostname: "localhost", FailedCheck: true, Weight: 1}}},
		{Name: "outbound|80||a.b.svc.cluster.local", StatName: "outbound|80||a.b.svc.cluster.local", Limits: limits, Hosts: []admin.Host{
			{Address: ip("127.0.0.1:29090"), Discovered: mesh.HealthDraining, Weight: 1},
			{Address: ip("[::1]:29090"), Discovered: mesh.HealthUnhealthy, Weight: 1},
			{Address: mesh.Address{Pipe: "/tmp/x.sock"}, Discovered: mesh.HealthDegraded, Weight: 1, CxConnectFail: 3, CxTotal: 3, RqError: 3}}},
	}
}

func TestSameAsEnvoy(t *testing.T) {
	t.Parallel()
	f := &fake{clusters: recordedClusters()}
	v := f.views()
	v.Runtime = func() *admin.Runtime { return &admin.Runtime{} }
	v.InitDump = func() []admin.Unready { return nil }
	_, c := start(t, admin.Config{}, v, registry())
	for path, file := range map[string]string{
		"/clusters":              "clusters.txt",
		"/clusters?format=json":  "clusters.json",
		"/listeners":             "listeners.txt",
		"/listeners?format=json": "listeners.json",
		"/certs":                 "certs.json",
		"/runtime":               "runtime.json",
		"/init_dump":             "init_dump.json",
	} {
		_, got := c.do(t, "GET", path)
		want := recorded(t, file)
		if strings.HasSuffix(file, ".json") {
			if !reflect.DeepEqual(parse(t, got), parse(t, want)) {
				t.Errorf("%s:\n%s\nEnvoy:\n%s", path, got, want)
			}
		} else if got != want {
			t.Errorf("%s:\n%s\nEnvoy:\n%s", path, got, want)
		}
	}
}

// TestShapeOfEnvoy compares fields and types.
func TestShapeOfEnvoy(t *testing.T) {
	t.Parallel()
	reg := stats.NewRegistry(stats.Options{})
	h := metrics.NewHTTP(reg, "in.gress_80", "l")
	h.Observe(0, metrics.DownstreamRqTime, 7e6)
	metrics.NewHTTP(reg, "admin", "l")
	setText(reg, "cluster_manager.cds", "version_text", "")
	_, c := start(t, admin.Config{}, (&fake{}).views(), reg)
	const stats = "/stats?format=json&filter=downstream_rq_time|version_text|server.live&histogram_buckets="
	for path, file := range map[string]string{
		"/server_info":       "server_info.json",
		"/memory":            "memory.json",
		stats + "summary":    "stats_summary.json",
		stats + "none":       "stats_summary.json",
		stats + "cumulative": "stats_cumulative.json",
		stats + "disjoint":   "stats_disjoint.json",
		stats + "detailed":   "stats_detailed.json",
	} {
		_, got := c.do(t, "GET", path)
		envoy := map[string]bool{}
		shape(envoy, "", parse(t, recorded(t, file)))
		ours := map[string]bool{}
		shape(ours, "", parse(t, got))
		for field := range ours {
			if !envoy[field] && !envoy[strings.Replace(field, " string", " <nil>", 1)] && !strings.HasPrefix(field, ".node.metadata") {
				t.Errorf("%s: Envoy has no field %s", path, field)
			}
		}
		if len(ours) < 4 {
			t.Errorf("%s: only %d fields", path, len(ours))
		}
	}
}

// shape collects the paths of all fields with their types. Elements of a list share a path; build metadata is free.
func shape(out map[string]bool, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if path == ".node.user_agent_build_version.metadata" {
				k = "*"
			}
			shape(out, path+"."+k, e)
		}
	case []any:
		out[path+" list"] = true
		for _, e := range v {
			shape(out, path+"[]", e)
		}
	default:
		out[fmt.Sprintf("%s %T", path, v)] = true
	}
}

// TestTextOfStatsAsEnvoy compares /stats as text, with the numbers blanked out.
func TestTextOfStatsAsEnvoy(t *testing.T) {
	t.Parallel()
	reg := stats.NewRegistry(stats.Options{})
	h := metrics.NewHTTP(reg, "in.gress_80", "l")
	h.Observe(0, metrics.DownstreamRqTime, 7e6)
	metrics.NewHTTP(reg, "admin", "l")
	setText(reg, "cluster_manager.cds", "version_text", "")
	metrics.NewServer(reg, func() time.Duration { return 0 }).Set(metrics.ServerLive, 1)
	_, c := start(t, admin.Config{}, (&fake{}).views(), reg)
	for _, mode := range []string{"summary", "cumulative", "disjoint", "detailed"} {
		_, got := c.do(t, "GET", "/stats?filter=downstream_rq_time|version_text|server.live&histogram_buckets="+mode)
		want := recorded(t, "stats_"+mode+".txt")
		if mode == "summary" || mode == "detailed" { // steps and quantiles are not those of Envoy's histogram
			got, want = blank(got), blank(want)
		}
		if got != want {
			t.Errorf("%s:\n%s\nEnvoy:\n%s", mode, got, want)
		}
	}
}

// blank replaces fractions and steps by x.
func blank(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '=' || s[i] == ',' && i > 0 && s[i-1] == 'n':
			b.WriteString(s[i:i+1] + "x")
			for i+1 < len(s) && strings.IndexByte("0123456789.,:", s[i+1]) >= 0 {
				i++
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
