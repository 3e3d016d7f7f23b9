// SPDX-License-Identifier: Apache-2.0

package health

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// TestBuildRequest compares whole requests. Order and spelling are those of Envoy 1.40, which was watched for the cases of
// host, appended and overwritten headers, POST and HEAD.
func TestBuildRequest(t *testing.T) {
	t.Parallel()
	get := mesh.HTTPHealthCheck{Method: "GET", Path: "/health?x=1"}
	with := func(change func(*mesh.HTTPHealthCheck)) mesh.HTTPHealthCheck {
		h := get
		change(&h)
		return h
	}
	add := func(list ...mesh.HeaderAdd) mesh.HTTPHealthCheck {
		return with(func(h *mesh.HTTPHealthCheck) { h.Add = list })
	}
	const line = "GET /health?x=1 HTTP/1.1\r\n"
	for _, tc := range []struct {
		name   string
		check  mesh.HTTPHealthCheck
		target Target
		want   string // "" where it cannot be sent
	}{
		{"plain", get, Target{}, line + "host: backend\r\nuser-agent: Envoy/HC\r\n\r\n"},
		{
			"the endpoint's name is not the host", get, Target{Hostname: "pod-1"},
			line + "host: backend\r\nuser-agent: Envoy/HC\r\n\r\n",
		},
		{
			"host of the check", with(func(h *mesh.HTTPHealthCheck) { h.Host = "of.check" }), Target{},
			line + "host: of.check\r\nuser-agent: Envoy/HC\r\n\r\n",
		},
		{
			"host of the endpoint's check", with(func(h *mesh.HTTPHealthCheck) { h.Host = "of.check" }),
			Target{CheckHost: "of.endpoint"}, line + "host: of.endpoint\r\nuser-agent: Envoy/HC\r\n\r\n",
		},
		{
			"appended twice", add(mesh.HeaderAdd{Name: "x-a", Literal: "v"}, mesh.HeaderAdd{Name: "x-a", Literal: "w"}),
			Target{}, line + "host: backend\r\nuser-agent: Envoy/HC\r\nx-a: v\r\nx-a: w\r\n\r\n",
		},
		{
			"user-agent appended", add(mesh.HeaderAdd{Name: "user-agent", Literal: "mine"}),
			Target{}, line + "host: backend\r\nuser-agent: Envoy/HC,mine\r\n\r\n",
		},
		{
			"user-agent overwritten", add(mesh.HeaderAdd{Name: "user-agent", Literal: "mine", Action: mesh.HeaderOverwrite}),
			Target{}, line + "host: backend\r\nuser-agent: mine\r\n\r\n",
		},
		{
			"overwritten where it is", add(
				mesh.HeaderAdd{Name: "user-agent", Literal: "mine", Action: mesh.HeaderOverwriteIfExists},
				mesh.HeaderAdd{Name: "x-a", Literal: "v", Action: mesh.HeaderOverwriteIfExists}),
			Target{}, line + "host: backend\r\nuser-agent: mine\r\n\r\n",
		},
		{
			"added where it is not", add(
				mesh.HeaderAdd{Name: "user-agent", Literal: "mine", Action: mesh.HeaderAddIfAbsent},
				mesh.HeaderAdd{Name: "x-a", Literal: "v", Action: mesh.HeaderAddIfAbsent}),
			Target{}, line + "host: backend\r\nuser-agent: Envoy/HC\r\nx-a: v\r\n\r\n",
		},
		{
			"empty values", add(mesh.HeaderAdd{Name: "x-a"}, mesh.HeaderAdd{Name: "x-b", KeepEmpty: true}),
			Target{}, line + "host: backend\r\nuser-agent: Envoy/HC\r\nx-b: \r\n\r\n",
		},
		{
			"removed, then added", with(func(h *mesh.HTTPHealthCheck) {
				h.Remove = []string{"user-agent", "x-none"}
				h.Add = []mesh.HeaderAdd{{Name: "user-agent", Literal: "mine"}}
			}),
			Target{}, line + "host: backend\r\nuser-agent: mine\r\n\r\n",
		},
		{
			"POST", with(func(h *mesh.HTTPHealthCheck) { h.Method = "POST" }), Target{},
			"POST /health?x=1 HTTP/1.1\r\nhost: backend\r\nuser-agent: Envoy/HC\r\ncontent-length: 0\r\n\r\n",
		},
		{
			"HEAD", with(func(h *mesh.HTTPHealthCheck) { h.Method = "HEAD" }), Target{},
			"HEAD /health?x=1 HTTP/1.1\r\nhost: backend\r\nuser-agent: Envoy/HC\r\n\r\n",
		},
		{"a line break in the host", get, Target{CheckHost: "a\r\nx-evil: 1"}, ""},
		{"a line break in the path", with(func(h *mesh.HTTPHealthCheck) { h.Path = "/\nx" }), Target{}, ""},
		{"a line break in a header", add(mesh.HeaderAdd{Name: "x-a", Literal: "a\nb"}), Target{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.target.ClusterName = "backend"
			if got := buildRequest(&tc.check, &tc.target); string(got) != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	ranges := func(n ...int) (out []mesh.StatusRange) {
		for ; len(n) > 0; n = n[2:] {
			out = append(out, mesh.StatusRange{Start: n[0], End: n[1]})
		}
		return out
	}
	plain := mesh.HTTPHealthCheck{}
	expected := mesh.HTTPHealthCheck{Expected: ranges(200, 201, 300, 400)}
	retry := mesh.HTTPHealthCheck{Retriable: ranges(500, 504)}
	both := mesh.HTTPHealthCheck{Expected: ranges(201, 300), Retriable: ranges(200, 210)}
	named := mesh.HTTPHealthCheck{ServiceName: &mesh.StringMatch{Kind: mesh.MatchPrefix, Value: "loc"}}
	for _, tc := range []struct {
		name     string
		check    mesh.HTTPHealthCheck
		status   int
		degraded bool
		service  string
		want     verdict
		reason   string
	}{
		{"200", plain, 200, false, "", passed, ""},
		{"200, degraded", plain, 200, true, "", degraded, ""},
		{"201", plain, 201, false, "", refused, "status 201"},
		{"302 is not followed", plain, 302, false, "", refused, "status 302"},
		{"503", plain, 503, false, "", refused, "status 503"},
		{"503, degraded", plain, 503, true, "", refused, "status 503"},
		{"expected, start", expected, 300, false, "", passed, ""},
		{"expected, degraded", expected, 300, true, "", degraded, ""},
		{"expected, end", expected, 400, false, "", refused, "status 400"},
		{"expected without 204", expected, 204, false, "", refused, "status 204"},
		{"retriable, start", retry, 500, false, "", retriable, "status 500"},
		{"retriable, end", retry, 504, false, "", refused, "status 504"},
		{"retriable, 503", retry, 503, false, "", retriable, "status 503"},
		{"expected wins over retriable", both, 201, false, "", passed, ""},
		{"200 is retriable where it is not expected", both, 200, false, "", retriable, "status 200"},
		{"named", named, 200, false, "locations", passed, ""},
		{"named, degraded", named, 200, true, "locations", degraded, ""},
		{"another name", named, 200, false, "users", refused, "the service name does not match"},
		{"no name", named, 200, false, "", refused, "the service name does not match"},
		{"named, 503", named, 503, false, "locations", refused, "status 503"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := judge(&tc.check, &Deps{}, tc.status, tc.degraded, tc.service)
			named := tc.check.ServiceName != nil && tc.status == 200
			if want := (answer{verdict: tc.want, reason: tc.reason, named: named}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// scripted is a connection that answers with some bytes, whatever is written, and then with more of the same until
// enough, or with its end.
type scripted struct {
	net.Conn // nil: nothing else of it is used
	first    []byte
	more     []byte
	sent     int
}

const enough = 4 << 20

func (c *scripted) Write(p []byte) (int, error)   { return len(p), nil }
func (c *scripted) SetDeadline(t time.Time) error { return nil }

func (c *scripted) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		if len(c.more) == 0 || c.sent > enough {
			return 0, io.EOF
		}
		c.first = c.more
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	c.sent += n
	return n, nil
}

// ask makes one exchange with a scripted connection.
func ask(h *mesh.HTTPHealthCheck, first, more string) (answer, *stream) {
	s := &stream{Conn: &scripted{first: []byte(first), more: []byte(more)}}
	return httpExchange(h, &Deps{}, []byte("request"))(s), s
}

func TestReadAnswer(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	keeps := answer{keep: true}
	fails := func(reason string) answer { return answer{verdict: unreachable, reason: reason} }
	for _, tc := range []struct {
		name        string
		method      string
		first, more string
		want        answer
	}{
		{"empty", "GET", ok + "content-length: 0\r\n\r\n", "", keeps},
		{"a body", "GET", ok + "content-length: 2\r\n\r\nok", "", keeps},
		{"chunks", "GET", ok + "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "", keeps},
		{"a body of 64 KiB", "GET", ok + "content-length: 65536\r\n\r\n" + strings.Repeat("x", 65536), "", keeps},
		{"a body of 64 KiB and a byte", "GET", ok + "content-length: 65537\r\n\r\n" + strings.Repeat("x", 65537), "", answer{}},
		{"until the end", "GET", ok + "\r\nall of it", "", answer{}},
		{"close", "GET", ok + "connection: close\r\ncontent-length: 0\r\n\r\n", "", answer{}},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", "", answer{}},
		{"more than asked for", "GET", ok + "content-length: 0\r\n\r\nHTTP/1.1 408 Too late\r\n\r\n", "", answer{}},
		{"HEAD", "HEAD", ok + "content-length: 500\r\n\r\n", "", keeps},
		{"no content", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "", answer{verdict: refused, reason: "status 204", keep: true}},
		{"interim", "GET", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ok + "content-length: 0\r\n\r\n", "", keeps},
		{"upgrade", "GET", "HTTP/1.1 101 Switching\r\n\r\n", "", answer{verdict: refused, reason: "status 101"}},
		{"refused", "GET", "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "", answer{verdict: refused, reason: "status 503", keep: true}},
		{"degraded", "GET", ok + "X-Envoy-Degraded: \r\ncontent-length: 0\r\n\r\n", "", answer{verdict: degraded, keep: true}},

		{"nothing", "GET", "", "", fails("read: connection closed")},
		{"half a head", "GET", ok + "content-le", "", fails("read: connection closed")},
		{"half a body", "GET", ok + "content-length: 10\r\n\r\nhalf", "", fails("read: connection closed")},
		{"half the chunks", "GET", ok + "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n", "", fails("read: connection closed")},
		{"another protocol", "GET", "220 mail.example.com ESMTP\r\n\r\n", "", fails("malformed answer")},
		{"a bad status", "GET", "HTTP/1.1 abc\r\n\r\n", "", fails("malformed answer")},
		{"a bad chunk", "GET", ok + "transfer-encoding: chunked\r\n\r\nxyz\r\n", "", fails("malformed answer")},

		{"an endless body with a length", "GET", ok + "content-length: 9000000000\r\n\r\n", "x", answer{}},
		{"an endless body", "GET", ok + "\r\n", "xxxxxxxx", answer{}},
		{"endless chunks", "GET", ok + "transfer-encoding: chunked\r\n\r\n", "8\r\nxxxxxxxx\r\n", answer{}},
		{"endless small chunks", "GET", ok + "transfer-encoding: chunked\r\n\r\n", "1;and-some-more\r\nx\r\n", fails("the answer is too long")},
		{"an endless chunk extension", "GET", ok + "transfer-encoding: chunked\r\n\r\n1;", "xxxxxxxx", fails("the answer is too long")},
		{"endless headers", "GET", ok, "x-a: b\r\n", fails("the answer's head is too large")},
		{"an endless line", "GET", "HTTP/1.1 200 ", "OOOOOO", fails("the answer's head is too large")},
		{"endless interim answers", "GET", "", "HTTP/1.1 102 Wait\r\n\r\n", fails("malformed answer")},
		{
			"endless trailers", "GET", ok + "transfer-encoding: chunked\r\n\r\n0\r\n", "x-a: b\r\n",
			fails("the answer's head is too large"),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, s := ask(&mesh.HTTPHealthCheck{Method: tc.method}, tc.first, tc.more)
			if got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if s.got > maxWire+maxBody {
				t.Errorf("read %d bytes", s.got)
			}
		})
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "")
	f.Add("HEAD", "HTTP/1.1 503 No\r\nX-Envoy-Degraded: 1\r\n\r\n", "x")
	f.Add("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1;a=b\r\nx\r\n")
	f.Add("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 No\r\n\r\n", "")
	f.Fuzz(func(t *testing.T, method, first, more string) {
		a, s := ask(&mesh.HTTPHealthCheck{Method: method}, first, more)
		if a.verdict.ok() != (a.reason == "") {
			t.Errorf("a verdict without a reason, or the other way round: %+v", a)
		}
		if a.verdict == unreachable && a.keep {
			t.Errorf("a broken connection is kept: %+v", a)
		}
		if s.got > maxWire+maxBody {
			t.Errorf("read %d bytes", s.got)
		}
	})
}
