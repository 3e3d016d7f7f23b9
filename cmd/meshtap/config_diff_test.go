// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteDiff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, a, b, want string }{
		{"the same", "a b", "a b", ""},
		{"all", "a", "b", "- a|+ b"},
		{"one of many", "1 2 3 4 5 6 7 8 9", "1 2 3 4 x 6 7 8 9", "3|4|- 5|+ x|6|7|..."},
		{"more", "1 2", "1 2 3", "1|2|+ 3"},
		{"nothing before", "", "1", "+ 1"},
		{"two places", "1 2 3 4 5 6 7 8", "x 2 3 4 5 6 7 y", "- 1|+ x|2|3|...|6|7|- 8|+ y"},
	} {
		var b strings.Builder
		writeDiff(&b, strings.Fields(tt.a), strings.Fields(tt.b))
		var got []string
		for line := range strings.Lines(b.String()) {
			got = append(got, strings.TrimSpace(line))
		}
		if strings.Join(got, "|") != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, strings.Join(got, "|"), tt.want)
		}
	}
}

const diffed = `resources:
- {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a, connect_timeout: 2s}
- {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: new}
`

// TestFileAgainstDump: what a file has otherwise is said by resource and line.
func TestFileAgainstDump(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte(diffed), 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := readResources(file)
	if err != nil {
		t.Fatal(err)
	}
	cluster := func(name, timeout string) map[string]any {
		return map[string]any{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": name, "connect_timeout": timeout}
	}
	live := readDump([]map[string]any{{
		"dynamic_active_clusters": []any{
			map[string]any{"version_info": "1", "cluster": cluster("a", "1s")},
			map[string]any{"version_info": "1", "cluster": cluster("old", "1s"), "error_state": map[string]any{
				"version_info": "2", "details": "no such thing", "failed_configuration": cluster("old", "9s"),
			}},
		},
		"dynamic_warming_clusters": []any{map[string]any{"version_info": "2", "cluster": cluster("a", "3s")}},
	}})
	got := want.against(live, "f.yaml")
	for _, line := range []string{
		`cluster "a": in force (version "1") otherwise than in f.yaml`, `-   "connect_timeout": "1s",`, `+   "connect_timeout": "2s",`,
		`cluster "new": in f.yaml, not in force`, `cluster "old": in force (version "1"), not in f.yaml`,
	} {
		if !strings.Contains(got, line) {
			t.Errorf("no %s in:\n%s", line, got)
		}
	}
	got = live.pending()
	for _, line := range []string{
		`cluster "a": version "2" is accepted and held back; in force is version "1"`, `+   "connect_timeout": "3s",`,
		`cluster "old": version "2" was refused; in force is version "1"`, "no such thing", `+   "connect_timeout": "9s",`,
	} {
		if !strings.Contains(got, line) {
			t.Errorf("no %s in:\n%s", line, got)
		}
	}
}
