// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/test/bench/report"
)

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ line, want string }{
		{"", "usage"},
		{"walk", "usage"},
		{"run -rows nothing", "there is no row"},
		{"run -only nothing", "there is no proxy"},
		{"run -rounds 0", "more than 0"},
		{"run -port 80", "between 1024"},
		{"compare one", "OLD.json NEW.json"},
		{"compare /no/one /no/two", "no such file"},
		{"doc", "RESULT.json"},
	} {
		err := run(t.Context(), strings.Fields(tt.line))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: want %q in: %v", tt.line, tt.want, err)
		}
	}
}

// What a run saves is what the other verbs read.
func TestSaveDocumentCompare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := &report.Report{
		Schema: report.Schema, Began: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), Flags: report.Flags{Rows: []string{"h1-1k"}},
		Peers:  []report.Peer{{Name: "meshtap"}},
		Series: []report.Series{{Row: "h1-1k", Peer: "meshtap", Cells: []report.Cell{{Round: 1, Requests: 1, CPU: 10, Rate: 10}}}},
	}
	if err := save(r, dir); err != nil {
		t.Fatal(err)
	}
	json := filepath.Join(dir, "2026-11-22-100000.json")
	doc := filepath.Join(dir, "perf.md")
	if err := run(t.Context(), []string{"doc", "-out", doc, json}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(doc); err != nil || !strings.Contains(string(b), "h1-1k") {
		t.Errorf("%v: %s", err, b)
	}
	if err := run(t.Context(), []string{"compare", json, json}); err != nil {
		t.Error(err)
	}
}
