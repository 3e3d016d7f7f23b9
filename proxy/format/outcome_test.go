// SPDX-License-Identifier: Apache-2.0

package format

import (
	"net/netip"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// headers is a mesh.Headers for tests: fields keyed by "request ", "response " or "trailer " and the name.
type headers map[string]string

func (h headers) RequestHeader(name string) []byte   { return h.look("request " + name) }
func (h headers) ResponseHeader(name string) []byte  { return h.look("response " + name) }
func (h headers) ResponseTrailer(name string) []byte { return h.look("trailer " + name) }

func (h headers) look(key string) []byte {
	if v, ok := h[key]; ok {
		return append([]byte{}, v...)
	}
	return nil
}

const ms = int64(time.Millisecond)

func at(nanos int) int64 { return time.Date(2026, 11, 22, 6, 55, 25, nanos, time.UTC).UnixNano() }

// outcomes are what the scripts in testdata speak of. The first five are the requests, and the connection, that were
// sent through Envoy to record what it writes.
func outcomes() map[string]*mesh.Outcome {
	self := netip.MustParseAddrPort("127.0.0.1:19001")
	client := netip.MustParseAddrPort("127.0.0.1:40404")
	up := mesh.Address{IP: netip.MustParseAddrPort("127.0.0.1:19091")}
	base := mesh.Outcome{
		Local: self, Remote: client, DirectRemote: client, FilterChain: "chain1", Protocol: mesh.HTTP11,
		Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("127.0.0.1:19001"),
		RequestEnd: 0, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1, UpstreamTook: -1,
	}
	post := base
	post.Start, post.Duration, post.RequestEnd = at(881129000), 3946524, 693000
	post.UpstreamStart, post.UpstreamFirst, post.UpstreamEnd = 700000, 3*ms+1, 3*ms+2
	post.Method, post.Path = []byte("POST"), []byte("/named/p%20q?a=1%202&b=xyz&a=3&e&f=%41+x")
	post.UpstreamPath, post.RequestID = []byte("/re/p%20q?a=1%202&b=xyz&a=3&e&f=%41+x"), []byte("a9260650-2aae-4863-a48c-697e8737420c")
	post.Status, post.Details, post.RouteName, post.ConnectionID = 200, "via_upstream", "my-route", 1
	post.BytesReceived, post.BytesSent, post.RequestHeaderBytes, post.AnswerHeaderBytes = 5, 467, 407, 129
	post.UpstreamBytesSent, post.UpstreamBytesGotten = 449, 580
	post.Upstream, post.UpstreamLocal, post.UpstreamHostname = up, netip.MustParseAddrPort("127.0.0.1:50505"), "localhost"
	post.Cluster, post.ClusterStat, post.UpstreamProtocol, post.Attempts = "up", "upstat", mesh.HTTP11, 1
	post.Headers = headers{
		"request x-multi": "a", "request x-empty": "", "request user-agent": `we"ird\ua`,
		"request x-request-id": "a9260650-2aae-4863-a48c-697e8737420c", "request x-weird": "tab\there café bad\xff\x9b \"q\" \\b <&> end",
		"response content-type": "text/plain", "response x-up": "v1", "response server": "envoy",
		"response x-envoy-upstream-service-time": "3",
	}
	gone := base
	gone.Start, gone.Duration, gone.RequestEnd = at(893097000), 346807, 30000
	gone.Path, gone.Status, gone.ConnectionID, gone.Attempts = []byte("/gone"), 503, 3, 1
	gone.Flags, gone.Failure, gone.BytesSent, gone.RequestHeaderBytes, gone.AnswerHeaderBytes = mesh.FlagUF, mesh.ConnectFailure, 98, 190, 92
	gone.Details = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
	gone.TransportFailure, gone.Cluster = "delayed_connect_error:_Connection_refused", "dead"
	gone.Upstream, gone.RequestID = mesh.Address{IP: netip.MustParseAddrPort("127.0.0.1:19098")}, []byte("83d1b57d-8f33-4ba7-b1f4-3c3fc8ed16ee")
	gone.Headers = headers{"request user-agent": "curl/7.88.1", "request x-request-id": string(gone.RequestID), "response content-type": "text/plain"}
	grpc := base
	grpc.Start, grpc.Duration, grpc.RequestEnd = at(900241000), 90204, 26000
	grpc.Path, grpc.Status, grpc.Details, grpc.Flags, grpc.ConnectionID = []byte("/nocluster"), 200, "cluster_not_found", mesh.FlagNC, 5
	grpc.RequestHeaderBytes, grpc.AnswerHeaderBytes, grpc.RequestID = 188, 95, []byte("d7321660-a71f-439e-a64f-a1a09fb93db3")
	grpc.Headers = headers{
		"request user-agent": "curl/7.88.1", "request content-type": "application/grpc", "response content-type": "application/grpc",
		"response grpc-status": "14", "request x-request-id": string(grpc.RequestID),
	}
	tcp := mesh.Outcome{
		Kind: mesh.OutcomeTCP, Start: at(586061000), Local: netip.MustParseAddrPort("127.0.0.1:19007"), Remote: client, DirectRemote: client,
		FilterChain: "chain1", ConnectionID: 768, RequestEnd: -1, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1, UpstreamTook: -1,
		BytesReceived: 18, BytesSent: 124, UpstreamBytesSent: 18, UpstreamBytesGotten: 124, Attempts: 1,
		Upstream: up, UpstreamLocal: post.UpstreamLocal, UpstreamHostname: "localhost", Cluster: "up", ClusterStat: "upstat",
	}
	all := map[string]*mesh.Outcome{"post": &post, "gone": &gone, "grpc": &grpc, "tcp": &tcp, "zero": {}}
	all["secure"] = secure(base)
	all["direct"] = direct(base)
	all["hostile"] = hostile(post)
	all["mesh"] = inMesh(post)
	all["flight"] = inFlight(base)
	return all
}

func direct(o mesh.Outcome) *mesh.Outcome {
	o.Start, o.Duration, o.RequestEnd = at(907053000), 133549, 36000
	o.Path, o.Status, o.Details, o.ConnectionID = []byte("/hdr"), 200, "direct_response", 6
	o.BytesSent, o.RequestHeaderBytes, o.AnswerHeaderBytes, o.RequestID = 2, 180, 197, []byte("dc95b4bd-6f56-4d7f-8765-cb3651b5a98d")
	o.Headers = headers{
		"request user-agent": "curl/7.88.1", "request x-request-id": string(o.RequestID), "request x-weird": "tab\there café bad\xff",
		"response content-type": "text/plain",
	}
	return &o
}

// hostile is a request that tries to write more than its own line.
func hostile(o mesh.Outcome) *mesh.Outcome {
	o.UpstreamPath, o.Termination = nil, "max duration"
	o.Path = []byte("/a\x1b[2J\r\n[forged] \"GET /\"")
	o.ServerName = "sni\n\x00"
	o.Headers = headers{"request user-agent": "a\u009b31m\u202e\xff", "request x-long": "0123456789äö", "request grpc": "x"}
	return &o
}

// inMesh has what Meshtap adds, IPv6, a unix socket, retries and gRPC trailers.
func inMesh(o mesh.Outcome) *mesh.Outcome {
	o.Circuit, o.Fallback, o.Attempts = mesh.CircuitHalfOpen, true, 3
	o.Remote = netip.MustParseAddrPort("[2001:db8:1234:5678:9abc:def0:1234:5678]:443")
	o.Upstream, o.UpstreamLocal, o.UpstreamHostname, o.ClusterStat = mesh.Address{Pipe: "/run/app.sock"}, netip.AddrPort{}, "", ""
	o.Flags, o.Protocol, o.UpstreamProtocol = mesh.FlagUH|mesh.FlagURX, mesh.HTTP2, mesh.HTTP2
	o.ServerName, o.Details = "orders.example", "a b\tc"
	o.GRPC, o.KeepsMessages, o.RequestMessages, o.ResponseMessages = true, true, 2, 1
	o.Headers = headers{
		"request content-type": "application/grpc+proto", "trailer grpc-status": "5", "response grpc-status": "0", "trailer x-t": "tv",
		"request x-envoy-original-path": "/orig?x=1", "request x-envoy-original-host": "was.example",
	}
	return &o
}

// inFlight is a request whose headers are just being made.
func inFlight(o mesh.Outcome) *mesh.Outcome {
	o.Start, o.Duration, o.RequestEnd = at(0), -1, -1
	o.Path = []byte("/x")
	o.Headers = headers{"request x-a": "b"}
	return &o
}
