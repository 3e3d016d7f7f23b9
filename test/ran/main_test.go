// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

const doc = "# What works\n\n| feature | state | tests | missing |\n|---|---|---|---|\n"

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
	seen, failed, err := follow(&out, strings.NewReader(`
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
	if len(failed) != 1 || failed["proxy"] != "what went wrong\nFAIL\n" {
		t.Errorf("failed: %q", failed)
	}
	got := strings.Join(compare(rows, seen), "\n")
	want := `line 5: "a" names lb.TestSkipped, which ended with skip
line 5: "a" names lb.TestGone, which did not run`
	if got != want {
		t.Errorf("compare:\n%s\nwant:\n%s", got, want)
	}
}

func TestAgain(t *testing.T) {
	t.Parallel()
	seen := results{
		"lb":    {"TestPick": "fail", "TestPick/one": "fail", "TestOther": "pass"},
		"proxy": {"TestA": "fail", "TestB": "fail", "TestC": "fail", "TestD": "fail"},
		"xds":   {"TestX": "pass"},
	}
	for _, tt := range []struct {
		name   string
		failed map[string]string
		want   string
	}{
		{"one", map[string]string{"lb": "--- FAIL: TestPick\n"}, "-tags a -timeout 1m -count=1 -run ^(TestPick)$ ./lb"},
		{"race", map[string]string{"lb": "WARNING: DATA RACE\n"}, `lb: "DATA RACE" is never forgiven`},
		{"panic", map[string]string{"lb": "x\npanic: oh [recovered]\n"}, `lb: "panic: " is never forgiven`},
		{"build", map[string]string{"lb": "FAIL\tlb [build failed]\n"}, `lb: "[build failed]" is never forgiven`},
		{"no test", map[string]string{"xds": "exit status 1\n"}, "xds failed, and none of its tests did"},
		{"too many", map[string]string{"lb": "", "proxy": ""}, "5 tests failed, more than the 4 that may"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tries, err := again(tt.failed, seen)
			got := errText(err)
			for _, s := range tries {
				got += strings.Join(s.args([]string{"-tags", "a", "-timeout", "1m", "./..."}), " ")
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
