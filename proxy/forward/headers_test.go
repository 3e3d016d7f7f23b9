// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/route"
)

func literal(name, value string, a mesh.HeaderAction) mesh.HeaderAdd {
	return mesh.HeaderAdd{Name: name, Literal: value, Action: a}
}

// TestHeaderOrder: the places that change headers come in Envoy's order, and in the other where the table asks for it;
// removals of a place come before its additions.
func TestHeaderOrder(t *testing.T) {
	t.Parallel()
	place := func(name string) mesh.HeaderOps {
		return mesh.HeaderOps{
			RequestAdd:  []mesh.HeaderAdd{literal("x-order", name, mesh.HeaderAppend), literal("x-last", name, mesh.HeaderOverwrite), literal("x-first", name, mesh.HeaderAddIfAbsent)},
			ResponseAdd: []mesh.HeaderAdd{literal("x-order", name, mesh.HeaderAppend), literal("x-last", name, mesh.HeaderOverwrite), literal("x-first", name, mesh.HeaderAddIfAbsent)},
		}
	}
	for _, c := range []struct {
		specificWins         bool
		order, last, initial string
	}{
		{false, "cluster,route,host,table", "table", "cluster"},
		{true, "table,host,route,cluster", "cluster", "table"},
	} {
		r := newRig(t, mesh.Router{})
		s := play(t, ok)
		r.add("c", nil, s.addr)
		rt := to("c")
		rt.Headers, rt.Forward.Clusters[0].Headers = place("route"), place("cluster")
		q := get(rt)
		q.match.Host = &mesh.VirtualHost{Headers: place("host")}
		q.table = &mesh.RouteTable{Headers: place("table"), MostSpecificWins: c.specificWins}
		p := r.do(q)
		heads, _ := s.got()
		up := parse(heads[0])
		for where, got := range map[string][3]string{
			"request":  {strings.Join(up["x-order"], ","), strings.Join(up["x-last"], ","), strings.Join(up["x-first"], ",")},
			"response": {p.field("x-order"), p.field("x-last"), p.field("x-first")},
		} {
			if got != [3]string{c.order, c.last, c.initial} {
				t.Errorf("%s, specific wins %v: %v", where, c.specificWins, got)
			}
		}
	}
}

// parse takes a head apart.
func parse(head string) map[string][]string {
	out := map[string][]string{}
	for l := range strings.SplitSeq(head, "\r\n") {
		if name, value, ok := strings.Cut(l, ": "); ok {
			name = strings.ToLower(name)
			out[name] = append(out[name], value)
		}
	}
	return out
}

// TestHeaderActions: each action against a field that is there, and one that is not.
func TestHeaderActions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		a             mesh.HeaderAction
		value         string
		keepEmpty     bool
		there, there2 string // what becomes of x-there: old, and of x-not
	}{
		{"append", mesh.HeaderAppend, "new", false, "old,new", "new"},
		{"add if absent", mesh.HeaderAddIfAbsent, "new", false, "old", "new"},
		{"overwrite", mesh.HeaderOverwrite, "new", false, "new", "new"},
		{"overwrite if exists", mesh.HeaderOverwriteIfExists, "new", false, "new", ""},
		{"an empty value is left out", mesh.HeaderOverwrite, "", false, "old", ""},
		{"unless it is to be kept", mesh.HeaderOverwrite, "", true, "<empty>", "<empty>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			s := play(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-There: old\r\nX-Gone: a\r\n\r\n")
			r.add("c", nil, s.addr)
			rt := to("c")
			for _, name := range []string{"x-there", "x-not"} {
				add := mesh.HeaderAdd{Name: name, Literal: c.value, Action: c.a, KeepEmpty: c.keepEmpty}
				rt.Headers.RequestAdd = append(rt.Headers.RequestAdd, add)
				rt.Headers.ResponseAdd = append(rt.Headers.ResponseAdd, add)
			}
			rt.Headers.RequestRemove, rt.Headers.ResponseRemove = []string{"x-gone"}, []string{"x-gone"}
			q := get(rt)
			q.fields = [][2]string{{"x-there", "old"}, {"x-gone", "a"}, {"X-Gone", "b"}}
			p := r.do(q)
			heads, _ := s.got()
			up := parse(strings.ReplaceAll(heads[0], ": \r\n", ": <empty>\r\n"))
			if a, b := strings.Join(up["x-there"], ","), strings.Join(up["x-not"], ","); a != c.there || b != c.there2 {
				t.Errorf("request: %q, %q", a, b)
			}
			down := parse(strings.ReplaceAll(string(p.head.Header.AppendHTTP1(nil)), ": \r\n", ": <empty>\r\n"))
			if a, b := strings.Join(down["x-there"], ","), strings.Join(down["x-not"], ","); a != c.there || b != c.there2 {
				t.Errorf("response: %q, %q", a, b)
			}
			if up["x-gone"] != nil || down["x-gone"] != nil {
				t.Errorf("%q %q", up["x-gone"], down["x-gone"])
			}
		})
	}
}

// TestRewrite: path and authority as they go upstream, and what is left of the old ones.
func TestRewrite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		change   func(*mesh.RouteAction)
		opts     mesh.Router
		path     string
		fields   [][2]string
		wantPath string
		wantHost string // {host} is the endpoint's name
		original string
		fwdHost  string
	}{
		{"nothing", func(*mesh.RouteAction) {}, mesh.Router{}, "/in/a?b", nil, "/in/a?b", "client.test", "", ""},
		{"prefix", func(a *mesh.RouteAction) { a.PrefixRewrite = "/out" }, mesh.Router{}, "/in/a?b=/in", nil, "/out/a?b=/in", "client.test", "/in/a?b=/in", ""},
		{"a client's own word on the old path is replaced", func(a *mesh.RouteAction) { a.PrefixRewrite = "/out" }, mesh.Router{}, "/in", [][2]string{{"x-envoy-original-path", "/lie"}}, "/out", "client.test", "/in", ""},
		{"prefix, without telling", func(a *mesh.RouteAction) { a.PrefixRewrite = "/" }, mesh.Router{SuppressEnvoyHeaders: true}, "/in", nil, "/", "client.test", "", ""},
		{"host", func(a *mesh.RouteAction) { a.HostRewrite = mesh.HostRewrite{Kind: mesh.HostLiteral, Value: "up.test"} }, mesh.Router{}, "/in", nil, "/in", "up.test", "", ""},
		{"host, the old one kept", func(a *mesh.RouteAction) {
			a.HostRewrite, a.AppendXForwardedHost = mesh.HostRewrite{Kind: mesh.HostLiteral, Value: "up.test"}, true
		}, mesh.Router{}, "/in", [][2]string{{"x-forwarded-host", "first"}}, "/in", "up.test", "", "first,client.test"},
		{"host of the endpoint", func(a *mesh.RouteAction) {
			a.HostRewrite, a.AppendXForwardedHost = mesh.HostRewrite{Kind: mesh.HostAuto}, true
		}, mesh.Router{}, "/in", nil, "/in", "{host}", "", "client.test"},
		{"host from a header", func(a *mesh.RouteAction) {
			a.HostRewrite = mesh.HostRewrite{Kind: mesh.HostFromHeader, Value: "x-host"}
		}, mesh.Router{}, "/in", [][2]string{{"x-host", "named"}}, "/in", "named", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.opts)
			s := play(t, status(503), ok)
			r.add("c", nil, s.addr)
			rt := to("c", withRetry(on(mesh.RetryOn5xx, 1)), c.change)
			rt.Match.Path = "/in"
			table, err := route.Compile(&mesh.RouteTable{Hosts: []*mesh.VirtualHost{{Domains: []string{"*"}, Routes: []*mesh.Route{rt}}}})
			if err != nil {
				t.Fatal(err)
			}
			q := get(rt)
			q.path, q.host, q.fields = c.path, "client.test", c.fields
			var asked codec.Request
			fill(&asked, q)
			q.match = table.Match(&asked, 0)
			p := r.do(q)
			heads, _ := s.got()
			if len(heads) != 2 { // the second attempt must say the same
				t.Fatalf("%d attempts", len(heads))
			}
			for _, h := range heads {
				up := parse(h)
				if want := "GET " + c.wantPath + " HTTP/1.1\r\n"; !strings.HasPrefix(h, want) {
					t.Errorf("%q does not begin with %q", h, want)
				}
				if got, want := strings.Join(up["host"], "+"), strings.ReplaceAll(c.wantHost, "{host}", "host-"+s.addr); got != want {
					t.Errorf("host %q, not %q", got, want)
				}
				oldHost := ""
				if c.wantHost != "client.test" {
					oldHost = "client.test"
				}
				if got := strings.Join(up["x-envoy-original-host"], "+"); got != oldHost {
					t.Errorf("original host %q, not %q", got, oldHost)
				}
				if got := strings.Join(up["x-envoy-original-path"], "+"); got != c.original {
					t.Errorf("original path %q", got)
				}
				if got := strings.Join(up["x-forwarded-host"], "+"); got != c.fwdHost {
					t.Errorf("forwarded host %q", got)
				}
			}
			if string(p.UpstreamPath) != c.wantPath {
				t.Errorf("the Outcome says %q", p.UpstreamPath)
			}
		})
	}
}

// TestOwnAnswers: redirects, direct responses and failures, with the headers that belong to them, and without any
// upstream.
func TestOwnAnswers(t *testing.T) {
	t.Parallel()
	ops := mesh.HeaderOps{ResponseAdd: []mesh.HeaderAdd{literal("x-by", "route", mesh.HeaderAppend)}}
	for _, c := range []struct {
		name    string
		match   route.Match
		status  int
		body    string
		fields  map[string]string
		details string
		flags   mesh.Flags
	}{
		{
			"direct", route.Match{Route: &mesh.Route{Direct: &mesh.DirectResponse{Status: 200, Body: []byte("hello")}, Headers: ops}}, 200, "hello",
			map[string]string{"content-length": "5", "content-type": "text/plain", "x-by": "route", "x-envoy-upstream-service-time": ""}, "direct_response", 0,
		},
		{"direct, empty", route.Match{Route: &mesh.Route{Direct: &mesh.DirectResponse{Status: 404}}}, 404, "", map[string]string{"content-type": ""}, "direct_response", 0},
		{"redirect", route.Match{Route: &mesh.Route{Redirect: &mesh.Redirect{Status: 308, Host: "b"}, Headers: ops}}, 308, "", map[string]string{"location": "http://b/p?q", "x-by": "route"}, "direct_response", 0},
		{"TLS is required", route.Match{Route: &mesh.Route{Headers: ops}, RequireTLS: true}, 301, "", map[string]string{"location": "https://a/p?q"}, "direct_response", 0},
		{"no route", route.Match{}, 404, "", nil, "route_not_found", mesh.FlagNR},
		{"no cluster", route.Match{Route: to("none", func(a *mesh.RouteAction) { a.NotFoundStatus = 500 })}, 500, "", nil, "cluster_not_found", mesh.FlagNC},
		{"no cluster named", route.Match{Route: &mesh.Route{Forward: &mesh.RouteAction{ClusterHeader: "x-cluster", NotFoundStatus: 503}}}, 503, "", nil, "cluster_not_found", mesh.FlagNC},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			q := &request{match: c.match, path: "/p?q"}
			if q.match.Host == nil {
				q.match.Host = &mesh.VirtualHost{}
			}
			p := r.do(q)
			if p.Status != c.status || p.body != c.body || p.Details != c.details || p.Flags != c.flags || !p.whole || p.Attempts != 0 {
				t.Errorf("%d %q %s %s", p.Status, p.body, p.Details, p.Flags)
			}
			for name, want := range c.fields {
				if got := p.field(name); got != want {
					t.Errorf("%s: %q, not %q", name, got, want)
				}
			}
		})
	}
}

// TestClusterHeader: the cluster that a request names.
func TestClusterHeader(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	r.add("named", nil, play(t, ok).addr)
	q := get(&mesh.Route{Forward: &mesh.RouteAction{ClusterHeader: "x-cluster", NotFoundStatus: 503}})
	q.fields = [][2]string{{"x-cluster", "named"}}
	if p := r.do(q); p.Status != 200 || p.Cluster != "named" {
		t.Errorf("%+v", p.Outcome)
	}
}
