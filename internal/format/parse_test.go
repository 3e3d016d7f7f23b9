// SPDX-License-Identifier: Apache-2.0

package format

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/mesh"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the wanted results in testdata")

// TestParse runs testdata/*.txtar: "formats" holds a quoted format string per line, "want" what becomes of it.
func TestParse(t *testing.T) {
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
			var got strings.Builder
			for line := range strings.Lines(string(ar.Files[0].Data)) {
				in, err := strconv.Unquote(strings.TrimSpace(line))
				if err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				fmt.Fprintln(&got, result(in))
			}
			if *rewrite {
				ar.Files[1].Data = []byte(got.String())
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			ins, wants := strings.Split(string(ar.Files[0].Data), "\n"), strings.Split(string(ar.Files[1].Data), "\n")
			for i, g := range strings.Split(got.String(), "\n") {
				if i >= len(wants) || g != wants[i] {
					t.Errorf("%s:\n got %s\nwant %s", ins[i], g, wants[min(i, len(wants)-1)])
				}
			}
		})
	}
}

func result(in string) string {
	f, err := Parse(in)
	if err != nil {
		return err.Error()
	}
	return show(f)
}

// show writes a format with its operators in canonical form.
func show(f mesh.Format) string {
	var out []string
	for _, p := range f {
		s := p.Op
		if p.Op == "" {
			s = strconv.Quote(p.Text)
		}
		if p.Arg != "" || p.Alt != "" {
			s += fmt.Sprintf("(%s|%s)", p.Arg, p.Alt)
		}
		if p.Max > 0 {
			s += ":" + strconv.Itoa(p.Max)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestErrorNamesTheOperator(t *testing.T) {
	t.Parallel()
	_, err := Parse("abc %FOO(x)%")
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("Parse returned %T, want *Error", err)
	}
	if e.Column != 5 || e.Op != "FOO" {
		t.Errorf("column %d, operator %q; want 5, FOO", e.Column, e.Op)
	}
}

// TestEnvoyOnlyIsDisjoint keeps an operator that was implemented from being called missing.
func TestEnvoyOnlyIsDisjoint(t *testing.T) {
	t.Parallel()
	for _, op := range envoyOnly {
		if _, there := operators[op]; there {
			t.Errorf("%s is implemented and listed as missing", op)
		}
	}
}

func TestLiteral(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in, text string
		ok       bool
	}{
		{"", "", true},
		{"plain 100%%", "plain 100%", true},
		{"a %DURATION%", "", false},
		{"%DURATION%", "", false},
	}
	for _, tt := range tests {
		f, err := Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := Literal(f); text != tt.text || ok != tt.ok {
			t.Errorf("Literal(%q) = %q, %v; want %q, %v", tt.in, text, ok, tt.text, tt.ok)
		}
	}
}

// TestDefault holds the default format against Envoy's page, where it is broken over lines.
func TestDefault(t *testing.T) {
	t.Parallel()
	const documented = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%"
%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION%
%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%"
"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"`
	if want := strings.ReplaceAll(documented, "\n", " ") + "\n"; Default != want {
		t.Errorf("Default is\n%swant\n%s", Default, want)
	}
	if _, err := Parse(Default); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		Default, "%%", "%", "%REQ(a?b):10%", "%START_TIME(%Y%m%dT%H%M%E3S%Ez)%", "%PATH(NQ:ORIG):3%",
		"%REQUESTED_SERVER_NAME(SNI_FIRST:HOST)%", "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "%REQ(a)b)%", "%A:1%", "%REQ(\n)%",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := Parse(s)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Column < 1 || e.Column > len(s) || s[e.Column-1] != '%' {
				t.Fatalf("Parse(%q) = %v, which is not at a %%", s, err)
			}
			return
		}
		for i, p := range parsed {
			_, known := operators[p.Op]
			if (p.Op == "") == (p.Text == "") || p.Op != "" && !known || p.Max < 0 {
				t.Fatalf("Parse(%q) made %+v", s, p)
			}
			if i > 0 && p.Op == "" && parsed[i-1].Op == "" {
				t.Fatalf("Parse(%q) made two texts in a row", s)
			}
		}
	})
}
