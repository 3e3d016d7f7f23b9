// SPDX-License-Identifier: Apache-2.0

package filter_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
)

// request is an outcome with something in every kind of field.
func request() *event.Event {
	e := new(event.Event)
	e.Reset(event.Request)
	e.ID, e.Source, e.Subject = []byte("b-1"), []byte("/meshtap/a/-/-/web"), []byte("payments")
	e.PartitionKey, e.BootID = []byte("payments"), []byte("b")
	e.Time = 1_790_000_000_000_000_000
	e.Texts[event.Method], e.Texts[event.Cluster] = []byte("GET"), []byte("payments")
	e.Texts[event.Route], e.Texts[event.ErrorType] = []byte("/pay/{id}"), []byte("503")
	e.Numbers[event.Status], e.Numbers[event.Duration], e.Numbers[event.Fallback] = 503, 250_000_000, 1
	it := e.AddItem()
	it.Texts[event.ItemHost], it.Numbers[event.ItemStatus] = []byte("10.0.0.1:80"), 500
	return e
}

func TestMatch(t *testing.T) {
	t.Parallel()
	c := filter.NewCompiler()
	for text, want := range map[string]bool{
		`http.response.status_code >= 500`:                                     true,
		`http.response.status_code == 200`:                                     false,
		`meshtap.cluster == "payments" && http.request.method in ["GET"]`:      true,
		`meshtap.duration_ns > 300000000`:                                      false,
		`meshtap.fallback`:                                                     true,
		`!meshtap.fallback || meshtap.ejected`:                                 false,
		`type == "io.meshtap.outcome.v1"`:                                      true,
		`type.startsWith("io.meshtap.circuit")`:                                false,
		`subject == partitionkey && id.startsWith(bootid)`:                     true,
		`time > timestamp("2026-01-01T00:00:00Z")`:                             true,
		`http.route.matches("^/pay/")`:                                         true,
		`meshtap.tries.exists(t, t.status == 500 && t.host == "10.0.0.1:80")`:  true,
		`meshtap.tries.size() == 0 || meshtap.errors.size() > 0`:               false,
		`meshtap.grpc_status == -1 && meshtap.host == "" && traceparent == ""`: true,
		`true`: true,
	} {
		f, err := c.Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := f.Match(request())
		if err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
}

// Every field of every kind can be asked for, and is of the type that its name has in JSON.
func TestEveryField(t *testing.T) {
	t.Parallel()
	c := filter.NewCompiler()
	e := new(event.Event)
	for k := event.Unknown; k < event.NumKinds; k++ {
		e.Reset(k)
		for _, v := range event.Fields() {
			test := " >= -1"
			switch {
			case v.IsList:
				test = ".size() == 0"
			case v.IsText:
				test = ` == ""`
			case v.IsFlag:
				test = " == false"
			}
			f, err := c.Compile(v.Name + test)
			if err != nil {
				t.Fatal(err)
			}
			if yes, err := f.Match(e); err != nil || !yes {
				t.Errorf("%s of an empty event: %v, %v", f, yes, err)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	c := filter.NewCompiler()
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", " ", "the expression is empty; write one as http.response.status_code >= 500"},
		{"misspelt", `http.response.status_cod >= 500`, `1:1: an event has no "http.response.status_cod"; did you mean http.response.status_code?`},
		{"unknown", "true &&\n  color == 1", `2:3: an event has no "color"; allowed are the names of its attributes and fields, as type, subject and http.response.status_code, and CEL's functions`},
		{"wrong type", `http.response.status_code == "503"`, "1:27: found no matching overload for '_==_' applied to '(int, string)'; both sides must have the same type: texts stand in quotes, numbers do not"},
		{"no truth", `meshtap.cluster`, "1:1: the expression is a string, and must be true or false: compare it with something"},
		{"syntax", `meshtap.cluster ==`, "1:19: Syntax error"},
		{"a regular expression", `http.route.matches("(")`, "1:20: invalid matches argument"},
		{"a large regular expression", `http.route.matches("[a-z]{90}[a-z]{90}")`, "1:20: "},
		{"too dear", `[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, meshtap.cluster.contains(http.route + meshtap.details)))`, "1:"},
		{"too long", "true || " + strings.Repeat(" ", filter.MaxLength) + "true", "expression code point size exceeds limit: size: 4108, limit 4096"},
		{"too deep", strings.Repeat("!(", 200) + "true" + strings.Repeat(")", 200), "expression recursion limit exceeded"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := c.Compile(tc.text)
			var e *filter.Error
			if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

// FuzzCompile: whatever the text, the compiler neither panics nor lets through what costs more than it may; what it
// accepts can be evaluated, or says why not.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`http.response.status_code >= 500`, `meshtap.tries.exists(t, t.status == 500)`, `1/0 == 1`, `"\u0000".matches("a*")`,
		`[1].map(x, x)[1] == 2`, `time + duration("1h") > time`, `type(1) == int`, `{"a": 1}.a == 1`, `has(meshtap.tries[0].host)`,
	} {
		f.Add(s)
	}
	c := filter.NewCompiler()
	e := request()
	f.Fuzz(func(t *testing.T, text string) {
		x, err := c.Compile(text)
		if err != nil {
			var e *filter.Error
			if !errors.As(err, &e) || e.Msg == "" {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		_, _ = x.Match(e)
	})
}

func BenchmarkMatch(b *testing.B) {
	f, err := filter.NewCompiler().Compile(`http.response.status_code >= 500 && meshtap.cluster == "payments"`)
	if err != nil {
		b.Fatal(err)
	}
	e := request()
	b.ReportAllocs()
	for b.Loop() {
		if yes, err := f.Match(e); err != nil || !yes {
			b.Fatal(yes, err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = filter.NewCompiler().Compile(`http.response.status_code >= 500`)
		}
	})
	c := filter.NewCompiler()
	b.Run("next", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.Compile(`http.response.status_code >= 500`)
		}
	})
}

// TestLazy: a compiler that nobody uses costs next to nothing; the first expression makes what all share.
func TestLazy(t *testing.T) {
	if n := testing.AllocsPerRun(10, func() { filter.NewCompiler() }); n > 10 {
		t.Errorf("a compiler makes %v allocations before it is used", n)
	}
}
