// SPDX-License-Identifier: Apache-2.0

package health

import (
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/proxy/header"
)

// frame puts a message into its frame.
func frame(m string) string { return string(grpcwire.AppendHead(nil, 0, len(m))) + m }

// fields returns a list of names and values.
func fields(kv ...string) *header.List {
	var l header.List
	for ; len(kv) > 0; kv = kv[2:] {
		l.AddString(kv[0], kv[1])
	}
	return &l
}

// TestJudgeGRPC: the cases are those of Envoy's grpc/health_checker_impl.cc.
func TestJudgeGRPC(t *testing.T) {
	t.Parallel()
	const yes, no = "\x08\x01", "\x08\x02"
	typed := fields("content-type", "application/grpc+proto")
	ok := fields("grpc-status", "0")
	for _, tc := range []struct {
		name     string
		status   int
		head     *header.List
		body     string
		long     bool
		trailers *header.List
		want     string // the reason; "" where it passes
	}{
		{name: "SERVING", body: frame(yes), trailers: ok},
		{name: "SERVING, with fields of a later protocol", body: frame("\x12\x02hi\x19\x01\x02\x03\x04\x05\x06\x07\x08\x25\x01\x02\x03\x04" + yes + "\x28\x05"), trailers: ok},
		{name: "the last value counts", body: frame(no + yes), trailers: ok},
		{name: "beside an empty message", body: frame("") + frame(yes), trailers: ok},
		{name: "NOT_SERVING", body: frame(no), trailers: ok, want: "NOT_SERVING"},
		{name: "UNKNOWN", body: frame("\x08\x00"), trailers: ok, want: "UNKNOWN"},
		{name: "UNKNOWN, as it is written", body: frame(""), trailers: ok, want: "UNKNOWN"},
		{name: "SERVICE_UNKNOWN", body: frame("\x08\x03"), trailers: ok, want: "SERVICE_UNKNOWN"},
		{name: "a status of a later protocol", body: frame("\x08\x07"), trailers: ok, want: "serving status 7"},
		{name: "a negative status", body: frame("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), trailers: ok, want: "serving status -1"},
		{name: "the field has another type", body: frame("\x0a\x01\x01"), trailers: ok, want: "UNKNOWN"},
		{name: "UNIMPLEMENTED, a head alone", head: fields("content-type", "application/grpc", "grpc-status", "12"), want: "grpc-status UNIMPLEMENTED"},
		{name: "NOT_FOUND after a message", body: frame(yes), trailers: fields("grpc-status", "5"), want: "grpc-status NOT_FOUND"},
		{name: "a code that is not defined", body: frame(yes), trailers: fields("grpc-status", "77"), want: "grpc-status 77"},
		{name: "a code that is none", body: frame(yes), trailers: fields("grpc-status", "x"), want: "grpc-status -1"},
		{name: "the trailers have none", body: frame(yes), trailers: fields("x-a", "1"), want: "the answer has no grpc-status"},
		{name: "one in the head does not count", head: fields("content-type", "application/grpc", "grpc-status", "0"), body: frame(yes), want: "the answer has no grpc-status"},
		{name: "no trailers", body: frame(yes), want: "the answer has no grpc-status"},
		{name: "OK without a message", trailers: ok, want: "no message"},
		{name: "OK in a head alone", head: fields("grpc-status", "0"), want: "no message"},
		{name: "a head alone that says nothing", want: "the answer is not gRPC"},
		{name: "a page", head: fields("content-type", "text/html"), body: "<p>", want: "the answer is not gRPC"},
		{name: "a page with all else", head: fields("content-type", "text/html"), body: frame(yes), trailers: ok, want: "the answer is not gRPC"},
		{name: "503", status: 503, body: "no", want: "status 503"},
		{name: "503 without a body", status: 503, want: "status 503"},
		{name: "503 with trailers", status: 503, body: frame(yes), trailers: ok, want: "status 503"},
		{name: "503 and UNAVAILABLE", status: 503, head: fields("grpc-status", "14"), want: "grpc-status UNAVAILABLE"},
		{name: "503 and OK", status: 503, head: fields("grpc-status", "0"), want: "status 503"},
		{name: "two messages", body: frame(yes) + frame(yes), trailers: ok, want: "more than one message"},
		{name: "compressed", body: "\x01\x00\x00\x00\x02" + yes, trailers: ok, want: "the message is compressed"},
		{name: "half a frame's head", body: "\x00\x00", trailers: ok, want: "the message breaks off"},
		{name: "half a message", body: frame(yes)[:6], trailers: ok, want: "the message breaks off"},
		{name: "not protobuf", body: frame("\xff\xff"), trailers: ok, want: "malformed message"},
		{name: "field 0", body: frame("\x00\x01"), trailers: ok, want: "malformed message"},
		{name: "half a field", body: frame(yes + "\x12\x7fhi"), trailers: ok, want: "malformed message"},
		{name: "half a number", body: frame(yes + "\x25\x01"), trailers: ok, want: "malformed message"},
		{name: "too long", body: frame(yes), long: true, want: "the answer is too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := &reply{body: []byte(tc.body), long: tc.long, trailers: tc.trailers}
			r.head.Status = max(tc.status, 200)
			if tc.head == nil {
				tc.head = typed
			}
			r.head.Header.CopyFrom(tc.head)
			want := answer{verdict: passed}
			if tc.want != "" {
				want = answer{verdict: refused, reason: tc.want}
			}
			if got := judgeGRPC(r); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestQuestion holds the request against the generated code.
func TestQuestion(t *testing.T) {
	t.Parallel()
	for _, service := range []string{"", "shop.v1.Orders", string(make([]byte, 300))} {
		m, err := proto.Marshal(&grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(appendQuestion(nil, service)), frame(string(m)); got != want {
			t.Errorf("%q: got %q, want %q", service, got, want)
		}
	}
}

// FuzzStatusField holds the parser against the generated code: they agree on all but groups, which are refused here.
func FuzzStatusField(f *testing.F) {
	for _, m := range []string{"", "\x08\x01", "\x12\x02hi\x08\x02", "\x0b\x0c", "\x19\x01", "\xff\xff"} {
		f.Add([]byte(m))
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		got, ok := statusField(m)
		var want grpc_health_v1.HealthCheckResponse
		err := proto.Unmarshal(m, &want)
		switch {
		case ok && err != nil:
			t.Fatalf("%q is taken; protobuf says %v", m, err)
		case ok && got != int32(want.Status):
			t.Fatalf("%q is %d, want %d", m, got, want.Status)
		case !ok && err == nil && !hasGroup(m):
			t.Fatalf("%q is refused, and protobuf says %d", m, want.Status)
		}
	})
}

func hasGroup(m []byte) bool {
	for len(m) > 0 {
		_, typ, n := protowire.ConsumeField(m)
		if typ == protowire.StartGroupType || n < 0 {
			return true
		}
		m = m[n:]
	}
	return false
}
