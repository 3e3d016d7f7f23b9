// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"io"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

const wantWS = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"

func webSockets() mesh.HTTPManager {
	return mesh.HTTPManager{Upgrades: []mesh.Upgrade{{Type: "websocket", Enabled: true}, {Type: "connect", Enabled: true}, {Type: "off"}}}
}

func tunnelRoutes() []*mesh.Route {
	return []*mesh.Route{{Match: mesh.RouteMatch{Kind: mesh.PathConnect}, Forward: to("c")}, forwarded()}
}

// TestEarlyBytes: what a client sends behind a request to switch protocols reaches the upstream only once that has
// switched, and never as a request (F49, T7).
func TestEarlyBytes(t *testing.T) {
	t.Parallel()
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct {
		name, in, answer string
		status           string
		through          bool
	}{
		{"websocket accepted", wantWS, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "101", true},
		{"websocket refused", wantWS, "HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "403", false},
		{"websocket ignored", wantWS, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "200", false},
		{"CONNECT accepted", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "200", true},
		{"CONNECT refused", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "HTTP/1.1 502 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "502", false},
		{"upgrade that is off", strings.Replace(wantWS, "WebSocket", "off", 1), "", "403", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, asked := make(chan string, 1), make(chan struct{})
			answer := make(chan struct{})
			r := start(t, setup{manager: webSockets(), routes: tunnelRoutes(), backend: func(p *peer) {
				p.head()
				close(asked)
				<-answer
				p.send(c.answer)
				got <- p.rest()
			}})
			conn := r.dial()
			conn.send(c.in + smuggled)
			if c.answer != "" {
				<-asked
				if n := r.clusters["c"].Stats.Value(metrics.UpstreamRqTotal); n != 1 {
					t.Errorf("%d upstream requests", n)
				}
			}
			close(answer)
			if h := conn.head(); statusOf(h) != c.status {
				t.Fatalf("got %q", h)
			}
			conn.CloseWrite()
			rest := conn.rest()
			if strings.Contains(rest, "HTTP/") || strings.HasSuffix(rest, "<reset>") {
				t.Errorf("then %q", rest)
			}
			if c.answer != "" {
				want := ""
				if c.through {
					want = smuggled
				}
				if g := <-got; g != want {
					t.Errorf("the upstream got %q", g)
				}
			}
			if o := r.wait(1); len(o) != 1 {
				t.Errorf("%d outcomes", len(o))
			}
		})
	}
}

// TestWebSocket: the heads of an upgrade, the counters while it lasts, and the ends of a tunnel.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	heads := make(chan string, 1)
	r := start(t, setup{manager: webSockets(), routes: tunnelRoutes(), backend: func(p *peer) {
		heads <- p.head()
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		io.Copy(p.TCPConn, p)
	}})
	c := r.dial()
	c.send(wantWS)
	if h, want := clean(c.head()), "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nSec-WebSocket-Accept: x\r\nserver: envoy\r\n\r\n"; h != want {
		t.Errorf("\n got %q\nwant %q", h, want)
	}
	if h := <-heads; strings.Count(h, "pgrade: ") != 1 || !strings.Contains(strings.ToLower(h), "connection: upgrade\r\nupgrade: websocket\r\n") {
		t.Errorf("the upstream got %q", h)
	}
	big := strings.Repeat("0123456789abcdef", 1<<14)
	go c.send(big)
	if got := c.take(len(big)); got != big {
		t.Error("the tunnel changed the bytes")
	}
	if n := r.count(metrics.DownstreamCxUpgradesActive); n != 1 {
		t.Errorf("%d upgrades are active", n)
	}
	c.CloseWrite()
	if got := c.rest(); got != "" {
		t.Errorf("then %q", got)
	}
	if o := r.wait(1)[0]; o.Status != 101 || o.BytesSent != int64(len(big)) || o.BytesReceived != int64(len(big)) || o.Flags != 0 {
		t.Errorf("%+v", o)
	}
	r.waitConns(0)
	if a, n := r.count(metrics.DownstreamCxUpgradesActive), r.count(metrics.DownstreamCxUpgradesTotal); a != 0 || n != 1 {
		t.Errorf("%d upgrades are active of %d", a, n)
	}
}

// TestTunnelReset: an upstream that resets a tunnel resets the client's connection, and the other way round: neither can
// take what it has for all.
func TestTunnelReset(t *testing.T) {
	t.Parallel()
	const accepted = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
	t.Run("by the upstream", func(t *testing.T) {
		t.Parallel()
		r := start(t, setup{manager: webSockets(), routes: tunnelRoutes(), backend: func(p *peer) {
			p.head()
			p.send(accepted)
			p.take(1)
			p.SetLinger(0)
		}})
		c := r.dial()
		c.send(wantWS)
		c.head()
		c.send("x")
		if got := c.rest(); got != "<reset>" {
			t.Errorf("got %q", got)
		}
		if o := r.wait(1)[0]; o.Failure != mesh.UpstreamClosed {
			t.Errorf("%+v", o)
		}
	})
	t.Run("by the client", func(t *testing.T) {
		t.Parallel()
		got := make(chan string, 1)
		r := start(t, setup{manager: webSockets(), routes: tunnelRoutes(), backend: func(p *peer) {
			p.head()
			p.send(accepted)
			got <- p.rest()
		}})
		c := r.dial()
		c.send(wantWS)
		c.head()
		c.SetLinger(0)
		c.Close()
		if g := <-got; g != "<reset>" {
			t.Errorf("the upstream got %q", g)
		}
		if o := r.wait(1)[0]; o.Failure != mesh.DownstreamClosed {
			t.Errorf("%+v", o)
		}
	})
}
