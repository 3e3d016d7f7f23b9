// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// reason says why names, as a regular expression of the whole name, are Envoy's alone.
type reason struct{ names, why string }

// absentEndpoints are Envoy's endpoints, parameters and values of parameters that are not here.
var absentEndpoints = []reason{
	{`/(allocprofiler|cpuprofiler|heapprofiler|heap_dump|peak_heap_dump|contention).*`, "the profiles are those of Go, at `/profile`"},
	{`/memory/tcmalloc`, "memory is Go's, and told at `/memory`"},
	{`/stats/recentlookups.*`, "names of statistics are not looked up while requests are served"},
	{`/logging group`, "loggers have no groups; `paths` names them"},
	{`/stats format=active-html`, "it needs a script, which the pages' policy forbids; `html` is there"},
}

// absentStats are Envoy's statistics that are not here.
var absentStats = []reason{
	{`(http|listener)\.admin\..*`, "the administration interface is a server of its own, whose connections and requests are not counted"},
	{`http\.async-client\..*`, "nothing here makes HTTP requests of its own on the way of a request"},
	{`http\.[^.]+\.tracing\..*`, "there is no tracing"},
	{`.*internal_redirect.*`, "internal redirects are not there"},
	{`.*(http3|0_?rtt).*`, "HTTP/3 is not there"},
	{`cluster\.[^.]+\.(lb_subsets_.*|default\.total_match_count)`, "subsets of endpoints and `transport_socket_matches` are not there"},
	{`cluster\.[^.]+\.lb_(zone|local_cluster|recalculate_zone).*`, "routing by zone is not there"},
	{`cluster\.[^.]+\.assignment_(stale|timeout_received|use_cached)`, "`endpoint_stale_after` is not there"},
	{`cluster\.[^.]+\.upstream_rq_retry_backoff_ratelimited`, "`rate_limited_retry_back_off` is not there"},
	{`cluster_manager\..*merge.*`, "updates of endpoints are not held back to be merged"},
	{`(.*\.)?http1\.(.*underscores.*|metadata_not_supported_error|response_flood)`, "the settings and frames that these count are not there for HTTP/1.1"},
	{`(.*\.)?watchdog_.*|.*workers_pinned|.*main_thread\..*|.*accepted_per_socket_event`, "there are no worker threads"},
	{`.*flow_control.*|.*_bytes_buffered`, "nothing is held above a limit: what cannot be passed on is not read"},
	{`.*overload.*`, "of the overload manager there is the limit of connections alone"},
	{`server\.(compilation_settings\.fips_mode|debug_assertion_failures|envoy_bug_failures|envoy_notifications|wip_protos|stats_recent_lookups|dropped_stat_flushes)`, "of Envoy's build and of its ways to keep statistics"},
	{`server\.parent_connections`, "there is no hot restart"},
	{`server\.(days_until_first_cert_expiring|seconds_until_first_ocsp_response_expiring)`, "each certificate's days are at `/certs`"},
	{`cluster\.[^.]+\.(bind_errors|circuit_breakers\..*\.cx_pool_open|external\.upstream_rq_time|max_host_weight|membership_excluded|original_dst_host_invalid|retry_or_shadow_abandoned|update_attempt|update_failure|upstream_cx_pool_overflow|upstream_cx_preconnect_skipped|upstream_rq_active_overflow|upstream_rq_per_try_idle_timeout|upstream_rq_rx_reset_no_error|version|warming_state)`, "not counted"},
	{`http\.[^.]+\.(downstream_cx_http1_soft_drain|downstream_cx_ssl_(active|total)|downstream_rq_(non_relative_path|rejected_via_ip_detection|response_before_rq_complete|too_large|too_many_premature_resets)|rq_reset_after_downstream_response_started|rs_too_large)`, "not counted"},
}

// TestDifferencesDoc keeps the list of what a real Envoy's administration interface has and this one has not. What Envoy has
// was recorded from one by `make interop`, which fails where that is no longer so.
func TestDifferencesDoc(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	fmt.Fprint(&out, `# Differences from Envoy's administration interface

Generated from what a real Envoy and Meshtap answered for the same configuration and the same requests
(`+"`test/interop`"+`, which is held against Envoy by `+"`make interop`"+`). It covers the examples `+"`static.yaml`"+` and `+"`ads.yaml`"+`: what is not
listed is the same there. Other differences: the [defaults](defaults.md), and what is [not there yet](features.md).

## Endpoints and their parameters

As `+"`/help`"+` lists them.

| only Envoy has | why |
|---|---|
`)
	theirs, ours := help(t, text(t, "test/interop/testdata/help.txt")), help(t, ourHelp(t))
	explain(t, &out, minus(theirs, ours), absentEndpoints)
	fmt.Fprint(&out, "\nOnly Meshtap has: `"+strings.Join(minus(ours, theirs), "`, `")+"`.\n")
	fmt.Fprint(&out, `
## Fields of documents

Paths are regular expressions.

| document | who has it | fields | why |
|---|---|---|---|
`)
	for line := range strings.Lines(text(t, "test/interop/testdata/fields.txt")) {
		if f := strings.Split(strings.TrimSpace(line), " | "); len(f) == 4 {
			fmt.Fprintf(&out, "| `%s` | %s | `%s` | %s |\n", f[0], f[1], strings.ReplaceAll(f[2], "|", `\|`), f[3])
		} else if !strings.HasPrefix(line, "#") {
			t.Errorf("test/interop/testdata/fields.txt: %q has %d parts, want 4", line, len(f))
		}
	}
	fmt.Fprint(&out, `
## Statistics

After the same requests, all statistics that both have are equal, but for times, sizes and what is of the moment. `+"`web`"+` is
a cluster of the example, `+"`http`"+` a connection manager. Meshtap's own begin with `+"`meshtap`"+`.

| only Envoy has | why |
|---|---|
`)
	explain(t, &out, strings.Fields(text(t, "test/interop/testdata/absent.txt")), absentStats)
	generated(t, "docs/differences.md", out.Bytes())
}

// explain writes a row for each reason with its names. Each name needs a reason, and each reason a name.
func explain(t *testing.T, out *bytes.Buffer, names []string, reasons []reason) {
	t.Helper()
	for _, r := range reasons {
		re := regexp.MustCompile("^(?:" + r.names + ")$")
		var of, rest []string
		for _, n := range names {
			if re.MatchString(n) {
				of = append(of, "`"+n+"`")
			} else {
				rest = append(rest, n)
			}
		}
		if of == nil {
			t.Errorf("nothing is missing of %s: take the reason out", r.names)
			continue
		}
		fmt.Fprintf(out, "| %s | %s |\n", strings.Join(of, " "), r.why)
		names = rest
	}
	if len(names) > 0 {
		t.Errorf("no reason is given for what Envoy alone has: %q", names)
	}
}

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ourHelp is the answer to /help with all views.
func ourHelp(t *testing.T) string {
	t.Helper()
	for _, f := range txtar.Parse([]byte(text(t, "proxy/admin/testdata/answers.txtar"))).Files {
		if f.Name == "GET /help" {
			return string(f.Data)
		}
	}
	t.Fatal("proxy/admin/testdata/answers.txtar does not ask for /help")
	return ""
}

// helpLine is a line of /help: an endpoint, or more to the right a parameter; helpValues are what a parameter may be.
var (
	helpLine   = regexp.MustCompile(`^( +)([/\w]+)(?: \(POST\))?: (.*)$`)
	helpValues = regexp.MustCompile(`; One of \((.*)\)$`)
)

// help returns the endpoints, "endpoint parameter", and "endpoint parameter=value" that a help lists, sorted.
func help(t *testing.T, text string) (out []string) {
	t.Helper()
	endpoint := ""
	for line := range strings.Lines(text) {
		m := helpLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		switch {
		case m == nil:
		case len(m[1]) == 2:
			endpoint = m[2]
			out = append(out, endpoint)
		default:
			out = append(out, endpoint+" "+m[2])
			if v := helpValues.FindStringSubmatch(m[3]); v != nil {
				for value := range strings.SplitSeq(v[1], ", ") {
					out = append(out, endpoint+" "+m[2]+"="+value)
				}
			}
		}
	}
	if len(out) < 50 {
		t.Fatalf("a help lists no more than %q", out)
	}
	slices.Sort(out)
	return out
}

// minus returns what a has and b does not.
func minus(a, b []string) (out []string) {
	for _, s := range a {
		if _, found := slices.BinarySearch(b, s); !found {
			out = append(out, s)
		}
	}
	return out
}
