// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
)

func withHeaders(fields ...string) *codec.Request {
	r := &codec.Request{Method: []byte("GET"), Authority: []byte("a.example"), Path: []byte("/p?q=1")}
	for i := 0; i < len(fields); i += 2 {
		r.Header.AddString(fields[i], fields[i+1])
	}
	return r
}

// The parts of a key, as Envoy takes them (scoped_config_impl.cc).
func TestScopeFragment(t *testing.T) {
	t.Parallel()
	whole := mesh.ScopeFragment{Header: "x"}
	second := mesh.ScopeFragment{Header: "x", Separator: ";", Index: 1}
	byKey := mesh.ScopeFragment{Header: "x", Separator: ";", ByKey: true, ElementKey: "k", KeySeparator: "="}
	for name, tt := range map[string]struct {
		fragment mesh.ScopeFragment
		fields   []string
		want     string
		none     bool
	}{
		"no such header":             {whole, nil, "", true},
		"the whole value":            {whole, []string{"x", "a;b"}, "a;b", false},
		"an empty value":             {whole, []string{"x", ""}, "", false},
		"the first of two fields":    {whole, []string{"x", "a", "x", "b"}, "a", false},
		"case of the name":           {whole, []string{"X", "a"}, "a", false},
		"an element":                 {second, []string{"x", "a;b;c"}, "b", false},
		"an empty element":           {second, []string{"x", "a;;c"}, "", false},
		"the element at the end":     {second, []string{"x", "a;"}, "", false},
		"too few elements":           {second, []string{"x", "a"}, "", true},
		"separator of two bytes":     {mesh.ScopeFragment{Header: "x", Separator: ", ", Index: 1}, []string{"x", "a, b"}, "b", false},
		"by key":                     {byKey, []string{"x", "a=1;k=2;k=3"}, "2", false},
		"by key, more separators":    {byKey, []string{"x", "k=2=3"}, "2=3", false},
		"by key, no separator":       {byKey, []string{"x", "k"}, "", false},
		"by key, not there":          {byKey, []string{"x", "kk=1;a"}, "", true},
		"by key, the value is empty": {byKey, []string{"x", ""}, "", true},
		"by key in the whole value":  {mesh.ScopeFragment{Header: "x", ByKey: true, ElementKey: "k", KeySeparator: ":"}, []string{"x", "k:a;b"}, "a;b", false},
		"authority":                  {mesh.ScopeFragment{Header: ":authority"}, nil, "a.example", false},
		"host is the authority":      {mesh.ScopeFragment{Header: "host"}, nil, "a.example", false},
		"path with its query":        {mesh.ScopeFragment{Header: ":path"}, nil, "/p?q=1", false},
	} {
		k := NewScopeKey([]mesh.ScopeFragment{tt.fragment})
		got, ok := k.fragments[0].of(withHeaders(tt.fields...))
		if string(got) != tt.want || ok == tt.none {
			t.Errorf("%s: %q %v, want %q", name, got, ok, tt.want)
		}
	}
}

// modelFind is what Find means: the scope whose parts are those of the request.
func modelFind(set *mesh.ScopeSet, list []mesh.ScopeFragment, fields map[string]string) string {
	var parts []string
	for _, f := range list {
		value, ok := fields[f.Header]
		if !ok {
			return ""
		}
		elements := []string{value}
		if f.Separator != "" {
			elements = strings.Split(value, f.Separator)
		}
		found := false
		for i, e := range elements {
			key, rest, _ := strings.Cut(e, f.KeySeparator)
			if f.ByKey && key == f.ElementKey || !f.ByKey && i == f.Index {
				part := rest
				if !f.ByKey {
					part = e
				}
				parts, found = append(parts, part), true
				break
			}
		}
		if !found {
			return ""
		}
	}
	for _, s := range set.Scopes {
		if len(s.Fragments) == len(parts) && strings.Join(quoted(s.Fragments), ",") == strings.Join(quoted(parts), ",") {
			return s.Name
		}
	}
	return ""
}

func quoted(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return out
}

func TestScopesAgreeWithModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	texts := []string{"", "a", "b", "ab", "a;b", "k=a", "k=a;b", "a;k=b", "\x01a", "aa"}
	pick := func() string { return texts[r.IntN(len(texts))] }
	found := 0
	for range 20_000 {
		list := make([]mesh.ScopeFragment, 1+r.IntN(3))
		for i := range list {
			list[i] = [...]mesh.ScopeFragment{
				{Header: "x"}, {Header: "y"}, {Header: "x", Separator: ";", Index: r.IntN(3)},
				{Header: "y", Separator: ";", ByKey: true, ElementKey: "k", KeySeparator: "="},
			}[r.IntN(4)]
		}
		set, keys := &mesh.ScopeSet{}, map[string]bool{}
		for i := range r.IntN(12) {
			s := &mesh.Scope{Name: fmt.Sprint("s", i)}
			for range 1 + r.IntN(3) {
				s.Fragments = append(s.Fragments, pick())
			}
			if !keys[s.Key()] {
				keys[s.Key()] = true
				set.Scopes = append(set.Scopes, s)
			}
		}
		fields, flat := map[string]string{}, []string(nil)
		for _, name := range []string{"x", "y"} {
			if r.IntN(5) > 0 {
				fields[name] = pick()
				flat = append(flat, name, fields[name])
			}
		}
		got := ""
		if i, ok := NewScopes(set).Find(NewScopeKey(list), withHeaders(flat...)); ok {
			got = set.Scopes[i].Name
			found++
		}
		if want := modelFind(set, list, fields); got != want {
			t.Fatalf("%q, want %q: fragments %+v, fields %q", got, want, list, fields)
		}
	}
	if found < 100 {
		t.Errorf("only %d requests had a scope", found)
	}
}

// manyScopes are n scopes by tenant and stage, a request of one of them, and the key.
func manyScopes(n int) (*Scopes, *ScopeKey, *codec.Request) {
	set := &mesh.ScopeSet{}
	for i := range n {
		set.Scopes = append(set.Scopes, &mesh.Scope{Fragments: []string{fmt.Sprint("tenant-", i), "prod"}})
	}
	k := NewScopeKey([]mesh.ScopeFragment{
		{Header: "x-tenant"}, {Header: "x-info", Separator: ";", ByKey: true, ElementKey: "stage", KeySeparator: "="},
	})
	return NewScopes(set), k, withHeaders("accept", "*/*", "x-info", "zone=a;stage=prod", "x-tenant", fmt.Sprint("tenant-", n/2))
}

func TestFindScopeAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s, k, q := manyScopes(10_000)
	got := testing.AllocsPerRun(100, func() {
		if i, ok := s.Find(k, q); !ok || i != 5000 {
			t.Fatal(i, ok)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
	q = withHeaders("x-tenant", strings.Repeat("t", 4096))
	if got := testing.AllocsPerRun(100, func() { s.Find(k, q) }); got != 0 {
		t.Errorf("%v allocations for a value that is longer than any key", got)
	}
}

func BenchmarkFindScope(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		s, k, q := manyScopes(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				s.Find(k, q)
			}
		})
	}
}
