// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Do is the request header that tells an origin what to do, such as "status=503":
//
//	status=N    answers with this status
//	fail=N      answers with 503 as long as fewer than N requests with the same x-case header have come to any origin of
//	            the same Group
//	cut=N       the same, but closes the connection without an answer
//	hang        reads the request and answers only when the client has gone, which nobody sees
//	hang=N      the same for the first N, as with fail
//	hold        answers only after Release
const Do = "x-do"

// Group is a set of origins that share the count of what failed.
type Group struct {
	mu    sync.Mutex
	cases map[string]int // guarded by mu: the requests that came, by x-case
}

// HTTP is an HTTP/1.1 server that answers with a line "name method target host", a line for each request header, and the
// request's body.
type HTTP struct {
	Name string
	// Unhealthy makes it answer /healthz with 503.
	Unhealthy atomic.Bool
	// Requests counts what it was asked, Checks how often it was asked for its health.
	Requests, Checks atomic.Int64

	group    *Group
	addr     netip.AddrPort
	server   *http.Server
	released chan struct{}
	wg       sync.WaitGroup
}

// Start runs an origin on a free loopback port until the test ends.
func Start(tb testing.TB, name string, g *Group) *HTTP {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return Serve(tb, ln, name, g)
}

// Serve is Start on a socket of the caller's. Origins without a group count for themselves.
func Serve(tb testing.TB, ln net.Listener, name string, g *Group) *HTTP {
	if g == nil {
		g = &Group{}
	}
	o := &HTTP{Name: name, group: g, addr: netip.MustParseAddrPort(ln.Addr().String()), released: make(chan struct{})}
	o.server = &http.Server{Handler: o}
	o.wg.Go(func() { _ = o.server.Serve(ln) })
	tb.Cleanup(o.Close)
	return o
}

// Close ends the server and its connections at once.
func (o *HTTP) Close() {
	o.server.Close()
	o.wg.Wait()
}

// Release answers the requests that were held, and holds none from now on. It is called once.
func (o *HTTP) Release() { close(o.released) }

// Addr returns the address.
func (o *HTTP) Addr() netip.AddrPort { return o.addr }

// ServeHTTP answers.
func (o *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		o.health(w)
		return
	}
	o.Requests.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if r.Header.Get("Upgrade") == "websocket" {
		o.socket(w)
		return
	}
	if o.misbehave(w, r) {
		return
	}
	o.answer(w, r, http.StatusOK, body)
}

func (o *HTTP) health(w http.ResponseWriter) {
	o.Checks.Add(1)
	if o.Unhealthy.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// misbehave does what the request asks for.
func (o *HTTP) misbehave(w http.ResponseWriter, r *http.Request) (done bool) {
	what, value, numbered := strings.Cut(r.Header.Get(Do), "=")
	n, _ := strconv.Atoi(value)
	if what == "" || what != "status" && numbered && !o.group.among(r.Header.Get("x-case"), n) {
		return false
	}
	switch what {
	case "status":
		o.answer(w, r, n, nil)
	case "fail":
		o.answer(w, r, http.StatusServiceUnavailable, nil)
	case "cut":
		panic(http.ErrAbortHandler)
	case "hang":
		<-r.Context().Done()
	case "hold":
		select {
		case <-o.released:
		case <-r.Context().Done():
		}
		o.answer(w, r, http.StatusOK, nil)
	default:
		o.answer(w, r, http.StatusBadRequest, fmt.Appendf(nil, "%s: %q is unknown", Do, what))
	}
	return true
}

// among counts a request, and reports whether it is one of the first n of its case.
func (g *Group) among(name string, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cases == nil {
		g.cases = map[string]int{}
	}
	g.cases[name]++
	return g.cases[name] <= n
}

func (o *HTTP) answer(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("X-Origin", o.Name)
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s\n", o.Name, r.Method, r.RequestURI, r.Host)
	for _, line := range headerLines(r.Header) {
		b.WriteString(line + "\n")
	}
	b.Write(body)
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	io.WriteString(w, b.String())
}

// headerLines returns the headers in lower case and in order.
func headerLines(h http.Header) (lines []string) {
	for name, values := range h {
		for _, v := range values {
			lines = append(lines, strings.ToLower(name)+": "+v)
		}
	}
	slices.Sort(lines)
	return lines
}

// socket accepts an upgrade and sends back what it gets, behind the origin's name. What is said is no WebSocket frame: a
// proxy does not look.
func (o *HTTP) socket(w http.ResponseWriter) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	o.wg.Go(func() {
		defer c.Close()
		echo(c, rw, "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n", o.Name)
	})
}

// echo sends a greeting, and then each line that it reads, behind a name.
func echo(c net.Conn, rw *bufio.ReadWriter, greeting, name string) {
	if _, err := io.WriteString(c, greeting); err != nil {
		return
	}
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, name+" "+line); err != nil {
			return
		}
	}
}
