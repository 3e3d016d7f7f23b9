// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// call is a call that an example serves, and what must come of it.
type call struct {
	name, path, contentType string
	header                  []string
	body                    string
	status                  int
	messages                []string // of the body, which is in frames; "" where it is compared as it is
	raw                     string
	head, trailer           []string // as in Want.Header
}

// calls makes them in order.
func calls(t *testing.T, r *Rig, list []call) {
	t.Helper()
	for _, c := range list {
		a, trailer := r.call(t, c)
		want := Want{Status: c.status, Header: c.head}
		wrong := want.wrong(a)
		if c.messages != nil {
			if got := strings.Join(origin.Messages([]byte(a.Body)), "|"); got != strings.Join(c.messages, "|") {
				wrong = append(wrong, "messages "+got)
			}
		} else if a.Body != c.raw {
			wrong = append(wrong, "a body that is not "+c.raw)
		}
		wrong = append(wrong, Want{Status: c.status, Header: c.trailer}.wrong(Answer{Status: c.status, Header: trailer})...)
		for _, w := range wrong {
			t.Errorf("%s: %s\nanswer: %d %v\n%q\n%v", c.name, w, a.Status, a.Header, a.Body, trailer)
		}
	}
}

func (r *Rig) call(t *testing.T, c call) (Answer, http.Header) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sidecar.Hang)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+r.Addr("")+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", or(c.contentType, "application/grpc"))
	for _, line := range c.header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	return Answer{resp.StatusCode, resp.Header, string(body)}, resp.Trailer
}

var (
	ping  = string(origin.Frame("ping"))
	ended = []string{"grpc-status: 0"}
)

func grpcCalls(t *testing.T, r *Rig) {
	t.Helper()
	const pay = "/shop.v1.Payments/Pay"
	calls(t, r, []call{
		{name: "a call", path: pay, body: ping, status: 200, messages: []string{pay + "  ping"}, trailer: ended},
		{name: "with a deadline", path: pay, header: []string{"grpc-timeout: 5S"}, body: ping, status: 200, messages: []string{pay + " 4900m ping"}, trailer: ended},
		{name: "with one that is too far", path: pay, header: []string{"grpc-timeout: 1H"}, body: ping, status: 200, messages: []string{pay + " 9900m ping"}, trailer: ended},
		{name: "that is over", path: pay, header: []string{"grpc-timeout: 100m"}, body: ping, status: 200, head: []string{"grpc-status: 4", "content-type: application/grpc"}},
		{name: "two messages", path: "/shop.v1.Events/Watch", body: ping + ping, status: 200, messages: []string{"/shop.v1.Events/Watch  ping", "/shop.v1.Events/Watch  ping"}, trailer: ended},
		{name: "a failure", path: pay, header: []string{"x-do: status=5"}, body: ping, status: 200, messages: []string{pay + "  ping"}, trailer: []string{"grpc-status: 5", "grpc-message: status 5"}},
		{name: "a failure without a body", path: pay, header: []string{"x-do: head=9"}, body: ping, status: 200, head: []string{"grpc-status: 9", "grpc-message: status 9"}},
		{name: "made again", path: pay, header: []string{"x-do: fail=2", "x-case: again"}, body: ping, status: 200, messages: []string{pay + "  ping"}, trailer: ended},
		{name: "no route", path: "/shop.v1.Nothing/At", body: ping, status: 200, head: []string{"grpc-status: 12", "content-type: application/grpc", "content-length: 0"}},
		{name: "a direct response", path: "/shop.v1.Old/Pay", body: ping, status: 200, head: []string{"grpc-status: 14", "grpc-message: switched off"}},
		{name: "nobody there", path: "/dead.v1.Service/Do", body: ping, status: 200, head: []string{"grpc-status: 14"}},
		{name: "no gRPC", path: pay, contentType: "text/plain", body: ping, status: 404},
	})
	r.countersAre(t, map[string]int{
		"cluster.payments.grpc.shop.v1.Payments.Pay.success":                4,
		"cluster.payments.grpc.shop.v1.Payments.Pay.5":                      1,
		"cluster.payments.grpc.shop.v1.Payments.Pay.request_message_count":  7,
		"cluster.payments.grpc.shop.v1.Payments.Pay.response_message_count": 5,
		"cluster.payments.grpc.success":                                     1,
		"cluster.payments.grpc.request_message_count":                       2,
		"cluster.dead.grpc.14":                                              1,
	})
}

// countersAre compares counters, once the proxy has counted what was answered.
func (r *Rig) countersAre(t *testing.T, want map[string]int) {
	t.Helper()
	got := r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["http.http.downstream_rq_active"] == 0 })
	for name, n := range want {
		if got[name] != int64(n) {
			t.Errorf("%s is %d, want %d", name, got[name], n)
		}
	}
}

func grpcWebCalls(t *testing.T, r *Rig) {
	t.Helper()
	const (
		path = "/shop.v1.Payments/Pay"
		web  = "application/grpc-web+proto"
		text = "application/grpc-web-text"
	)
	answer := string(origin.Frame(path + "  ping"))
	trailers := func(lines string) string { return "\x80" + string(origin.Frame(lines)[1:]) }
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	calls(t, r, []call{
		{name: "binary", path: path, contentType: web, body: ping, status: 200, raw: answer + trailers("grpc-status:0\r\n"), head: []string{"content-type: " + web}, trailer: []string{"grpc-status:"}},
		{name: "text", path: path, contentType: text, header: []string{"accept: " + text}, body: b64(ping), status: 200, raw: b64(answer) + b64(trailers("grpc-status:0\r\n")), head: []string{"content-type: application/grpc-web-text+proto"}},
		{name: "text, answered binary", path: path, contentType: text, body: b64(ping), status: 200, raw: answer + trailers("grpc-status:0\r\n"), head: []string{"content-type: " + web}},
		{name: "not base64", path: path, contentType: text, body: "????", status: 400, head: []string{"grpc-status: 13", "grpc-message: Bad gRPC-web request, invalid base64 data."}},
		{name: "base64 of another length", path: path, contentType: text, body: "AAA", status: 400, head: []string{"grpc-status: 13"}},
		{name: "a head alone", path: path, contentType: web, header: []string{"x-do: head=7"}, body: ping, status: 200, head: []string{"grpc-status: 7", "content-type: " + web}},
		{name: "a page", path: path, contentType: web, header: []string{"x-do: html"}, body: ping, status: 503, head: []string{"grpc-status: 14", "grpc-message: <p>out of order", "content-type: " + web}},
		{name: "nobody there", path: "/dead.v1.Service/Do", contentType: web, body: ping, status: 503, head: []string{"grpc-status: 14", "content-type: " + web}},
		{name: "gRPC itself", path: path, body: ping, status: 200, messages: []string{path + "  ping"}, trailer: ended},
	})
	r.countersAre(t, map[string]int{"cluster.payments.grpc-web.shop.v1.Payments.Pay.success": 3, "cluster.payments.grpc-web.shop.v1.Payments.Pay.7": 1})
}

func grpcBridgeCalls(t *testing.T, r *Rig) {
	t.Helper()
	const (
		path     = "/shop.v1.Payments/Pay"
		protobuf = "application/x-protobuf"
	)
	calls(t, r, []call{
		{name: "a call", path: path + "?trace=1", body: ping, status: 200, messages: []string{path + "  ping"}, head: []string{"grpc-status: 0", "content-length: 32"}, trailer: []string{"grpc-status:"}},
		{name: "a failure", path: path, header: []string{"x-do: status=5"}, body: ping, status: 503, messages: []string{path + "  ping"}, head: []string{"grpc-status: 5", "grpc-message: status 5"}},
		{name: "a failure without a body", path: path, header: []string{"x-do: head=5"}, body: ping, status: 200, head: []string{"grpc-status: 5"}},
		{name: "without frames", path: path, contentType: protobuf, body: "ping", status: 200, raw: path + "  ping", head: []string{"grpc-status: 0", "content-type: application/grpc"}},
		{name: "nobody there", path: "/dead.v1.Service/Do", body: ping, status: 200, head: []string{"grpc-status: 14"}},
		{name: "turned off", path: "/plain.v1.Service/Do", body: ping, status: 200, messages: []string{"/plain.v1.Service/Do  ping"}, head: []string{"grpc-status:"}, trailer: ended},
	})
}
