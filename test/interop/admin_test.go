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

var rewrite = flag.Bool("rewrite", false, "write testdata/absent.txt and testdata/help.txt anew")

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

// Documents have the same fields, but for those of testdata/fields.txt.
func TestAdminDocuments(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ file, path string }{
		{"static.yaml", "/server_info"}, {"static.yaml", "/clusters?format=json"}, {"static.yaml", "/listeners?format=json"},
		{"static.yaml", "/memory"}, {"static.yaml", "/certs"}, {"static.yaml", "/runtime"}, {"static.yaml", "/init_dump"},
		{"static.yaml", "/config_dump?include_eds"}, {"ads.yaml", "/config_dump?include_eds"}, {"ads.yaml", "/clusters?format=json"},
	} {
		t.Run(tc.file+tc.path, func(t *testing.T) {
			t.Parallel()
			theirs, ours := admins(t, tc.file)
			a, b := fieldsOf(t, theirs.Admin, tc.path), fieldsOf(t, ours.Admin, tc.path)
			for _, name := range missingFields(a, b, known(t, tc.path, "Envoy")) {
				t.Errorf("Meshtap does not have %s", name)
			}
			for _, name := range missingFields(b, a, known(t, tc.path, "Meshtap")) {
				t.Errorf("only Meshtap has %s", name)
			}
		})
	}
}

// known returns what testdata/fields.txt says that one of the two alone has in a document.
func known(t *testing.T, document, who string) (out []*regexp.Regexp) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "fields.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, " | "); len(f) == 4 && f[0] == document && f[1] == who {
			out = append(out, regexp.MustCompile("^(?:"+f[2]+")$"))
		}
	}
	return out
}

// Envoy's help, which docs/differences.md is made of, is still what the file has.
func TestHelp(t *testing.T) {
	t.Parallel()
	theirs := start(t, examples.Example{File: "static.yaml"}, envoy)
	golden(t, "help.txt", theirs.Admin.Get("/help"))
}

// golden compares with a file of testdata, or writes it anew.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("there is more: %q; and less: %q (-rewrite writes %s)", missing(got, string(want)), missing(string(want), got), file)
	}
}

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
func missingFields(a, b map[string]bool, known []*regexp.Regexp) (names []string) {
	for name := range a {
		isKnown := slices.ContainsFunc(known, func(k *regexp.Regexp) bool { return k.MatchString(name) })
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
	golden(t, "absent.txt", strings.Join(absent, "\n")+"\n")
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
