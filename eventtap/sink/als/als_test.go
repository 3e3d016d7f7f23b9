// SPDX-License-Identifier: Apache-2.0

package als

import (
	"context"
	"fmt"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datapb "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/test/conformance/sink"
	"github.com/meshtap/meshtap/test/e2e/origin"
)

// logged are the common properties of all entries, in order.
func logged(messages []origin.Message) (out []*datapb.AccessLogCommon) {
	for _, m := range messages {
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			out = append(out, e.GetCommonProperties())
		}
		for _, e := range m.GetTcpLogs().GetLogEntry() {
			out = append(out, e.GetCommonProperties())
		}
	}
	return out
}

// events are the events that the entries hold.
func events(c *origin.Collector) (out [][]byte) {
	for _, e := range logged(c.Until(func([]origin.Message) bool { return true })) {
		out = append(out, e.GetFilterStateObjects()[stateKey].GetValue())
	}
	return out
}

// TestConformance runs what of the suite is for a bus that cannot fail: one without acknowledgements keeps no promise then.
func TestConformance(t *testing.T) {
	t.Parallel()
	sink.Run(t, func(t *testing.T) sink.Bus {
		c := origin.StartCollector(t)
		return sink.Bus{
			Sink:   func(*testing.T) eventtap.Sink { return New(Config{Address: c.Addr(), LogName: "tap"}) },
			Events: func(*testing.T) [][]byte { return events(c) },
			Secure: func(t *testing.T) (*sink.Authority, func(login.TLS) eventtap.Sink) {
				a := sink.NewAuthority(t)
				c := origin.StartCollector(t, grpc.Creds(credentials.NewTLS(a.Server(t))))
				return a, func(l login.TLS) eventtap.Sink {
					return New(Config{Address: c.Addr(), LogName: "tap", TLS: &l})
				}
			},
		}
	})
}

// TestOutage: over outages, all is accounted for, nothing comes twice, and no more came than was delivered.
func TestOutage(t *testing.T) {
	t.Parallel()
	c := origin.StartCollector(t)
	tap := sink.NewTap(t, eventtap.DefaultMemory, New(Config{Address: c.Addr(), LogName: "tap"}))
	n := 0
	observe := func() {
		for range 100 {
			tap.Observe(sink.Outcome(fmt.Sprint("svc-", n%5), n))
			n++
		}
	}
	until := func(right func(eventtap.SinkAccount) bool) {
		for late := time.Now().Add(time.Minute); !right(sink.Check(t, tap)); time.Sleep(time.Millisecond) {
			if time.Now().After(late) {
				t.Fatalf("still %+v", sink.Check(t, tap))
			}
		}
	}
	for range 3 {
		observe()
		acked := sink.Check(t, tap).Acked
		until(func(a eventtap.SinkAccount) bool { return a.Acked > acked })
		c.Kill()
		observe()
		c.Revive()
		observe()
		until(func(a eventtap.SinkAccount) bool { return a.Pending == 0 })
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := tap.Close(ctx); err != nil {
		t.Fatal(err)
	}
	a := sink.Check(t, tap)
	seen := map[string]bool{}
	for _, b := range events(c) {
		e := sink.Decode(t, b)
		if seen[string(e.ID)] {
			t.Fatalf("event %s came twice", e.ID)
		}
		seen[string(e.ID)] = true
	}
	if uint64(len(seen)) > a.Acked || a.Acked != uint64(n) || len(seen) == 0 {
		t.Errorf("%d were observed, %d count as delivered, %d came", n, a.Acked, len(seen))
	}
}

// full is an event of a kind in which everything is set.
func full(k event.Kind) *event.Event {
	e := &event.Event{}
	e.Reset(k)
	e.ID, e.Source, e.PartitionKey, e.Time, e.Sequence, e.StreamSeq = []byte("b-1"), []byte("/m"), []byte("k"), 5e9, 1, 1
	for i, name := range []event.Text{event.Method, event.Scheme, event.Details, event.TransportFailure, event.Termination, event.RouteName, event.Cluster, event.RequestID} {
		e.Texts[name] = fmt.Appendf(nil, "text%d", i)
	}
	e.Texts[event.ProtocolVersion], e.Texts[event.ResponseFlags] = []byte("2"), []byte("DI,UF")
	e.Texts[event.ClientAddress], e.Texts[event.LocalAddress], e.Texts[event.PeerAddress] = []byte("10.0.0.0"), []byte("10.0.0.2"), []byte("10.0.0.3")
	for i, name := range []event.Number{
		event.Duration, event.RequestEnd, event.UpstreamStart, event.UpstreamFirst, event.UpstreamEnd, event.LocalPort, event.PeerPort, event.Status,
		event.Attempts, event.RequestBodySize, event.ResponseBodySize, event.RequestHeaderSize, event.ResponseHeaderSize, event.UpstreamSentSize,
		event.UpstreamReceivedSize,
	} {
		e.Numbers[name] = int64(i + 1)
	}
	return e
}

func at(ip string, port uint32) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: ip, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: port},
	}}}
}

// TestEntries: what an event tells is where Envoy's entries have it, and events of other kinds hold their place in the order.
func TestEntries(t *testing.T) {
	t.Parallel()
	c := origin.StartCollector(t)
	s := New(Config{Address: c.Addr(), LogName: "tap"})
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := &eventtap.Batch{}
	for _, k := range []event.Kind{event.Request, event.Circuit, event.Connection, event.Request} {
		e := full(k)
		b.Events = append(b.Events, eventtap.Event{ID: e.ID, Kind: k, Body: e.AppendProto(nil)})
	}
	s.Send(t.Context(), b, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := c.Until(func(m []origin.Message) bool { return len(logged(m)) == 4 })
	if len(got) != 3 || got[0].Log != "tap" || got[0].GetIdentifier().GetNode().GetId() != "/m" {
		t.Errorf("%d messages, the first from %v", len(got), got[0].GetIdentifier())
	}
	for i, e := range logged(got) {
		if v := e.GetFilterStateObjects()[stateKey]; v.GetTypeUrl() != "type.googleapis.com/"+stateType || string(v.GetValue()) != string(b.Events[i].Body) {
			t.Errorf("entry %d holds %v", i, v)
		}
		e.FilterStateObjects = nil
	}
	common := &datapb.AccessLogCommon{
		DownstreamRemoteAddress: at("10.0.0.0", 0), DownstreamLocalAddress: at("10.0.0.2", 6), UpstreamRemoteAddress: at("10.0.0.3", 7),
		StartTime: &timestamppb.Timestamp{Seconds: 5}, Duration: durationpb.New(1), TimeToLastDownstreamTxByte: durationpb.New(1),
		TimeToLastRxByte: durationpb.New(2), TimeToFirstUpstreamTxByte: durationpb.New(3), TimeToLastUpstreamTxByte: durationpb.New(3),
		TimeToFirstUpstreamRxByte: durationpb.New(4), TimeToLastUpstreamRxByte: durationpb.New(5),
		UpstreamCluster: "text6", RouteName: "text5", UpstreamTransportFailureReason: "text3", ConnectionTerminationDetails: "text4", StreamId: "text7",
		UpstreamRequestAttemptCount: 9, UpstreamWireBytesSent: 14, UpstreamWireBytesReceived: 15, AccessLogType: datapb.AccessLogType_DownstreamEnd,
		ResponseFlags: &datapb.ResponseFlags{DelayInjected: true, UpstreamConnectionFailure: true},
	}
	want := &datapb.HTTPAccessLogEntry{
		CommonProperties: common, ProtocolVersion: datapb.HTTPAccessLogEntry_HTTP2,
		Request: &datapb.HTTPRequestProperties{
			Scheme: "text1", RequestId: "text7", RequestBodyBytes: 10, RequestHeadersBytes: 12, DownstreamHeaderBytesReceived: 12,
		},
		Response: &datapb.HTTPResponseProperties{
			ResponseCode: wrapperspb.UInt32(8), ResponseCodeDetails: "text2", ResponseBodyBytes: 11, ResponseHeadersBytes: 13, DownstreamHeaderBytesSent: 13,
		},
	}
	if e := got[0].GetHttpLogs().GetLogEntry()[0]; !proto.Equal(e, want) {
		t.Errorf("got  %v\nwant %v", e, want)
	}
	tcp := got[1].GetTcpLogs().GetLogEntry()
	if e := tcp[0].GetCommonProperties(); !proto.Equal(e, &datapb.AccessLogCommon{StartTime: &timestamppb.Timestamp{Seconds: 5}, AccessLogType: datapb.AccessLogType_TcpConnectionEnd}) {
		t.Errorf("a circuit's is %v", e)
	}
	if e := tcp[1]; e.GetConnectionProperties().GetReceivedBytes() != 10 || e.GetConnectionProperties().GetSentBytes() != 11 ||
		e.GetCommonProperties().GetUpstreamCluster() != "text6" {
		t.Errorf("a connection's is %v", e)
	}
}
