// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	checkHost = "svc-a.mesh.local"
	checkPath = "/api/v1/items/42?limit=10"
	checks    = 10 // requests of the first check
	answer    = "{\"answer\": 42}"
	grpcType  = "application/grpc"
	// streamHeader asks an origin to send messages back one by one.
	streamHeader  = "X-Bench-Stream"
	streamMessage = "\x00\x00\x00\x00\x05hello"
	etag          = `"33a64df551425fcc55e4d42a148795d9f25f89d4"`
)

// origin is an upstream that remembers what reached it.
type origin struct {
	mu    sync.Mutex
	seen  []received
	conns map[string]bool
}

type received struct {
	host, uri, id, trace, proto string
	body                        int
	whole                       bool // and each byte as it was sent
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get(streamHeader) != "" {
		echo(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	o.mu.Lock()
	o.seen = append(o.seen, received{
		r.Host, r.RequestURI, r.Header.Get("X-Request-Id"), r.Header.Get("Traceparent"), r.Proto, len(body),
		err == nil && len(bytes.Trim(body, "x")) == 0,
	})
	o.conns[r.RemoteAddr] = true
	o.mu.Unlock()
	w.Header().Set("Etag", etag)
	if kind := r.Header.Get("Content-Type"); kind == grpcType {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write(body)
		w.Header().Set("Grpc-Status", "0")
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = io.WriteString(w, answer)
}

// echo sends back what comes as it comes, as a call.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", grpcType)
	w.Header().Set("Trailer", "Grpc-Status")
	for buf := make([]byte, 1<<10); ; {
		n, err := r.Body.Read(buf)
		_, _ = w.Write(buf[:n])
		_ = http.NewResponseController(w).Flush()
		if err != nil {
			break
		}
	}
	w.Header().Set("Grpc-Status", "0")
}

func (o *origin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.seen)
}

func (o *origin) last() received {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) == 0 {
		return received{}
	}
	return o.seen[len(o.seen)-1]
}

// Check sends requests through a running peer to upstreams of its own, and returns what it does not do of the job.
func Check(ctx context.Context, at Place) error {
	var origins [3]*origin
	for i, a := range []netip.AddrPort{at.Upstreams[0], at.Upstreams[1], at.Other} {
		origins[i] = &origin{conns: map[string]bool{}}
		l, err := net.Listen("tcp", a.String())
		if err != nil {
			return fmt.Errorf("peer: %w", err)
		}
		s := &http.Server{Handler: origins[i], Protocols: protocols(at.Up2), ReadHeaderTimeout: 10 * time.Second}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Serve(l)
		}()
		defer func() { _ = s.Close(); <-done }()
	}
	transport := &http.Transport{DisableCompression: true, MaxConnsPerHost: 1, Protocols: protocols(at.Down2)}
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	base := "http://" + at.Listen.String()
	if at.TLS {
		var err error
		if transport.TLSClientConfig, err = trust(at.Identity()); err != nil {
			return fmt.Errorf("peer: %w", err)
		}
		transport.Protocols.SetUnencryptedHTTP2(false)
		transport.Protocols.SetHTTP2(true)
		base = "https://" + at.Listen.String()
	}
	c := &check{client: client, base: base, down: version(at.Down2), up: version(at.Up2)}
	c.routes(ctx, origins)
	c.fields(ctx, origins)
	c.upload(ctx, origins)
	if !at.Down2 {
		c.hangUp(ctx)
	}
	if at.TLS {
		if resp, _ := c.ask(ctx, http.MethodGet, checkHost, checkPath, nil); resp != nil {
			if err := sealed(resp.TLS); err != nil {
				c.fail("%w", err)
			}
		}
	}
	if at.GRPC {
		c.call(ctx)
	}
	if at.Streaming {
		c.stream(ctx)
	}
	return errors.Join(c.failed...)
}

// protocols are HTTP/1.1, or HTTP/2 with prior knowledge.
func protocols(http2 bool) *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(!http2)
	p.SetUnencryptedHTTP2(http2)
	return p
}

func version(http2 bool) string {
	if http2 {
		return "HTTP/2.0"
	}
	return "HTTP/1.1"
}

// check gathers what is wrong.
type check struct {
	client   *http.Client
	base     string
	down, up string // the protocols
	failed   []error
}

func (c *check) fail(format string, args ...any) {
	c.failed = append(c.failed, fmt.Errorf(format, args...))
}

// ask returns the answer to a request, or nil where there was none.
func (c *check) ask(ctx context.Context, method, host, path string, body io.Reader) (*http.Response, string) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		c.fail("%w", err)
		return nil, ""
	}
	r.Host = host
	r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	resp, err := c.client.Do(r)
	if err != nil {
		c.fail("%s %s of %s has no answer: %w", method, path, host, err)
		return nil, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.fail("%s %s of %s has half an answer: %w", method, path, host, err)
		return nil, ""
	}
	return resp, string(b)
}

// routes looks whether host and prefix choose the cluster.
func (c *check) routes(ctx context.Context, origins [3]*origin) {
	for _, tt := range []struct {
		host, path string
		status     int
		other      bool
	}{
		{checkHost, "/api/v2/x", 200, true},
		{"svc-b.mesh.local", "/anything", 200, true},
		{checkHost, "/other", 404, false},
		{"svc-c.mesh.local", checkPath, 404, false},
	} {
		before := origins[2].count()
		resp, _ := c.ask(ctx, http.MethodGet, tt.host, tt.path, nil)
		if resp == nil {
			continue
		}
		if resp.StatusCode != tt.status {
			c.fail("%s of %s has status %d, want %d", tt.path, tt.host, resp.StatusCode, tt.status)
		}
		if reached := origins[2].count() > before; reached != tt.other {
			c.fail("%s of %s: the second cluster was reached: %v, want %v", tt.path, tt.host, reached, tt.other)
		}
	}
}

// fields looks at a row of plain requests from both ends.
func (c *check) fields(ctx context.Context, origins [3]*origin) {
	for range checks {
		resp, body := c.ask(ctx, http.MethodGet, checkHost, checkPath, nil)
		if resp == nil {
			return
		}
		if resp.StatusCode != 200 || body != answer || resp.Header.Get("Etag") != etag || resp.ContentLength != int64(len(answer)) {
			c.fail("the answer is changed: status %d, body %q, ETag %q, length %d", resp.StatusCode, body, resp.Header.Get("Etag"), resp.ContentLength)
		}
		if _, err := strconv.ParseFloat(resp.Header.Get("X-Envoy-Upstream-Service-Time"), 64); err != nil {
			c.fail("x-envoy-upstream-service-time is %q at the client", resp.Header.Get("X-Envoy-Upstream-Service-Time"))
		}
		if resp.Proto != c.down || resp.Close {
			c.fail("the connection to the client is not kept: %s", resp.Proto)
		}
	}
	ids := map[string]bool{}
	for i, o := range origins[:2] {
		o.mu.Lock()
		defer o.mu.Unlock()
		if n := len(o.seen); n < checks/2-1 || n > checks/2+1 {
			c.fail("upstream %d had %d of %d requests, so they do not take turns", i, n, checks)
		}
		if n := len(o.conns); n > 2 {
			c.fail("upstream %d had %d connections for %d requests, so they are not kept", i, n, len(o.seen))
		}
		for _, s := range o.seen {
			ids[s.id] = true
			if s.host != checkHost || s.uri != checkPath || s.trace == "" || s.proto != c.up {
				c.fail("the request is changed: %s %s of %q, traceparent %q", s.proto, s.uri, s.host, s.trace)
			}
		}
	}
	if ids[""] {
		c.fail("x-request-id is missing at the upstream")
	}
}

// upload looks whether a body arrives whole.
func (c *check) upload(ctx context.Context, origins [3]*origin) {
	const size = 64 << 10
	resp, body := c.ask(ctx, http.MethodPost, checkHost, checkPath, strings.NewReader(strings.Repeat("x", size)))
	if resp != nil && (resp.StatusCode != 200 || body != answer) {
		c.fail("an upload has status %d and body %q", resp.StatusCode, body)
	}
	arrived := 0
	for _, o := range origins[:2] {
		if last := o.last(); last.body == size && last.whole {
			arrived++
		}
	}
	if arrived != 1 {
		c.fail("an upload of %d bytes arrived whole %d times", size, arrived)
	}
}

// hangUp looks whether the peer closes when it is asked to, which the row with a connection per request waits for.
func (c *check) hangUp(ctx context.Context) {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(c.base, "http://"))
	if err != nil {
		c.fail("%w", err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", checkPath, checkHost)
	b, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 200")) || !bytes.HasSuffix(b, []byte(answer)) {
		c.fail("a connection with Connection: close is not closed behind its answer: %d bytes, %v", len(b), err)
	}
}

// call looks whether a call has a message and a status behind it.
func (c *check) call(ctx context.Context) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+checkPath, strings.NewReader(streamMessage))
	if err != nil {
		c.fail("%w", err)
		return
	}
	r.Host = checkHost
	r.Header.Set("Content-Type", grpcType)
	r.Header.Set("Te", "trailers")
	resp, err := c.client.Do(r)
	if err != nil {
		c.fail("a call has no answer: %w", err)
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(b) != streamMessage || resp.Trailer.Get("Grpc-Status") != "0" {
		c.fail("a call has status %d, message %q, grpc-status %q: %v", resp.StatusCode, b, resp.Trailer.Get("Grpc-Status"), err)
	}
}

// stream looks whether messages go both ways on a stream as they come: the second goes when the first is back.
func (c *check) stream(ctx context.Context) {
	body, to := io.Pipe()
	defer to.Close()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+checkPath, body)
	if err != nil {
		c.fail("%w", err)
		return
	}
	r.Host = checkHost
	r.Header.Set("Content-Type", grpcType)
	r.Header.Set("Te", "trailers")
	r.Header.Set(streamHeader, "1")
	first := make(chan struct{})
	go func() {
		defer close(first)
		_, _ = io.WriteString(to, streamMessage)
	}()
	resp, err := c.client.Do(r)
	if err != nil {
		c.fail("a stream has no answer: %w", err)
		return
	}
	defer resp.Body.Close()
	<-first
	got := make([]byte, len(streamMessage))
	for i := range 3 {
		if i > 0 {
			_, err = io.WriteString(to, streamMessage)
		}
		if err == nil {
			_, err = io.ReadFull(resp.Body, got)
		}
		if err != nil || string(got) != streamMessage {
			c.fail("message %d of a stream comes back as %q: %v", i, got, err)
			return
		}
	}
	_ = to.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 || resp.Trailer.Get("Grpc-Status") != "0" {
		c.fail("a stream ends with %q, grpc-status %q: %v", rest, resp.Trailer.Get("Grpc-Status"), err)
	}
}
