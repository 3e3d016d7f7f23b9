// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"crypto/x509"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types/ref"
	celpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
)

func expression(t testing.TB, text string) (*Expression, error) {
	t.Helper()
	b, err := proto.Marshal(&celpb.ExpressionFilter{Expression: text})
	if err != nil {
		t.Fatal(err)
	}
	p, err := FilterRows()[0].Parse("", b)
	if err != nil {
		return nil, err
	}
	return p.Config.(*Expression), nil
}

// logged are the outcomes that expressions are tried with: a request that was answered, one that nobody was there for, and a
// connection.
func logged() map[string]*mesh.Outcome {
	a := sample()
	a.Path, a.UpstreamPath, a.VirtualHost, a.RouteTemplate = []byte("/named/a?x=1"), []byte("/re/a?x=1"), "all", "/named"
	a.Cluster, a.RouteName, a.Attempts, a.Direction, a.Details = "web", "named", 2, mesh.Outbound, "via_upstream"
	a.UpstreamLocality = mesh.Locality{Region: "r", Zone: "z"}
	a.Remote, a.Local = netip.MustParseAddrPort("10.0.0.1:5"), netip.MustParseAddrPort("[::1]:80")
	a.ConnectionID, a.BytesSent = 7, 20
	peer := &x509.Certificate{Raw: []byte("x"), DNSNames: []string{"a.test", "b.test"}, URIs: []*url.URL{{Scheme: "spiffe", Host: "a", Path: "/b"}}}
	a.TLS = &mesh.TLSInfo{Version: "TLSv1.3", Peer: peer}
	none := &mesh.Outcome{
		Duration: 1e6, UpstreamStart: -1, UpstreamEnd: -1, Method: []byte("GET"), Path: []byte("/"), Status: 503, Flags: mesh.FlagUH,
		Details: "no_healthy_upstream", Headers: headers{"content-length": "3"}, BytesReceived: 1,
	}
	tcp := &mesh.Outcome{
		Kind: mesh.OutcomeTCP, Flags: mesh.FlagUF | mesh.FlagURX, TransportFailure: "connection refused", UpstreamStart: 1, UpstreamEnd: 2,
		Upstream: mesh.Address{Pipe: "/run/x"}, Termination: "idle", DownstreamTransportFailure: "no cipher",
	}
	return map[string]*mesh.Outcome{"a": a, "none": none, "tcp": tcp}
}

// What passes was read off Envoy 1.40, but for TLS and the reasons of connections.
func TestExpression(t *testing.T) {
	t.Parallel()
	outcomes := logged()
	for text, want := range map[string]string{
		"response.code >= 400": "none", "has(response.code)": "a none", "response.code in [204, 418]": "a",
		"request.method == 'GET'": "none", "request.path == '/re/a?x=1'": "a", "request.url_path == '/re/a'": "a",
		"request.query == ''": "none", "request.query == 'x=1'": "a", "has(request.url_path)": "a none",
		"request.host == 'locations'": "a", "request.scheme == 'http'": "a", "request.protocol == 'HTTP/2'": "a",
		"has(request.referer)": "", "request.useragent.startsWith('nsq')": "a", "has(request.id)": "a",
		"request.headers['User-Agent'] == 'nsq2http'": "a", "'user-agent' in request.headers": "a",
		"has(request.headers.missing)": "", "request.headers[':method'] == 'POST'": "a",
		"request.size == 3": "none", "request.size == 154": "a",
		"request.duration < duration('10ms')": "none tcp", "request.time > timestamp('2020-01-01T00:00:00Z')": "a",
		"response.flags == 2": "none", "response.flags == 32 + 32768": "tcp", "response.code_details == 'via_upstream'": "a",
		"response.grpc_status == 14": "none", "has(response.grpc_status)": "a none", "response.size == 20": "a",
		"response.headers[':status'] == '204'": "a", "has(response.trailers.x)": "",
		"response.backend_latency == duration('2ms')": "a", "has(response.backend_latency)": "a",
		"connection.id == 7": "a", "connection.id > 6u": "a", "connection.mtls": "a", "!connection.mtls": "none tcp",
		"connection.requested_server_name == ''": "a none tcp", "connection.termination_details == 'idle'": "tcp",
		"connection.transport_failure_reason == 'no cipher'": "tcp", "connection.tls_version == 'TLSv1.3'": "a",
		"connection.subject_peer_certificate == ''": "a", "connection.dns_san_peer_certificate == 'a.test'": "a",
		"connection.uri_san_peer_certificate == 'spiffe://a/b'":                  "a",
		"connection.sha256_peer_certificate_digest.startsWith('2d711642b726b0')": "a",
		"upstream.address == '10.0.2.1:80'":                                      "a", "upstream.port == 80": "a", "has(upstream.address)": "a tcp",
		"has(upstream.local_address)": "a", "upstream.transport_failure_reason == ''": "a",
		"upstream.transport_failure_reason.contains('refused')": "tcp", "upstream.request_attempt_count > 1": "a",
		"upstream.locality.region == 'r'": "a", "has(upstream.locality.sub_zone)": "", "upstream.locality.sub_zone == ''": "a tcp",
		"source.address == '10.0.0.1:5' && source.port == 5": "a", "destination.address == '[::1]:80' && destination.port == 80": "a",
		"xds.cluster_name == 'web'": "a", "xds.route_name == 'named'": "a", "has(xds.route_name)": "a", "xds.virtual_host_name == 'all'": "a",
		"xds.filter_chain_name == ''": "a none tcp", "xds.listener_direction == 2": "a",
		// What is not there makes the whole true where the rest does.
		"response.code == 599 || true": "a none tcp", "response.code == 204 && true": "a", "request.path.matches('^/re')": "a",
		"size(request.method) == 3": "none", "request.headers == {}": "", "1 / 0 == 1": "",
	} {
		e, err := expression(t, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, name := range []string{"a", "none", "tcp"} {
			if Passes(&mesh.LogFilter{Extension: &mesh.Extension{Config: e}}, outcomes[name]) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s lets through %q, want %q", e, got, want)
		}
	}
}

// lists are headers with several values.
type lists struct{ headers }

func (lists) JoinedRequest(name string) []byte  { return []byte("request " + name + " a,b") }
func (lists) JoinedResponse(name string) []byte { return []byte("response " + name + " a,b") }
func (lists) JoinedTrailer(string) []byte       { return nil }

var _ joiner = (*exchange.Exchange)(nil)

// All values of a field count, but control data are as they are.
func TestExpressionJoinsValues(t *testing.T) {
	t.Parallel()
	e, err := expression(t, `request.headers['X-A'] == 'request x-a a,b' && response.headers.b == 'response b a,b' && !has(response.trailers.c) &&
		request.headers[':method'] == 'POST' && request.headers.host == 'locations'`)
	if err != nil {
		t.Fatal(err)
	}
	o := sample()
	o.Headers = lists{}
	if !e.Passes(o) {
		t.Error("values are missing")
	}
}

// Every attribute can be asked for of every outcome, and is of the type that it says.
func TestEveryAttribute(t *testing.T) {
	t.Parallel()
	for object, list := range attributes() {
		for name, a := range list {
			for kind, o := range logged() {
				v, ok := a.get(o).(interface{ Type() ref.Type })
				if ok && a.typ != cel.DynType && v.Type().TypeName() != a.typ.TypeName() {
					t.Errorf("%s.%s of %s is a %s, want %s", object, name, kind, v.Type().TypeName(), a.typ.TypeName())
				}
			}
		}
	}
}

func TestExpressionErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ text, want string }{
		{"", "expression: the expression is empty; write one as response.code >= 500"},
		{"response.code", "expression: 1:1: the expression is a int, and must be true or false"},
		{"true &&\n response.cod == 1", `expression: 2:2: there is no "response.cod" here; did you mean response.code?`},
		{"metadata.filter_metadata['a'].b == 1", `expression: 1:1: there is no "metadata.filter_metadata" here: nothing sets it`},
		{"filter_state['a'] == b'1'", `expression: 1:1: there is no "filter_state" here: nothing sets it`},
		{"xds.node.id == 'a'", `expression: 1:1: there is no "xds.node.id" here; allowed are xds.cluster_name, xds.filter_chain_name, xds.`},
		{"response.code == '503'", "expression: 1:15: found no matching overload for '_==_'"},
		{"request['path'] == '/'", "expression: 1:8: found no matching overload for '_[_]'"},
		{"request.headers.exists(h, h == 'a')", `expression: 1:1: there is no "request.headers.exists" here`},
		{"request.path + 'a' == 'b'", "expression: 1:14: found no matching overload for '_+_'"},
		{"string(response.code) == '200'", `expression: 1:1: there is no "string" here`},
		{"size(request.headers) > 1", "expression: 1:5: found no matching overload for 'size'"},
		{"request.path.matches('(')", "expression: 1:22: invalid matches argument"},
	} {
		if _, err := expression(t, tc.text); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.text, err, tc.want)
		}
	}
}

// FuzzExpression: what compiles can be evaluated, and says yes or no.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{
		"response.code >= 500", "has(request.headers.a)", "request.headers['a'] in ['b']", "upstream.locality == upstream.locality",
		"type(request) == type(response)", "request.headers == response.headers", "[request.headers][0].a == ''", "dyn(xds).x == 1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return // no message can hold it
		}
		e, err := expression(t, text)
		if err != nil {
			return
		}
		for _, o := range logged() {
			e.Passes(o)
		}
	})
}

func BenchmarkExpression(b *testing.B) {
	e, err := expression(b, "response.code >= 500 || request.headers['user-agent'] == 'x'")
	if err != nil {
		b.Fatal(err)
	}
	o := sample()
	b.ReportAllocs()
	for b.Loop() {
		e.Passes(o)
	}
}
