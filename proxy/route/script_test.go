// SPDX-License-Identifier: Apache-2.0

package route

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/proxy/codec"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the wanted results in testdata, but for what was recorded from Envoy")

// TestScripts runs testdata/*.txtar: "table.json" is a route configuration in Envoy's JSON, "requests" holds a request a
// line as "METHOD authority path | name: value | ...", and "want" what becomes of each.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			table, err := Compile(parseTable(t, ar.Files[0].Data))
			if err != nil {
				t.Fatal(err)
			}
			requests := strings.Split(strings.TrimSpace(string(ar.Files[1].Data)), "\n")
			var got []string
			for _, line := range requests {
				r := parseRequest(t, line)
				got = append(got, describe(table.Match(r, 0), r))
			}
			if *rewrite && !bytes.Contains(ar.Comment, []byte("Recorded from Envoy")) {
				ar.Files[2].Data = []byte(strings.Join(got, "\n") + "\n")
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := strings.Split(strings.TrimSpace(string(ar.Files[2].Data)), "\n")
			if len(want) != len(got) {
				t.Fatalf("%d results wanted for %d requests", len(want), len(got))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("%s\n got %s\nwant %s", requests[i], got[i], want[i])
				}
			}
		})
	}
}

func parseRequest(t testing.TB, line string) *codec.Request {
	t.Helper()
	parts := strings.Split(line, " | ")
	head := strings.Fields(parts[0])
	if len(head) != 3 {
		t.Fatalf("%q is not METHOD authority path", parts[0])
	}
	r := &codec.Request{Method: []byte(head[0]), Authority: []byte(head[1]), Scheme: []byte("http")}
	if head[2] != "-" {
		r.Path = []byte(head[2])
	}
	r.Header.AddString("host", head[1])
	for _, field := range parts[1:] {
		name, value, _ := strings.Cut(field, ":")
		value, err := strconv.Unquote(`"` + strings.TrimSpace(value) + `"`)
		if err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		r.Header.AddString(name, value)
	}
	return r
}

// describe says what happens to the request, in the words of the scripts.
func describe(m Match, r *codec.Request) string {
	switch {
	case m.RequireTLS:
		return fmt.Sprintf("301 %s", m.Location(nil, r))
	case m.Route == nil:
		return "404"
	case m.Route.Redirect != nil:
		return fmt.Sprintf("%d %s", m.Route.Redirect.Status, m.Location(nil, r))
	case m.Route.Direct != nil:
		return fmt.Sprintf("%d %s", m.Route.Direct.Status, m.Route.Direct.Body)
	}
	path, authority := r.Path, r.Authority
	if out, ok := m.RewritePath(nil, r.Path); ok {
		path = out
	}
	if out, by := m.RewriteHost(nil, r, m.WeightedCluster(0), "localhost"); by != HostKept {
		authority = out
	}
	return fmt.Sprintf("forward %s %s", path, authority)
}

// TestHeaderScripts runs testdata/header/*.txtar, a grid of header matchers and values.
func TestHeaderScripts(t *testing.T) {
	t.Parallel()
	ar, err := txtar.ParseFile("testdata/header/envoy.txtar")
	if err != nil {
		t.Fatal(err)
	}
	lines := func(i int) []string { return strings.Split(strings.TrimSpace(string(ar.Files[i].Data)), "\n") }
	values, matchers, want := lines(0), lines(1), lines(2)
	if len(want) != len(matchers) {
		t.Fatalf("%d rows for %d matchers", len(want), len(matchers))
	}
	for row, matcher := range matchers {
		var h jsonHeader
		if err := json.Unmarshal(quoteInts.ReplaceAll([]byte(matcher), []byte(`"$1":"$2"`)), &h); err != nil {
			t.Fatal(err)
		}
		m := h.mesh()
		for col, line := range values {
			var list []string
			if err := json.Unmarshal([]byte(line), &list); err != nil {
				t.Fatal(err)
			}
			r := &codec.Request{}
			for _, v := range list {
				r.Header.AddString("x-h", v)
			}
			if got := MatchHeader(&m, r) == Yes; got != (want[row][col] == '1') {
				t.Errorf("%s with %s: %v", matcher, line, got)
			}
		}
	}
}
