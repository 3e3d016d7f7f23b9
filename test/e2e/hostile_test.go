// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// fields returns n header fields of their own names.
func fields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "x-%d: v\r\n", i)
	}
	return b.String()
}

// What is not HTTP, or more than the limits that hold without any configuration, is refused, its connection is closed, and
// nothing of it comes to the origin (contracts.md section 3, T5 and T6).
func TestMalformedRequestsEndTheirConnections(t *testing.T) {
	t.Parallel()
	r := rig(t, "static.yaml")
	const head = "GET / HTTP/1.1\r\nhost: x\r\n"
	// What follows would be answered if the connection went on.
	const next = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
	for _, tc := range []struct {
		name, send string
		status     int
	}{
		{"not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		{"no method", " / HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"no version", "GET /\r\nhost: x\r\n\r\n", 400},
		{"another version", "GET / HTTP/3.0\r\nhost: x\r\n\r\n", 505},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two hosts", head + "host: y\r\n\r\n", 400},
		{"a bare line feed", "GET / HTTP/1.1\nhost: x\n\n", 400},
		{"a folded line", head + "x-a: 1\r\n 2\r\n\r\n", 400},
		{"a space before the colon", head + "x-a : 1\r\n\r\n", 400},
		{"no colon", head + "x-a\r\n\r\n", 400},
		{"an empty name", head + ": 1\r\n\r\n", 400},
		{"a null", head + "x-a: \x00\r\n\r\n", 400},
		{"a control character in the target", "GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n", 400},
		{"a length and chunks", head + "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"two lengths", head + "content-length: 0\r\ncontent-length: 5\r\n\r\n", 400},
		{"a length that is none", head + "content-length: +5\r\n\r\nhello", 400},
		{"an unknown transfer coding", head + "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"a transfer coding behind the chunks", head + "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400},
		{"chunks twice", head + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"too many fields", head + fields(101) + "\r\n", 431},
		{"too long a field", head + "x-a: " + strings.Repeat("a", 17<<10) + "\r\n\r\n", 431},
		{"too long a head", head + strings.Repeat("x-a: "+strings.Repeat("a", 8<<10)+"\r\n", 8) + "\r\n", 431},
		{"too long a target", "GET /" + strings.Repeat("a", 9<<10) + " HTTP/1.1\r\nhost: x\r\n\r\n", 414},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := r.Dial("")
			go io.WriteString(c, tc.send+next) // what is refused need not be read to its end
			br := bufio.NewReader(c)
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.status || !resp.Close {
				t.Errorf("status %d, close %v; want %d and close", resp.StatusCode, resp.Close, tc.status)
			}
			io.Copy(io.Discard, resp.Body)
			if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection goes on with %q, %v", rest, err)
			}
		})
	}
	t.Cleanup(func() {
		if n := r.A.Requests.Load(); n != 0 {
			t.Errorf("%d of them came to the origin", n)
		}
	})
}

// What is just within the limits is served.
func TestLimitsAreNotTooNarrow(t *testing.T) {
	t.Parallel()
	r := rig(t, "static.yaml")
	for _, tc := range []struct{ name, send string }{
		{"99 fields and the host", "GET / HTTP/1.1\r\nhost: x\r\n" + fields(99) + "\r\n"},
		{"a long field", "GET / HTTP/1.1\r\nhost: x\r\nx-a: " + strings.Repeat("a", 15<<10) + "\r\n\r\n"},
		{"a long target", "GET /" + strings.Repeat("a", 8000) + " HTTP/1.1\r\nhost: x\r\n\r\n"},
	} {
		c := r.Dial("")
		io.WriteString(c, tc.send)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %+v, %v", tc.name, resp, err)
		}
	}
}

// A client that does not come to the end of its head is not waited for, without any configuration.
func TestSlowHeadsAreCutOff(t *testing.T) {
	t.Parallel()
	r := rig(t, "static.yaml")
	half := r.Dial("")
	io.WriteString(half, "GET / HTTP/1.1\r\nhost: x\r\nx-a: ")
	silent := r.Dial("")
	resp, err := http.ReadResponse(bufio.NewReader(half), nil)
	if err != nil || resp.StatusCode != http.StatusRequestTimeout || !resp.Close {
		t.Errorf("half a head: %+v, %v; want 408 and close", resp, err)
	}
	rest, err := io.ReadAll(silent)
	if err != nil {
		t.Errorf("a client that says nothing: %q, %v", rest, err)
	}
}

// More connections than the configuration allows are closed at once; those that are there go on, and there is room again
// when they have gone.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	const most = 5
	r := examples.NewRig(t)
	r.Start(fmt.Sprintf(`overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: %d
`, most)+r.Read("static.yaml"), "")
	ask := func(c net.Conn) error {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nhost: x\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	var held []net.Conn
	for range most {
		c := r.Dial("")
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	const over = 10
	for i := range over {
		if err := ask(r.Dial("")); err == nil {
			t.Errorf("connection %d is served, of %d that are allowed", most+i+1, most)
		}
	}
	r.Admin.UntilStats(func(s sidecar.Stats) bool { return s.Sum("listener.", ".downstream_global_cx_overflow") == over })
	for _, c := range held {
		if err := ask(c); err != nil {
			t.Errorf("a connection that was there: %v", err)
		}
		c.Close()
	}
	r.Admin.UntilStats(func(s sidecar.Stats) bool { return s.Sum("listener.", ".downstream_cx_active") == 0 })
	if err := ask(r.Dial("")); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}
