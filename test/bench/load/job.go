// SPDX-License-Identifier: Apache-2.0

// Package load is the load generator: clients and upstreams of one measurement in one thread, so that everything which is
// not the proxy fits on one core.
//
// It keeps due times. With a rate, the request of a slot is due when its slot begins, and its latency counts from there even
// where the connection was still busy: a proxy that stops for a second is charged for every request that should have been
// sent in that second (no coordinated omission). Without a rate, each connection sends when its answer has come, which
// measures saturation. In both, latencies go into an HdrHistogram. In HTTP/2, a stream is what a connection is in HTTP/1.1.
//
// A generator is one goroutine, the caller of Run, which owns all sockets. It uses system calls that hold the processor
// while they wait, so it belongs into a process of its own: see Main in command bench.
package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshtap/meshtap/test/bench/proc"
)

// Job is what a generator is to do.
type Job struct {
	// Target is where the proxy listens.
	Target netip.AddrPort
	// Upstreams are where the generator answers what the proxy forwards. They may be empty.
	Upstreams []netip.AddrPort
	// Host and Path are the authority and the target of each request.
	Host, Path string
	// Down is what the clients speak and Up what the upstreams do.
	Down, Up Protocol
	// TLS makes the clients' connections secure, for HTTP/2 alone: TLS 1.3, the protocol by ALPN.
	TLS bool
	// Conns is the number of client connections, 1 to 10,000.
	Conns int
	// Streams is the number of requests that a connection with HTTP/2 has in flight, up to 1,000; 0 is 1. Each has due times
	// of its own, as a connection of HTTP/1.1 has.
	Streams int
	// Rate is the number of requests per second over all connections; 0 sends as fast as answers come.
	Rate int
	// Warm runs before Measure; what completes in it does not count.
	Warm, Measure time.Duration
	// Body is the size in bytes of each answer's body; Upload that of each request's, where 0 sends GET.
	Body, Upload int
	// GRPC makes each request a unary call and each answer its result: messages of Upload and Body bytes, framed, and a
	// status in trailers. Both sides must speak HTTP/2.
	GRPC bool
	// Streaming makes GRPC's calls streams in both directions that stand for as long as the job: a request is a message then,
	// its answer the message that comes back on the same stream, and the next one goes when that is there.
	Streaming bool
	// Churn opens a connection for each request.
	Churn bool
	// Idle sends one request on each connection, or stream, and then keeps all of them open, instead of measuring for a
	// time; Measure bounds how long that may take.
	Idle bool
	// Held is Idle with upstreams that speak HTTP/2 and never answer: what stands open are streams.
	Held bool
	// Watch is the process whose processor time is taken at the beginning and at the end of the window; 0 is none.
	Watch int
	// Core is where that process is pinned and OwnCore where the generator is; their busy times are taken too.
	Core, OwnCore int
}

// Protocol is a version of HTTP. Without TLS, HTTP/2 is spoken with prior knowledge.
type Protocol uint8

// The protocols.
const (
	HTTP1 Protocol = iota
	HTTP2
)

// Slots is the number of requests that may be in flight.
func (j *Job) Slots() int { return j.Conns * max(1, j.Streams) }

// Result is what a generator has seen in the window.
type Result struct {
	// Requests is the number of complete answers with status 200 and the body that was asked for.
	Requests uint64
	// Errors is the number of connections that broke, and Bad that of answers that were not what was asked for.
	Errors, Bad uint64
	// Reconnects is the number of answers behind which the proxy closed a connection that it could have kept.
	Reconnects uint64
	// Stuck is the number of requests without an answer a second after they were sent, at the end.
	Stuck int
	// Backlog is the number of requests that were due and not sent at the end: more than a few say that the rate was not kept.
	Backlog int
	// Seconds is the length of the window.
	Seconds float64
	// Connections and Answers are counted for each upstream, from the beginning.
	Connections, Answers []uint64
	// Latency is an HdrHistogram in its compressed encoding, of nanoseconds.
	Latency []byte
	// Proxy is the processor time of the watched process, and Core that of everything on its core.
	Proxy proc.CPU
	Core  proc.CoreTime
	// Generator is the processor time of the generator itself, and OwnCore that of everything on its core.
	Generator proc.CPU
	OwnCore   proc.CoreTime
	// First is an account of the first error, for a person.
	First string
}

// NewHistogram returns a histogram of latencies from 1 ns to 60 s with three digits.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(time.Minute), 3) }

// Validate says what is wrong with a job.
func (j *Job) Validate() error {
	switch {
	case !j.Target.IsValid() || !j.Target.Addr().Is4():
		return errors.New("load: the target must be an IPv4 address and a port")
	case j.Conns < 1 || j.Conns > 10000:
		return fmt.Errorf("load: %d connections; 1 to 10000 are allowed", j.Conns)
	case j.Streams < 0 || j.Streams > 1000 || j.Streams > 1 && j.Down != HTTP2:
		return fmt.Errorf("load: %d streams; 1 to 1000 are allowed, and but one in HTTP/1.1", j.Streams)
	case j.Churn && j.Down != HTTP1:
		return errors.New("load: connections per request are measured in HTTP/1.1 alone")
	case j.GRPC && (j.Down != HTTP2 || j.Up != HTTP2):
		return errors.New("load: gRPC needs HTTP/2 on both sides")
	case j.TLS && j.Down != HTTP2:
		return errors.New("load: TLS is for clients that speak HTTP/2")
	case j.Streaming && (!j.GRPC || j.Idle):
		return errors.New("load: streams of messages are calls of gRPC, and not idle")
	case j.Held && (j.Up != HTTP2 || !j.Idle):
		return errors.New("load: answers are held back by upstreams that speak HTTP/2, in jobs with Idle")
	case j.Rate < 0 || j.Body < 0 || j.Upload < 0:
		return errors.New("load: rates and sizes must not be negative")
	case j.Measure <= 0:
		return errors.New("load: the window must be longer than 0")
	case j.Churn && j.Rate > 0:
		return errors.New("load: connections per request are measured at saturation alone")
	}
	for _, u := range j.Upstreams {
		if !u.Addr().Is4() {
			return errors.New("load: upstreams must be IPv4 addresses and ports")
		}
	}
	return nil
}

// request is what each client sends: 11 fields, as a browser's call through a mesh has them.
func (j *Job) request() []byte {
	var b bytes.Buffer
	method := "GET"
	if j.Upload > 0 {
		method = "POST"
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, j.Path, j.Host)
	b.WriteString("User-Agent: Mozilla/5.0 (X11; Linux x86_64) bench/1.0\r\n" +
		"Accept: application/json, text/plain, */*\r\n" +
		"Accept-Language: en-US,en;q=0.9\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
		"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZXNoIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ\r\n" +
		"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" +
		"X-Tenant: blue\r\nX-Client-Version: 2026.11.22\r\nX-Feature: none\r\n")
	if j.Churn {
		b.WriteString("Connection: close\r\n")
	}
	if j.Upload > 0 {
		b.WriteString("Content-Type: application/octet-stream\r\nContent-Length: " + strconv.Itoa(j.Upload) + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(bytes.Repeat([]byte{'x'}, j.Upload))
	return b.Bytes()
}

// response is what each upstream answers: 10 fields and the body.
func (j *Job) response() []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\nServer: bench/1.0\r\nDate: Sun, 22 Nov 2026 04:00:00 GMT\r\n" +
		"Content-Type: application/json; charset=utf-8\r\n" +
		"Cache-Control: no-cache, no-store, max-age=0, must-revalidate\r\nVary: Accept-Encoding\r\n" +
		"ETag: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\nX-Content-Type-Options: nosniff\r\n" +
		"X-Frame-Options: DENY\r\nStrict-Transport-Security: max-age=31536000\r\n" +
		"Content-Length: " + strconv.Itoa(j.Body) + "\r\n\r\n")
	b.Write(bytes.Repeat([]byte{'x'}, j.Body))
	return b.Bytes()
}
