// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

const doc = "# Coverage\n\n| feature | state | tests | missing |\n|---|---|---|---|\n"

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, doc, err string }{
		{"works", doc + "| a | works | `lb.TestPick` | |\n", ""},
		{"partly", doc + "| a | partly | `proxy/codec/h1.TestHead/too_long` | b |\n", ""},
		{"no", doc + "| a | no | | |\n", ""},
		{"no test", doc + "| a | works | | |\n", `line 5: "a" is said to work and names no test`},
		{"nothing missing", doc + "| a | partly | `lb.TestPick` | |\n", `line 5: "a" does not say what is missing`},
		{"state", doc + "| a | yes | | |\n", `line 5: the state is "yes"; allowed are works, partly, no`},
		{"empty", doc, "there is no row"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(tt.doc)
			if got := errText(err); got != tt.err {
				t.Errorf("error %q, want %q", got, tt.err)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestCompare(t *testing.T) {
	t.Parallel()
	rows, err := parse(doc + "| a | works | `lb.TestPick` `lb.TestPick/one` `lb.TestSkipped` `lb.TestGone` `xds.TestElsewhere` | |\n")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	seen, err := follow(&out, strings.NewReader(`
{"Action":"output","Package":"github.com/meshtap/meshtap/lb","Test":"TestPick","Output":"=== RUN\n"}
{"Action":"pass","Package":"github.com/meshtap/meshtap/lb","Test":"TestPick/one"}
{"Action":"pass","Package":"github.com/meshtap/meshtap/lb","Test":"TestPick"}
{"Action":"skip","Package":"github.com/meshtap/meshtap/lb","Test":"TestSkipped"}
{"Action":"output","Package":"github.com/meshtap/meshtap/lb","Output":"ok  \tlb\t0.1s\n"}
{"Action":"pass","Package":"github.com/meshtap/meshtap/lb"}
{"Action":"output","Package":"github.com/meshtap/meshtap/proxy","Output":"what went wrong\n"}
{"Action":"output","Package":"github.com/meshtap/meshtap/proxy","Output":"FAIL\n"}
{"Action":"fail","Package":"github.com/meshtap/meshtap/proxy"}
`))
	if err != nil {
		t.Fatal(err)
	}
	if want := "ok  \tlb\t0.1s\nwhat went wrong\nFAIL\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	got := strings.Join(compare(rows, seen), "\n")
	want := `line 5: "a" names lb.TestSkipped, which ended with skip
line 5: "a" names lb.TestGone, which did not run`
	if got != want {
		t.Errorf("compare:\n%s\nwant:\n%s", got, want)
	}
}
