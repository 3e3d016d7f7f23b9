// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// echoHead answers with the head that it got as the body.
func echoHead(p *peer) {
	for {
		h := p.head()
		if h == "" {
			return
		}
		p.send("HTTP/1.1 200 OK\r\nContent-Length: " + itoa(len(h)) + "\r\n\r\n" + h)
	}
}

func itoa(n int) string { return string(appendUint(nil, uint64(n))) }

// TestRequestHeaders: what the upstream gets of a request, by what the configuration says of trust. {ip} is the client,
// {id} a fresh request id.
func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	client := netip.MustParseAddrPort("203.0.113.9:1234")
	internal := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	for _, c := range []struct {
		name   string
		cfg    mesh.HTTPManager
		table  mesh.RouteTable
		in     string // fields
		want   string // fields behind host
		remote string // the client's address as the Outcome has it
	}{
		{
			"inside: what tells the router what to do is removed, and what others have noted is not", mesh.HTTPManager{},
			mesh.RouteTable{InternalOnlyHeaders: []string{"x-secret"}},
			"x-envoy-internal: true\r\nx-envoy-force-trace: 1\r\nx-secret: a\r\nx-envoy-original-path: /x\r\nx-envoy-decorator-operation: d\r\nx-b: c\r\n",
			"x-envoy-original-path: /x\r\nx-envoy-decorator-operation: d\r\nx-b: c\r\nx-forwarded-proto: http\r\n", "203.0.113.9",
		},
		{
			"internal: by the address of x-forwarded-for", mesh.HTTPManager{InternalAddresses: internal},
			mesh.RouteTable{InternalOnlyHeaders: []string{"x-secret"}},
			"x-forwarded-for: 10.0.0.1\r\nx-envoy-internal: me\r\nx-envoy-force-trace: 1\r\nx-secret: a\r\n",
			"x-forwarded-for: 10.0.0.1\r\nx-envoy-force-trace: 1\r\nx-secret: a\r\nx-envoy-internal: true\r\nx-forwarded-proto: http\r\n", "10.0.0.1",
		},
		{
			"internal: not where the address is one of several", mesh.HTTPManager{InternalAddresses: internal}, mesh.RouteTable{},
			"x-forwarded-for: 192.0.2.1, 10.0.0.1\r\nx-envoy-force-trace: 1\r\n",
			"x-forwarded-for: 192.0.2.1, 10.0.0.1\r\nx-forwarded-proto: http\r\n", "10.0.0.1",
		},
		{
			"internal: not by the connection's address alone", mesh.HTTPManager{InternalAddresses: all}, mesh.RouteTable{},
			"x-envoy-force-trace: 1\r\n", "x-forwarded-proto: http\r\n", "203.0.113.9",
		},
		{
			"internal: by the connection's address with use_remote_address, where nobody is named before",
			mesh.HTTPManager{UseRemoteAddress: true, GenerateRequestID: true, InternalAddresses: all}, mesh.RouteTable{},
			"x-envoy-force-trace: 1\r\nx-request-id: mine\r\n",
			"x-envoy-force-trace: 1\r\nx-request-id: mine\r\nx-forwarded-for: 203.0.113.9\r\nx-envoy-internal: true\r\nx-forwarded-proto: http\r\n", "203.0.113.9",
		},
		{
			"internal: not with use_remote_address, where somebody is named before", mesh.HTTPManager{UseRemoteAddress: true, InternalAddresses: all}, mesh.RouteTable{},
			"x-envoy-force-trace: 1\r\nx-forwarded-for: 10.0.0.1\r\n",
			"x-forwarded-for: 10.0.0.1,203.0.113.9\r\nx-envoy-external-address: 203.0.113.9\r\nx-forwarded-proto: http\r\n", "203.0.113.9",
		},
		{"inside: x-forwarded-for is passed on and tells the client", mesh.HTTPManager{}, mesh.RouteTable{}, "x-forwarded-for: 192.0.2.1, 192.0.2.2\r\n", "x-forwarded-for: 192.0.2.1, 192.0.2.2\r\nx-forwarded-proto: http\r\n", "192.0.2.2"},
		{"inside: with a trusted hop", mesh.HTTPManager{XFFTrustedHops: 1}, mesh.RouteTable{}, "x-forwarded-for: 192.0.2.1, 192.0.2.2\r\n", "x-forwarded-for: 192.0.2.1, 192.0.2.2\r\nx-forwarded-proto: http\r\n", "192.0.2.1"},
		{"inside: x-forwarded-proto is kept", mesh.HTTPManager{}, mesh.RouteTable{}, "x-forwarded-proto: https\r\n", "x-forwarded-proto: https\r\n", "203.0.113.9"},
		{"a client certificate that nobody checked is removed", mesh.HTTPManager{}, mesh.RouteTable{}, "x-forwarded-client-cert: By=me\r\n", "x-forwarded-proto: http\r\n", "203.0.113.9"},
		{
			"edge: what only we may say is removed", mesh.HTTPManager{UseRemoteAddress: true}, mesh.RouteTable{InternalOnlyHeaders: []string{"x-secret"}},
			"x-envoy-internal: true\r\nX-Envoy-Retry-On: 5xx\r\nx-secret: a\r\nx-envoy-original-path: /x\r\nx-forwarded-proto: https\r\nx-forwarded-client-cert: a\r\nx-b: c\r\n",
			"x-b: c\r\nx-forwarded-for: 203.0.113.9\r\nx-envoy-external-address: 203.0.113.9\r\nx-forwarded-proto: http\r\n", "203.0.113.9",
		},
		{
			"edge: x-forwarded-for is added to, and not believed", mesh.HTTPManager{UseRemoteAddress: true}, mesh.RouteTable{}, "x-forwarded-for: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\n",
			"x-forwarded-for: 10.0.0.1,10.0.0.2,203.0.113.9\r\nx-envoy-external-address: 203.0.113.9\r\nx-forwarded-proto: http\r\n", "203.0.113.9",
		},
		{
			"edge: with a trusted hop", mesh.HTTPManager{UseRemoteAddress: true, XFFTrustedHops: 1}, mesh.RouteTable{}, "x-forwarded-for: 10.0.0.1, 192.0.2.7\r\nx-forwarded-proto: https\r\n",
			"x-forwarded-proto: https\r\nx-forwarded-for: 10.0.0.1, 192.0.2.7,203.0.113.9\r\nx-envoy-external-address: 192.0.2.7\r\n", "192.0.2.7",
		},
		{
			"edge: without appending", mesh.HTTPManager{UseRemoteAddress: true, SkipXFFAppend: true}, mesh.RouteTable{}, "x-forwarded-for: 10.0.0.1\r\n",
			"x-forwarded-for: 10.0.0.1\r\nx-envoy-external-address: 203.0.113.9\r\nx-forwarded-proto: http\r\n", "203.0.113.9",
		},
		{"a hop that is no address", mesh.HTTPManager{}, mesh.RouteTable{}, "x-forwarded-for: unknown\r\n", "x-forwarded-for: unknown\r\nx-forwarded-proto: http\r\n", "203.0.113.9"},
		{"request id is made", mesh.HTTPManager{GenerateRequestID: true}, mesh.RouteTable{}, "", "x-forwarded-proto: http\r\nx-request-id: {id}\r\n", "203.0.113.9"},
		{"request id is kept inside", mesh.HTTPManager{GenerateRequestID: true}, mesh.RouteTable{}, "x-request-id: mine\r\n", "x-request-id: mine\r\nx-forwarded-proto: http\r\n", "203.0.113.9"},
		{
			"request id is made anew at the edge", mesh.HTTPManager{GenerateRequestID: true, UseRemoteAddress: true, SkipXFFAppend: true}, mesh.RouteTable{}, "x-request-id: mine\r\nx-request-id: too\r\n",
			"x-envoy-external-address: 203.0.113.9\r\nx-forwarded-proto: http\r\nx-request-id: {id}\r\n", "203.0.113.9",
		},
		{
			"unless it is to be kept", mesh.HTTPManager{GenerateRequestID: true, UseRemoteAddress: true, SkipXFFAppend: true, KeepExternalID: true}, mesh.RouteTable{}, "x-request-id: mine\r\n",
			"x-request-id: mine\r\nx-envoy-external-address: 203.0.113.9\r\nx-forwarded-proto: http\r\n", "203.0.113.9",
		},
		{"via", mesh.HTTPManager{Via: "m"}, mesh.RouteTable{}, "via: x\r\n", "via: x\r\nx-forwarded-proto: http\r\nvia: m\r\n", "203.0.113.9"},
		{"underscores are dropped", mesh.HTTPManager{Underscores: mesh.UnderscoresDrop}, mesh.RouteTable{}, "x_forwarded_for: 1\r\nx-b: c\r\n", "x-b: c\r\nx-forwarded-proto: http\r\n", "203.0.113.9"},
		{"underscores stay", mesh.HTTPManager{}, mesh.RouteTable{}, "x_b: c\r\n", "x_b: c\r\nx-forwarded-proto: http\r\n", "203.0.113.9"},
		{
			"what names this hop ends here, and Connection removes nothing of ours", mesh.HTTPManager{GenerateRequestID: true, UseRemoteAddress: true, SkipXFFAppend: true}, mesh.RouteTable{},
			"connection: x-request-id, x-forwarded-proto, x-b\r\nkeep-alive: 5\r\nte: gzip\r\nx-b: c\r\n",
			"x-envoy-external-address: 203.0.113.9\r\nx-forwarded-proto: http\r\nx-request-id: {id}\r\n", "203.0.113.9",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{manager: c.cfg, table: c.table, remote: client, routes: []*mesh.Route{forwarded()}, backend: echoHead})
			conn := r.dial()
			conn.send("GET /p HTTP/1.1\r\nHost: a\r\n" + c.in + "\r\n")
			if h := conn.head(); statusOf(h) != "200" {
				t.Fatalf("got %q", h)
			}
			got := strings.TrimSuffix(strings.Replace(conn.head(), "Host: a\r\n", "", 1), "\r\n")
			got, cut := strings.CutPrefix(got, "GET /p HTTP/1.1\r\n")
			if !cut {
				t.Errorf("got %q", got)
			}
			o := r.wait(1)[0]
			if i := strings.Index(c.want, "{id}"); i >= 0 {
				if !uuid.Match(o.RequestID) {
					t.Errorf("request id %q", o.RequestID)
				}
				c.want = strings.Replace(c.want, "{id}", string(o.RequestID), 1)
			}
			if got != c.want {
				t.Errorf("\n got %q\nwant %q", got, c.want)
			}
			if o.Remote.Addr().String() != c.remote {
				t.Errorf("the client is %s, not %s", o.Remote, c.remote)
			}
			conn.Close()
		})
	}
}

// TestForwardedPort: x-forwarded-port tells the port that the client connected to.
func TestForwardedPort(t *testing.T) {
	t.Parallel()
	r := start(t, setup{manager: mesh.HTTPManager{AppendXForwardPort: true, RequestIDInAnswer: true, GenerateRequestID: true}, routes: []*mesh.Route{forwarded()}, backend: echoHead})
	got := r.ask(last)
	_, port, _ := strings.Cut(r.addr, ":")
	if !strings.Contains(got, "x-forwarded-port: "+port+"\r\n") {
		t.Errorf("got %q", got)
	}
	if id := string(r.wait(1)[0].RequestID); strings.Count(got, "x-request-id: "+id) != 2 {
		t.Errorf("the answer does not tell the id %s: %q", id, got)
	}
}

func TestStripHost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg  mesh.HTTPManager
		in   string
		want string
	}{
		{mesh.HTTPManager{}, "a.:80", "a.:80"},
		{mesh.HTTPManager{StripAnyPort: true}, "a:81", "a"},
		{mesh.HTTPManager{StripAnyPort: true}, "[::1]:81", "[::1]"},
		{mesh.HTTPManager{StripAnyPort: true}, "[::1]", "[::1]"},
		{mesh.HTTPManager{StripAnyPort: true}, "a", "a"},
		{mesh.HTTPManager{StripMatchingPort: true}, "a:80", "a"},
		{mesh.HTTPManager{StripMatchingPort: true}, "a:81", "a:81"},
		{mesh.HTTPManager{StripMatchingPort: true}, "a:", "a:"},
		{mesh.HTTPManager{StripTrailingDot: true}, "a.", "a"},
		{mesh.HTTPManager{StripTrailingDot: true}, "a.:80", "a:80"},
		{mesh.HTTPManager{StripTrailingDot: true}, ".", "."},
		{mesh.HTTPManager{StripTrailingDot: true, StripAnyPort: true}, "a.:80", "a"},
	} {
		q := codec.Request{Authority: []byte(c.in)}
		stripHost(&q, &c.cfg, 80)
		if string(q.Authority) != c.want || q.HostStale != (c.in != c.want) {
			t.Errorf("%+v %q: got %q, stale %v", c.cfg, c.in, q.Authority, q.HostStale)
		}
	}
}

// TestIDsDiffer: request ids of many requests at once are all different.
func TestIDsDiffer(t *testing.T) {
	t.Parallel()
	r := start(t, setup{manager: mesh.HTTPManager{GenerateRequestID: true}, routes: []*mesh.Route{direct("/", 200, "")}})
	done := make(chan struct{})
	for range 8 {
		c := r.dial()
		go func() {
			defer func() { done <- struct{}{} }()
			defer c.Close()
			for range 50 {
				c.send(get)
				c.head()
			}
		}()
	}
	for range 8 {
		<-done
	}
	seen := map[string]bool{}
	for _, o := range r.wait(400) {
		if seen[string(o.RequestID)] || !uuid.Match(o.RequestID) {
			t.Fatalf("id %q", o.RequestID)
		}
		seen[string(o.RequestID)] = true
	}
}
