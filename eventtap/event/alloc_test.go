// SPDX-License-Identifier: Apache-2.0

package event

import (
	"testing"

	"github.com/meshtap/meshtap/internal/invariant"
)

// typical is a request as most are: answered, not repeated, in a mesh with names of usual length.
func typical() *Event {
	e := new(Event)
	e.Reset(Request)
	e.ID, e.BootID = []byte("9f86d081884c7d65673f2a10-1234567"), []byte("9f86d081884c7d65673f2a10")
	e.Source = []byte("/meshtap/prod/shop/orders/orders-7d9c6b5f4-x2x7q")
	e.Subject, e.PartitionKey = []byte("outbound|80||payments.shop"), []byte("outbound|80||payments.shop")
	e.Time, e.Sequence = 1763790000123456789, 1234567
	for n, s := range map[Text]string{
		Method: "GET", Route: "/api/v1/payments/", Scheme: "http", ProtocolVersion: "1.1", PeerAddress: "10.1.2.3",
		LocalAddress: "10.9.8.7", Direction: "outbound", Listener: "0.0.0.0_80", VirtualHost: "payments:80",
		RouteName: "default", Cluster: "outbound|80||payments.shop", RequestID: "3f2b8c9a-1d2e-4f5a-8b7c-9d0e1f2a3b4c",
		Details: "via_upstream", UpstreamProtocol: "1.1", CircuitState: "closed", ListenersVersion: "17",
		RoutesVersion: "18", ClustersVersion: "19", EndpointsVersion: "20",
	} {
		e.Texts[n] = []byte(s)
	}
	for n, v := range map[Number]int64{
		Status: 200, Duration: 1234567, ResponseBodySize: 1024, PeerPort: 8080, LocalPort: 80, ConnectionID: 77,
		RequestHeaderSize: 420, ResponseHeaderSize: 310, UpstreamSentSize: 480, UpstreamReceivedSize: 1334,
		RequestEnd: 1000, UpstreamStart: 21000, UpstreamFirst: 1200000, UpstreamEnd: 1220000, UpstreamTook: 1190000, Attempts: 1,
	} {
		e.Numbers[n] = v
	}
	return e
}

func TestNoAllocations(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector allocates")
	}
	e := typical()
	buf := make([]byte, 0, MaxSize)
	pb := e.AppendProto(nil)
	var d Event
	for name, f := range map[string]func(){
		"AppendProto": func() { e.AppendProto(buf) },
		"AppendJSON":  func() { e.AppendJSON(buf) },
		"DecodeProto": func() { _ = d.DecodeProto(pb) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkAppendProto(b *testing.B) {
	e := typical()
	buf := make([]byte, 0, MaxSize)
	b.ReportMetric(float64(len(e.AppendProto(buf))), "bytes")
	for b.Loop() {
		e.AppendProto(buf)
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	e := typical()
	buf := make([]byte, 0, MaxSize)
	b.ReportMetric(float64(len(e.AppendJSON(buf))), "bytes")
	for b.Loop() {
		e.AppendJSON(buf)
	}
}

func BenchmarkDecodeProto(b *testing.B) {
	pb := typical().AppendProto(nil)
	var e Event
	for b.Loop() {
		if e.DecodeProto(pb) != nil {
			b.Fatal("refused")
		}
	}
}

func BenchmarkDecodeJSON(b *testing.B) {
	js := typical().AppendJSON(nil)
	var e Event
	for b.Loop() {
		if e.DecodeJSON(js) != nil {
			b.Fatal("refused")
		}
	}
}
