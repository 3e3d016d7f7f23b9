// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// netConn is the key of a request's connection at an upstream of HTTP/2.
type netConn struct{}

// upstream2 is an upstream of HTTP/2 with whatever behaviour comes up. end closes it and waits.
func (c *chaos) upstream2(d *dice) (addr string, end func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	s := &http.Server{
		Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1 + d.n(20)},
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context { return context.WithValue(ctx, netConn{}, nc) },
	}
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { c.serve2(w, q, d) })
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(l) })
	return l.Addr().String(), func() { s.Close(); wg.Wait() }
}

// serve2 is serve for HTTP/2.
func (c *chaos) serve2(w http.ResponseWriter, q *http.Request, d *dice) {
	id := q.Header.Get("X-Id")
	c.mu.Lock()
	c.seen[id] = true
	c.mu.Unlock()
	if d.n(8) > 0 {
		if _, err := io.Copy(io.Discard, q.Body); err != nil {
			return
		}
	}
	size := []int{0, 1, 10, 1000, 20_000}[d.n(5)]
	body := strings.Repeat(id+" ", size)
	w.Header().Set("X-Id", id)
	w.Header().Set("X-Size", strconv.Itoa(size))
	if d.n(2) == 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	conn := q.Context().Value(netConn{}).(net.Conn)
	part := body[:d.n(len(body)+1)]
	switch d.n(16) {
	case 0:
		panic(http.ErrAbortHandler) // a reset
	case 1: // a reset in the middle
		io.WriteString(w, part)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case 2: // it stalls, perhaps in the middle
		io.WriteString(w, part)
		http.NewResponseController(w).Flush()
		<-q.Context().Done()
	case 3: // all streams of the connection end
		io.WriteString(w, part)
		conn.Close()
	case 4:
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	case 5: // a graceful GOAWAY
		w.Header().Set("Connection", "close")
		io.WriteString(w, body)
	case 6:
		w.Header().Del("Content-Length")
		w.Header().Set("X-Size", "0")
		w.WriteHeader(503)
	case 7:
		w.WriteHeader(103)
		io.WriteString(w, body)
	default:
		io.WriteString(w, body)
	}
}

// session2 is one client connection of HTTP/2: some requests at a time, of which some are given up, and perhaps an end in
// the middle of all.
func (c *chaos) session2(d *dice) {
	conn, err := net.Dial("tcp", c.rig.addr)
	if err != nil {
		c.t.Error(err)
		return
	}
	defer conn.Close()
	var used atomic.Bool
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
		if used.Swap(true) {
			return nil, net.ErrClosed
		}
		return conn, nil
	}
	defer tr.CloseIdleConnections()
	c.ask2(tr, d, "")
	var wg sync.WaitGroup
	for range 1 + d.n(6) {
		wg.Go(func() { c.ask2(tr, d, []string{"", "", "gives up"}[d.n(3)]) })
	}
	if d.n(3) == 0 {
		time.Sleep(time.Duration(d.n(3000)) * time.Microsecond) // a client that goes when it likes
		if d.n(2) == 0 {
			conn.(*net.TCPConn).SetLinger(0)
		}
		conn.Close()
	}
	wg.Wait()
}

// ask2 makes one request, and holds its answer against it as read does.
func (c *chaos) ask2(tr http.RoundTripper, d *dice, how string) {
	id := strconv.FormatInt(c.ids.Add(1), 10)
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if how != "" {
		give := time.AfterFunc(time.Duration(d.n(2000))*time.Microsecond, cancel)
		defer give.Stop()
	}
	var body io.Reader
	method := []string{"GET", "POST", "PUT"}[d.n(3)]
	if text := strings.Repeat("b", []int{1, 100, 5000, 100_000}[d.n(4)]); method == "POST" {
		body = strings.NewReader(text)
	} else if method == "PUT" {
		body = io.MultiReader(strings.NewReader(text)) // of unknown length
	}
	q, _ := http.NewRequestWithContext(ctx, method, "http://"+c.rig.addr+[]string{"/a/", "/b/"}[d.n(2)]+id, body)
	q.GetBody = nil // so that it is sent once
	q.Header.Set("X-Id", id)
	resp, err := tr.RoundTrip(q)
	if err != nil {
		c.late(ctx, id)
		return
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	of := resp.Header.Get("X-Id")
	if of != "" && of != id || of == "" && resp.StatusCode < 400 {
		c.t.Errorf("request %s: %d, the answer to %q", id, resp.StatusCode, of)
	}
	if err != nil {
		c.late(ctx, id)
		return
	}
	if size, _ := strconv.Atoi(resp.Header.Get("X-Size")); resp.StatusCode == 200 && string(got) != strings.Repeat(id+" ", size) {
		c.t.Errorf("request %s: %s", id, fmt.Sprintf("%d bytes that are not its own %d", len(got), size))
	}
	c.mu.Lock()
	c.answered[id] = true
	c.mu.Unlock()
}

// late complains about a client that waited in vain.
func (c *chaos) late(ctx context.Context, id string) {
	if ctx.Err() == context.DeadlineExceeded {
		c.t.Errorf("request %s hangs", id)
		c.mu.Lock()
		c.hangs = append(c.hangs, id)
		c.mu.Unlock()
	}
}
