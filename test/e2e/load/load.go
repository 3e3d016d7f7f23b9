// SPDX-License-Identifier: Apache-2.0

// Package load makes HTTP/1.1 requests on persistent connections, and counts what goes wrong as strictly as can be: a
// request that was not answered whole, or not as it should, has failed. There is one exception, which every client of
// HTTP/1.1 makes (RFC 9112 section 9.3.1): a server may close an idle connection at the very moment in which it is used
// again. Such a request is made once more on a new connection, and counted. That none of them was on its way already shows
// in the count of the origins, who must not have seen it twice.
package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// hang is how long a request may take before it counts as lost.
const hang = 30 * time.Second

// Options say what to do.
type Options struct {
	// Workers is the number of connections, Rate the requests per second of them all; 0 is as fast as it goes.
	Workers, Rate int
	// Addr returns where to connect. It is asked for each new connection.
	Addr func() string
	// LookAgain asks Addr again where a connection is refused, as a client does that looks a service up and is told of an
	// instance that has just gone. Without it, that is a failure.
	LookAgain bool
	// Request is the request as it is written, "" for a plain GET of /.
	Request string
	// Check looks at an answer; nil wants the status 200.
	Check func(status int, header http.Header, body []byte) error
	// PerConn is the number of requests on a connection, after which the client closes it; 0 is no limit.
	PerConn int
}

// Result is what came of it.
type Result struct {
	Requests int64
	Failed   int64
	// Failures are the first of them.
	Failures []string
	// Connections counts the connections made, Told those that the server closed with connection: close, Resent the
	// requests that met a connection which was just being closed, Refused the connections that nobody
	// took, with LookAgain.
	Connections, Told, Resent, Refused int64
	Took                               time.Duration
}

// Rate returns the requests per second.
func (r Result) Rate() float64 { return float64(r.Requests) / r.Took.Seconds() }

// String returns the figures.
func (r Result) String() string {
	return fmt.Sprintf("%d requests at %.0f/s, %d failed; %d connections, %d told to close, %d refused, %d requests made again",
		r.Requests, r.Rate(), r.Failed, r.Connections, r.Told, r.Refused, r.Resent)
}

// Load is requests being made.
type Load struct {
	o       Options
	stop    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
	started time.Time

	requests, failed, connections, told, resent, refused atomic.Int64
	// took counts the requests by how long they took, since the last Quantile; see slot.
	took [400]atomic.Int64

	mu       sync.Mutex
	failures []string // guarded by mu
}

// plain is the request where the options have none.
const plain = "GET / HTTP/1.1\r\nhost: load\r\n\r\n"

// Start begins. Stop ends it, or the end of the test.
func Start(tb testing.TB, o Options) *Load {
	if o.Request == "" {
		o.Request = plain
	}
	if o.Check == nil {
		o.Check = func(status int, _ http.Header, body []byte) error {
			if status != http.StatusOK {
				return fmt.Errorf("status %d: %.200s", status, body)
			}
			return nil
		}
	}
	l := &Load{o: o, stop: make(chan struct{}), started: time.Now()}
	for range o.Workers {
		l.wg.Go(l.work)
	}
	tb.Cleanup(func() { l.Stop() })
	return l
}

// Failed returns how many requests failed.
func (l *Load) Failed() int64 { return l.failed.Load() }

// After waits until so many more requests have ended.
func (l *Load) After(n int64) {
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	limit := time.After(hang)
	for until := l.requests.Load() + n; l.requests.Load() < until; {
		select {
		case <-pace.C:
		case <-l.stop:
			return
		case <-limit:
			return // whoever counts sees that they are missing
		}
	}
}

// Stop ends the load after the requests that are under way, and returns what came of it.
func (l *Load) Stop() Result {
	l.once.Do(func() { close(l.stop) })
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return Result{
		Requests: l.requests.Load(), Failed: l.failed.Load(), Failures: l.failures, Connections: l.connections.Load(),
		Told: l.told.Load(), Resent: l.resent.Load(), Refused: l.refused.Load(), Took: time.Since(l.started),
	}
}

// work is one client.
func (l *Load) work() {
	var pace <-chan time.Time
	if l.o.Rate > 0 {
		t := time.NewTicker(time.Duration(l.o.Workers) * time.Second / time.Duration(l.o.Rate))
		defer t.Stop()
		pace = t.C
	}
	c := &client{l: l}
	defer c.close()
	for {
		if pace != nil {
			select {
			case <-pace:
			case <-l.stop:
				return
			}
		}
		select {
		case <-l.stop:
			return
		default:
		}
		began := time.Now()
		err := c.request()
		l.took[slot(time.Since(began))].Add(1)
		l.requests.Add(1)
		if err != nil {
			l.fail(err)
		}
	}
}

// width is how much longer than the last slot's each slot's times are.
const width = 1.05

// slot is the place of a time in Load.took: that of microseconds to the power of width.
func slot(d time.Duration) int {
	return min(int(math.Log(max(1, float64(d.Microseconds())))/math.Log(width)), len(Load{}.took)-1)
}

// Quantile returns the time within which this share of the requests since the last call, or the start, were answered, at most
// a twentieth too much.
func (l *Load) Quantile(share float64) time.Duration {
	var counts [len(Load{}.took)]int64
	var all, sum int64
	for i := range l.took {
		counts[i] = l.took[i].Swap(0)
		all += counts[i]
	}
	for i, n := range counts {
		if sum += n; float64(sum) >= share*float64(all) {
			return time.Duration(math.Pow(width, float64(i+1))) * time.Microsecond
		}
	}
	return 0
}

func (l *Load) fail(err error) {
	const kept = 10
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) < kept {
		l.failures = append(l.failures, fmt.Sprintf("after %v: %v", time.Since(l.started).Round(time.Millisecond), err))
	}
}

// client is one persistent connection after another.
type client struct {
	l    *Load
	conn net.Conn
	br   *bufio.Reader
	used int
}

// errGone says that the connection was closed before it was used again.
var errGone = errors.New("the connection is gone")

// gone marks the errors of a connection that the other side has closed; a time that is over is none.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}

func (c *client) request() error {
	for {
		reused := c.conn != nil
		err := c.try()
		if err == nil {
			return nil
		}
		c.close()
		if !reused || !errors.Is(err, errGone) {
			return err
		}
		c.l.resent.Add(1)
	}
}

func (c *client) try() error {
	if c.conn == nil {
		if err := c.connect(); err != nil {
			return err
		}
	}
	c.used++
	if err := c.conn.SetDeadline(time.Now().Add(hang)); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, c.l.o.Request); err != nil {
		return fmt.Errorf("write request %d: %w", c.used, gone(err))
	}
	if _, err := c.br.Peek(1); err != nil {
		return fmt.Errorf("wait for the answer to request %d: %w", c.used, gone(err))
	}
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return fmt.Errorf("the head of the answer: %w", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("the body of the answer: %w", err)
	}
	if resp.Close {
		c.l.told.Add(1)
	}
	if n := c.l.o.PerConn; resp.Close || n > 0 && c.used >= n {
		c.close()
	}
	return c.l.o.Check(resp.StatusCode, resp.Header, body)
}

func (c *client) connect() error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	c.l.connections.Add(1)
	c.conn, c.br, c.used = conn, bufio.NewReader(conn), 0
	return nil
}

func (c *client) dial() (net.Conn, error) {
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for limit := time.After(hang); ; {
		conn, err := net.DialTimeout("tcp", c.l.o.Addr(), hang)
		if !c.l.o.LookAgain || !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
		c.l.refused.Add(1)
		select {
		case <-pace.C:
		case <-limit:
			return nil, err
		}
	}
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}
