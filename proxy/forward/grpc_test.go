// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
)

// TestGRPCTimeouts: what the upstream is told of the time that there is. The cases are Envoy 1.40's.
func TestGRPCTimeouts(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) *time.Duration { return &d }
	const s, ms = time.Second, time.Millisecond
	old := func(most time.Duration) mesh.GRPCTimeouts { return mesh.GRPCTimeouts{Max: at(most), Offset: 100 * ms} }
	header := func(most time.Duration) mesh.GRPCTimeouts {
		return mesh.GRPCTimeouts{Durations: true, HeaderMax: at(most), HeaderOffset: 100 * ms}
	}
	durations := mesh.GRPCTimeouts{Durations: true}
	for _, c := range []struct {
		name     string
		grpc     mesh.GRPCTimeouts
		duration *time.Duration
		manager  time.Duration
		other    string // another content-type
		asked    string // grpc-timeout
		limit    string // x-envoy-upstream-rq-timeout-ms
		told     string // grpc-timeout upstream, "" for none
		expected string // x-envoy-expected-rq-timeout-ms, "" for none
	}{
		{name: "no option", asked: "500m", told: "500m", expected: "300"},
		{name: "the older way", grpc: old(s), asked: "500m", told: "400m", expected: "400"},
		{name: "the older way, too far", grpc: old(s), asked: "5S", told: "1000m", expected: "1000"},
		{name: "the older way, too near for the offset", grpc: old(s), asked: "50m", told: "50m", expected: "50"},
		{name: "the older way without a header", grpc: old(s), told: "1000m", expected: "1000"},
		{name: "the older way without a limit", grpc: old(0), asked: "1H", told: "3599900m", expected: "3599900"},
		{name: "the older way without either", grpc: old(0)},
		{name: "the older way, no gRPC", grpc: old(s), other: "text/plain", asked: "500m", told: "500m", expected: "300"},
		{name: "the older way, the request's own limit", grpc: old(s), asked: "500m", limit: "77", told: "77m", expected: "77"},
		{name: "max_stream_duration", grpc: header(s), asked: "500m", told: "400m"},
		{name: "max_stream_duration, too far", grpc: header(s), asked: "5S", told: "900m"},
		{name: "max_stream_duration without a limit", grpc: header(0), asked: "1H", told: "3599900m"},
		{name: "max_stream_duration without a header", grpc: header(s)},
		{name: "max_stream_duration, no gRPC", grpc: header(s), other: "text/plain", asked: "500m", told: "500m"},
		{name: "max_stream_duration, unreadable", grpc: header(s), asked: "5x", told: "5x"},
		{name: "a duration of the route", grpc: durations, duration: at(2 * s), asked: "500m", told: "2000m"},
		{name: "a duration of the manager", grpc: durations, manager: 3 * s, told: "3000m"},
		{name: "none of the route takes away the manager's", grpc: durations, duration: at(0), manager: 3 * s, asked: "500m"},
		{name: "none at all", grpc: durations, duration: at(0), asked: "500m", told: "500m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			up := play(t, ok)
			r.add("c", nil, up.addr)
			q := get(to("c", func(a *mesh.RouteAction) { a.Timeout, a.GRPC, a.MaxStreamDuration = 300*ms, c.grpc, c.duration }))
			kind := "application/grpc"
			if c.other != "" {
				kind = c.other
			}
			q.fields = [][2]string{{"content-type", kind}}
			if c.asked != "" {
				q.fields = append(q.fields, [2]string{"grpc-timeout", c.asked})
			}
			if c.limit != "" {
				q.fields = append(q.fields, [2]string{"x-envoy-upstream-rq-timeout-ms", c.limit})
			}
			q.manager.MaxStreamDuration = c.manager
			q.prepare = func(x *exchange.Exchange) { x.IsGRPC = c.other == "" }
			if p := r.do(q); p.Status != 200 {
				t.Fatalf("%d, %s", p.Status, p.Details)
			}
			heads, _ := up.got()
			if got := fieldOf(heads[0], "grpc-timeout"); got != c.told {
				t.Errorf("the upstream is told %q, want %q", got, c.told)
			}
			if got := fieldOf(heads[0], "x-envoy-expected-rq-timeout-ms"); got != c.expected {
				t.Errorf("the answer is expected within %q, want %q", got, c.expected)
			}
		})
	}
}

func fieldOf(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, v, ok := strings.Cut(line, ": "); ok && strings.EqualFold(n, name) {
			return v
		}
	}
	return ""
}

// TestGRPCOutcome: what is told of a call, and what its host is taken for.
func TestGRPCOutcome(t *testing.T) {
	t.Parallel()
	const grpc = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n"
	const chunked = grpc + "Transfer-Encoding: chunked\r\n\r\n"
	const two = "\x00\x00\x00\x00\x01a\x00\x00\x00\x00\x02bc"
	for _, c := range []struct {
		name, answer string
		messages     int64
		failed       bool
	}{
		{"trailers", chunked + "d\r\n" + two + "\r\n0\r\ngrpc-status: 0\r\n\r\n", 2, false},
		{"the client's failure in trailers", chunked + "0\r\ngrpc-status: 5\r\n\r\n", 0, false},
		{"a failure in trailers", chunked + "0\r\ngrpc-status: 14\r\n\r\n", 0, true},
		{"a failure in a head alone", grpc + "Content-Length: 0\r\ngrpc-status: 13\r\n\r\n", 0, true},
		{"a success in a head alone", grpc + "Content-Length: 0\r\ngrpc-status: 0\r\n\r\n", 0, false},
		{"a status that is none", grpc + "Content-Length: 0\r\ngrpc-status: abc\r\n\r\n", 0, true},
		{"no gRPC", "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + two, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			cl := r.add("c", nil, play(t, c.answer).addr)
			q := get(to("c"))
			q.method, q.length = "POST", codec.Unknown
			q.body, q.here = []string{two[:3], two[3:] + two[:4]}, 1
			q.fields = [][2]string{{"content-type", "application/grpc+proto"}}
			q.manager.EnableTrailers = true
			p := r.do(q)
			if !p.GRPC || p.RequestMessages != 2 || p.ResponseMessages != c.messages || p.Status != 200 {
				t.Errorf("%+v", p.Outcome)
			}
			h := cl.Hosts()[0]
			if v := h.View(mono.Now()); (v.Errors == 1) != c.failed || (v.Success == 1) == c.failed {
				t.Errorf("the host has %+v", v)
			}
		})
	}
}
