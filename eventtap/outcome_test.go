// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/conformance/sink/cloudevents"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests see to testdata")

// headers is a mesh.Headers.
type headers map[string]string

func (h headers) RequestHeader(name string) []byte {
	if v, ok := h[name]; ok {
		return []byte(v)
	}
	return nil
}
func (h headers) ResponseHeader(string) []byte  { return nil }
func (h headers) ResponseTrailer(string) []byte { return nil }

// sampleOutcome is a request as most are.
func sampleOutcome() *mesh.Outcome {
	return &mesh.Outcome{
		Start: 1763790000123456789, Duration: 1234567, RequestEnd: 0, UpstreamStart: 21000, UpstreamFirst: 1200000,
		UpstreamEnd: 1220000, Listener: "0.0.0.0_80", FilterChain: "", Direction: mesh.Outbound,
		Remote: netip.MustParseAddrPort("203.0.113.77:51234"), Local: netip.MustParseAddrPort("10.9.8.7:80"),
		ConnectionID: 77, Protocol: mesh.HTTP11, RouteTable: "80", VirtualHost: "payments:80", RouteName: "default",
		RouteTemplate: "/api/v1/payments/", Cluster: "outbound|80||payments.shop",
		Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("payments"),
		Path: []byte("/api/v1/payments/4711?token=x"), UpstreamPath: []byte("/api/v1/payments/4711?token=x"),
		RequestID: []byte("3f2b8c9a-1d2e-4f5a-8b7c-9d0e1f2a3b4c"), Status: 200, Details: "via_upstream",
		BytesSent: 1024, RequestHeaderBytes: 420, AnswerHeaderBytes: 310, UpstreamBytesSent: 480, UpstreamBytesGotten: 1334,
		Upstream: mesh.Address{IP: netip.MustParseAddrPort("10.1.2.3:8080")}, UpstreamProtocol: mesh.HTTP11,
		UpstreamLocality: mesh.Locality{Region: "eu", Zone: "eu-1", SubZone: "a"}, UpstreamTook: 1190000, Attempts: 1,
		Circuit:  mesh.CircuitClosed,
		Versions: mesh.Versions{Listeners: "17", Routes: "18", Clusters: "19"}, EndpointVersion: "20",
	}
}

// outcomes are the cases of testdata/outcomes.txtar.
var outcomes = []struct {
	name    string
	change  func(*mesh.Outcome)
	trace   string
	network bool
}{
	{name: "answered", change: func(*mesh.Outcome) {}},
	{name: "traced", change: func(*mesh.Outcome) {}, trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	{name: "traced-badly", change: func(*mesh.Outcome) {}, trace: "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	{name: "client-network", change: func(*mesh.Outcome) {}, network: true},
	{name: "client-network-v6", network: true, change: func(o *mesh.Outcome) {
		o.Remote = netip.MustParseAddrPort("[2001:db8:1:2:3:4:5:6]:1")
	}},
	{name: "retried", change: func(o *mesh.Outcome) {
		o.Attempts = 3
		o.Tries = []mesh.Try{
			{Upstream: mesh.Address{IP: netip.MustParseAddrPort("10.1.2.4:8080")}, Failure: mesh.ConnectFailure, Took: 500},
			{Upstream: mesh.Address{Pipe: "/run/app.sock"}, Status: 503, Took: 600},
		}
	}},
	{name: "circuit-open", change: func(o *mesh.Outcome) {
		o.Status, o.Failure, o.Side, o.Flags, o.Circuit = 503, mesh.CircuitOpen, mesh.SideInternal, mesh.FlagUO, mesh.CircuitIsOpen
		o.Fallback, o.Details, o.Upstream, o.Attempts = true, "circuit_open", mesh.Address{}, 0
		o.UpstreamStart, o.UpstreamFirst, o.UpstreamEnd, o.UpstreamTook = -1, -1, -1, -1
	}},
	{name: "upstream-error", change: func(o *mesh.Outcome) { o.Status = 502 }},
	{name: "no-route", change: func(o *mesh.Outcome) {
		*o = mesh.Outcome{Listener: "web", Start: o.Start, Method: []byte("BREW"), Scheme: []byte("coffee"), Status: 404,
			Failure: mesh.NoRoute, Flags: mesh.FlagNR, RequestEnd: -1, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1, UpstreamTook: -1}
	}},
	{name: "nothing-known", change: func(o *mesh.Outcome) {
		*o = mesh.Outcome{RequestEnd: -1, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1, UpstreamTook: -1}
	}},
	{name: "control-characters", change: func(o *mesh.Outcome) {
		o.Cluster, o.RouteName = "a\x1b[31m\r\nb", "\u202ecba\u2028\xff"
		o.RequestID = []byte("id\n")
	}},
	{name: "unix-socket", change: func(o *mesh.Outcome) { o.Upstream = mesh.Address{Pipe: "/run/app.sock"} }},
	{name: "grpc", change: func(o *mesh.Outcome) {
		o.GRPC, o.Path, o.Method = true, []byte("/shop.v1.Payments/Watch?x=1"), []byte("POST")
		o.RequestMessages, o.ResponseMessages = 1, 4711
	}},
	{name: "grpc-failure", change: func(o *mesh.Outcome) {
		o.GRPC, o.GRPCStatus, o.Path = true, 14, []byte("/shop.v1.Payments/Pay")
	}},
	{name: "grpc-client-error", change: func(o *mesh.Outcome) {
		o.GRPC, o.GRPCStatus, o.Path = true, 5, []byte("/shop.v1.Payments/Pay")
	}},
	{name: "grpc-unknown-code", change: func(o *mesh.Outcome) { o.GRPC, o.GRPCStatus = true, 77 }},
	{name: "grpc-unknown-to-the-upstream", change: func(o *mesh.Outcome) {
		o.GRPC, o.GRPCStatus, o.Path = true, 12, []byte("/made.up/Name")
	}},
	{name: "grpc-unanswered", change: func(o *mesh.Outcome) {
		o.GRPC, o.GRPCStatus, o.Path, o.UpstreamTook = true, -1, []byte("/made.up/Name"), -1
	}},
	{name: "connection", change: func(o *mesh.Outcome) {
		o.Kind, o.Status, o.Method, o.Scheme, o.Protocol = mesh.OutcomeTCP, 0, nil, nil, mesh.ProtocolNone
		o.FilterChain, o.Flags, o.Failure, o.TransportFailure = "tcp", mesh.FlagUF, mesh.ConnectFailure, "connection refused"
		o.BytesReceived = 17
	}},
}

// encode makes an event of an outcome as the tap does.
func encode(o *mesh.Outcome, trace string, network bool) *event.Event {
	rec := make([]byte, maxRecord)
	rec = rec[:putOutcome(rec, o, []byte(trace), network)]
	e := new(event.Event)
	new(filler).outcome(e, rec)
	e.ID, e.Source, e.BootID, e.Sequence = []byte("boot-1"), []byte("/meshtap/c/-/-/p"), []byte("boot"), 1
	return e
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	var got txtar.Archive
	for _, c := range outcomes {
		o := sampleOutcome()
		c.change(o)
		e := encode(o, c.trace, c.network)
		js := e.AppendJSON(nil)
		if err := cloudevents.CheckJSON(js); err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, js)
		}
		var back event.Event
		if err := back.DecodeProto(e.AppendProto(nil)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if other := back.AppendJSON(nil); !bytes.Equal(js, other) {
			t.Errorf("%s: by way of protobuf:\n%s\n%s", c.name, other, js)
		}
		got.Files = append(got.Files, txtar.File{Name: c.name, Data: spread(js)})
	}
	golden(t, "outcomes.txtar", &got)
}

// spread puts each member of an event on a line of its own, for reading.
func spread(js []byte) []byte {
	s := strings.ReplaceAll(string(js), `,"`, ",\n\"")
	return []byte(strings.ReplaceAll(s, `{"`, "{\n\"") + "\n")
}

func golden(t *testing.T, name string, got *txtar.Archive) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range got.Files {
		if i >= len(want.Files) || want.Files[i].Name != f.Name {
			t.Fatalf("%s has no %s at its place; run with -rewrite", path, f.Name)
		}
		if !bytes.Equal(f.Data, want.Files[i].Data) {
			t.Errorf("%s: %s is\n%s\nwant\n%s", path, f.Name, f.Data, want.Files[i].Data)
		}
	}
	if len(want.Files) != len(got.Files) {
		t.Errorf("%s has %d cases, want %d", path, len(want.Files), len(got.Files))
	}
}

// TestLargestEvent makes every text as long as it may be, of bytes that take the most room, in both encodings.
func TestLargestEvent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ what, fill string }{{"control bytes", "\x01"}, {"not UTF-8", "\xff"}, {"wide", "\u202e"}} {
		o := largest(strings.Repeat(c.fill, 4096))
		trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		e := encode(o, trace, true)
		e.Source = source(Source{}, mesh.Node{ID: strings.Repeat("\x01", 4096), Cluster: strings.Repeat("\x01", 4096)})
		e.StreamSeq = 1<<64 - 1
		e.BootID, e.ID = []byte(strings.Repeat("f", 24)), []byte(strings.Repeat("f", 45))
		js, pb := e.AppendJSON(nil), e.AppendProto(nil)
		if len(js) > event.MaxSize || len(pb) > event.MaxSize {
			t.Errorf("%s: %d bytes of JSON, %d of protobuf, at most %d are promised", c.what, len(js), len(pb), event.MaxSize)
		}
		if err := cloudevents.CheckJSON(js); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if err := new(event.Event).DecodeProto(pb); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// largest fills every field of an outcome.
func largest(text string) *mesh.Outcome {
	o := sampleOutcome()
	v := reflect.ValueOf(o).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(text)
		case reflect.Int64:
			f.SetInt(1 << 62)
		}
	}
	o.RequestID = []byte(strings.Repeat("a", 64))
	o.GRPC, o.GRPCStatus = true, 1<<32-1
	o.Path = []byte("/" + strings.Repeat("s", maxService) + "/" + strings.Repeat("m", maxMethod))
	o.Start, o.Flags, o.Failure, o.Side, o.Circuit = 4e18+1, 1<<27-1, mesh.NoFailure, mesh.SideDownstream, mesh.CircuitHalfOpen
	o.Upstream = mesh.Address{Pipe: text}
	o.Local = netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:65535")
	o.Remote, o.ConnectionID, o.Status, o.Attempts, o.Fallback = o.Local, 1<<64-1, 1<<16-1, 1<<20, true
	o.UpstreamLocality = mesh.Locality{Region: text, Zone: text, SubZone: text}
	o.Versions = mesh.Versions{Listeners: text, Routes: text, Clusters: text}
	for range 9 {
		o.Tries = append(o.Tries, mesh.Try{Upstream: mesh.Address{Pipe: text}, Failure: mesh.DownstreamProtocolError, Status: 1<<16 - 1, Took: 1 << 62})
	}
	return o
}

// TestRecordSize holds maxRecord against the limits.
func TestRecordSize(t *testing.T) {
	t.Parallel()
	sum := atTexts + event.MaxItems*trySize
	for _, l := range limits {
		sum += int(l)
	}
	if sum != maxRecord {
		t.Errorf("the texts' limits make %d, maxRecord is %d", sum, maxRecord)
	}
	if n := putOutcome(make([]byte, maxRecord), largest(strings.Repeat("x", 4096)), bytes.Repeat([]byte("x"), traceParentLen), true); n > maxRecord {
		t.Errorf("a record has %d bytes, maxRecord is %d", n, maxRecord)
	}
}

// TestNoPersonalData plants a secret in everything that a client can write, and looks for it in both encodings and in
// the record itself.
func TestNoPersonalData(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-jane.doe@example.com"
	o := sampleOutcome()
	o.Method = []byte("X" + secret)
	o.Scheme = []byte(secret)
	o.Authority = []byte(secret + ".example")
	o.Path = []byte("/user/" + secret + "?token=" + secret + "&card=4111111111111111")
	o.UpstreamPath = o.Path
	o.ServerName = secret
	o.RequestID = []byte(secret)
	o.Remote = netip.MustParseAddrPort("198.51.100.23:40000")
	o.DirectRemote = o.Remote
	o.Headers = everyHeader(secret)
	o.GRPC = true
	for _, path := range []string{"/user/" + secret, "/s3cr3t-1/x", "/user/s3cr3t%20", "/user/" + strings.Repeat("s3cr3t", 20), "/s3cr3t"} {
		o.Path = []byte(path)
		checkNothing(t, o, path, secret)
	}
	o.GRPC, o.Path = false, o.UpstreamPath
	checkNothing(t, o, "the path as it was", secret)
}

// checkNothing looks for what was planted.
func checkNothing(t *testing.T, o *mesh.Outcome, path, secret string) {
	t.Helper()
	for _, network := range []bool{false, true} {
		rec := make([]byte, maxRecord)
		rec = rec[:putOutcome(rec, o, o.Headers.RequestHeader("traceparent"), network)]
		e := encode(o, secret, network)
		for what, b := range map[string][]byte{"JSON": e.AppendJSON(nil), "protobuf": e.AppendProto(nil)} {
			for _, planted := range []string{"s3cr3t", "example.com", "token", "4111", "198.51.100.23"} {
				if bytes.Contains(b, []byte(planted)) {
					t.Errorf("%s, client network %v: %s holds %q:\n%q", path, network, what, planted, b)
				}
			}
		}
		if raw := o.Remote.Addr().As16(); bytes.Contains(rec, raw[:]) {
			t.Error("the record holds the client's whole address")
		}
	}
}

// everyHeader answers every look-up with itself.
type everyHeader string

func (h everyHeader) RequestHeader(string) []byte   { return []byte(h) }
func (h everyHeader) ResponseHeader(string) []byte  { return []byte(h) }
func (h everyHeader) ResponseTrailer(string) []byte { return []byte(h) }

func TestOutcomeIsNotChanged(t *testing.T) {
	t.Parallel()
	o := largest("text")
	before := fmt.Sprintf("%+v", o)
	encode(o, "", true)
	if after := fmt.Sprintf("%+v", o); after != before {
		t.Errorf("%s\n%s", before, after)
	}
}

// TestSource covers what may stand in a source.
func TestSource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		s    Source
		n    mesh.Node
		want string
	}{
		{"the node", Source{}, mesh.Node{ID: "p", Cluster: "c"}, "/meshtap/c/-/-/p"},
		{"nothing", Source{}, mesh.Node{}, "/meshtap/-/-/-/-"},
		{"all of it", Source{"a", "b", "c", "d"}, mesh.Node{ID: "p", Cluster: "c"}, "/meshtap/a/b/c/d"},
		{"an Istio node", Source{}, mesh.Node{ID: "sidecar~10.0.0.1~pod.ns~ns.svc", Cluster: "x"}, "/meshtap/x/-/-/sidecar~10.0.0.1~pod.ns~ns.svc"},
		{"what a URI cannot hold", Source{Cluster: "a/b c\n"}, mesh.Node{ID: "p"}, "/meshtap/a%2Fb%20c%0A/-/-/p"},
	} {
		if got := string(source(c.s, c.n)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
