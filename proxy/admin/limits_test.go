// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/proxy/admin"
)

// dial opens a connection and keeps it to the end of the test.
func (c *client) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial(c.addr.Network(), c.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a request on a connection and reads the answer's head and, where it has a length, its body.
func ask(t *testing.T, conn net.Conn, request string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(conn, request+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.ContentLength >= 0 {
		io.Copy(io.Discard, res.Body)
	}
	return res
}

// TestReadyWhileDumpsRun: dumps that do not end take all places for dumps; the next is refused, short answers are not.
func TestReadyWhileDumpsRun(t *testing.T) {
	t.Parallel()
	const places = 8
	running, release := make(chan struct{}, places), make(chan struct{})
	f := &fake{dump: func(w io.Writer) error {
		running <- struct{}{}
		<-release
		_, err := io.WriteString(w, "{}")
		return err
	}}
	_, c := start(t, admin.Config{}, f.views(), registry())
	var dumps sync.WaitGroup
	for range places {
		dumps.Go(func() {
			if res, body := c.do(t, "GET", "/config_dump"); res.StatusCode != 200 || body != "{}" {
				t.Errorf("a dump: %s %q", res.Status, body)
			}
		})
	}
	for range places {
		<-running
	}
	for _, path := range []string{"/config_dump", "/stats", "/clusters"} {
		if res, _ := c.do(t, "GET", path); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s beyond the limit: %s", path, res.Status)
		}
	}
	for _, path := range []string{"/ready", "/server_info", "/memory"} {
		if res, _ := c.do(t, "GET", path); res.StatusCode != 200 {
			t.Errorf("%s while dumps run: %s", path, res.Status)
		}
	}
	close(release)
	dumps.Wait()
	if res, _ := c.do(t, "GET", "/stats"); res.StatusCode != 200 {
		t.Errorf("after the dumps: %s", res.Status)
	}
	if res, _ := c.do(t, "HEAD", "/stats"); res.StatusCode != 200 {
		t.Errorf("HEAD: %s", res.Status)
	}
}

// TestPlacesComeBack: neither HEAD nor an error keeps a place.
func TestPlacesComeBack(t *testing.T) {
	t.Parallel()
	f := &fake{}
	_, c := start(t, admin.Config{}, f.views(), registry())
	for range 20 {
		c.do(t, "HEAD", "/stats")
		c.do(t, "GET", "/stats?format=nosuch")
		c.do(t, "GET", "/config_dump?resource=broken")
	}
	if res, _ := c.do(t, "GET", "/stats"); res.StatusCode != 200 {
		t.Errorf("GET /stats: %s", res.Status)
	}
}

// TestConnections fills the server: 48 idle connections are served as usual, the next 16 are hurried, then none is served.
func TestConnections(t *testing.T) {
	t.Parallel()
	f := &fake{}
	_, c := start(t, admin.Config{}, f.views(), registry())
	var idle []net.Conn
	for i := range 48 {
		conn := c.dial(t)
		if res := ask(t, conn, "GET /ready"); res.StatusCode != 200 || res.Close {
			t.Fatalf("connection %d: %s, close %v", i, res.Status, res.Close)
		}
		idle = append(idle, conn)
	}
	if res := ask(t, c.dial(t), "GET /ready"); res.StatusCode != 200 || !res.Close {
		t.Errorf("a connection of the reserve: %s, close %v; want 200 and close", res.Status, res.Close)
	}
	if res := ask(t, c.dial(t), "GET /stats"); res.StatusCode != 503 {
		t.Errorf("a dump on a connection of the reserve: %s", res.Status)
	}
	// Connections that send half a request hold the reserve; whoever comes then is refused at once.
	for range 16 {
		fmt.Fprint(c.dial(t), "GET /ready HTTP/1.1\r\nHost: localhost\r\n")
	}
	if line, err := bufio.NewReader(c.dial(t)).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 503") {
		t.Errorf("a connection too many: %q, %v", line, err)
	}
	if res := ask(t, idle[0], "GET /ready"); res.StatusCode != 200 {
		t.Errorf("a connection from before: %s", res.Status)
	}
}

// TestLargeDumpIsStreamed: the first bytes of a dump arrive while the rest is not made yet.
func TestLargeDumpIsStreamed(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	f := &fake{dump: func(w io.Writer) error {
		chunk := strings.Repeat("x", 64<<10)
		io.WriteString(w, chunk)
		<-more
		for range 100 {
			if _, err := io.WriteString(w, chunk); err != nil {
				return err
			}
		}
		return nil
	}}
	_, c := start(t, admin.Config{}, f.views(), registry())
	res, err := c.Get(c.base + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadFull(res.Body, make([]byte, 32<<10)); err != nil {
		t.Fatal(err)
	}
	close(more)
	n, err := io.Copy(io.Discard, res.Body)
	if want := int64(101*64<<10 - 32<<10); err != nil || n != want {
		t.Errorf("%d bytes follow, %v; want %d", n, err, want)
	}
}
