// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// client2 returns net/http's client of HTTP/2 with prior knowledge.
func (r *rig) client2() *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: hang}
}

// frames is a client of HTTP/2 that a test plays frame by frame.
type frames struct {
	*http2.Framer
	t   testing.TB
	c   net.Conn
	enc *hpack.Encoder
	buf bytes.Buffer
}

// dial2 opens a connection with the preface and SETTINGS.
func (r *rig) dial2() *frames {
	r.t.Helper()
	return r.speak2(r.dial())
}

func (r *rig) speak2(c *peer) *frames {
	r.t.Helper()
	f := &frames{Framer: http2.NewFramer(c, c.Reader), t: r.t, c: c}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.enc = hpack.NewEncoder(&f.buf)
	c.send(http2.ClientPreface)
	f.must(f.WriteSettings())
	return f
}

func (f *frames) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// ask opens a stream: name and value pairs behind the usual pseudo-header fields, or instead where they begin with one.
func (f *frames) ask(id uint32, end bool, fields ...string) {
	f.t.Helper()
	f.buf.Reset()
	if len(fields) == 0 || fields[0][0] != ':' {
		fields = append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}, fields...)
	}
	for i := 0; i < len(fields); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: end}))
}

// until reads frames until one is the wanted; it answers what must be answered.
func (f *frames) until(what string, want func(http2.Frame) bool) {
	f.t.Helper()
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			f.t.Fatalf("%v; waiting for %s", err, what)
		}
		if want(fr) {
			return
		}
		f.reply(fr)
	}
}

func (f *frames) reply(fr http2.Frame) {
	switch fr := fr.(type) {
	case *http2.SettingsFrame:
		if !fr.IsAck() {
			_ = f.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !fr.IsAck() {
			_ = f.WritePing(true, fr.Data)
		}
	}
}

// status waits for the head of a stream's answer.
func (f *frames) status(id uint32) (status string) {
	f.t.Helper()
	f.until(fmt.Sprintf("the answer on stream %d", id), func(fr http2.Frame) bool {
		h, ok := fr.(*http2.MetaHeadersFrame)
		if ok && h.StreamID == id {
			status = h.PseudoValue("status")
		}
		return status != ""
	})
	return status
}

// reset waits for a RST_STREAM and returns its code.
func (f *frames) reset(id uint32) (code http2.ErrCode) {
	f.t.Helper()
	f.until(fmt.Sprintf("the reset of stream %d", id), func(fr http2.Frame) bool {
		r, ok := fr.(*http2.RSTStreamFrame)
		if ok {
			code = r.ErrCode
		}
		return ok && r.StreamID == id
	})
	return code
}

// end reads until the connection ends, and returns the GOAWAY frames of before.
func (f *frames) end() (goAway []string) {
	f.t.Helper()
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				f.t.Errorf("the connection ends with %v", err)
			}
			return goAway
		}
		if g, ok := fr.(*http2.GoAwayFrame); ok {
			goAway = append(goAway, fmt.Sprintf("%d %v", g.LastStreamID, g.ErrCode))
		}
		f.reply(fr)
	}
}

// echoes2 is an upstream of HTTP/1.1 that answers with what it got, chunked and with a trailer.
func echoes2(p *peer) {
	for {
		req, err := http.ReadRequest(p.Reader)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		text := fmt.Sprintf("%s %s %s %s te=%q trailer=%q", req.Method, req.Host, req.URL.Path, body, req.Header.Get("Te"), req.Trailer.Get("X-End"))
		fmt.Fprintf(p.TCPConn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\n\r\n%x\r\n%s\r\n0\r\nX-Sum: 7\r\n\r\n", len(text), text)
	}
}

// TestHTTP2: requests of HTTP/2 are served like others, many at a time on one connection, towards HTTP/1.1, with trailers
// both ways; each has one Outcome that says so.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	for _, codec := range []mesh.Codec{mesh.CodecAuto, mesh.CodecHTTP2} {
		r := start(t, setup{manager: mesh.HTTPManager{Codec: codec}, routes: []*mesh.Route{forwarded()}, backend: echoes2})
		cl := r.client2()
		warm, err := cl.Post("http://"+r.addr+"/", "", nil) // the client opens more connections than it needs before it has one
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, warm.Body)
		const n = 50
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				body := strings.Repeat("x", i*1000)
				req, _ := http.NewRequest("POST", fmt.Sprintf("http://%s/%d", r.addr, i), io.NopCloser(strings.NewReader(body)))
				req.Host, req.Trailer = "a", http.Header{"X-End": {"e"}}
				resp, err := cl.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				want := fmt.Sprintf(`POST a /%d %s te="" trailer="e"`, i, body)
				if err != nil || resp.StatusCode != 200 || string(got) != want || resp.Trailer.Get("X-Sum") != "7" {
					t.Errorf("%d: %v, %d, %.100q, trailers %v", i, err, resp.StatusCode, got, resp.Trailer)
				}
				for _, name := range []string{"Connection", "Keep-Alive", "Transfer-Encoding"} {
					if v := resp.Header.Get(name); v != "" {
						t.Errorf("%s: %s", name, v)
					}
				}
			})
		}
		wg.Wait()
		for _, o := range r.wait(n + 1) {
			if o.Protocol != mesh.HTTP2 || o.UpstreamProtocol != mesh.HTTP11 || o.Status != 200 || o.Failure != mesh.NoFailure {
				t.Errorf("%+v", o)
			}
		}
		for deadline := time.Now().Add(hang); r.conns() > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			cl.CloseIdleConnections() // which streams that are just ending hold up
		}
		r.waitConns(0)
		// The client may open connections that it then has no use for and closes before a byte: they have no protocol.
		if second, first := r.count(metrics.DownstreamCxHTTP2Total), r.count(metrics.DownstreamCxHTTP1Total); second == 0 || first != 0 {
			t.Errorf("%d connections of HTTP/2, %d of HTTP/1", second, first)
		}
	}
}

// TestHTTP2Refused: what cannot be served is answered where it can be understood, and reset where it is malformed; the
// connection and its other streams go on.
func TestHTTP2Refused(t *testing.T) {
	t.Parallel()
	r := start(t, setup{manager: mesh.HTTPManager{MaxHeaderBytes: 2000}, routes: []*mesh.Route{direct("/", 200, "ok")}})
	c := r.dial2()
	c.ask(1, true, "x-long", strings.Repeat("a", 3000))
	if s := c.status(1); s != "431" {
		t.Errorf("a head too large: %s", s)
	}
	c.ask(3, true, ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a", "Upper", "case")
	if code := c.reset(3); code != http2.ErrCodeProtocol {
		t.Errorf("a name in capitals: %v", code)
	}
	c.ask(5, true)
	if s := c.status(5); s != "200" {
		t.Errorf("the next: %s", s)
	}
	// Each stream has a worker of its own, so the outcomes come in any order.
	o := r.wait(3)
	slices.SortFunc(o, func(a, b mesh.Outcome) int { return a.Status - b.Status })
	if o[1].Status != 200 || o[2].Status != 431 || o[2].Failure != mesh.DownstreamProtocolError {
		t.Errorf("%+v", o)
	}
	if bad := o[0]; bad.Status != 0 || bad.Failure != mesh.DownstreamProtocolError || bad.Flags != mesh.FlagDPE ||
		bad.Details != "http2.bad_field_name" || bad.Protocol != mesh.HTTP2 {
		t.Errorf("the malformed one: %+v", bad)
	}
	if n := r.count(metrics.DownstreamRqActive); n != 0 {
		t.Errorf("%d requests are active", n)
	}
	if n := r.count(metrics.DownstreamCxProtocolError); n == 0 {
		t.Error("nobody counted it")
	}
}

// hold is an upstream that takes requests and answers none until the connection ends.
func hold(p *peer) { p.rest() }

// TestHTTP2ClientResets: a client that gives a stream up ends its request, and no other.
func TestHTTP2ClientResets(t *testing.T) {
	t.Parallel()
	r := start(t, setup{routes: []*mesh.Route{direct("/ok", 200, "ok"), forwarded()}, backend: hold})
	c := r.dial2()
	c.ask(1, true)
	for deadline := time.Now().Add(hang); r.clusters["c"].Hosts()[0].Active() == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	c.must(c.WriteRSTStream(1, http2.ErrCodeCancel))
	if o := r.wait(1)[0]; o.Failure != mesh.DownstreamClosed || o.Flags&mesh.FlagDC == 0 {
		t.Errorf("%+v", o)
	}
	c.ask(3, true, ":method", "GET", ":scheme", "http", ":path", "/ok", ":authority", "a")
	if s := c.status(3); s != "200" {
		t.Errorf("the next: %s", s)
	}
	if n := r.count(metrics.DownstreamRqRxReset); n != 1 {
		t.Errorf("%d resets of the client were counted", n)
	}
}

// TestHTTP2ConnectionDies: all requests of a connection end with it, each in one Outcome.
func TestHTTP2ConnectionDies(t *testing.T) {
	t.Parallel()
	r := start(t, setup{routes: []*mesh.Route{forwarded()}, backend: hold})
	c := r.dial2()
	const n = 20
	for i := range uint32(n) {
		c.ask(2*i+1, i%2 == 0)
	}
	for deadline := time.Now().Add(hang); r.clusters["c"].Hosts()[0].Active() < n && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	c.c.Close()
	for _, o := range r.wait(n) {
		if o.Failure != mesh.DownstreamClosed {
			t.Errorf("%v %+v", o.Failure, o)
		}
	}
	r.waitConns(0)
	time.Sleep(20 * time.Millisecond)
	if got := len(r.wait(n)); got != n {
		t.Errorf("%d outcomes of %d requests", got, n)
	}
	if a := r.count(metrics.DownstreamRqActive); a != 0 {
		t.Errorf("%d requests are still active", a)
	}
}

// TestHTTP2RapidReset: a request whose stream is reset before anybody has looked at it is given up, and not left to an
// upstream that may take its time. Its Outcome tells what was asked for, and where that would have gone.
func TestHTTP2RapidReset(t *testing.T) {
	t.Parallel()
	r := start(t, setup{routes: []*mesh.Route{forwarded()}, backend: hold})
	c := r.dial2()
	const n = 50
	var all bytes.Buffer
	at := &frames{Framer: http2.NewFramer(&all, nil), t: t}
	at.enc = hpack.NewEncoder(&at.buf)
	for i := range uint32(n) {
		at.ask(2*i+1, true)
		at.must(at.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
	}
	if _, err := c.c.Write(all.Bytes()); err != nil {
		t.Fatal(err)
	}
	for _, o := range r.wait(n) {
		if o.Failure != mesh.DownstreamClosed || o.Side != mesh.SideDownstream || o.Flags != mesh.FlagDC || o.Attempts != 0 ||
			string(o.Method)+string(o.Path) != "GET/" || o.VirtualHost != "all" || o.RouteTemplate != "/" {
			t.Errorf("%v %+v", o.Failure, o)
		}
	}
	if all, now := r.count(metrics.DownstreamRqRxReset), r.count(metrics.DownstreamRqActive); all != n || now != 0 {
		t.Errorf("%d resets were counted, and %d requests are active", all, now)
	}
}

// TestHTTP2AbuserGoesOn: a client that was cut off for what it did, and goes on to send, is not read for as long as others
// are.
func TestHTTP2AbuserGoesOn(t *testing.T) {
	t.Parallel()
	r := start(t, setup{manager: mesh.HTTPManager{DelayedCloseTimeout: 10 * hang}, routes: []*mesh.Route{direct("/", 200, "")}})
	c := r.dial2()
	for range 200 {
		_ = c.WritePing(false, [8]byte{}) // the proxy is free to have gone
	}
	if got := c.end(); len(got) != 1 || got[0] != "0 "+http2.ErrCodeEnhanceYourCalm.String() {
		t.Errorf("got %q", got)
	}
	_, _ = c.c.Write(make([]byte, lingerBytesAbused+1))
	r.waitConns(0)
}

// TestHTTP2TunnelReset: a client that has ended its side of a tunnel, and then resets the stream, ends the tunnel.
func TestHTTP2TunnelReset(t *testing.T) {
	t.Parallel()
	r := start(t, setup{
		manager: mesh.HTTPManager{HTTP2: http2Options(), Upgrades: []mesh.Upgrade{{Type: "websocket", Enabled: true}}},
		routes:  []*mesh.Route{forwarded()},
		backend: func(p *peer) {
			p.head()
			p.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
			p.rest() // the end of the client's side
			p.send("end")
			<-t.Context().Done() // and nothing more
		},
	})
	c := r.dial2()
	c.ask(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a")
	if s := c.status(1); s != "200" {
		t.Fatal(s)
	}
	c.must(c.WriteData(1, true, nil))
	c.until("the upstream's word", func(fr http2.Frame) bool {
		d, ok := fr.(*http2.DataFrame)
		return ok && string(d.Data()) == "end"
	})
	c.must(c.WriteRSTStream(1, http2.ErrCodeCancel))
	r.wait(1)
}

// lateLog is an access log that takes its time; it keeps the order of what it is told.
type lateLog struct {
	entered, goOn chan struct{}
	told          chan string
}

func (l *lateLog) Observe(*mesh.Outcome) {
	close(l.entered)
	<-l.goOn
	l.told <- "outcome"
}

func (l *lateLog) Close() { l.told <- "close" }

// TestHTTP2Release: a stream that outlives its connection still has what it needs of its manager, although the listener has
// released that with its last connection.
func TestHTTP2Release(t *testing.T) {
	t.Parallel()
	log := &lateLog{make(chan struct{}), make(chan struct{}), make(chan string, 2)}
	r := start(t, setup{routes: []*mesh.Route{direct("/", 200, "ok")}, logs: log})
	c := r.dial2()
	c.ask(1, true)
	<-log.entered
	c.c.Close()
	r.waitConns(0)
	r.Release()
	close(log.goOn)
	if first, second := <-log.told, <-log.told; first != "outcome" || second != "close" {
		t.Errorf("%s, then %s", first, second)
	}
}

// TestHTTP2IdleSlowReader: the idle timeout does not cut off an answer that is still on its way to a client that reads
// slowly.
func TestHTTP2IdleSlowReader(t *testing.T) {
	t.Parallel()
	const size = 60_000
	r := start(t, setup{
		manager: mesh.HTTPManager{IdleTimeout: 50 * time.Millisecond}, sendBuffer: 4 << 10,
		routes: []*mesh.Route{direct("/", 200, strings.Repeat("x", size))},
	})
	small := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		return rc.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
	}}
	nc, err := small.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := r.speak2(newPeer(nc))
	c.ask(1, true)
	r.wait(1)
	for deadline := time.Now().Add(hang); r.count(metrics.DownstreamCxIdleTimeout) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection is not idle")
		}
	}
	got := 0
	c.until("the whole answer", func(fr http2.Frame) bool {
		d, ok := fr.(*http2.DataFrame)
		if ok {
			got += len(d.Data())
		}
		return ok && d.StreamEnded()
	})
	if got != size {
		t.Errorf("%d bytes", got)
	}
	if g := c.end(); len(g) == 0 {
		t.Error("without a GOAWAY")
	}
	r.waitConns(0)
}

// TestHTTP2Times: a connection's deadlines, each with what the client is told.
func TestHTTP2Times(t *testing.T) {
	t.Parallel()
	const short = 200 * time.Millisecond
	for name, tc := range map[string]struct {
		cfg   mesh.HTTPManager
		asks  bool
		count int
	}{
		"no request at all": {mesh.HTTPManager{RequestHeadersTimeout: short}, false, metrics.DownstreamCxDestroyLocal},
		"idle":              {mesh.HTTPManager{IdleTimeout: short}, true, metrics.DownstreamCxIdleTimeout},
		"age":               {mesh.HTTPManager{MaxConnectionDuration: short, DrainTimeout: short}, true, metrics.DownstreamCxMaxDurationReached},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{manager: tc.cfg, routes: []*mesh.Route{direct("/", 200, "ok")}})
			c := r.dial2()
			if tc.asks {
				c.ask(1, true)
				if s := c.status(1); s != "200" {
					t.Errorf("status %s", s)
				}
			}
			if g := c.end(); len(g) == 0 || !strings.HasSuffix(g[len(g)-1], "NO_ERROR") {
				t.Errorf("told %q", g)
			}
			r.waitConns(0)
			if n := r.count(tc.count); n != 1 {
				t.Errorf("counted %d", n)
			}
		})
	}
}

// TestHTTP2MaxRequests: a connection is drained behind the last request that it may have.
func TestHTTP2MaxRequests(t *testing.T) {
	t.Parallel()
	r := start(t, setup{
		manager: mesh.HTTPManager{MaxRequestsPerConnection: 2, DrainTimeout: time.Millisecond}, routes: []*mesh.Route{direct("/", 200, "ok")},
	})
	c := r.dial2()
	for _, id := range []uint32{1, 3} {
		c.ask(id, true)
		if s := c.status(id); s != "200" {
			t.Errorf("stream %d: status %s", id, s)
		}
	}
	if g := c.end(); len(g) == 0 || g[len(g)-1] != "3 NO_ERROR" {
		t.Errorf("told %q", g)
	}
	r.waitConns(0)
	if n := r.count(metrics.DownstreamCxMaxRequestsReached); n != 1 {
		t.Errorf("counted %d", n)
	}
}

// TestHTTP2Drain: a client is told twice that the connection is to end (RFC 9113 section 6.8), may still open streams until
// the second, and has all its answers.
func TestHTTP2Drain(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	r := start(t, setup{
		manager: mesh.HTTPManager{DrainTimeout: time.Minute}, routes: []*mesh.Route{direct("/ok", 200, "ok"), forwarded()},
		backend: func(p *peer) {
			p.head()
			<-answer
			p.send(ok)
			p.rest()
		},
	})
	c := r.dial2()
	c.ask(1, true)
	for deadline := time.Now().Add(hang); r.clusters["c"].Hosts()[0].Active() == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	r.draining.Store(true)
	c.ask(3, true, ":method", "GET", ":scheme", "http", ":path", "/ok", ":authority", "a") // which makes it look, as the listener would
	var told []uint32
	statuses := map[uint32]string{}
	for len(told) < 2 || len(statuses) < 2 {
		fr, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("%v; told %v, answered %v", err, told, statuses)
		}
		switch fr := fr.(type) {
		case *http2.GoAwayFrame:
			if told = append(told, fr.LastStreamID); len(told) == 2 {
				close(answer)
			}
		case *http2.MetaHeadersFrame:
			statuses[fr.StreamID] = fr.PseudoValue("status")
		}
		c.reply(fr)
	}
	if told[0] != 1<<31-1 || told[1] != 3 || statuses[1] != "200" || statuses[3] != "200" {
		t.Errorf("told %v, answered %v", told, statuses)
	}
	c.end()
	r.waitConns(0)
	if n := r.count(metrics.DownstreamCxDrainClose); n == 0 {
		t.Error("nobody counted it")
	}
}

// TestHTTP2Panic: a panic costs its own request alone.
func TestHTTP2Panic(t *testing.T) {
	t.Parallel()
	r := start(t, setup{
		manager: mesh.HTTPManager{Filters: []mesh.Extension{{TypeURL: "stopper"}}}, filters: stoppers,
		routes: []*mesh.Route{direct("/", 200, "ok")},
	})
	c := r.dial2()
	for i, path := range []string{"/panics", "/", "/panics", "/"} {
		id := uint32(2*i + 1)
		c.ask(id, true, ":method", "GET", ":scheme", "http", ":path", path, ":authority", "a")
		want := "200"
		if path != "/" {
			want = "500"
		}
		if s := c.status(id); s != want {
			t.Errorf("%s: %s", path, s)
		}
	}
	o := r.wait(4)
	slices.SortFunc(o, func(a, b mesh.Outcome) int { return a.Status - b.Status })
	if o[1].Status != 200 || o[2].Status != 500 || o[2].Failure != mesh.InternalError || o[3].Failure != mesh.InternalError {
		t.Errorf("%+v", o)
	}
}

// TestHTTP2SlowReader: a stream that nobody reads holds up no other, and the upstream of it no more than the windows.
func TestHTTP2SlowReader(t *testing.T) {
	t.Parallel()
	var sent int64
	var mu sync.Mutex
	r := start(t, setup{routes: []*mesh.Route{direct("/ok", 200, "ok"), forwarded()}, backend: func(p *peer) {
		p.head()
		p.send("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
		chunk := make([]byte, 64<<10)
		for {
			n, err := p.TCPConn.Write(chunk)
			mu.Lock()
			sent += int64(n)
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}})
	c := r.dial2()
	c.ask(1, true)
	if s := c.status(1); s != "200" {
		t.Fatal(s)
	}
	got := 0
	c.until("the window's end", func(fr http2.Frame) bool {
		if d, ok := fr.(*http2.DataFrame); ok {
			got += len(d.Data())
		}
		return got == 65535
	})
	for i := range uint32(50) {
		// The connection's window is used up as well: heads need none.
		c.must(c.WriteWindowUpdate(0, 2))
		id := 2*i + 3
		c.ask(id, true, ":method", "GET", ":scheme", "http", ":path", "/ok", ":authority", "a")
		if s := c.status(id); s != "200" {
			t.Fatalf("stream %d: %s", id, s)
		}
	}
	mu.Lock()
	most := sent
	mu.Unlock()
	if most > 16<<20 { // what the kernel holds on loopback and our buffers, far from the whole
		t.Errorf("the upstream has sent %d bytes", most)
	}
	c.must(c.WriteRSTStream(1, http2.ErrCodeCancel))
	r.wait(51)
}

// TestHTTP2WebSocket: extended CONNECT (RFC 8441) reaches a server that speaks WebSocket over HTTP/1.1.
func TestHTTP2WebSocket(t *testing.T) {
	t.Parallel()
	r := start(t, setup{
		manager: mesh.HTTPManager{HTTP2: http2Options(), Upgrades: []mesh.Upgrade{{Type: "websocket", Enabled: true}}},
		routes:  []*mesh.Route{forwarded()},
		backend: func(p *peer) {
			h := p.head()
			if !strings.Contains(h, "upgrade: websocket\r\n") || !strings.Contains(h, "sec-websocket-key: ") || !strings.HasPrefix(h, "GET /chat ") {
				t.Errorf("the upstream got %q", h)
			}
			p.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello")
			b := make([]byte, 5)
			_, _ = io.ReadFull(p.Reader, b)
			p.send(strings.ToUpper(string(b)))
		},
	})
	c := r.dial2()
	allowed := false
	c.until("the settings", func(fr http2.Frame) bool {
		s, ok := fr.(*http2.SettingsFrame)
		if ok && !s.IsAck() {
			v, _ := s.Value(http2.SettingEnableConnectProtocol)
			allowed = v == 1
			_ = c.WriteSettingsAck()
		}
		return ok
	})
	if !allowed {
		t.Error("extended CONNECT is not offered")
	}
	c.ask(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/chat", ":authority", "a", "sec-websocket-version", "13")
	if s := c.status(1); s != "200" {
		t.Fatal(s)
	}
	c.must(c.WriteData(1, false, []byte("world")))
	text := ""
	c.until("what comes back", func(fr http2.Frame) bool {
		if d, ok := fr.(*http2.DataFrame); ok {
			text += string(d.Data())
		}
		return len(text) >= 10
	})
	if text != "helloWORLD" {
		t.Errorf("got %q", text)
	}
	c.must(c.WriteData(1, true, nil))
	r.wait(1)
}

func http2Options() mesh.HTTP2Options {
	return mesh.HTTP2Options{
		MaxConcurrentStreams: 100, StreamWindow: 256 << 10, ConnectionWindow: 1 << 20, HeaderTable: 4096, AllowConnect: true,
		OutboundFrames: 10_000, OutboundControlFrames: 1000, EmptyFrames: 1, PriorityFrames: 100, WindowUpdates: 10,
	}
}

// TestHTTP2Churn: streams that are served, reset, refused and cut off all at once leave nothing behind (by the rig), and
// have one Outcome each.
func TestHTTP2Churn(t *testing.T) {
	t.Parallel()
	r := start(t, setup{routes: []*mesh.Route{direct("/ok", 200, "ok"), forwarded()}, backend: echoes2})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			cl := r.client2()
			for i := range 60 {
				ctx, cancel := context.WithCancel(t.Context())
				path := [...]string{"/ok", "/a"}[i%2]
				req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+r.addr+path, strings.NewReader(strings.Repeat("y", (g*i)%5000)))
				if (g+i)%7 == 0 {
					time.AfterFunc(time.Duration(i)*10*time.Microsecond, cancel)
				}
				if resp, err := cl.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				cancel()
				if i%20 == 19 {
					cl.CloseIdleConnections()
				}
			}
		})
	}
	wg.Wait()
	for deadline := time.Now().Add(hang); r.count(metrics.DownstreamRqActive) != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("requests are left active")
		}
	}
	if total := r.count(metrics.DownstreamRqHTTP2Total); int64(len(r.wait(0))) != total {
		t.Errorf("%d outcomes of %d requests", len(r.wait(0)), total)
	}
}
