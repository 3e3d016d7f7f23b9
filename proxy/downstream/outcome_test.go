// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// stopper is a filter that answers by itself, or panics, for the paths that say so.
type stopper struct{}

func (stopper) OnRequest(x *exchange.Exchange) (filter.Verdict, []byte) {
	switch string(x.Request.Path) {
	case "/stopped":
		body := []byte("stopped")
		x.Answer(403, "stopped", body)
		return filter.Stop, body
	case "/panics":
		panic("a filter's own")
	}
	return filter.Continue, nil
}

func (stopper) OnResponse(x *exchange.Exchange) {
	if string(x.Request.Path) == "/panics-late" {
		panic("a filter's own")
	}
}

var stoppers = map[string]filter.Builder{"stopper": func(any, filter.Deps) (filter.Filter, error) { return stopper{}, nil }}

// panicPolicy is a load balancing policy that is broken.
type panicPolicy struct{}

func (panicPolicy) Pick(*lb.Request) int { panic("a policy's own") }

// TestOneOutcome goes through every way out of a request and counts: one Outcome each, no request left active, the
// counters in line, and, by the rig, no connection and no buffer left behind.
func TestOneOutcome(t *testing.T) {
	t.Parallel()
	const short = 30 * time.Millisecond
	at := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" }
	send := func(in string) func(*rig) { return func(r *rig) { r.ask(in) } }
	hush := func(p *peer) { p.rest() }
	answers := func(s string) func(*peer) { return func(p *peer) { p.head(); p.send(s) } }
	limits := func(l mesh.Limits) mesh.Cluster { return mesh.Cluster{Limits: [2]mesh.Limits{l, l}} }
	timeout := forwarded()
	timeout.Forward.Timeout = short
	retried := forwarded()
	retried.Forward.Retry = &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 2, BackOffBase: time.Millisecond, BackOffMax: time.Millisecond}
	waits := forwarded()
	waits.Forward.Retry = &mesh.RetryPolicy{On: mesh.RetryOn5xx, Retries: 2, BackOffBase: 1 << 60, BackOffMax: 1 << 60}
	missing := forwarded()
	missing.Forward = to("missing")
	fallback := forwarded()
	fallback.Forward = to("c")
	fallback.Fallback = &mesh.Fallback{On: mesh.FallbackOnOverflow, Response: &mesh.DirectResponse{Status: 200}}
	for _, c := range []struct {
		name    string
		s       setup
		do      func(*rig)
		want    string // status, failure, flags, details
		backend func(*peer)
		route   *mesh.Route // forwarded() where nil
	}{
		{name: "answered", do: send(at("/")), backend: always(ok), want: "200  - via_upstream"},
		{name: "refused head", do: send("GET /\r\n\r\n"), want: "400 downstream_protocol_error DPE http1.bad_request_line"},
		{name: "bad path", s: setup{manager: mesh.HTTPManager{NormalizePath: true}}, do: send(at("/%00")), want: "400  - path_normalization_failed"},
		{name: "path redirect", s: setup{manager: mesh.HTTPManager{EscapedSlashes: mesh.SlashesUnescapeRedirect}}, do: send(at("/a%2f")), want: "307  - path_normalization_redirect"},
		{
			name: "underscore", s: setup{manager: mesh.HTTPManager{Underscores: mesh.UnderscoresReject}},
			do: send("GET / HTTP/1.1\r\nHost: a\r\nX_Y: z\r\nConnection: close\r\n\r\n"), want: "400  DPE http1.unexpected_underscore",
		},
		{name: "upgrade refused", do: send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n"), want: "403  - upgrade_failed"},
		{name: "filter answers", s: setup{filters: stoppers}, do: send(at("/stopped")), want: "403  - stopped"},
		{name: "filter panics", s: setup{filters: stoppers}, do: send(at("/panics")), want: "500 internal_error - internal_error"},
		{name: "filter panics on the answer", s: setup{filters: stoppers}, do: send(at("/panics-late")), backend: always(ok), want: "500 internal_error - internal_error"},
		{
			name: "policy panics", do: send(at("/")), backend: hush, want: "500 internal_error - internal_error",
			s: setup{policy: func(any, []*lb.Host, uint64, lb.Picker) lb.Picker { return panicPolicy{} }},
		},
		{name: "direct response", route: direct("/", 418, "tea"), do: send(at("/")), want: "418  - direct_response"},
		{name: "redirect", route: &mesh.Route{Match: mesh.RouteMatch{Path: "/"}, Redirect: &mesh.Redirect{Status: 301, Host: "b"}}, do: send(at("/")), want: "301  - direct_response"},
		{name: "no route", route: direct("/other", 200, ""), do: send(at("/")), want: "404 no_route NR route_not_found"},
		{name: "no cluster", route: missing, do: send(at("/")), want: "503 no_cluster NC cluster_not_found"},
		{name: "no host", s: setup{policy: func(any, []*lb.Host, uint64, lb.Picker) lb.Picker { return nobody{} }}, do: send(at("/")), backend: hush, want: "503 no_healthy_host UH no_healthy_upstream"},
		{name: "overflow", s: setup{cluster: limits(mesh.Limits{Connections: 1, Pending: 1})}, do: send(at("/")), backend: hush, want: "503 overflow UO upstream_reset_before_response_started{overflow}"},
		{name: "fallback", s: setup{cluster: limits(mesh.Limits{Connections: 1, Pending: 1})}, route: fallback, do: send(at("/")), backend: hush, want: "200 overflow UO fallback"},
		{name: "upstream closes", do: send(at("/")), backend: answers(""), want: "503 upstream_closed UC upstream_reset_before_response_started{connection_termination}"},
		{name: "upstream talks garbage", do: send(at("/")), backend: answers("SSH-2.0-x\r\n"), want: "502 upstream_protocol_error UPE upstream_reset_before_response_started{protocol_error}"},
		{name: "answer breaks off", do: send(at("/")), backend: answers("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin"), want: "200 upstream_closed UC upstream_reset_after_response_started{connection_termination}"},
		{name: "chunks break", do: send(at("/")), backend: answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naX"), want: "502 upstream_protocol_error UPE upstream_reset_before_response_started{protocol_error}"},
		{name: "request timeout", route: timeout, do: send(at("/")), backend: hush, want: "504 request_timeout UT response_timeout"},
		{name: "retries are used up", route: retried, do: send(at("/")), backend: always("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), want: "503  URX via_upstream"},
		{name: "the client leaves", do: leaveOnceSeen, backend: seen, want: "0 downstream_closed DC downstream_remote_disconnect"},
		{name: "the client leaves in a back-off", route: waits, do: leaveOnceSeen, backend: seenThen("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), want: "0 downstream_closed DC downstream_remote_disconnect"},
		{name: "the client leaves in its upload", do: leaveInUpload, backend: hush, want: "0 downstream_closed DC downstream_remote_disconnect"},
		{name: "the client leaves in the answer", do: leaveInAnswer, backend: endless, want: "200 downstream_closed DC downstream_remote_disconnect"},
		{name: "bad chunks in the upload", do: send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZ"), backend: hush, want: "400 downstream_protocol_error DPE http1.codec_error"},
		{name: "bad chunks later", do: laterBadChunk, backend: hush, want: "400 downstream_protocol_error DPE http1.codec_error"},
		{name: "a tunnel", s: setup{manager: mesh.HTTPManager{Upgrades: []mesh.Upgrade{{Type: "ws", Enabled: true}}}}, do: tunnel, backend: echo101, want: "101  - via_upstream"},
		{name: "CONNECT", s: setup{manager: mesh.HTTPManager{Upgrades: []mesh.Upgrade{{Type: "connect", Enabled: true}}}}, route: &mesh.Route{Match: mesh.RouteMatch{Kind: mesh.PathConnect}, Forward: to("c")}, do: connectTunnel, backend: echo200, want: "200  - via_upstream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := c.s
			s.backend = c.backend
			if s.filters != nil {
				s.manager.Filters = []mesh.Extension{{Name: "stopper", TypeURL: "stopper"}}
			}
			if c.route == nil {
				c.route = forwarded()
			}
			s.routes = []*mesh.Route{c.route}
			r := start(t, s)
			c.do(r)
			r.waitConns(0)
			o := r.wait(1)
			if len(o) != 1 {
				t.Fatalf("%d outcomes", len(o))
			}
			if got := fmt.Sprintf("%d %s %s %s", o[0].Status, o[0].Failure, o[0].Flags, o[0].Details); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if (o[0].Failure == mesh.NoFailure) != (o[0].Side == mesh.SideNone) {
				t.Errorf("failure %q is of side %d", o[0].Failure, o[0].Side)
			}
			if n, a := r.count(metrics.DownstreamRqTotal), r.count(metrics.DownstreamRqActive); n != 1 || a != 0 {
				t.Errorf("%d requests counted, %d active", n, a)
			}
			if n := r.count(metrics.DownstreamCxUpgradesActive); n != 0 {
				t.Errorf("%d upgrades are left active", n)
			}
			if cl := r.clusters["c"]; cl != nil {
				if n := cl.Stats.Value(metrics.UpstreamRqActive); n != 0 {
					t.Errorf("%d upstream requests are left active", n)
				}
			}
		})
	}
}

// nobody is a policy that finds no host.
type nobody struct{}

func (nobody) Pick(*lb.Request) int { return -1 }

// seen answers nothing, and says by a first byte of an interim answer that the request has come.
func seen(p *peer) { seenThen("")(p) }

func seenThen(answer string) func(*peer) {
	return func(p *peer) {
		p.head()
		p.send("HTTP/1.1 103 Early Hints\r\n\r\n" + answer)
		p.rest()
	}
}

func leaveOnceSeen(r *rig) {
	c := r.dial()
	c.send(get)
	c.head()
	c.Close()
}

func leaveInUpload(r *rig) {
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	c.head() // the body is wanted: it is read now
	c.send("abc")
	c.Close()
}

func laterBadChunk(r *rig) {
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
	c.head()
	c.send("1\r\na\r\nZ")
	c.rest()
}

// endless answers without end.
func endless(p *peer) {
	p.head()
	p.send("HTTP/1.1 200 OK\r\n\r\n")
	block := strings.Repeat("x", 1<<16)
	for {
		if _, err := io.WriteString(p.TCPConn, block); err != nil {
			return
		}
	}
}

func leaveInAnswer(r *rig) {
	c := r.dial()
	c.send(get)
	c.head()
	c.take(100)
	c.Close()
}

func echo101(p *peer) {
	_, rest, _ := strings.Cut(p.head(), "\r\nupgrade: ")
	asked, _, _ := strings.Cut(rest, "\r\n")
	p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: " + asked + "\r\n\r\n")
	io.Copy(p.TCPConn, p)
}

func echo200(p *peer) {
	p.head()
	p.send("HTTP/1.1 200 OK\r\n\r\n")
	io.Copy(p.TCPConn, p)
}

func tunnel(r *rig) {
	through(r, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n")
}

func connectTunnel(r *rig) { through(r, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n") }

func through(r *rig, head string) {
	c := r.dial()
	c.send(head)
	h := c.head()
	c.send("ping")
	if got := c.take(4); got != "ping" {
		r.t.Errorf("after %q got %q", h, got)
	}
	c.CloseWrite()
	if got := c.rest(); got != "" {
		r.t.Errorf("then %q", got)
	}
}
