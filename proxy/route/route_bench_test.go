// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
)

// bigTable has n routes in one virtual host, of the kinds that a real table mixes, and a catch-all at the end.
func bigTable(t testing.TB, n int) *Table {
	t.Helper()
	vh := &mesh.VirtualHost{Name: "big", Domains: []string{"big.example", "*.big.example"}}
	for i := range n - 1 {
		m := mesh.RouteMatch{Kind: mesh.PathPrefix, Path: fmt.Sprintf("/team-%d/service-%d/", i%97, i)}
		switch i % 4 {
		case 1:
			m.Kind = mesh.PathExact
		case 2:
			m.Kind, m.Path = mesh.PathSeparatedPrefix, m.Path[:len(m.Path)-1]
		}
		if i%10 == 3 {
			m.Headers = []mesh.HeaderMatch{{Name: ":method", String: mesh.StringMatch{Value: "POST"}}}
		}
		vh.Routes = append(vh.Routes, &mesh.Route{Match: m})
	}
	vh.Routes = append(vh.Routes, &mesh.Route{Match: mesh.RouteMatch{Path: "/"}})
	return compile(t, vh)
}

// patternTable has n routes with patterns that begin with different texts.
func patternTable(t testing.TB, n int) *Table {
	t.Helper()
	vh := &mesh.VirtualHost{Name: "patterns", Domains: []string{"*"}}
	for i := range n {
		re := regexp.MustCompile(fmt.Sprintf(`\A(?:/svc%d/v[0-9]+/.*)\z`, i))
		vh.Routes = append(vh.Routes, &mesh.Route{Match: mesh.RouteMatch{Kind: mesh.PathRegex, Regex: re}})
	}
	return compile(t, vh)
}

func compile(t testing.TB, hosts ...*mesh.VirtualHost) *Table {
	t.Helper()
	table, err := Compile(&mesh.RouteTable{Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func get(host, path string) *codec.Request {
	r := &codec.Request{Method: []byte("GET"), Authority: []byte(host), Path: []byte(path)}
	for _, f := range []string{"host", "user-agent", "accept", "x-request-id", "x-forwarded-for", "content-type"} {
		r.Header.AddString(f, "some value")
	}
	return r
}

func BenchmarkMatch(b *testing.B) {
	small := make([]*mesh.VirtualHost, 10_000)
	for i := range small {
		small[i] = &mesh.VirtualHost{
			Name: "v", Domains: []string{fmt.Sprintf("svc-%d.ns.svc.cluster.local", i), fmt.Sprintf("svc-%d:80", i)},
			Routes: []*mesh.Route{{Match: mesh.RouteMatch{Path: "/"}}},
		}
	}
	benchmarks := []struct {
		name  string
		table *Table

		host string
		many func(i int) string
	}{
		{"50k/prefix", bigTable(b, 50_000), "big.example", func(i int) string { i = i * 4 % 49_996; return fmt.Sprintf("/team-%d/service-%d/x?q=1", i%97, i) }},
		{"50k/exact", bigTable(b, 50_000), "big.example", func(i int) string { i = i*4%49_996 + 1; return fmt.Sprintf("/team-%d/service-%d/", i%97, i) }},
		{"50k/separated", bigTable(b, 50_000), "x.big.example", func(i int) string { i = i*4%49_996 + 2; return fmt.Sprintf("/team-%d/service-%d", i%97, i) }},
		{"50k/catch-all", bigTable(b, 50_000), "big.example", func(i int) string { return fmt.Sprintf("/team-%d/other", i%97) }},
		{"1k/prefix", bigTable(b, 1_000), "big.example", func(i int) string { i = i * 4 % 996; return fmt.Sprintf("/team-%d/service-%d/x", i%97, i) }},
		{"1k/patterns", patternTable(b, 1_000), "any", func(i int) string { return fmt.Sprintf("/svc%d/v2/orders/17", i%1000) }},
		{"1k/patterns/none", patternTable(b, 1_000), "any", func(int) string { return "/other/path" }},
		{"10k hosts", compile(b, small...), "svc-7777.ns.svc.cluster.local", func(int) string { return "/" }},
	}
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			requests := make([]*codec.Request, 1024)
			for i := range requests {
				requests[i] = get(bm.host, bm.many(i*31))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				sink = bm.table.Match(requests[i%len(requests)], uint64(i))
			}
		})
	}
}

var sink Match

func BenchmarkCompile50k(b *testing.B) {
	for b.Loop() {
		bigTable(b, 50_000)
	}
}

func TestMatchAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under -race")
	}
	table, patterns := bigTable(t, 2_000), patternTable(t, 100)
	r := get("x.BIG.example", "/team-3/service-3/?a=1&b=2")
	r.Header.AddString("x-h", "one")
	r.Header.AddString("x-h", "two")
	re := mesh.HeaderMatch{Name: "x-h", Invert: true, String: mesh.StringMatch{Kind: mesh.MatchRegex, Regex: regexp.MustCompile(`\A(?:t.*)\z`)}}
	q := mesh.QueryMatch{Name: "b", String: &mesh.StringMatch{Value: "2"}}
	rewrite := Match{Matched: 7, Route: &mesh.Route{
		Forward:  &mesh.RouteAction{PrefixRewrite: "/x", HostRewrite: mesh.HostRewrite{Kind: mesh.HostLiteral, Value: "h"}},
		Redirect: &mesh.Redirect{HTTPS: true, Port: 8443, Path: "new"},
	}}
	buf := make([]byte, 0, 256)
	n := testing.AllocsPerRun(100, func() {
		sink = table.Match(r, 1)
		sink = patterns.Match(r, 1)
		MatchHeader(&re, r)
		MatchQuery(&q, r.Query())
		buf, _ = rewrite.RewritePath(buf[:0], r.Path)
		buf, _ = rewrite.RewriteHost(buf, r, nil, "")
		buf = rewrite.Location(buf, r)
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
