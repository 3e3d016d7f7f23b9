// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/meshtap/meshtap/proxy/codec"
)

// BenchmarkParseRequest parses the same head with this package, with fasthttp and with net/http. Only the first checks
// everything that RFC 9112 asks a proxy to check.
func BenchmarkParseRequest(b *testing.B) {
	in := crlf("GET /api/v1/orders/42 HTTP/1.1\nHost: orders.default.svc\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\nAccept: text/html,application/xhtml+xml\nAccept-Language: en-US,en;q=0.5\nAccept-Encoding: gzip, deflate\nX-Forwarded-For: 10.1.2.3\nX-B3-TraceId: 463ac35c9f6413ad48485a3953bb6124\nCookie: session=abcdef0123456789\nCache-Control: no-cache\nConnection: keep-alive\n\n")
	r := bytes.NewReader(in)
	br := bufio.NewReader(r)
	run := func(name string, parse func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				r.Reset(in)
				br.Reset(r)
				if err := parse(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	var q codec.Request
	lim := Defaults()
	run("meshtap", func() error { _, _, err := parseRequest(in, &q, &lim); return err })
	var h fasthttp.RequestHeader
	run("fasthttp", func() error { return h.Read(br) })
	run("net-http", func() error { _, err := http.ReadRequest(br); return err })
}
