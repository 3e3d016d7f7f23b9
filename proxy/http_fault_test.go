// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// httpOrigin plays an upstream connection by connection, in raw bytes.
func httpOrigin(t testing.TB, serve func(c *net.TCPConn, br *bufio.Reader)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var open sync.Map
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(2 * hang))
			open.Store(c, nil)
			wg.Go(func() {
				defer open.Delete(c)
				defer c.Close()
				serve(c.(*net.TCPConn), bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	return l.Addr().String()
}

// httpDial opens a client connection that is closed with the test.
func httpDial(t testing.TB, addr string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(hang))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), bufio.NewReader(c)
}

// TestHTTPAnswerCutAtEveryByte: the upstream ends, or resets, an answer after each of its bytes. A client never takes a
// part for the whole, gets 503 where the head had not come, and the next client gets an answer of its own (F35).
func TestHTTPAnswerCutAtEveryByte(t *testing.T) {
	t.Parallel()
	answers := map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-A: b\r\n\r\n0123456789",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\nX-T: u\r\n\r\n",
		"interim": "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
	}
	for name, answer := range answers {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s reset %v", name, reset), func(t *testing.T) {
				t.Parallel()
				var cut atomic.Int64
				r := newRig(t)
				r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", httpOrigin(t, func(c *net.TCPConn, br *bufio.Reader) {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					io.WriteString(c, answer[:cut.Load()])
					if reset {
						c.SetLinger(0)
					}
				})))
				body := strings.LastIndex(answer[:strings.Index(answer, "0123")], "\r\n\r\n") + 4
				for i := 0; i <= len(answer); i++ {
					cut.Store(int64(i))
					c, br := httpDial(t, r.addr)
					io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
					resp, got, err := httpRead(br)
					whole := err == nil && resp.StatusCode == 200
					switch {
					case resp == nil:
						t.Fatalf("cut at %d: %v", i, err)
					case whole && (i != len(answer) || got != "0123456789"):
						t.Errorf("cut at %d: a part was taken for the whole: %q", i, got)
					case i == len(answer) && !whole && !reset: // a reset may overtake the bytes
						t.Errorf("the whole answer was taken for a part: %v", err)
					case i < body && resp.StatusCode != 503:
						t.Errorf("cut at %d: %d", i, resp.StatusCode)
					case !strings.HasPrefix("0123456789", got) && resp.StatusCode == 200:
						t.Errorf("cut at %d: got %q", i, got)
					}
					c.Close()
				}
				// Outcomes may pass each other: a client sees the end of its answer before its Outcome is told.
				whole := 0
				for _, o := range r.rec.wait(t, len(answer)+1) {
					switch {
					case o.Failure == mesh.NoFailure:
						whole++
					case o.Failure != mesh.UpstreamClosed || o.Flags != mesh.FlagUC:
						t.Errorf("an Outcome with %d %s %s", o.Status, o.Failure, o.Flags)
					}
				}
				if whole > 1 || whole == 0 && !reset {
					t.Errorf("%d answers were whole, of which one was", whole)
				}
			})
		}
	}
}

// httpRead reads a final answer with its body. resp is nil where there is no head.
func httpRead(br *bufio.Reader) (resp *http.Response, body string, err error) {
	for {
		if resp, err = http.ReadResponse(br, nil); err != nil {
			return nil, "", err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == 101 {
			break
		}
	}
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// TestHTTPUpstreamGarbage: an upstream that breaks the protocol gives 502 and loses its connection; the client keeps its
// own.
func TestHTTPUpstreamGarbage(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"no HTTP":               "SSH-2.0-OpenSSH_9.9\r\n",
		"HTTP/2":                "HTTP/2.0 200 OK\r\n\r\n",
		"bare LF":               "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"status":                "HTTP/1.1 2000 OK\r\n\r\n",
		"status below 100":      "HTTP/1.1 099 X\r\n\r\n",
		"status of letters":     "HTTP/1.1 abc X\r\n\r\n",
		"no colon":              "HTTP/1.1 200 OK\r\nNonsense\r\n\r\n",
		"space before colon":    "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
		"folded":                "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
		"NUL":                   "HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
		"lone CR":               "HTTP/1.1 200 OK\r\nX: a\rContent-Length: 5\r\n\r\n",
		"length and chunks":     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n012345",
		"negative length":       "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"length overflow":       "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"unknown coding":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"chunks in HTTP/1.0":    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"101 that nobody asked": "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		"bad chunk size":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"huge chunk size":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
		"long status line":      "HTTP/1.1 200 " + strings.Repeat("x", 2000),
		"large head":            "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("y", 10<<10)+"\r\n", 7),
		"many fields":           "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 101) + "\r\n",
	}
	for name, answer := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			closed := make(chan struct{}, 1)
			r := newRig(t)
			r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", httpOrigin(t, func(c *net.TCPConn, br *bufio.Reader) {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				io.WriteString(c, answer)
				io.Copy(io.Discard, br)
				closed <- struct{}{}
			})))
			c, br := httpDial(t, r.addr)
			for range 2 {
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				resp, body, err := httpRead(br)
				if err != nil || resp.StatusCode != 502 || body != "upstream connect error or disconnect/reset before headers. reset reason: protocol error" {
					t.Fatalf("%v %q %v", resp, body, err)
				}
				<-closed // both times: it is not used again
			}
			for _, o := range r.rec.wait(t, 2) {
				if o.Flags != mesh.FlagUPE || o.Failure != mesh.UpstreamProtocolError || o.Details != "upstream_reset_before_response_started{protocol_error}" {
					t.Errorf("%s %s %s", o.Failure, o.Flags, o.Details)
				}
			}
		})
	}
}

// TestHTTPExtraBytes: what an upstream sends behind its answer reaches no client, and the connection is not used again,
// whether the bytes come with the answer or later (F35).
func TestHTTPExtraBytes(t *testing.T) {
	t.Parallel()
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for _, late := range []bool{false, true} {
		var n atomic.Int64
		extra, sent := make(chan struct{}), make(chan struct{})
		r := newRig(t)
		r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", httpOrigin(t, func(c *net.TCPConn, br *bufio.Reader) {
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d", n.Add(1))
				if late {
					io.WriteString(c, answer)
					<-extra
					io.WriteString(c, evil) // on loopback it has arrived when this returns
					sent <- struct{}{}
				} else {
					io.WriteString(c, answer+evil)
				}
			}
		})))
		c, br := httpDial(t, r.addr)
		for i := 1; i <= 50; i++ {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if _, body, err := httpRead(br); body != fmt.Sprintf("%08d", i) || err != nil {
				t.Fatalf("late %v: request %d got %q, %v", late, i, body, err)
			}
			if late {
				extra <- struct{}{}
				<-sent
			}
		}
	}
}

// TestHTTPKeepAliveRace: an upstream that closes its connections after some answers, as it may, costs no GET its answer,
// and no POST is ever sent twice (F33).
func TestHTTPKeepAliveRace(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	addr := httpOrigin(t, func(c *net.TCPConn, br *bufio.Reader) {
		for i := range 3 {
			q, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, q.Body)
			mu.Lock()
			seen[q.URL.Path]++
			mu.Unlock()
			if i == 2 {
				c.SetLinger(0)
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if i == 2 {
				c.CloseWrite() // the answer leaves, then a reset meets what comes
				return
			}
		}
	})
	r := newRig(t)
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", addr))
	var wg sync.WaitGroup
	var lost atomic.Int64
	for w := range 8 {
		wg.Go(func() {
			c, br := httpDial(t, r.addr)
			for i := range 200 {
				method, fields := "GET", ""
				if w%2 == 1 {
					method, fields = "POST", "Content-Length: 0\r\n"
				}
				fmt.Fprintf(c, "%s /%s-%d-%d HTTP/1.1\r\nHost: a\r\n%s\r\n", method, method, w, i, fields)
				resp, _, err := httpRead(br)
				switch {
				case err != nil:
					t.Error(err)
					return
				case resp.StatusCode != 200 && method == "GET":
					t.Errorf("GET got %d", resp.StatusCode)
				case resp.StatusCode != 200:
					lost.Add(1)
				}
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	for path, n := range seen {
		if strings.HasPrefix(path, "/POST") && n > 1 {
			t.Errorf("%s reached the upstream %d times", path, n)
		}
	}
	t.Logf("%d of 800 POSTs were answered 503", lost.Load())
}

// TestHTTPUpstreamKilled: one of four upstreams dies and comes back again and again; with retries no client sees it (F28).
func TestHTTPUpstreamKilled(t *testing.T) {
	t.Parallel()
	var addrs []string
	for range 3 {
		addrs = append(addrs, backend(t, named("alive")))
	}
	mortal, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := mortal.Addr().String()
	a := to("c")
	a.Retry = &mesh.RetryPolicy{
		On: mesh.RetryOnConnectFailure | mesh.RetryOnReset, Retries: 3, SkipPreviousHosts: true, HostSelectionTries: 5, BackOffBase: time.Millisecond, BackOffMax: time.Millisecond,
	}
	r := newRig(t)
	cl := cluster("c", append(addrs, addr)...)
	cl.Limits[0].Retries = 64
	r.serve(manager(), []*mesh.Route{prefix("/", a)}, cl)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			c, br := httpDial(t, r.addr)
			for {
				select {
				case <-stop:
					return
				default:
				}
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				if resp, body, err := httpRead(br); err != nil || resp.StatusCode != 200 {
					t.Errorf("%v %q %v", resp, body, err)
					return
				}
			}
		})
	}
	served := 0
	for round := range 10 {
		served += httpMortal(t, mortal, r, round)
		if mortal, err = net.Listen("tcp", addr); err != nil {
			t.Fatal(err)
		}
	}
	mortal.Close()
	close(stop)
	clients.Wait()
	if served == 0 {
		t.Error("the upstream that dies was never asked")
	}
}

// httpMortal serves until it has answered some requests, then resets all that it has, in whatever they are.
func httpMortal(t *testing.T, l net.Listener, r *rig, round int) (served int) {
	var n atomic.Int64
	enough := make(chan struct{}, 1)
	var conns sync.Map
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, nil)
			wg.Go(func() {
				br := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					if n.Add(1) == int64(5+round) {
						enough <- struct{}{}
					}
					if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
						return
					}
				}
			})
		}
	})
	select {
	case <-enough:
	case <-time.After(hang):
		t.Error("the upstream that came back is not asked")
	}
	l.Close()
	conns.Range(func(c, _ any) bool {
		c.(*net.TCPConn).SetLinger(0)
		c.(net.Conn).Close()
		return true
	})
	before := r.rec.n.Load()
	r.rec.wait(t, int(before)+20) // some requests meet it dead
	wg.Wait()
	return int(n.Load())
}
