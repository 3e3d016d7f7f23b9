// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// wave is how many connections come at a time. The proxy's own limit is half of the descriptors that it may have.
const wave = 8000

// holdings are what a proxy holds of the system.
type holdings struct {
	files, goroutines, upstream int
	rss                         int // KiB, of memory that is the process' own: pages of its file come and go
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)

func look(t *testing.T, r *examples.Rig) (h holdings) {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.Proxy.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.Proxy.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(status)
	g := goroutines.FindStringSubmatch(r.Admin.Get("/stats/prometheus?go"))
	if m == nil || g == nil {
		t.Fatalf("there is no RssAnon, or no go_goroutines: %v, %v", m, g)
	}
	h.files, h.upstream = len(files), int(r.Admin.Stats()["cluster.web.upstream_cx_active"])
	h.rss, _ = strconv.Atoi(string(m[1]))
	h.goroutines, _ = strconv.Atoi(g[1])
	return h
}

// client is one connection of a wave.
type client struct {
	c  net.Conn
	br *bufio.Reader
}

func (c *client) get() error {
	if _, err := io.WriteString(c.c, "GET / HTTP/1.1\r\nhost: x\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
		return fmt.Errorf("%d, %w", resp.StatusCode, err)
	}
	return nil
}

// each calls f for each of a wave's places, a few at a time.
func each(t *testing.T, f func(i int) error) {
	t.Helper()
	const workers = 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < wave; i += workers {
				if err := f(i); err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// Waves of connections come over several loopback addresses, make a request, stay idle, make another, and go. An idle
// connection holds a descriptor and neither a goroutine nor a buffer, and when a wave has gone, so has what it took.
func TestWavesOfConnections(t *testing.T) {
	r := rig(t, "static.yaml")
	addr := r.Addr("")
	before := look(t, r)
	var first holdings
	for n := range 3 {
		clients := make([]client, wave)
		each(t, func(i int) error {
			d := net.Dialer{Timeout: sidecar.Hang, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%8))}}
			c, err := d.Dial("tcp", addr)
			if err != nil {
				return err
			}
			c.SetDeadline(time.Now().Add(2 * sidecar.Hang))
			clients[i] = client{c, bufio.NewReaderSize(c, 1<<10)}
			return clients[i].get()
		})
		idle := look(t, r)
		if got := idle.files - idle.upstream - (before.files - before.upstream); got != wave {
			t.Errorf("wave %d: %d descriptors for %d connections", n, got, wave)
		}
		// The workers that wait for work are reused, and bounded at 64 for each of at most eight processors.
		if got := idle.goroutines - before.goroutines; got > 8*64 {
			t.Errorf("wave %d: %d goroutines more for idle connections", n, got)
		}
		each(t, func(i int) error { return clients[i].get() })
		each(t, func(i int) error { return clients[i].c.Close() })
		r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["http.http.downstream_cx_active"] == 0 })
		after := look(t, r)
		if n == 0 {
			first = after
		}
		t.Logf("wave %d: idle %d KiB RSS, %d goroutines; after it %d KiB, %d goroutines, %d descriptors", n, idle.rss, idle.goroutines, after.rss, after.goroutines, after.files)
		if after.files-after.upstream != before.files-before.upstream {
			t.Errorf("wave %d: %d descriptors are left, of %d before", n, after.files-after.upstream, before.files-before.upstream)
		}
		// A KiB left behind by each connection would be 16 MiB by the third wave. The race detector keeps far more.
		if grown := after.rss - first.rss; grown > 12<<10 && !sidecar.RaceEnabled {
			t.Errorf("wave %d: %d KiB more than after the first", n, grown)
		}
	}
}
