// SPDX-License-Identifier: Apache-2.0

package examples

import "testing"

// Example is a file of configs/ and what it must do.
type Example struct {
	File string
	// Own says which of Meshtap's own extensions it uses, for which Envoy cannot load it; "" where it can.
	Own string
	// Loads says why the example is loaded here and served elsewhere; "" where it is served here.
	Loads string
	// Requests are made in order, each on a connection of its own.
	Requests []Request
	// Do is what no list of requests can say; nil where there is nothing.
	Do func(t *testing.T, r *Rig)
}

// All returns the examples.
func All() []Example {
	return []Example{
		{File: "static.yaml", Requests: static()},
		{File: "routing.yaml", Requests: routing()},
		{File: "weighted.yaml", Requests: weighted(), Do: split},
		{File: "runtime.yaml", Do: turnedUp},
		{File: "retries.yaml", Requests: retries(), Do: otherHost},
		{File: "rewrites.yaml", Requests: rewrites()},
		{File: "dns.yaml", Requests: dns()},
		{File: "lb.yaml", Requests: failover(), Do: policies},
		{File: "intercept.yaml", Loads: "it needs a network of its own: see test/netns"},
		{File: "health.yaml", Do: health},
		{File: "limits.yaml", Do: limits},
		{File: "breaker.yaml", Own: "io.meshtap.breaker and io.meshtap.fallback", Requests: fallbacks(), Do: breaker},
		{File: "tcp.yaml", Do: tcp},
		{File: "sni.yaml", Do: serverNames},
		{File: "tls.yaml", Requests: secureRequests(), Do: mutual},
		{File: "tls-upstream.yaml", Requests: toSecure(), Do: toSecureTCP},
		{File: "sds.yaml", Requests: secureRequests()[:1], Do: bySecret},
		{File: "ecds.yaml", Requests: discoveredFault(), Do: filtersChange},
		{File: "protocols.yaml", Requests: static()[:1], Do: protocols},
		{File: "websocket.yaml", Requests: notUpgraded(), Do: webSocket},
		{File: "grpc.yaml", Do: grpcCalls},
		{File: "grpc-web.yaml", Do: grpcWebCalls},
		{File: "grpc-bridge.yaml", Do: grpcBridgeCalls},
		{File: "grpc-health.yaml", Do: grpcHealth},
		{File: "cors.yaml", Requests: corsRequests(), Do: corsCounts},
		{File: "fault.yaml", Requests: faultRequests(), Do: faults},
		{File: "accesslog.yaml", Do: accessLogs},
		{File: "als.yaml", Do: accessLogService},
		{File: "tap.yaml", Own: "meshtap.tap", Do: tap},
		{File: "tap-nats.yaml", Own: "meshtap.tap", Do: tapNATS},
		{File: "tap-spool.yaml", Own: "meshtap.tap", Do: tapSpool},
		{File: "tap-kafka.yaml", Own: "meshtap.tap", Do: tapKafka},
		{File: "tap-rabbitmq.yaml", Own: "meshtap.tap", Loads: "it needs a RabbitMQ: see test/buses"},
		{File: "tap-zeromq.yaml", Own: "meshtap.tap", Do: tapZeroMQ},
		{File: "tap-webhook.yaml", Own: "meshtap.tap", Do: tapWebhook},
		{File: "tap-als.yaml", Own: "meshtap.tap", Do: tapAccessLogService},
		{File: "pilot-agent.yaml", Own: "workload_discovery, of Istio's build of Envoy", Requests: pilotAgent()},
		{File: "ads.yaml", Requests: ads()},
		{File: "xds-delta.yaml", Requests: ads()},
		{File: "scopes.yaml", Requests: scopes()},
		{File: "vhds.yaml", Requests: virtualHosts(), Do: onDemand},
		{File: "xds-streams.yaml", Requests: ads()},
		{File: "xds-files.yaml", Requests: ads(), Do: fromFiles},
	}
}

func static() []Request {
	return []Request{
		{
			Name: "a request is forwarded", Path: "/hello?x=1", Header: []string{"x-user: me"},
			Want: Want{
				Status: 200, Line: "a GET /hello?x=1 localhost",
				Header: []string{"server: envoy", "x-origin: a", "connection:"},
				Got:    []string{"x-user: me", "x-forwarded-proto: http", "x-envoy-expected-rq-timeout-ms: 15000", "connection:"},
			},
		},
		{Name: "with a body", Method: "POST", Body: "hello", Want: Want{Status: 200, Line: "a POST / localhost", Got: []string{"content-length: 5", "hello"}}},
		{Name: "with a method of its own", Method: "PURGE", Want: Want{Status: 200, Line: "a PURGE / localhost"}},
		{Name: "HEAD has no body", Method: "HEAD", Want: Want{Status: 200, Header: []string{"x-origin: a"}}},
		{Name: "a failure of the origin is passed on", Header: []string{"x-do: status=500"}, Want: Want{Status: 500, Line: "a GET / localhost"}},
		{
			// A GET would be made again, since the connection has been used before (RFC 9112 section 9.3.1).
			Name: "a connection that is cut is said so", Method: "POST", Header: []string{"x-do: cut=99", "x-case: static"},
			Want: Want{Status: 503, Line: "upstream connect error or disconnect/reset before headers. reset reason: connection termination"},
		},
	}
}

func routing() []Request {
	to := func(name, line, path string, header ...string) Request {
		return Request{Name: name, Path: path, Header: header, Want: Want{Status: 200, Line: line}}
	}
	at := func(host, want string) Request {
		return Request{Name: "host " + host, Host: host, Want: Want{Status: 200, Line: want}}
	}
	return []Request{
		at("shop.example", "b GET / shop.example"),
		at("SHOP.example:8000", "b GET / SHOP.example:8000"),
		at("other.example", "suffix"),
		at("api.internal", "prefix"),
		at("api.example", "suffix"),
		at("somewhere", "a GET / somewhere"),
		to("a header in the range", "b GET /login localhost", "/login", "x-version: 12"),
		to("a header beyond the range", "a GET / localhost", "/", "x-version: 20"),
		to("a header that is no number", "a GET / localhost", "/", "x-version: ten"),
		{Name: "a header that is not there", Path: "/login", Want: Want{Status: 401, Line: "who are you?"}},
		{Name: "a method", Method: "DELETE", Path: "/login", Header: []string{"cookie: s=1"}, Want: Want{Status: 405}},
		to("neither", "a GET /login localhost", "/login", "cookie: s=1"),
		to("a query", "b GET /search?debug&lang=de-AT localhost", "/search?debug&lang=de-AT"),
		to("half a query", "a GET /search?lang=de localhost", "/search?lang=de"),
		to("a path", "b GET /exact?q=1 localhost", "/exact?q=1"),
		to("more than the path", "a GET /exact/more localhost", "/exact/more"),
		to("a separated prefix", "b GET /api localhost", "/api"),
		to("below a separated prefix", "b GET /api/users localhost", "/api/users"),
		to("not separated", "a GET /apis localhost", "/apis"),
		to("a regular expression", "b GET /items/42?x=y localhost", "/items/42?x=y"),
		to("half a regular expression", "a GET /items/42x localhost", "/items/42x"),
		to("in any case", "b GET /cAsE localhost", "/cAsE"),
	}
}

func weighted() []Request {
	return []Request{
		{Name: "the cluster of a header", Header: []string{"x-to: v2"}, Want: Want{Status: 200, Line: "b GET / localhost", Header: []string{"x-canary:"}}},
		{Name: "a cluster that is not there", Header: []string{"x-to: v3"}, Want: Want{Status: 404}},
	}
}

func retries() []Request {
	const overTime = "upstream request timeout"
	return []Request{
		{
			Name: "two failures are repeated", Header: []string{"x-do: fail=2", "x-case: two"},
			Want: Want{Status: 200, Header: []string{"x-envoy-attempt-count: 3"}, Got: []string{"x-envoy-attempt-count: 3"}},
		},
		{Name: "with its body", Method: "POST", Body: "once more", Header: []string{"x-do: fail=1", "x-case: body"}, Want: Want{Status: 200, Got: []string{"content-length: 9"}}},
		{Name: "a connection that is cut", Header: []string{"x-do: cut=1", "x-case: cut"}, Want: Want{Status: 200, Header: []string{"x-envoy-attempt-count: 2"}}},
		{Name: "failures for ever", Header: []string{"x-do: status=503"}, Want: Want{Status: 503, Header: []string{"x-envoy-attempt-count: 4"}}},
		{Name: "another status is not repeated", Header: []string{"x-do: status=500"}, Want: Want{Status: 500, Header: []string{"x-envoy-attempt-count: 1"}}},
		{Name: "without a policy", Path: "/never", Header: []string{"x-do: fail=1", "x-case: never"}, Want: Want{Status: 503, Header: []string{"x-envoy-attempt-count: 1"}}},
		{
			Name: "the request asks for it", Path: "/never", Header: []string{"x-do: fail=1", "x-case: asked", "x-envoy-retry-on: 5xx"},
			Want: Want{Status: 200, Header: []string{"x-envoy-attempt-count: 2"}},
		},
		{Name: "the time is over", Path: "/slow", Header: []string{"x-do: hang"}, Want: Want{Status: 504, Line: overTime}},
		{Name: "the time of the request", Path: "/never", Header: []string{"x-do: hang", "x-envoy-upstream-rq-timeout-ms: 100"}, Want: Want{Status: 504, Line: overTime}},
		{
			Name: "an attempt takes too long", Path: "/per-try", Header: []string{"x-do: hang=1", "x-case: per-try"},
			Want: Want{Status: 200, Header: []string{"x-envoy-attempt-count: 2"}},
		},
	}
}

func rewrites() []Request {
	return []Request{
		{Name: "plain where TLS is required", Host: "secure.example", Path: "/x?y=z", Want: Want{Status: 301, Header: []string{"location: https://secure.example/x?y=z"}}},
		{Name: "a prefix redirected", Path: "/old/page?x=1", Want: Want{Status: 308, Header: []string{"location: http://localhost/new/page?x=1"}}},
		{Name: "host, port and scheme redirected", Path: "/moved?x=1", Want: Want{Status: 301, Header: []string{"location: https://elsewhere.example:8443/moved"}}},
		{Name: "a path redirected", Path: "/see?x=1", Want: Want{Status: 303, Header: []string{"location: http://localhost/other?x=1"}}},
		{Name: "a direct response", Path: "/teapot", Want: Want{Status: 418, Line: "short and stout", Header: []string{"x-pot: tea", "content-type: text/plain", "server: example"}}},
		{Name: "a direct response without a body", Path: "/gone", Want: Want{Status: 410, Header: []string{"content-length: 0"}}},
		{Name: "a prefix rewritten", Path: "/v1/users?x=1", Want: Want{Status: 200, Line: "a GET /users?x=1 localhost", Header: []string{"x-cluster: web"}, Got: []string{"x-envoy-original-path: /v1/users?x=1"}}},
		{Name: "a path rewritten", Path: "/regex/one/two?x=1", Want: Want{Status: 200, Line: "a GET /two/one?x=1 localhost"}},
		{Name: "a host rewritten", Path: "/host", Host: "outside.example", Want: Want{Status: 200, Line: "a GET /host inside.example", Got: []string{"x-forwarded-host: outside.example"}}},
		{Name: "a host of a header", Path: "/from-header", Header: []string{"x-tenant: tenant.example"}, Want: Want{Status: 200, Line: "a GET /from-header tenant.example"}},
		{
			Name: "headers", Path: "/x?y", Header: []string{"x-secret: 1", "x-kept: old", "x-many: first", "x-host: client"},
			Want: Want{
				Status: 200, Line: "a GET /x?y localhost",
				Header: []string{"x-code: 200", "x-origin:"},
				Got:    []string{"x-path: /x?y", "x-kept: old", "x-many: first", "x-many: second", "x-host: virtual-host", "x-secret:"},
			},
		},
	}
}

func dns() []Request {
	return []Request{
		{Name: "STRICT_DNS", Host: "x.example", Want: Want{Status: 200, Line: "a GET / x.example"}},
		{Name: "the host is that which was looked up", Host: "x.example", Path: "/auto", Want: Want{Status: 200, Line: "a GET /auto localhost"}},
		{Name: "LOGICAL_DNS", Host: "x.example", Path: "/logical", Want: Want{Status: 200, Line: "a GET /logical x.example"}},
		{Name: "DnsCluster", Host: "x.example", Path: "/typed", Want: Want{Status: 200, Line: "a GET /typed x.example"}},
	}
}

func failover() []Request {
	return []Request{
		{Name: "the first priority is down", Path: "/failover", Want: Want{Status: 200, Line: "b GET /failover localhost"}},
		{Name: "no destination is named", Want: Want{Status: 503, Line: "no healthy upstream"}},
	}
}

func fallbacks() []Request {
	return []Request{
		{Name: "nothing is wrong", Path: "/orders", Want: Want{Status: 200, Line: "a GET /orders localhost"}},
		{Name: "nobody listens, a fixed answer", Path: "/dead", Want: Want{Status: 200, Line: "try again later", Header: []string{"retry-after: 60"}}},
	}
}

func notUpgraded() []Request {
	return []Request{
		{Name: "a plain request", Want: Want{Status: 200, Line: "a GET / localhost"}},
		{Name: "an upgrade that is not allowed", Path: "/closed", Header: []string{"connection: upgrade", "upgrade: websocket"}, Want: Want{Status: 403}},
		{Name: "an upgrade to something else", Header: []string{"connection: upgrade", "upgrade: gopher"}, Want: Want{Status: 403}},
	}
}

func pilotAgent() []Request {
	return []Request{
		{Name: "through the control plane's configuration", Listener: "http", Path: "/x", Want: Want{Status: 200}},
		{Name: "through a compressor", Listener: "0.0.0.0_15090", Path: "/stats/prometheus", Header: []string{"Accept-Encoding: gzip"},
			Want: Want{Status: 200, Header: []string{"Content-Encoding:"}}},
	}
}

func ads() []Request {
	return []Request{{Name: "through the control plane's configuration", Path: "/x", Want: Want{Status: 200}}}
}
