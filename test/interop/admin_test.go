// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop_test

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/absent.txt anew")

// admins serves an example by both, makes the same few requests, and returns the administration interfaces.
func admins(t *testing.T, file string) (theirs, ours *examples.Rig) {
	t.Helper()
	theirs, ours = start(t, examples.Example{File: file}, envoy), start(t, examples.Example{File: file}, "")
	for _, r := range []*examples.Rig{theirs, ours} {
		for _, q := range []examples.Request{{}, {Header: []string{"x-do: status=404"}}, {Header: []string{"x-do: status=503"}}} {
			r.Do(q)
			// The next one finds the connection of this one idle.
			r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["http.http.downstream_cx_active"] == 0 })
		}
	}
	return theirs, ours
}

// plain removes ports, which are chosen anew for each proxy.
func plain(s string) string { return ports.ReplaceAllString(s, "${1}PORT") }

var ports = regexp.MustCompile(`(127\.0\.0\.1[:_])\d+`)

// Text that scripts read is the same, but for what is of the moment.
func TestAdminText(t *testing.T) {
	t.Parallel()
	theirs, ours := admins(t, "static.yaml")
	for _, path := range []string{"/ready", "/clusters", "/listeners", "/hot_restart_version"} {
		a, b := plain(theirs.Admin.Get(path)), plain(ours.Admin.Get(path))
		if a != b {
			t.Errorf("%s: only Envoy says %q, only Meshtap %q", path, missing(a, b), missing(b, a))
		}
	}
}

// only are the fields that one of the two alone has, as regular expressions, and the reason.
type only struct{ path, why string }

// Documents have the same fields.
func TestAdminDocuments(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		file, path   string
		theirs, ours []only
	}{
		{
			file: "static.yaml", path: "/server_info",
			theirs: []only{
				{`command_line_options\.(base_id|base_id_path|use_dynamic_base_id|socket_path|socket_mode|skip_hot_restart_.*)`, "there is no hot restart"},
				{`command_line_options\.(cpuset_threads|disabled_extensions.*|stats_tag.*|log_format_escaped|log_stacktrace_single_entry)`, "flags without effect here"},
				{`command_line_options\.(enable_fine_grain_logging|enable_mutex_tracing)`, "flags without effect here"},
				{`node\.user_agent_build_version\.metadata\..*`, "of Envoy's build"},
				{`node\.extensions.*`, "each has its own"},
			},
			ours: []only{
				{`node\.locality\..*`, "Envoy leaves empty ones out"}, {`node\.user_agent_build_version\.metadata`, "empty"},
				{`node\.extensions.*`, "each has its own"},
			},
		},
		{file: "static.yaml", path: "/clusters?format=json"},
		{file: "static.yaml", path: "/listeners?format=json"},
		{file: "static.yaml", path: "/memory"},
		{file: "static.yaml", path: "/certs"},
		{file: "static.yaml", path: "/runtime"},
		{file: "static.yaml", path: "/init_dump"},
		{file: "static.yaml", path: "/config_dump?include_eds", theirs: ofDump, ours: notOfDump},
		{file: "ads.yaml", path: "/config_dump?include_eds", theirs: ofDump, ours: notOfDump},
		{file: "ads.yaml", path: "/clusters?format=json"},
	} {
		t.Run(tc.file+tc.path, func(t *testing.T) {
			t.Parallel()
			theirs, ours := admins(t, tc.file)
			a, b := fieldsOf(t, theirs.Admin, tc.path), fieldsOf(t, ours.Admin, tc.path)
			for _, name := range missingFields(a, b, tc.theirs) {
				t.Errorf("Meshtap does not have %s", name)
			}
			for _, name := range missingFields(b, a, tc.ours) {
				t.Errorf("only Meshtap has %s", name)
			}
		})
	}
}

var (
	ofDump = []only{
		{`.*\.bootstrap\.node\.(extensions|user_agent).*`, "what the proxy adds to the node is in /server_info"},
		{`.*EndpointsConfigDump.*\.(locality|health_check_config|health_status|load_balancing_weight|overprovisioning_factor)`, "what was configured is shown, without the defaults"},
		{`.*\.client_status`, "only of use with on-demand discovery"},
	}
	notOfDump = []only{{`.*EndpointsConfigDump.*\.(last_updated|version_info)`, "Envoy does not keep it"}}
)

// fieldsOf returns the paths of all values of a document.
func fieldsOf(t *testing.T, a *sidecar.Admin, path string) map[string]bool {
	t.Helper()
	var doc any
	if err := json.Unmarshal([]byte(a.Get(path)), &doc); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	out := map[string]bool{}
	walk(doc, "", out)
	return out
}

func walk(v any, path string, out map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		if typ, ok := v["@type"].(string); ok {
			path += "(" + typ[strings.LastIndexByte(typ, '.')+1:] + ")"
		}
		for name, sub := range v {
			walk(sub, strings.TrimPrefix(path+"."+name, "."), out)
		}
		if len(v) > 0 {
			return
		}
	case []any:
		for _, sub := range v {
			walk(sub, path+"[]", out)
		}
	}
	out[path] = true
}

// missingFields returns what a has and b does not, but for what is known.
func missingFields(a, b map[string]bool, known []only) (names []string) {
	for name := range a {
		isKnown := slices.ContainsFunc(known, func(k only) bool { return regexp.MustCompile("^" + k.path + "$").MatchString(name) })
		if !b[name] && !isKnown {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// What was configured is shown as Envoy shows it, word for word.
func TestConfigDumpShowsTheSameResources(t *testing.T) {
	t.Parallel()
	for file, sections := range map[string][]string{
		"static.yaml": {"static_clusters", "static_listeners", "static_route_configs"},
		"ads.yaml":    {"static_clusters", "dynamic_active_clusters", "dynamic_listeners", "dynamic_route_configs"},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			theirs, ours := admins(t, file)
			a, b := sectionsOf(t, theirs.Admin), sectionsOf(t, ours.Admin)
			for _, name := range sections {
				if a[name] == "" || a[name] != b[name] {
					t.Errorf("%s: Envoy\n%s\nMeshtap\n%s", name, a[name], b[name])
				}
			}
		})
	}
}

// moment are parts of a dump that are of the moment.
var moment = regexp.MustCompile(`"last_updated":"[^"]*"|"port_value":\d+`)

func sectionsOf(t *testing.T, a *sidecar.Admin) map[string]string {
	t.Helper()
	var doc struct{ Configs []map[string]any }
	a.JSON("/config_dump", &doc)
	out := map[string]string{}
	for _, part := range doc.Configs {
		for name, v := range part {
			b, err := json.Marshal(v) // with its keys in order
			if err != nil {
				t.Fatal(err)
			}
			out[name] = moment.ReplaceAllString(string(b), "")
		}
	}
	return out
}

// After the same requests the numbers are the same. Envoy's names that Meshtap does not have are listed in a file, so that
// none goes missing unseen; Meshtap's own begin with its name.
func TestStats(t *testing.T) {
	t.Parallel()
	theirs, ours := admins(t, "static.yaml")
	a, b := numbers(theirs.Admin), numbers(ours.Admin)
	var absent []string
	for name, v := range a {
		got, some := b[name]
		switch {
		case !some:
			absent = append(absent, name)
		case got != v && !ofTheMoment.MatchString(name):
			t.Errorf("%s: Envoy %s, Meshtap %s", name, v, got)
		}
	}
	for name := range b {
		if _, some := a[name]; !some && !own.MatchString(name) {
			t.Errorf("%s is none of Envoy's", name)
		}
	}
	slices.Sort(absent)
	golden := filepath.Join("testdata", "absent.txt")
	text := strings.Join(absent, "\n") + "\n"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("of Envoy's names these are missing now: %q; and these no longer: %q (-rewrite writes %s)",
			missing(text, string(want)), missing(string(want), text), golden)
	}
	t.Logf("figure: Envoy has %d names, Meshtap %d; %d of Envoy's are not kept", len(a), len(b), len(absent))
}

// numbers returns all counters, gauges and histograms, with the worker's number left out.
func numbers(a *sidecar.Admin) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(plain(a.Get("/stats"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		out[name] = value
	}
	maps.DeleteFunc(out, func(name, _ string) bool { return strings.Contains(name, ".worker_") })
	return out
}

var (
	// own are Meshtap's own names, and those that Envoy has only where there is a control plane.
	own = regexp.MustCompile(`^meshtap|^(cluster_manager\.cds|listener_manager\.lds|control_plane)\.`)
	// ofTheMoment are numbers that are not of the requests: histograms are shown in steps, and bytes hold request ids.
	ofTheMoment = regexp.MustCompile(`(_ms|_rq_time|_bytes_total)$|^server\.(concurrency|memory_.*|uptime|version)$|^cluster\.web\.update_success$`)
)
