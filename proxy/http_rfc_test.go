// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec/h1/rfctest"
)

// TestRFC runs those cases of the codec's table through the whole proxy that ask what it forwards: a client's connection,
// and an origin that answers with the bytes of the case.
func TestRFC(t *testing.T) {
	t.Parallel()
	for _, c := range rfctest.Read(t, "codec/h1/testdata/rfc.txt") {
		if !c.Proxy {
			continue
		}
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			up := make(chan string, 10)
			r := newRig(t)
			r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", httpOrigin(t, func(conn *net.TCPConn, br *bufio.Reader) {
				var got bytes.Buffer
				in := bufio.NewReader(io.TeeReader(br, &got))
				for {
					q, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, q.Body); err != nil {
						return
					}
					if q.URL.Path == "/last" {
						io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
						continue
					}
					up <- got.String()
					io.WriteString(conn, c.Origin)
				}
			})))
			// The request behind shows that the connection goes on, and ends it.
			got := rfctest.Result{Out: r.raw(c.In + "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")}
			got.Up = <-up
			if !strings.Contains(got.Out, "\r\n\r\n") {
				t.Fatalf("got %q", got.Out)
			}
			c.Check(t, got)
		})
	}
}
