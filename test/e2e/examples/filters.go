// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

const (
	shop     = "origin: https://shop.example"
	evil     = "origin: https://evil.example"
	asksPost = "access-control-request-method: POST"
)

// nothingSaid is what an answer says of CORS where it says nothing.
var nothingSaid = []string{"access-control-allow-origin:", "access-control-allow-credentials:", "access-control-expose-headers:"}

func corsRequests() []Request {
	get := func(name, path string, want []string, header ...string) Request {
		return Request{Name: name, Path: path, Header: header, Want: Want{Status: 200, Line: "a GET " + path + " localhost", Header: want}}
	}
	preflight := func(name, path string, want []string, header ...string) Request {
		return Request{Name: name, Method: "OPTIONS", Path: path, Header: header, Want: Want{Status: 200, Header: append(want, "x-origin:")}}
	}
	forwarded := func(name, path string, want []string, header ...string) Request {
		return Request{Name: name, Method: "OPTIONS", Path: path, Header: header, Want: Want{Status: 200, Line: "a OPTIONS " + path + " localhost", Header: want}}
	}
	return []Request{
		get("no origin", "/x", nothingSaid),
		get("an empty origin", "/x", nothingSaid, "origin: "),
		get("an origin", "/x", []string{"access-control-allow-origin: https://shop.example", "access-control-expose-headers: x-origin", "access-control-allow-credentials:"}, shop),
		get("one of a pattern", "/x", []string{"access-control-allow-origin: https://a.shop.example"}, "origin: https://a.shop.example"),
		get("one that is not of the pattern", "/x", nothingSaid, "origin: https://a.shop.example.net"),
		get("another origin goes on", "/x", nothingSaid, evil),
		preflight("a preflight", "/x", []string{
			"access-control-allow-origin: https://shop.example", "access-control-allow-methods: GET, POST", "access-control-allow-headers: content-type, x-user",
			"access-control-max-age: 600", "access-control-expose-headers: x-origin", "access-control-allow-credentials:", "access-control-allow-private-network:",
		}, shop, asksPost),
		forwarded("a preflight of another origin goes on", "/x", nothingSaid, evil, asksPost),
		forwarded("OPTIONS that asks for no method goes on", "/x", []string{"access-control-allow-origin: https://shop.example"}, shop),
		forwarded("OPTIONS without an origin goes on", "/x", nothingSaid, asksPost),
		preflight("anybody, with anything", "/open/x", []string{
			"access-control-allow-origin: https://evil.example", "access-control-allow-methods: PURGE", "access-control-allow-headers: x-a,x-b", "access-control-max-age: 600",
		}, evil, "access-control-request-method: PURGE", "access-control-request-headers: x-a,x-b"),
		preflight("anybody, with no header", "/open/x", []string{"access-control-allow-methods: POST"}, evil, asksPost),
		get("the answer to anybody", "/open/x", []string{"access-control-allow-origin: null", "access-control-expose-headers: x-origin"}, "origin: null"),
		preflight("with credentials", "/account/x", []string{
			"access-control-allow-origin: https://shop.example", "access-control-allow-credentials: true", "access-control-allow-private-network: true",
			"access-control-allow-methods: GET, POST",
		}, shop, asksPost, "access-control-request-private-network: true"),
		preflight("not asked for a private network", "/account/x", []string{"access-control-allow-private-network:"}, shop, asksPost),
		preflight("a preflight of another origin ends here", "/account/x", []string{
			"access-control-allow-origin:", "access-control-allow-credentials: true", "access-control-allow-methods: GET, POST",
		}, evil, asksPost),
		get("the answer with credentials", "/account/x", []string{"access-control-allow-credentials: true"}, shop),
		get("a trial", "/trial/x", nothingSaid, shop),
		forwarded("a preflight in a trial", "/trial/x", nothingSaid, shop, asksPost),
	}
}

// corsCounts: origins are counted, also on trial.
func corsCounts(t *testing.T, r *Rig) {
	before := r.Admin.Stats()
	for _, path := range []string{"/x", "/trial/x", "/trial/x"} {
		r.Do(Request{Name: "allowed", Path: path, Header: []string{shop}})
		r.Do(Request{Name: "not allowed", Path: path, Header: []string{evil}})
	}
	after := r.Admin.Stats()
	for name, want := range map[string]int64{"http.http.cors.origin_valid": 3, "http.http.cors.origin_invalid": 3} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s went up by %d, want %d", name, got, want)
		}
	}
}

func faultRequests() []Request {
	const chaos, node = "x-chaos: yes please", "x-envoy-downstream-service-node: node-a"
	passed := func(name, path string, header ...string) Request {
		return Request{Name: name, Path: path, Header: header, Want: Want{Status: 200, Line: "a GET " + path + " localhost"}}
	}
	aborted := func(name, path string, status int, header ...string) Request {
		return Request{Name: name, Path: path, Header: header, Want: Want{Status: status, Line: "fault filter abort", Header: []string{"x-origin:"}}}
	}
	return []Request{
		passed("no fault", "/x"),
		passed("a request waits", "/slow/x"),
		{Name: "a request with a body waits", Method: "POST", Path: "/slow/x", Body: "hello", Want: Want{Status: 200, Got: []string{"content-length: 5", "hello"}}},
		{Name: "a request waits in vain", Path: "/broken/x", Want: Want{Status: 503, Line: "out of order", Header: []string{"x-origin:", "content-type: text/plain"}}},
		passed("an answer that is slowed down", "/trickle/x"),
		passed("a request that asks for nothing", "/ask/x"),
		aborted("a request asks for a status", "/ask/x", 429, "x-envoy-fault-abort-request: 429"),
		passed("a status that is none", "/ask/x", "x-envoy-fault-abort-request: 600"),
		passed("a status that is no number", "/ask/x", "x-envoy-fault-abort-request: x"),
		passed("none of a hundred", "/ask/x", "x-envoy-fault-abort-request: 429", "x-envoy-fault-abort-request-percentage: 0"),
		aborted("all of a hundred", "/ask/x", 429, "x-envoy-fault-abort-request: 429", "x-envoy-fault-abort-request-percentage: 4000"),
		aborted("a grpc-status, for who speaks no gRPC", "/ask/x", 200, "x-envoy-fault-abort-grpc-request: 8"),
		{
			Name: "a grpc-status", Method: "POST", Path: "/ask/S/M", Header: []string{"content-type: application/grpc", "x-envoy-fault-abort-grpc-request: 8"},
			Want: Want{Status: 200, Header: []string{"grpc-status: 8", "grpc-message: fault filter abort"}},
		},
		{
			Name: "a status, for who speaks gRPC", Method: "POST", Path: "/ask/S/M", Header: []string{"content-type: application/grpc", "x-envoy-fault-abort-request: 403"},
			Want: Want{Status: 200, Header: []string{"grpc-status: 7", "grpc-message: fault filter abort"}},
		},
		passed("a request asks to wait", "/ask/x", "x-envoy-fault-delay-request: 30"),
		aborted("a request asks to wait in vain", "/ask/x", 503, "x-envoy-fault-delay-request: 30", "x-envoy-fault-abort-request: 503"),
		passed("a request asks to be slowed down", "/ask/x", "x-envoy-fault-throughput-response: 100"),
		passed("there are as many faults as there may be", "/none/x"),
		{
			Name: "the filter's own", Method: "POST", Header: []string{chaos, node, "content-type: application/grpc"},
			Want: Want{Status: 200, Header: []string{"grpc-status: 14"}},
		},
		passed("another node", "/x", chaos, "x-envoy-downstream-service-node: node-b"),
		passed("no node", "/x", chaos),
		passed("another header", "/x", "x-chaos: no", node),
		passed("no header", "/x", node),
	}
}

// faults: what is done is counted and logged, answers come as slowly as they are to, half of the requests is half of them,
// and a client that goes takes its fault with it.
func faults(t *testing.T, r *Rig) {
	before := r.Admin.Stats()
	const peer = "x-envoy-downstream-service-cluster: front"
	r.Do(Request{Path: "/broken/x", Header: []string{peer}})
	r.Do(Request{Path: "/slow/x"})
	r.Do(Request{Path: "/none/x"})
	begun := time.Now()
	if a := r.Do(Request{Path: "/ask/x", Method: "POST", Body: strings.Repeat("x", 8<<10), Header: []string{"x-envoy-fault-throughput-response: 32"}}); len(a.Body) < 8<<10 {
		t.Errorf("%d bytes", len(a.Body))
	}
	// 8 KiB are a quarter of a second's; a slice of them may come at once.
	if took := time.Since(begun); took < 150*time.Millisecond {
		t.Errorf("8 KiB at 32 KiB a second took %s", took)
	}
	const n = 200
	var aborts int64
	for range n {
		if r.Do(Request{Path: "/half/x"}).Status == 418 {
			aborts++
		}
	}
	if aborts < n/4 || aborts > n*3/4 { // 7 standard deviations
		t.Errorf("%d of %d requests had a fault of 50 %%", aborts, n)
	}
	s := r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["http.http.fault.active_faults"] == 0 })
	for name, want := range map[string]int64{
		"delays_injected": 2, "aborts_injected": 1 + aborts, "response_rl_injected": 1, "faults_overflow": 1,
		"front.delays_injected": 1, "front.aborts_injected": 1,
	} {
		if got := s["http.http.fault."+name] - before["http.http.fault."+name]; got != want {
			t.Errorf("%s went up by %d, want %d", name, got, want)
		}
	}
	c := r.Dial("")
	fmt.Fprintf(c, "GET /ask/gone HTTP/1.1\r\nHost: a\r\nx-envoy-fault-delay-request: 3600000\r\n\r\n")
	r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["http.http.fault.active_faults"] == 1 })
	c.Close()
	r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["http.http.fault.active_faults"] == 0 })
	if _, err := io.ReadAll(c); err == nil {
		t.Error("the connection is open")
	}
	want := map[string]string{"/broken/x": "503 DI,FI fault_filter_abort", "/slow/x": "200 DI via_upstream", "/ask/gone": "0 DC,DI downstream_remote_disconnect"}
	var lines []map[string]any
	r.Admin.Until("/ready", func(int, string) bool {
		lines = r.jsonLines("fault.log", 1)
		return lines[len(lines)-1]["path"] == "/ask/gone"
	})
	for _, l := range lines {
		path, _ := l["path"].(string)
		flags := strings.Split(fmt.Sprint(l["flags"]), ",")
		slices.Sort(flags) // each has an order of its own
		if w := want[path]; w != "" && w != fmt.Sprint(l["status"], " ", strings.Join(flags, ","), " ", l["details"]) {
			t.Errorf("%v, want %s", l, w)
		}
	}
}
