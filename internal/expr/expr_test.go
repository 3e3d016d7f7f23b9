// SPDX-License-Identifier: Apache-2.0

package expr_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"cel.dev/cel-go/cel"

	"github.com/meshtap/meshtap/internal/expr"
)

// language has a number, a text, a list of texts and a number with dots in its name.
func language(t testing.TB) *expr.Language {
	t.Helper()
	env, err := cel.NewEnv(append(expr.Options(), cel.Variable("n", cel.IntType), cel.Variable("s", cel.StringType),
		cel.Variable("l", cel.ListType(cel.StringType)), cel.Variable("a.b.c", cel.IntType))...)
	if err != nil {
		t.Fatal(err)
	}
	return &expr.Language{
		Env: env, MaxCost: 10_000, MaxText: 1000, MaxItems: 10, Example: "n == 1",
		Unknown: func(name string) string { return "there is no " + name },
	}
}

var values = map[string]any{"n": 5, "s": "text", "l": []string{"x", "y"}, "a.b.c": 7}

func activation(t testing.TB) cel.Activation {
	t.Helper()
	a, err := cel.NewActivation(values)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEval(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text  string
		want  bool
		fails string
	}{
		{"true", true, ""},
		{"n == 5", true, ""},
		{" n > 5\n", false, ""},
		{"a.b.c == 7 && s.startsWith('te')", true, ""},
		{"s.matches('^t.*t$')", true, ""},
		{"l.exists(x, x == 'y')", true, ""},
		{"l.exists(x, x.matches('^[ab]$'))", false, ""},
		{"'z' in l", false, ""},
		{"1 / (n - 5) == 1", false, "division by zero"},
		{"1 / (n - 5) == 1 || n == 5", true, ""},
		{"l[2] == 'z'", false, "index out of bounds"},
		{"n + 9223372036854775807 > 0", false, "integer overflow"},
		{"'ab'.matches('[' + string(n))", false, "missing closing"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			x, err := language(t).Compile(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if x.String() != tt.text {
				t.Errorf("String() = %q", x)
			}
			got, err := x.Eval(activation(t))
			if got != tt.want || (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%v, %v; want %v and an error with %q", got, err, tt.want, tt.fails)
			}
		})
	}
}

// nested are n comprehensions in one another.
func nested(n int) string {
	if n == 0 {
		return "true"
	}
	return "[1].all(v" + string(rune('a'+n)) + ", " + nested(n-1) + ")"
}

// TestRefused: what is wrong is said with its place, and what costs too much is not run.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "the expression is empty; write one as n == 1"},
		{"blank", " \n\t", "the expression is empty; write one as n == 1"},
		{"no test", "n", "1:1: the expression is a int, and must be true or false: compare it with something"},
		{"dynamic", "dyn(true)", "1:1: the expression is a dyn, and must be true or false"},
		{"unknown name", "n == 1 && what == 2", "1:11: there is no what"},
		{"unknown name with dots", "n == 1 ||\n  x.y.z == 2", "2:3: there is no x.y.z"},
		{"unknown name after wide characters", "'äöü' == s && where", "1:15: there is no where"},
		{"other types", "n == 's'", "both sides must have the same type"},
		{"syntax", "n ==", "1:5: Syntax error"},
		{"regular expression", "s.matches('(')", "1:11: invalid matches argument"},
		{"large regular expression", "s.matches('(a{10}){20}')", "1:11: regex program size 242 exceeds limit of 100"},
		{"duration", "duration('x') == duration('1s')", "invalid duration argument"},
		{"longest", "s == '" + strings.Repeat("a", expr.MaxLength-6) + "'", "expression code point size exceeds limit"},
		{"regular expressions of long texts", "s.matches(l[0])", "1:1: one evaluation may cost up to"},
		{"deep", strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100), "recursion"},
		{"many nodes", "n in [" + strings.Repeat("1,", 2000) + "1]", "expression node count exceeds limit"},
		{"nested", nested(3), "comprehension exceeds nesting limit"},
		{"too dear", "l.exists(x, l.exists(y, (x+y+s).matches(s)))", "1:1: one evaluation may cost up to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x, err := language(t).Compile(tt.text)
			if e := (*expr.Error)(nil); !errors.As(err, &e) || !strings.HasPrefix(err.Error(), tt.want) && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, %v; want %q", x, err, tt.want)
			}
		})
	}
}

// TestLimits: what is just within them is taken.
func TestLimits(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"longest": "s == '" + strings.Repeat("a", expr.MaxLength-7) + "'",
		"deep":    strings.Repeat("(", 10) + "true" + strings.Repeat(")", 10),
		"nested":  nested(2),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, err := language(t).Compile(text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := x.Eval(activation(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCostIsBoundedAgain: values that are larger than was said when the expression was compiled end its evaluation.
func TestCostIsBoundedAgain(t *testing.T) {
	t.Parallel()
	l := language(t)
	x, err := l.Compile("l.exists(x, x == s)")
	if err != nil {
		t.Fatal(err)
	}
	a, err := cel.NewActivation(map[string]any{"s": "a", "l": make([]string, l.MaxCost)})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := x.Eval(a); got || err == nil || !strings.Contains(err.Error(), "cost limit exceeded") {
		t.Errorf("%v, %v; want the limit of the cost", got, err)
	}
}

// FuzzCompile: any text is refused with a place that is in it, or can be evaluated, twice alike.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		"n == 1 && what == 2", "l.exists(x, x.matches(s))", "1/0 == 1", "\"\\u0000\".matches('a*')", "a.b.c > a.b", "{'a': 1}.a == 1",
		"has(l[0].x)", "x.y\n.z", "'äöü' == where", "[1].map(x, x)[1] == 2", "timestamp('x') == timestamp('y')", "((((",
	} {
		f.Add(s)
	}
	l := language(f)
	a := activation(f)
	f.Fuzz(func(t *testing.T, text string) {
		x, err := l.Compile(text)
		if err != nil {
			e := (*expr.Error)(nil)
			if !errors.As(err, &e) || e.Msg == "" {
				t.Fatalf("%q: %v", text, err)
			}
			if e.Line < 0 || e.Column < 0 || e.Line > utf8.RuneCountInString(text)+1 || e.Column > utf8.RuneCountInString(text)+1 {
				t.Errorf("%q: at %d:%d", text, e.Line, e.Column)
			}
			return
		}
		first, err1 := x.Eval(a)
		second, err2 := x.Eval(a)
		if first != second || (err1 == nil) != (err2 == nil) {
			t.Errorf("%q: %v, %v and then %v, %v", text, first, err1, second, err2)
		}
	})
}
