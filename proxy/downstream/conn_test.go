// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// get keeps its connection, last does not.
const (
	get  = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)

// TestConnection runs whole connections against an upstream: all that a client sends at once, and all it gets until the
// connection closes. Each ends with a request that closes it, where it is not the answer that does.
func TestConnection(t *testing.T) {
	t.Parallel()
	const okLast = "HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length: 2\r\nserver: envoy\r\n\r\nok"
	const okKept = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nserver: envoy\r\n\r\nok"
	for _, c := range []struct {
		name    string
		cfg     mesh.HTTPManager
		answer  string // of the upstream
		in      string
		want    string
		flags   []mesh.Flags
		details []string
	}{
		{
			name: "keep-alive and pipelining", answer: ok, in: get + get + last,
			want: okKept + okKept + okLast, flags: []mesh.Flags{0, 0, 0}, details: []string{"via_upstream", "via_upstream", "via_upstream"},
		},
		{
			name: "body behind the head, then another request", answer: ok,
			in:   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + last,
			want: okKept + okLast, flags: []mesh.Flags{0, 0},
		},
		{
			name: "HEAD has a length and no body", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
			in:   "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			want: "HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length: 5\r\nserver: envoy\r\n\r\n", flags: []mesh.Flags{0},
		},
		{
			name: "204", answer: "HTTP/1.1 204 No Content\r\n\r\n", in: get + last,
			want:  "HTTP/1.1 204 No Content\r\nserver: envoy\r\n\r\nHTTP/1.1 204 No Content\r\nconnection: close\r\nserver: envoy\r\n\r\n",
			flags: []mesh.Flags{0, 0},
		},
		{
			name: "204 with a length loses it", answer: "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", in: last,
			want: "HTTP/1.1 204 No Content\r\nconnection: close\r\nserver: envoy\r\n\r\n", flags: []mesh.Flags{0},
		},
		{
			name: "304 keeps its length", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", in: get + last,
			want: "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nserver: envoy\r\n\r\n" +
				"HTTP/1.1 304 Not Modified\r\nconnection: close\r\nContent-Length: 9\r\nserver: envoy\r\n\r\n",
			flags: []mesh.Flags{0, 0},
		},
		{
			name: "HTTP/1.0 closes", cfg: mesh.HTTPManager{AcceptHTTP10: true}, answer: ok, in: "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
			want: okLast, flags: []mesh.Flags{0},
		},
		{
			name: "HTTP/1.0 with keep-alive goes on", cfg: mesh.HTTPManager{AcceptHTTP10: true}, answer: ok,
			in:   "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" + last,
			want: "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nContent-Length: 2\r\nserver: envoy\r\n\r\nok" + okLast, flags: []mesh.Flags{0, 0},
		},
		{
			name: "chunks that are here whole have a length for HTTP/1.0", cfg: mesh.HTTPManager{AcceptHTTP10: true},
			answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
			in:     "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
			want:   "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\nserver: envoy\r\n\r\nok", flags: []mesh.Flags{0},
		},
		{
			name: "HTTP/1.0 is refused where it is not accepted", in: "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
			want: "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nconnection: close\r\nserver: envoy\r\n\r\n", flags: []mesh.Flags{mesh.FlagDPE},
			details: []string{"http1.http_1_0_not_accepted"},
		},
		{
			name: "an interim answer is passed on", answer: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok, in: last,
			want: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + okLast, flags: []mesh.Flags{0},
		},
		{
			name: "but not to HTTP/1.0", cfg: mesh.HTTPManager{AcceptHTTP10: true}, answer: "HTTP/1.1 103 Early Hints\r\n\r\n" + ok,
			in: "GET / HTTP/1.0\r\nHost: a\r\n\r\n", want: okLast, flags: []mesh.Flags{0},
		},
		{
			name: "the last of so many requests", cfg: mesh.HTTPManager{MaxRequestsPerConnection: 2}, answer: ok, in: get + get + get,
			want: okKept + okLast, flags: []mesh.Flags{0, 0},
		},
		{
			name: "what follows a refusal is not read", answer: ok, in: get + "GET / HTTP/1.1\r\nHost : a\r\n\r\n" + get,
			want:  okKept + "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\nserver: envoy\r\n\r\n",
			flags: []mesh.Flags{0, mesh.FlagDPE}, details: []string{"via_upstream", "http1.bad_field_name"},
		},
		{
			name: "server and via", cfg: mesh.HTTPManager{ServerHeader: mesh.ServerPassThrough, Via: "mesh"},
			answer: "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 0\r\n\r\n", in: last,
			want: "HTTP/1.1 200 OK\r\nconnection: close\r\nServer: x\r\nContent-Length: 0\r\nvia: mesh\r\n\r\n", flags: []mesh.Flags{0},
		},
		{
			name: "server is replaced", answer: "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 0\r\n\r\n", in: last,
			want: "HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length: 0\r\nserver: envoy\r\n\r\n", flags: []mesh.Flags{0},
		},
		{
			name: "server is kept if there", cfg: mesh.HTTPManager{ServerHeader: mesh.ServerAppendIfAbsent},
			answer: "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 0\r\n\r\n", in: last,
			want: "HTTP/1.1 200 OK\r\nconnection: close\r\nServer: x\r\nContent-Length: 0\r\n\r\n", flags: []mesh.Flags{0},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{manager: c.cfg, routes: []*mesh.Route{forwarded()}, backend: always(c.answer)})
			if got := clean(r.ask(c.in)); got != c.want {
				t.Errorf("\n got %q\nwant %q", got, c.want)
			}
			for i, o := range r.wait(len(c.flags)) {
				if i >= len(c.flags) || o.Flags != c.flags[i] || c.details != nil && o.Details != c.details[i] {
					t.Errorf("outcome %d: %s %s", i, o.Flags, o.Details)
				}
			}
		})
	}
}

// TestRefusals: each way in which a head can be refused has its status, its details and one Outcome, closes the
// connection, and reaches no upstream.
func TestRefusals(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("a", n) }
	for _, c := range []struct{ name, in, status, details string }{
		{"no request", "\x16\x03\x01\x00\xa5\x01\x00", "400", "bad_method"},
		{"no target", "GET\r\nHost: a\r\n\r\n", "400", "bad_request_line"},
		{"bad method", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad_method"},
		{"bad target", "GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad_request_target"},
		{"fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad_request_target"},
		{"long target", "GET /" + long(9000) + " HTTP/1.1\r\nHost: a\r\n\r\n", "414", "request_target_too_long"},
		{"endless target", "GET /" + long(9000), "414", "request_target_too_long"},
		{"version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505", "http_version_not_supported"},
		{"large value", "GET / HTTP/1.1\r\nHost: a\r\nX: " + long(17<<10) + "\r\n\r\n", "431", "field_value_too_large"},
		{"many fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 101) + "\r\n", "431", "too_many_fields"},
		{"large head", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: "+long(10<<10)+"\r\n", 7), "431", "head_too_large"},
		{"no host", "GET / HTTP/1.1\r\n\r\n", "400", "host_missing"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", "host_repeated"},
		{"bad host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400", "bad_host"},
		{"folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", "400", "obsolete_line_folding"},
		{"bare LF", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "400", "bad_field_value"},
		{"bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: w\r\n\r\n", "400", "bad_field_value"},
		{"NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", "400", "bad_field_value"},
		{"space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", "400", "bad_field_name"},
		{"bad length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", "400", "bad_content_length"},
		{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", "400", "content_length_repeated"},
		{"length and coding", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "content_length_with_transfer_encoding"},
		{"unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501", "transfer_coding_not_supported"},
		{"two codings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "400", "transfer_encoding_repeated"},
		{"unknown expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", "417", "expectation_not_supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			hit := make(chan struct{}, 8)
			r := start(t, setup{routes: []*mesh.Route{forwarded()}, backend: func(*peer) { hit <- struct{}{} }})
			got := r.ask(c.in + get)
			if statusOf(got) != c.status || strings.Count(got, "HTTP/1.1") != 1 || !strings.Contains(got, "connection: close\r\n") || strings.HasSuffix(got, "<reset>") {
				t.Errorf("got %q", got)
			}
			o := r.wait(1)
			if len(o) != 1 || fmt.Sprint(o[0].Status) != c.status || o[0].Flags != mesh.FlagDPE || o[0].Details != "http1."+c.details || o[0].Protocol != mesh.HTTP11 ||
				o[0].Failure != mesh.DownstreamProtocolError || o[0].Side != mesh.SideDownstream {
				t.Errorf("%+v", o)
			}
			if n := r.count(metrics.DownstreamCxProtocolError); n != 1 {
				t.Errorf("%d protocol errors counted", n)
			}
			if len(hit) != 0 {
				t.Error("the upstream was reached")
			}
		})
	}
}

// TestExpect: 100 (Continue) comes when the body is wanted, before it; and not where the request is answered without it.
func TestExpect(t *testing.T) {
	t.Parallel()
	const head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
	got := make(chan string, 8)
	backend := func(p *peer) {
		for {
			h := p.head()
			if h == "" {
				return
			}
			if strings.Contains(h, "xpect") {
				p.send("HTTP/1.1 100 Continue\r\n\r\n")
			}
			got <- h + p.take(3)
			p.send(ok)
		}
	}
	t.Run("wanted", func(t *testing.T) {
		r := start(t, setup{routes: []*mesh.Route{forwarded()}, backend: backend})
		c := r.dial()
		c.send(head)
		if h := c.head(); h != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Fatalf("got %q", h)
		}
		c.send("abc")
		if h := c.head(); statusOf(h) != "200" || c.take(2) != "ok" {
			t.Fatalf("got %q", h)
		}
		if up := <-got; !strings.HasSuffix(up, "\r\n\r\nabc") || strings.Contains(up, "xpect") {
			t.Errorf("upstream got %q", up)
		}
		if o := r.wait(1)[0]; o.BytesReceived != 3 || o.Flags != 0 {
			t.Errorf("%+v", o)
		}
		c.Close()
	})
	t.Run("left to the upstream", func(t *testing.T) {
		r := start(t, setup{manager: mesh.HTTPManager{Proxy100Continue: true}, routes: []*mesh.Route{forwarded()}, backend: backend})
		c := r.dial()
		c.send(head)
		if h := c.head(); h != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Fatalf("got %q", h)
		}
		c.send("abc")
		if h := c.head(); statusOf(h) != "200" {
			t.Fatalf("got %q", h)
		}
		if up := <-got; !strings.HasSuffix(up, "\r\n\r\nabc") || !strings.Contains(up, "expect: 100-continue") {
			t.Errorf("upstream got %q", up)
		}
		c.Close()
	})
	t.Run("not wanted", func(t *testing.T) {
		r := start(t, setup{routes: []*mesh.Route{direct("/", 403, "no")}})
		// The client sends nothing more, yet the answer comes; what would follow is not read as a request.
		if got := clean(r.ask(head)); got != "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 2\r\ncontent-type: text/plain\r\nserver: envoy\r\n\r\nno" {
			t.Errorf("got %q", got)
		}
		r.wait(1)
	})
}

// TestEarlyAnswer: an answer that comes while the client still sends closes the connection, and the client gets it whole
// although it goes on to send: nothing of the upload is read as a request.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	smuggled := strings.Repeat("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 1000)
	for name, s := range map[string]setup{
		"our own":        {routes: []*mesh.Route{direct("/", 413, "too much")}},
		"the upstream's": {routes: []*mesh.Route{forwarded()}, backend: always("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 8\r\n\r\ntoo much")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.manager.DelayedCloseTimeout = hang
			r := start(t, s)
			c := r.dial()
			c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + smuggled)
			h := c.head()
			if statusOf(h) != "413" || !strings.Contains(h, "connection: close\r\n") || c.take(8) != "too much" {
				t.Fatalf("got %q", h)
			}
			c.send(smuggled)
			c.CloseWrite()
			if rest := c.rest(); rest != "" {
				t.Errorf("then %q", rest)
			}
			if o := r.wait(1); len(o) != 1 || o[0].Status != 413 {
				t.Errorf("%+v", o)
			}
			r.waitConns(0)
		})
	}
}

// TestHalfClose: a client that has said all it wants to say gets its answer.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	r := start(t, setup{routes: []*mesh.Route{direct("/", 200, "ok")}})
	for range 50 {
		c := r.dial()
		c.send(get)
		c.CloseWrite()
		if got := c.rest(); !strings.HasSuffix(got, "\r\n\r\nok") {
			t.Fatalf("got %q", got)
		}
	}
	if o := r.wait(50); len(o) != 50 {
		t.Errorf("%d outcomes", len(o))
	}
	// One that ends in the middle of a head is closed without an answer, and there was no request.
	c := r.dial()
	c.send(get[:10])
	c.CloseWrite()
	if got := c.rest(); got != "" {
		t.Errorf("got %q", got)
	}
	r.waitConns(0)
	if n := len(r.wait(50)); n != 50 {
		t.Errorf("%d outcomes", n)
	}
	if a, b := r.count(metrics.DownstreamCxDestroyRemote), r.count(metrics.DownstreamRqActive); a == 0 || b != 0 {
		t.Errorf("%d closed by clients, %d active", a, b)
	}
}

// TestDrain: an answer in a drain closes its connection; an idle one is left for a client that is about to use it, for so
// long as the configuration says.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := start(t, setup{manager: mesh.HTTPManager{DrainTimeout: time.Minute}, routes: []*mesh.Route{direct("/", 200, "ok")}})
	c := r.dial()
	c.send(get)
	if h := c.head(); strings.Contains(h, "connection:") || c.take(2) != "ok" {
		t.Fatalf("got %q", h)
	}
	r.draining.Store(true)
	c.send(get)
	if got := c.rest(); !strings.Contains(got, "connection: close\r\n") || !strings.HasSuffix(got, "ok") {
		t.Errorf("got %q", got)
	}
	r.waitConns(0)
	if n := r.count(metrics.DownstreamCxDrainClose); n != 1 {
		t.Errorf("%d drain closes", n)
	}
}

// TestConnectionTimes: the deadlines of a connection, each with how it shows.
func TestConnectionTimes(t *testing.T) {
	t.Parallel()
	const short = 300 * time.Millisecond // long enough for what must come before it
	for _, c := range []struct {
		name   string
		cfg    mesh.HTTPManager
		in     string
		want   string // the status of the last answer, "" for none
		count  int
		detail string
	}{
		{"idle", mesh.HTTPManager{IdleTimeout: short}, get, "200", metrics.DownstreamCxIdleTimeout, "direct_response"},
		{"no request at all", mesh.HTTPManager{RequestHeadersTimeout: short}, "", "", metrics.DownstreamCxDestroyLocal, ""},
		{"the head does not end", mesh.HTTPManager{RequestHeadersTimeout: short}, get[:20], "408", metrics.DownstreamRqHeaderTimeout, "request_header_timeout"},
		{"nor the second", mesh.HTTPManager{RequestHeadersTimeout: short}, get + get[:20], "408", metrics.DownstreamRqHeaderTimeout, "request_header_timeout"},
		{"age while idle", mesh.HTTPManager{MaxConnectionDuration: short}, get, "200", metrics.DownstreamCxMaxDurationReached, "direct_response"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{manager: c.cfg, routes: []*mesh.Route{direct("/", 200, "")}})
			got := r.ask(c.in)
			if i := strings.LastIndex(got, "HTTP/1.1 "); c.want == "" && got != "" || c.want != "" && (i < 0 || statusOf(got[i:]) != c.want) {
				t.Errorf("got %q", got)
			}
			r.waitConns(0)
			if n := r.count(c.count); n != 1 {
				t.Errorf("counted %d", n)
			}
			if n := strings.Count(got, "HTTP/1.1 "); n > 0 {
				if o := r.wait(n); len(o) != n || o[n-1].Details != c.detail {
					t.Errorf("%+v", o)
				}
			}
		})
	}
}

// TestStreamTimes: the deadlines of a request, each with its status, flag and details. The upstream does not answer,
// unless the case says otherwise.
func TestStreamTimes(t *testing.T) {
	t.Parallel()
	const short = 300 * time.Millisecond // long enough for what must come before it
	const half = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na"
	hush := func(p *peer) { p.rest() }
	begin := func(p *peer) { p.head(); p.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin"); p.rest() }
	for _, c := range []struct {
		name    string
		cfg     mesh.HTTPManager
		in      string
		backend func(*peer)
		status  string
		flags   mesh.Flags
		details string
		count   int
	}{
		{"idle, for the upstream", mesh.HTTPManager{StreamIdleTimeout: short}, last, hush, "504", mesh.FlagSI, "stream_idle_timeout", metrics.DownstreamRqIdleTimeout},
		{"idle, for the client", mesh.HTTPManager{StreamIdleTimeout: short}, half, hush, "408", mesh.FlagSI, "stream_idle_timeout", metrics.DownstreamRqIdleTimeout},
		{"idle, in the answer", mesh.HTTPManager{StreamIdleTimeout: short}, get, begin, "200", mesh.FlagSI, "stream_idle_timeout", metrics.DownstreamRqTxReset},
		{"request", mesh.HTTPManager{RequestTimeout: short}, half, hush, "408", 0, "request_overall_timeout", metrics.DownstreamRqTimeout},
		{"age", mesh.HTTPManager{MaxStreamDuration: short}, last, hush, "504", 0, "max_duration_timeout", metrics.DownstreamRqMaxDurationReached},
		{"age, for the client", mesh.HTTPManager{MaxStreamDuration: short}, half, hush, "408", 0, "max_duration_timeout", metrics.DownstreamRqMaxDurationReached},
		{"age, in the answer", mesh.HTTPManager{MaxStreamDuration: short}, get, begin, "200", 0, "max_duration_timeout", metrics.DownstreamRqTxReset},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{manager: c.cfg, routes: []*mesh.Route{forwarded()}, backend: c.backend})
			got := r.ask(c.in)
			if statusOf(got) != c.status || strings.Contains(got, "<reset>") {
				t.Errorf("got %q", got)
			}
			o := r.wait(1)
			if len(o) != 1 || o[0].Flags != c.flags || o[0].Details != c.details || fmt.Sprint(o[0].Status) != c.status {
				t.Errorf("%d %s %s", o[0].Status, o[0].Flags, o[0].Details)
			}
			if n := r.count(c.count); n != 1 {
				t.Errorf("counted %d", n)
			}
			r.waitConns(0)
		})
	}
}
