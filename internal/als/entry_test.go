// SPDX-License-Identifier: Apache-2.0

package als_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datapb "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/mesh"
)

// headers are those of a request and its answer.
type headers map[string]string

func (h headers) get(name string) []byte {
	if v, ok := h[name]; ok {
		return []byte(v)
	}
	return nil
}
func (h headers) RequestHeader(name string) []byte   { return h.get(name) }
func (h headers) ResponseHeader(name string) []byte  { return h.get("> " + name) }
func (h headers) ResponseTrailer(name string) []byte { return h.get(">> " + name) }

// full is an outcome that has everything.
func full() *mesh.Outcome {
	uri, _ := url.Parse("spiffe://mesh/a")
	return &mesh.Outcome{
		Start: 1_700_000_000_000_000_005, Duration: 9e9, RequestEnd: 1, UpstreamStart: 2_000_000_003, UpstreamFirst: 3, UpstreamEnd: 4,
		Remote: netip.MustParseAddrPort("10.0.0.1:1"), Local: netip.MustParseAddrPort("[2001:db8::1]:2"), DirectRemote: netip.MustParseAddrPort("10.0.0.3:3"),
		ServerName: "sni", TLS: &mesh.TLSInfo{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", Peer: &x509.Certificate{
			Subject: pkix.Name{CommonName: "s"}, Issuer: pkix.Name{CommonName: "i"}, URIs: []*url.URL{uri}, DNSNames: []string{"d"},
		}},
		Protocol: mesh.HTTP2, RouteName: "route", Cluster: "cluster",
		Method: []byte("POST"), Scheme: []byte("https"), Authority: []byte("a"), Path: []byte("/came"), RequestID: []byte("id"),
		Headers: headers{
			":path": "/goes", "user-agent": "ua", "referer": "re", "x-forwarded-for": "ff", "x-envoy-original-path": "/came", "x-user": "me",
			"> x-a": "1", ">> x-b": "2", "bad": "\xff",
		},
		Status: 503, Details: "details", Flags: 1<<27 - 1, TransportFailure: "tf", Termination: "te", DownstreamTransportFailure: "dtf",
		BytesReceived: 11, BytesSent: 12, RequestHeaderBytes: 13, AnswerHeaderBytes: 14, UpstreamBytesSent: 15, UpstreamBytesGotten: 16,
		Upstream: mesh.Address{Pipe: "/run/s"}, UpstreamLocal: netip.MustParseAddrPort("10.0.0.4:4"), Attempts: 3,
	}
}

func at(ip string, port uint32) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: ip, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: port},
	}}}
}

// common is what full is in an entry.
func common() *datapb.AccessLogCommon {
	san := func(uri, dns string) *datapb.TLSProperties_CertificateProperties_SubjectAltName {
		if uri != "" {
			return &datapb.TLSProperties_CertificateProperties_SubjectAltName{San: &datapb.TLSProperties_CertificateProperties_SubjectAltName_Uri{Uri: uri}}
		}
		return &datapb.TLSProperties_CertificateProperties_SubjectAltName{San: &datapb.TLSProperties_CertificateProperties_SubjectAltName_Dns{Dns: dns}}
	}
	return &datapb.AccessLogCommon{
		DownstreamRemoteAddress: at("10.0.0.1", 1), DownstreamLocalAddress: at("2001:db8::1", 2), DownstreamDirectRemoteAddress: at("10.0.0.3", 3),
		UpstreamRemoteAddress: &corepb.Address{Address: &corepb.Address_Pipe{Pipe: &corepb.Pipe{Path: "/run/s"}}}, UpstreamLocalAddress: at("10.0.0.4", 4),
		TlsProperties: &datapb.TLSProperties{
			TlsVersion: datapb.TLSProperties_TLSv1_3, TlsCipherSuite: wrapperspb.UInt32(0x1301), TlsSniHostname: "sni",
			PeerCertificateProperties: &datapb.TLSProperties_CertificateProperties{
				SubjectAltName: []*datapb.TLSProperties_CertificateProperties_SubjectAltName{san("spiffe://mesh/a", ""), san("", "d")},
				Subject:        "CN=s", Issuer: "CN=i",
			},
		},
		StartTime: &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 5}, Duration: durationpb.New(9e9),
		TimeToLastRxByte: durationpb.New(1), TimeToFirstUpstreamTxByte: durationpb.New(2_000_000_003), TimeToLastUpstreamTxByte: durationpb.New(2_000_000_003),
		TimeToFirstUpstreamRxByte: durationpb.New(3), TimeToLastUpstreamRxByte: durationpb.New(4), TimeToLastDownstreamTxByte: durationpb.New(9e9),
		UpstreamCluster: "cluster", RouteName: "route", UpstreamTransportFailureReason: "tf", ConnectionTerminationDetails: "te",
		DownstreamTransportFailureReason: "dtf", UpstreamRequestAttemptCount: 3, StreamId: "id",
		UpstreamWireBytesSent: 15, UpstreamWireBytesReceived: 16, AccessLogType: datapb.AccessLogType_DownstreamEnd,
		ResponseFlags: &datapb.ResponseFlags{
			FailedLocalHealthcheck: true, NoHealthyUpstream: true, UpstreamRequestTimeout: true, LocalReset: true, UpstreamRemoteReset: true,
			UpstreamConnectionFailure: true, UpstreamConnectionTermination: true, UpstreamOverflow: true, NoRouteFound: true, DelayInjected: true,
			FaultInjected: true, RateLimited: true, RateLimitServiceError: true, DownstreamConnectionTermination: true,
			UpstreamRetryLimitExceeded: true, StreamIdleTimeout: true, InvalidEnvoyRequestHeaders: true, DownstreamProtocolError: true,
			UpstreamMaxStreamDurationReached: true, NoFilterConfigFound: true, DurationTimeout: true, UpstreamProtocolError: true,
			NoClusterFound: true, OverloadManager: true, DnsResolutionFailure: true,
			UnauthorizedDetails: &datapb.ResponseFlags_Unauthorized{Reason: datapb.ResponseFlags_Unauthorized_EXTERNAL_SERVICE},
		},
	}
}

func decode[M proto.Message](t *testing.T, entry []byte, m M) M {
	t.Helper()
	if err := proto.Unmarshal(entry, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestHTTPEntry: all that an outcome says is in its entry.
func TestHTTPEntry(t *testing.T) {
	t.Parallel()
	event := wrapperspb.String("event")
	any, err := anypb.New(event)
	if err != nil {
		t.Fatal(err)
	}
	got := decode(t, als.Append(nil, als.HTTP, full(), &als.Extra{
		RequestHeaders: []string{"x-user", "none", "bad"}, ResponseHeaders: []string{"x-a"}, ResponseTrailers: []string{"x-b"},
		Tags:     []als.Tag{{Name: "lit", Value: "v"}, {Name: "hdr", Value: "def", Header: "x-user"}, {Name: "def", Value: "def", Header: "x"}, {Name: "no", Header: "x"}},
		StateKey: "key", StateType: "google.protobuf.StringValue", State: any.GetValue(),
	}), &accesslogpb.StreamAccessLogsMessage_HTTPAccessLogEntries{})
	c := common()
	c.CustomTags = map[string]string{"lit": "v", "hdr": "me", "def": "def"}
	c.FilterStateObjects = map[string]*anypb.Any{"key": any}
	want := &datapb.HTTPAccessLogEntry{
		CommonProperties: c, ProtocolVersion: datapb.HTTPAccessLogEntry_HTTP2,
		Request: &datapb.HTTPRequestProperties{
			RequestMethod: corepb.RequestMethod_POST, Scheme: "https", Authority: "a", Path: "/goes", OriginalPath: "/came", UserAgent: "ua", Referer: "re",
			ForwardedFor: "ff", RequestId: "id", RequestHeadersBytes: 13, RequestBodyBytes: 11, DownstreamHeaderBytesReceived: 13,
			RequestHeaders: map[string]string{"x-user": "me", "bad": "!"},
		},
		Response: &datapb.HTTPResponseProperties{
			ResponseCode: wrapperspb.UInt32(503), ResponseCodeDetails: "details", ResponseHeadersBytes: 14, ResponseBodyBytes: 12, DownstreamHeaderBytesSent: 14,
			ResponseHeaders: map[string]string{"x-a": "1"}, ResponseTrailers: map[string]string{"x-b": "2"},
		},
	}
	if len(got.LogEntry) != 1 || !proto.Equal(got.LogEntry[0], want) {
		t.Errorf("got  %v\nwant %v", got.LogEntry, want)
	}
}

// TestTCPEntry: so is what is said of a connection, and nothing else.
func TestTCPEntry(t *testing.T) {
	t.Parallel()
	none := &mesh.Outcome{Kind: mesh.OutcomeTCP, RequestEnd: -1, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1}
	b := als.Append(als.Append(nil, als.TCP, full(), &als.Extra{}), als.TCP, none, &als.Extra{})
	got := decode(t, b, &accesslogpb.StreamAccessLogsMessage_TCPAccessLogEntries{})
	c := common()
	c.AccessLogType = datapb.AccessLogType_TcpConnectionEnd
	c.TimeToFirstUpstreamTxByte, c.TimeToLastUpstreamTxByte, c.TimeToFirstUpstreamRxByte, c.TimeToLastUpstreamRxByte, c.TimeToLastDownstreamTxByte = nil, nil, nil, nil, nil
	for i, want := range []*datapb.TCPAccessLogEntry{
		{CommonProperties: c, ConnectionProperties: &datapb.ConnectionProperties{ReceivedBytes: 11, SentBytes: 12}},
		{CommonProperties: &datapb.AccessLogCommon{
			StartTime: &timestamppb.Timestamp{}, Duration: &durationpb.Duration{}, AccessLogType: datapb.AccessLogType_TcpConnectionEnd,
		}},
	} {
		if !proto.Equal(got.LogEntry[i], want) {
			t.Errorf("got  %v\nwant %v", got.LogEntry[i], want)
		}
	}
}

// TestAnyBytes: what a client sends does not make an entry that a service cannot read, whatever its length.
func TestAnyBytes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	bytes := func() string {
		b := make([]byte, r.IntN(1+1<<r.IntN(16)))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	for range 300 {
		o := full()
		o.Path, o.Method, o.Authority, o.RequestID = []byte(bytes()), []byte(bytes()), []byte(bytes()), []byte(bytes())
		h := headers{":path": bytes(), "user-agent": bytes(), "x": bytes()}
		o.Headers = h
		m := decode(t, als.Append([]byte{}, als.HTTP, o, &als.Extra{RequestHeaders: []string{"x"}}), &accesslogpb.StreamAccessLogsMessage_HTTPAccessLogEntries{})
		if got := m.LogEntry[0].GetRequest().GetRequestHeaders()["x"]; len(got) > len(h["x"]) {
			t.Fatalf("%d bytes have become %d", len(h["x"]), len(got))
		}
	}
}
