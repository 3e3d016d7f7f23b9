// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/event"
)

// writeCapture writes n requests to orders, 1 ms apart, in turn to three hosts of which the third fails.
func writeCapture(t testing.TB, n int) string {
	t.Helper()
	var b []byte
	for i := range n {
		e := &event.Event{}
		e.Reset(event.Request)
		e.ID, e.Source, e.BootID = fmt.Appendf(nil, "b-%d", i+1), []byte("/meshtap/web"), []byte("b")
		e.Sequence, e.StreamSeq, e.Time = uint64(i+1), uint64(i+1), 1_790_000_000_000_000_000+int64(i)*int64(time.Millisecond)
		e.Texts[event.Cluster], e.Texts[event.Method], e.Texts[event.RouteName] = []byte("orders"), []byte("GET"), []byte("by-id")
		e.Texts[event.PeerAddress], e.Numbers[event.PeerPort] = []byte("10.0.0.1"), int64(8000+i%3)
		e.Numbers[event.Status], e.Numbers[event.Attempts] = 200, 1
		e.Numbers[event.UpstreamTook], e.Numbers[event.Duration] = 5_000_000, 5_100_000
		if i%3 == 2 {
			e.Numbers[event.Status], e.Texts[event.ErrorType] = 503, []byte("503")
		}
		b = append(e.AppendJSON(b), '\n')
	}
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const bareCluster = `
name: orders
lb_policy: ROUND_ROBIN
outlier_detection: {consecutive_5xx: 5, max_ejection_percent: 50}
load_assignment:
  cluster_name: orders
  endpoints:
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 8000}}}
    - endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 8001}}}
    - endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 8002}}}
`

const clusterAndRoute = `
cluster: {name: orders, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}, circuit_breakers: {thresholds: [{max_retries: 100}]}}
route:
  timeout: 2s
  retry_policy: {retry_on: 5xx, num_retries: 3, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], host_selection_retry_max_attempts: 5}
`

// TestReplay tries outlier detection and retries on a recording with a host that fails, from a cluster as it is, with a
// route beside it, and from a whole bootstrap; the same seed gives the same bytes.
func TestReplay(t *testing.T) {
	t.Parallel()
	capture := writeCapture(t, 3000)
	whole := "static_resources:\n  clusters:\n  - " + strings.ReplaceAll(strings.TrimPrefix(bareCluster, "\n"), "\n", "\n    ")
	for name, c := range map[string]struct {
		policy string
		right  func(was, is outcomeView) bool
	}{
		"a cluster": {bareCluster, func(was, is outcomeView) bool { return is.Ejections > 0 && is.Failed < 50 && is.Hosts[2].Attempts < 50 }},
		"a cluster and a route": {clusterAndRoute, func(was, is outcomeView) bool {
			return is.Retries > 900 && is.Failed < 50 && is.P99 > was.P99 && len(is.Hosts) == 3
		}},
		"a bootstrap": {whole, func(was, is outcomeView) bool { return is.Ejections > 0 && is.Failed < 50 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(path, []byte(c.policy), 0o600); err != nil {
				t.Fatal(err)
			}
			var doc struct{ Replay replay }
			out := replayed(t, 0, capture, "--policy", path, "-o", "json")
			if err := json.Unmarshal(out, &doc); err != nil {
				t.Fatal(err)
			}
			was, is := doc.Replay.Columns[0].outcomeView, doc.Replay.Columns[1].outcomeView
			if was.Requests != 3000 || was.Failed != 1000 || is.Requests != 3000 || !c.right(was, is) || len(doc.Replay.Notes) < 3 {
				t.Errorf("%s", out)
			}
			if again := replayed(t, 0, capture, "--policy", path, "-o", "json"); !bytes.Equal(out, again) {
				t.Errorf("another time it is\n%s", again)
			}
			table := string(replayed(t, 0, capture, "--policy", path, "--baseline", path, "--latency", "10ms,20ms"))
			for _, want := range []string{"RECORDED", "10.0.0.1:8002", "note: answers take 10ms,20ms", "note: not known: queueing"} {
				if !strings.Contains(strings.ToUpper(table), strings.ToUpper(want)) {
					t.Errorf("the table has no %q:\n%s", want, table)
				}
			}
		})
	}
}

func TestReplayRefuses(t *testing.T) {
	t.Parallel()
	capture := writeCapture(t, 3)
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		code int
		args []string
		want string
	}{
		"no policy":          {cli.ExitUsage, nil, "--policy is missing"},
		"no cluster":         {cli.ExitConfig, []string{"--policy", write("a: b")}, "has no cluster with a name"},
		"a misspelt field":   {cli.ExitConfig, []string{"--policy", write("name: orders\nlb_polcy: RANDOM")}, "lb_polcy"},
		"no such cluster":    {cli.ExitUsage, []string{"--policy", write(bareCluster), "--cluster", "web"}, "which cluster?"},
		"another cluster":    {cli.ExitFailure, []string{"--policy", write("name: web\ntype: EDS\neds_cluster_config: {eds_config: {ads: {}}}")}, "none of 3 events"},
		"no times":           {cli.ExitUsage, []string{"--policy", write(bareCluster), "--latency", "20ms,10ms"}, "is not two times"},
		"a file is missing":  {cli.ExitUsage, []string{"--policy", "/nowhere"}, "no such file"},
		"not a positive one": {cli.ExitUsage, []string{"--policy", write(bareCluster), "--window", "0s"}, "a time is positive"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"meshtap", "replay", capture}, c.args...), &out, &errs); code != c.code || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%s: %d, %s", name, code, errs.String())
		}
	}
}

func replayed(t *testing.T, code int, args ...string) []byte {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(t.Context(), append([]string{"meshtap", "replay"}, args...), &out, &errs); got != code {
		t.Fatalf("%v: it ends with %d: %s", args, got, errs.String())
	}
	return out.Bytes()
}
