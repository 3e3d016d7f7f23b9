// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
)

// TestAgainstModel compares Match with the plainest reading of the rules, over random tables and requests. What a single
// route matches is matchRoute's business, which the scripts hold against Envoy; this is about domains, order and index.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	seeds := 400
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		rt := randomTable(rng)
		table, err := Compile(rt)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		matched := 0
		for range 200 {
			r, random := randomRequest(rng), rng.Uint64()
			got, want := table.Match(r, random), model(rt, r, random)
			if got.Host != want.Host || got.Route != want.Route {
				t.Fatalf("seed %d: %s %s%s: got %s, want %s", seed, r.Method, r.Authority, r.Path, where(got), where(want))
			}
			if got.Route != nil {
				matched++
			}
		}
		if len(rt.Hosts[0].Routes) > few && matched == 0 {
			t.Fatalf("seed %d: nothing matched, which proves nothing", seed)
		}
	}
}

func where(m Match) string {
	if m.Host == nil {
		return "no host"
	}
	for i, r := range m.Host.Routes {
		if r == m.Route {
			return fmt.Sprintf("%s[%d] %+v", m.Host.Name, i, r.Match)
		}
	}
	return m.Host.Name + " without a route"
}

// model is Match without any index.
func model(rt *mesh.RouteTable, r *codec.Request, random uint64) Match {
	name := strings.ToLower(string(r.Authority))
	if i := strings.LastIndexByte(name, ':'); rt.IgnorePort && i > strings.LastIndexByte(name, ']') {
		name = name[:i]
	}
	var best *mesh.VirtualHost
	rank := -1
	for _, vh := range rt.Hosts {
		for _, d := range vh.Domains {
			if n := modelRank(d, name); n > rank {
				best, rank = vh, n
			}
		}
	}
	if best == nil {
		return Match{}
	}
	for _, route := range best.Routes {
		if matchRoute(&route.Match, r, r.PathOnly(), random) {
			return Match{Host: best, Route: route}
		}
	}
	return Match{Host: best}
}

// modelRank is how specific a domain is for a name: -1 where it does not match.
func modelRank(domain, name string) int {
	const suffix, exact = 1000, 1 << 20
	switch {
	case domain == "*":
		return 0
	case domain == name:
		return exact
	case domain[0] == '*' && len(name) >= len(domain) && strings.HasSuffix(name, domain[1:]):
		return suffix + len(domain)
	case domain[len(domain)-1] == '*' && len(name) >= len(domain) && strings.HasPrefix(name, domain[:len(domain)-1]):
		return len(domain)
	}
	return -1
}

func pick[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

func randomTable(rng *rand.Rand) *mesh.RouteTable {
	rt := &mesh.RouteTable{Name: "random", IgnorePort: rng.IntN(2) == 0}
	domains := []string{"*", "a.b", "a.b:80", "*.b", "*a.b", "*b", "a.*", "a*", "*.b:80", "x", "[::1]", "a.b.*"}
	rng.Shuffle(len(domains), func(i, j int) { domains[i], domains[j] = domains[j], domains[i] })
	for n := 0; n < 3 && len(domains) > 3; n++ {
		k := 1 + rng.IntN(3)
		vh := &mesh.VirtualHost{Name: fmt.Sprint("vh", n), Domains: domains[:k]}
		domains = domains[k:]
		for range pick(rng, 0, 3, few, few+1, 40, 200) {
			vh.Routes = append(vh.Routes, &mesh.Route{Match: randomMatch(rng)})
		}
		rt.Hosts = append(rt.Hosts, vh)
	}
	return rt
}

func randomPath(rng *rand.Rand) string {
	var b strings.Builder
	for range 1 + rng.IntN(5) {
		b.WriteString(pick(rng, "/a", "/b", "/ab", "/A", "/", "/aa", "/é", "/B"))
	}
	return b.String()
}

func randomMatch(rng *rand.Rand) mesh.RouteMatch {
	m := mesh.RouteMatch{Path: randomPath(rng), IgnoreCase: rng.IntN(4) == 0}
	m.Kind = pick(rng, mesh.PathPrefix, mesh.PathPrefix, mesh.PathExact, mesh.PathExact, mesh.PathSeparatedPrefix, mesh.PathRegex, mesh.PathConnect)
	if m.Kind == mesh.PathRegex {
		m.IgnoreCase = false
		m.Path = ""
		m.Regex = regexp.MustCompile(`\A(?:` + regexp.QuoteMeta(randomPath(rng)) + pick(rng, "", ".*", "(/a|/b)?", "/[a-z]+") + `)\z`)
	}
	if rng.IntN(8) == 0 {
		m.Path = ""
		m.Regex = regexp.MustCompile(`\A(?:` + pick(rng, "(?i)/a.*", ".*/b", "/(a|ab)/.*", "(?:/a)+") + `)\z`)
		m.Kind = pick(rng, mesh.PathRegex, mesh.PathPrefix)
	}
	if rng.IntN(3) == 0 {
		m.Headers = []mesh.HeaderMatch{{Name: "x-h", Kind: mesh.HeaderString, String: mesh.StringMatch{Value: pick(rng, "1", "2")}, Invert: rng.IntN(2) == 0}}
	}
	if rng.IntN(5) == 0 {
		m.Query = []mesh.QueryMatch{{Name: "q", Present: rng.IntN(2) == 0}}
	}
	if rng.IntN(6) == 0 {
		m.Fraction = &mesh.Fraction{Numerator: uint32(rng.IntN(101)), Denominator: 100}
	}
	return m
}

func randomRequest(rng *rand.Rand) *codec.Request {
	r := &codec.Request{Method: []byte("GET"), Scheme: []byte("http")}
	r.Authority = []byte(pick(rng, "a.b", "A.b", "a.b:80", "x.b", "ya.b", "b", "a.c", "ab", "a.b.c", "[::1]:80", "x:80", "q.b:80", "", "zz"))
	r.Path = []byte(randomPath(rng) + pick(rng, "", "", "?q", "?p=1", "#f"))
	if rng.IntN(20) == 0 {
		r.Method, r.Path = []byte("CONNECT"), nil
	}
	for range rng.IntN(3) {
		r.Header.AddString("x-h", pick(rng, "1", "2", "3"))
	}
	return r
}

// TestNestedPrefixes goes beyond maxChain: each prefix is the beginning of the next, and the first in order wins.
func TestNestedPrefixes(t *testing.T) {
	t.Parallel()
	const depth = 5*maxChain + 3
	for _, order := range []string{"longest first", "shortest first"} {
		vh := &mesh.VirtualHost{Name: "v", Domains: []string{"*"}}
		for i := range depth {
			n := i + 1
			if order == "longest first" {
				n = depth - i
			}
			vh.Routes = append(vh.Routes, &mesh.Route{Match: mesh.RouteMatch{Path: strings.Repeat("/", n)}})
		}
		table, err := Compile(&mesh.RouteTable{Hosts: []*mesh.VirtualHost{vh}})
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= depth; n++ {
			want := n
			if order == "shortest first" {
				want = 1
			}
			m := table.Match(&codec.Request{Authority: []byte("h"), Path: []byte(strings.Repeat("/", n))}, 0)
			if m.Route == nil || m.Matched != want {
				t.Fatalf("%s: a path of %d matched %d, want %d", order, n, m.Matched, want)
			}
		}
	}
}

func TestLiteralPrefix(t *testing.T) {
	t.Parallel()
	tests := []struct{ pattern, want string }{
		{`\A(?:/api/v[0-9]+/.*)\z`, "/api/v"},
		{`\A(?:/fixed)\z`, "/fixed"},
		{`\A(?:/a(/b)?)\z`, "/a"},
		{`\A(?:/a(bc)d.*)\z`, "/abcd"},
		{`\A(?:/abc|/abd)\z`, "/ab"},
		{`\A(?:/abc|x)\z`, ""},
		{`\A(?:(?i)/api)\z`, ""},
		{`\A(?:/a(?i)pi)\z`, "/a"},
		{`\A(?:.*/x)\z`, ""},
		{`\A(?:/a*)\z`, "/"},
		{`\A(?:^/a$)\z`, "/a"},
		{`\A(?:/a\x{FFFD}b)\z`, "/a"},
		{`\A(?:)\z`, ""},
		{`/not/anchored`, ""},
		{`(?m)^/line`, ""},
	}
	for _, tt := range tests {
		if got := literalPrefix(tt.pattern); got != tt.want {
			t.Errorf("literalPrefix(%s) = %q, want %q", tt.pattern, got, tt.want)
		}
	}
}

// FuzzLiteralPrefix: what a pattern matches begins with its literal prefix.
func FuzzLiteralPrefix(f *testing.F) {
	f.Add(`/api/v[0-9]+`, "/api/v1")
	f.Add(`(?i)/a|/b`, "/A")
	f.Add("/\ufffd", "/\xff")
	f.Add(`(a|ab)(c|bcd)(d*)`, "abcd")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		re, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
		if err != nil {
			return
		}
		if re.MatchString(path) && !strings.HasPrefix(path, literalPrefix(re.String())) {
			t.Errorf("%s matches %q, which does not begin with %q", pattern, path, literalPrefix(re.String()))
		}
	})
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	split := func(total uint32, weights ...uint32) *mesh.RouteAction {
		a := &mesh.RouteAction{TotalWeight: total}
		for _, w := range weights {
			a.Clusters = append(a.Clusters, mesh.WeightedCluster{Weight: w})
		}
		return a
	}
	one := func(r *mesh.Route) []*mesh.VirtualHost {
		return []*mesh.VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []*mesh.Route{r}}}
	}
	tests := []struct {
		name  string
		hosts []*mesh.VirtualHost
		want  string
	}{
		{"same domain", []*mesh.VirtualHost{{Name: "a", Domains: []string{"x.y"}}, {Name: "b", Domains: []string{"X.y"}}}, `domain "X.y" is in the virtual hosts "a" and "b"`},
		{"two defaults", []*mesh.VirtualHost{{Name: "a", Domains: []string{"*"}}, {Name: "b", Domains: []string{"*"}}}, `domain "*"`},
		{"same suffix", []*mesh.VirtualHost{{Name: "a", Domains: []string{"*.y", "*.y"}}}, `domain "*.y"`},
		{"no pattern", one(&mesh.Route{Match: mesh.RouteMatch{Kind: mesh.PathRegex}}), "route 0: matches by a pattern and has none"},
		{"no denominator", one(&mesh.Route{Match: mesh.RouteMatch{Fraction: &mesh.Fraction{}}}), "denominator 0"},
		{"wrong sum", one(&mesh.Route{Forward: split(3, 1, 1)}), "add up to 2, the total is 3"},
		{"no weight", one(&mesh.Route{Forward: split(0, 0, 0)}), "greater than 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Compile(&mesh.RouteTable{Name: "t", Hosts: tt.hosts})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), `route table "t": `) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestWeightedCluster(t *testing.T) {
	t.Parallel()
	a := &mesh.RouteAction{TotalWeight: 10, Clusters: []mesh.WeightedCluster{{Name: "a", Weight: 3}, {Name: "zero"}, {Name: "b", Weight: 7}}}
	m := Match{Route: &mesh.Route{Forward: a}}
	got := ""
	for random := range uint64(20) {
		got += m.WeightedCluster(random).Name
	}
	// Envoy takes the random number modulo the total, and the clusters in order.
	if want := strings.Repeat("aaabbbbbbb", 2); got != want {
		t.Errorf("picked %s, want %s", got, want)
	}
	for _, m := range []Match{{}, {Route: &mesh.Route{Direct: &mesh.DirectResponse{}}}, {Route: &mesh.Route{Forward: &mesh.RouteAction{ClusterHeader: "x"}}}} {
		if c := m.WeightedCluster(1); c != nil {
			t.Errorf("%+v picked %+v", m, c)
		}
	}
	single := Match{Route: &mesh.Route{Forward: &mesh.RouteAction{Clusters: []mesh.WeightedCluster{{Name: "one"}}}}}
	if c := single.WeightedCluster(99); c == nil || c.Name != "one" {
		t.Errorf("picked %+v, want one", c)
	}
}

func TestFraction(t *testing.T) {
	t.Parallel()
	f := &mesh.Fraction{Numerator: 25, Denominator: 100}
	for random, want := range map[uint64]bool{0: true, 24: true, 25: false, 99: false, 100: true, 124: true, 125: false} {
		if got := matchFraction(f, random); got != want {
			t.Errorf("random %d: %v, want %v", random, got, want)
		}
	}
	if matchFraction(&mesh.Fraction{Denominator: 100}, 0) || !matchFraction(&mesh.Fraction{Numerator: 100, Denominator: 100}, 99) {
		t.Error("0 % must match nothing, 100 % everything")
	}
}

func TestRewriteWithoutRoute(t *testing.T) {
	t.Parallel()
	r := &codec.Request{Path: []byte("/x"), Authority: []byte("h")}
	for _, m := range []Match{{}, {Route: &mesh.Route{Direct: &mesh.DirectResponse{}}}} {
		if out, ok := m.RewritePath([]byte("keep"), r.Path); ok || string(out) != "keep" {
			t.Errorf("RewritePath = %q, %v", out, ok)
		}
		if out, by := m.RewriteHost([]byte("keep"), r, nil, "up"); by != HostKept || string(out) != "keep" {
			t.Errorf("RewriteHost = %q, %v", out, by)
		}
	}
}

func TestUndecodable(t *testing.T) {
	t.Parallel()
	re := mesh.StringMatch{Kind: mesh.MatchRegex, Regex: regexp.MustCompile(`\A(?:a.c)\z`)}
	tests := []struct {
		value string
		want  Verdict
	}{
		{"abc", Yes},
		{"x", No},
		{"x\xff", Undecodable},
		{"a\xffc", Yes}, // as in Envoy, a byte is what a dot matches
	}
	for _, tt := range tests {
		if got := MatchString(&re, []byte(tt.value)); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.value, got, tt.want)
		}
		m := mesh.HeaderMatch{Name: "x", String: re, Invert: true}
		if got := MatchHeaderValue(&m, []byte(tt.value)); got != tt.want.Not() {
			t.Errorf("%q inverted: %v, want %v", tt.value, got, tt.want.Not())
		}
	}
	// One value that matches decides, whatever the others are; one that cannot be read keeps "no" from being sure.
	r := &codec.Request{}
	r.Header.AddString("x", "no")
	r.Header.AddString("x", "\xff")
	m := mesh.HeaderMatch{Name: "x", String: re}
	if got := MatchHeader(&m, r); got != Undecodable {
		t.Errorf("no and undecodable: %v", got)
	}
	r.Header.AddString("x", "abc")
	if got := MatchHeader(&m, r); got != Yes {
		t.Errorf("with a match: %v", got)
	}
	if Undecodable.Not() != Undecodable {
		t.Error("Undecodable inverted is not Undecodable")
	}
}
