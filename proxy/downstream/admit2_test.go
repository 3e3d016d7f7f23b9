// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"fmt"
	"net/http"
	"testing"

	"golang.org/x/net/http2"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// TestHTTP2OneTooMany: a stream above what the client may have open is refused, and is an Outcome all the same.
func TestHTTP2OneTooMany(t *testing.T) {
	t.Parallel()
	r := start(t, setup{
		manager: mesh.HTTPManager{HTTP2: mesh.HTTP2Options{
			MaxConcurrentStreams: 1, StreamWindow: 1 << 16, ConnectionWindow: 1 << 16, HeaderTable: 4096,
			OutboundFrames: 1000, OutboundControlFrames: 1000, EmptyFrames: 1, PriorityFrames: 100, WindowUpdates: 10,
		}},
		routes: []*mesh.Route{forwarded()}, backend: hold,
	})
	c := r.dial2()
	c.ask(1, true)
	c.ask(3, true)
	if code := c.reset(3); code != http2.ErrCodeRefusedStream {
		t.Errorf("%v", code)
	}
	if o := r.wait(1)[0]; o.Failure != mesh.LocalReset || o.Side != mesh.SideInternal || o.Details != "http2.stream_refused" || o.Flags != mesh.FlagLR {
		t.Errorf("%+v", o)
	}
	c.must(c.WriteRSTStream(1, http2.ErrCodeCancel))
	r.wait(2)
}

// Names with an underscore are counted as in Envoy: each field that is dropped, and each request that is refused for them.
func TestHTTP2Underscores(t *testing.T) {
	t.Parallel()
	for action, number := range map[mesh.Underscores]int{
		mesh.UnderscoresDrop: metrics.HTTP2DroppedUnderscores, mesh.UnderscoresReject: metrics.HTTP2RejectedUnderscores,
	} {
		r := start(t, setup{manager: mesh.HTTPManager{Underscores: action}, routes: []*mesh.Route{direct("/", 200, "ok")}})
		c := r.dial2()
		c.ask(1, true, "x_a", "1", "x_b", "2", "x-c", "3")
		status := c.status(1)
		want, n := "200", int64(2)
		if action == mesh.UnderscoresReject {
			want, n = "400", 1
		}
		if got := r.http2.Stats.Value(number); status != want || got != n {
			t.Errorf("status %s, counted %d", status, got)
		}
	}
}

// TestMaxForwards: OPTIONS and TRACE go on as often as they say (RFC 9110 section 7.6.2), in both versions of HTTP; other
// methods do not care.
func TestMaxForwards(t *testing.T) {
	t.Parallel()
	echo := func(p *peer) {
		for {
			q, err := http.ReadRequest(p.Reader)
			if err != nil {
				return
			}
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nx-left: %s\r\ncontent-length: 0\r\n\r\n", q.Header.Get("Max-Forwards")))
		}
	}
	for _, c := range []struct {
		method, forwards string
		status           int
		left             string // at the upstream; "-" where it does not get there
	}{
		{"OPTIONS", "0", 200, "-"},
		{"TRACE", "0", 501, "-"},
		{"OPTIONS", "7", 200, "6"},
		{"TRACE", "10", 200, "9"},
		{"OPTIONS", "many", 200, "many"},
		{"OPTIONS", "", 200, ""},
		{"GET", "0", 200, "0"},
	} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s %s over HTTP/%d", c.method, c.forwards, version), func(t *testing.T) {
				t.Parallel()
				r := start(t, setup{routes: []*mesh.Route{forwarded()}, backend: echo})
				client := &http.Client{Timeout: hang}
				if version == 2 {
					client = r.client2()
				}
				q, err := http.NewRequest(c.method, "http://"+r.addr, nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.forwards != "" {
					q.Header.Set("Max-Forwards", c.forwards)
				}
				resp, err := client.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				left := "-"
				if v, ok := resp.Header["X-Left"]; ok {
					left = v[0]
				}
				if resp.StatusCode != c.status || left != c.left || resp.ContentLength != 0 {
					t.Errorf("status %d, %q left, length %d", resp.StatusCode, left, resp.ContentLength)
				}
				client.CloseIdleConnections()
			})
		}
	}
}
