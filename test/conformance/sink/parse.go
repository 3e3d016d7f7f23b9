// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/eventtap"
)

// Parse reads each .in of testdata/parse.txtar, a message of m's type, and compares what the row's Parse makes of it,
// as describe shows it, with the .out behind it.
func Parse(t *testing.T, row eventtap.SinkRow, m proto.Message, describe func(config any) string, rewrite bool) {
	t.Helper()
	path := filepath.Join("testdata", "parse.txtar")
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(ar.Files); i++ {
		in := ar.Files[i]
		name, ok := strings.CutSuffix(in.Name, ".in")
		if !ok {
			t.Fatalf("%s stands where a .in should", in.Name)
		}
		m := proto.Clone(m)
		if err := prototext.Unmarshal(in.Data, m); err != nil {
			t.Fatalf("%s: %v", in.Name, err)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if p, err := row.Parse(row.TypeURLs[0], b); err != nil {
			got = "error: " + err.Error() + "\n"
		} else {
			got = describe(p.Config) + "\n"
		}
		if i++; rewrite {
			if i == len(ar.Files) || ar.Files[i].Name != name+".out" {
				ar.Files = append(ar.Files[:i], append([]txtar.File{{Name: name + ".out"}}, ar.Files[i:]...)...)
			}
			ar.Files[i].Data = []byte(got)
			continue
		}
		if i == len(ar.Files) || ar.Files[i].Name != name+".out" {
			t.Fatalf("%s has no .out behind it", in.Name)
		}
		if want := string(ar.Files[i].Data); got != want {
			t.Errorf("%s:\n%swant\n%s", name, got, want)
		}
	}
	if rewrite {
		if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
