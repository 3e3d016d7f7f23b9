// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/meshtap/meshtap/internal/nearest"
)

// screen returns a screen of so many columns, 0 for a pipe, and what is printed there.
func screen(width int, color bool) (*Screen, *strings.Builder) {
	var out strings.Builder
	return &Screen{w: bufio.NewWriter(&out), Format: Table, Headers: true, Width: width, color: color}, &out
}

func TestGrid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		width int
		want  string
	}{
		{"a pipe cuts nothing", 0, "NAME           N  NOTE\norders-v2-eu  12  it is not as it should be\npay            -  -\n"},
		{"what fits is not cut", 80, "NAME           N  NOTE\norders-v2-eu  12  it is not as it should be\npay            -  -\n"},
		{"the widest is cut first", 30, "NAME           N  NOTE\norders-v2-eu  12  it is not a…\npay            -  -\n"},
		{"not below its least", 16, "NAME    N  NOTE\norde…  12  it i…\npay     -  -\n"},
		{"then columns come closer", 14, "NAME   N NOTE\norde… 12 it i…\npay    - -\n"},
		{"what cannot fit is as short as it can be", 1, "NAME   N NOTE\norde… 12 it i…\npay    - -\n"},
	} {
		s, out := screen(c.width, false)
		g := NewGrid(Column{Name: "NAME", Flex: 5}, Column{Name: "N", Right: true}, Column{Name: "NOTE", Flex: 5})
		g.Row(T("orders-v2-eu"), T("12"), Cell{"it is not as it should be", Bad})
		g.Row(T("pay"))
		g.Print(s)
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, out, c.want)
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	s, out := screen(40, true)
	st := NewStream(s, []Column{{Name: "TIME"}, {Name: "WHO", Flex: 5}, {Name: "TOOK", Right: true}}, []int{5, 5, 5})
	st.Row(T("12:00"), T("a name that is too long for it"), Cell{"3ms", Good})
	st.Row(T("12:01"), T("only this, which goes to the end of the line"))
	st.Below(7, "└ ", Cell{"a reason that has no room beside what is next", Faint}, "; next: explain")
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "^[[1mTIME^[[0m   ^[[1mWHO^[[0m                          ^[[1mTOOK^[[0m\n" +
		"12:00  a name that is too long f…    ^[[32m3ms^[[0m\n" +
		"12:01  only this, which goes to the end…\n" +
		"       └ ^[[2ma reason that h…^[[0m^[[2m; next: explain^[[0m\n"
	if got := strings.ReplaceAll(out.String(), "\x1b", "^["); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{{"", 0, ""}, {"abc", 3, "abc"}, {"abc", 2, "a…"}, {"abc", 1, "…"}, {"abc", 0, ""}, {"abc", -1, ""}, {"größe", 4, "grö…"}, {"größe", 5, "größe"}} {
		if got := Cut(c.s, c.n); got != c.want || utf8.RuneCountInString(got) > max(c.n, 0) {
			t.Errorf("%q in %d: %q, want %q", c.s, c.n, got, c.want)
		}
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	known := []string{"tap", "status", "stat", "events", "config"}
	for word, want := range map[string]string{
		"tpa": "tap", "TAP": "tap", "sttaus": "status", "statz": "stat", "event": "events", "conifg": "config", "weather": "", "": "", "x": "",
	} {
		if got := nearest.Name(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	if got := DidYouMean("weather", known); got != "known are tap, status, stat, events, config" {
		t.Error(got)
	}
}
