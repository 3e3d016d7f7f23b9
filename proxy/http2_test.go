// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/listener"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// client2 returns net/http's client of HTTP/2 with prior knowledge.
func client2(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: hang}
}

// backend2 is backend with HTTP/2 by prior knowledge.
func backend2(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// cluster2 is a cluster that is spoken to in HTTP/2.
func cluster2(name string, addrs ...string) *mesh.Cluster {
	c := cluster(name, addrs...)
	c.HTTP.Protocol = mesh.UpstreamHTTP2
	return c
}

// settled checks that nothing of a cluster is in use any more.
func (r *rig) settled(name string) {
	r.t.Helper()
	for _, c := range r.Clusters() {
		if c.Config.Name != name {
			continue
		}
		for what, i := range map[string]int{"requests": metrics.UpstreamRqActive, "waiting requests": metrics.UpstreamRqPendingActive} {
			for deadline := time.Now().Add(hang); c.Stats.Value(i) != 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					r.t.Errorf("%d %s are counted", c.Stats.Value(i), what)
					break
				}
			}
		}
	}
}

// leaver is an upstream of HTTP/2. Its first connection takes so many requests, says then that it has looked at the first
// alone, and answers that. Others answer each request with the bytes that came with it.
type leaver struct {
	addr   string
	first  chan struct{} // closed when the first request is here
	left   chan struct{} // closed when the client was told
	after  int
	refuse bool // reset the others with REFUSED_STREAM instead
}

func newLeaver(t testing.TB, after int, refuse bool) *leaver {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &leaver{l.Addr().String(), make(chan struct{}), make(chan struct{}), after, refuse}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			wg.Go(func() { u.serve(c, n) })
		}
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { l.Close() })
	return u
}

func (u *leaver) serve(c net.Conn, n int) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	fr.WriteSettings()
	got := map[uint32]int{}
	var ids []uint32
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		ended := false
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				fr.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			ids = append(ids, f.StreamID)
			ended = f.StreamEnded()
		case *http2.DataFrame:
			got[f.StreamID] += len(f.Data())
			ended = f.StreamEnded()
		}
		if n > 1 {
			if ended {
				u.answer(fr, f.Header().StreamID, fmt.Sprint(got[f.Header().StreamID]))
			}
			continue
		}
		if len(ids) == 1 && ended {
			close(u.first)
		}
		if len(ids) == u.after {
			if u.leave(fr, ids); u.refuse {
				n = 2 // it goes on like any other
			}
			ids = append(ids, 0)
		}
	}
}

func (u *leaver) leave(fr *http2.Framer, ids []uint32) {
	if u.refuse {
		for _, id := range ids[1:] {
			fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		}
	} else {
		fr.WriteGoAway(1, http2.ErrCodeNo, nil)
	}
	close(u.left)
	u.answer(fr, 1, "0")
}

func (u *leaver) answer(fr *http2.Framer, id uint32, body string) {
	var b bytes.Buffer
	hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true})
	fr.WriteData(id, true, []byte(body))
}

// TestHTTP2GoAway: an upstream that leaves in the middle of its streams, and says which of them it has not looked at, costs
// no request: those are sent again elsewhere without a policy that says so, also those whose body is still coming, and each
// is executed once.
func TestHTTP2GoAway(t *testing.T) {
	t.Parallel()
	for name, down := range map[string]*http.Client{"HTTP/1.1": {Timeout: hang, Transport: &http.Transport{}}, "HTTP/2": client2(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 9
			u := newLeaver(t, n, false)
			r := newRig(t)
			r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster2("c", u.addr))
			var wg sync.WaitGroup
			ask := func(body io.Reader, want string) {
				method := http.MethodGet
				if body != nil {
					method = http.MethodPost
				}
				q, _ := http.NewRequest(method, "http://"+r.addr, body)
				resp, err := down.Do(q)
				if err != nil {
					t.Errorf("%s: %v", method, err)
					return
				}
				defer resp.Body.Close()
				if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || string(b) != want {
					t.Errorf("%s: %d %q %v, want %s", method, resp.StatusCode, b, err, want)
				}
			}
			wg.Go(func() { ask(nil, "0") })
			<-u.first
			for i := range n - 1 {
				if i%2 == 0 {
					wg.Go(func() { ask(nil, "0") })
					continue
				}
				read, write := io.Pipe()
				wg.Go(func() { ask(read, "2000") })
				wg.Go(func() {
					write.Write(make([]byte, 1000))
					<-u.left
					write.Write(make([]byte, 1000))
					write.Close()
				})
			}
			wg.Wait()
			again := 0
			for _, o := range r.rec.wait(t, n) {
				again += int(o.Attempts) - 1
				if o.Failure != mesh.NoFailure || o.Status != 200 {
					t.Errorf("%+v", o)
				}
			}
			if again != n-1 {
				t.Errorf("%d requests were sent again, not %d", again, n-1)
			}
			r.settled("c")
		})
	}
}

// TestHTTP2Refused: an upstream that refuses streams is asked again where the policy says so, and not otherwise.
func TestHTTP2Refused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		policy *mesh.RetryPolicy
		status int
	}{
		"no policy":      {nil, 503},
		"refused-stream": {&mesh.RetryPolicy{On: mesh.RetryOnRefusedStream, Retries: 2}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newLeaver(t, 2, true)
			r := newRig(t)
			a := to("c")
			a.Retry = tc.policy
			r.serve(manager(), []*mesh.Route{prefix("/", a)}, cluster2("c", u.addr))
			var wg sync.WaitGroup
			wg.Go(func() { r.get("/") })
			<-u.first
			resp, err := client.Post("http://"+r.addr, "", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tc.status {
				t.Errorf("status %d", resp.StatusCode)
			}
			wg.Wait()
			r.settled("c")
		})
	}
}

// TestAsDownstream: with use_downstream_protocol_config, an upstream is spoken to as the client speaks.
func TestAsDownstream(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, q.Proto) }))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	c := cluster("c", s.Listener.Addr().String())
	c.HTTP.Protocol = mesh.UpstreamAsDownstream
	r := newRig(t)
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, c)
	for range 2 {
		for want, down := range map[string]*http.Client{"HTTP/1.1": client, "HTTP/2.0": client2(t)} {
			resp, err := down.Get("http://" + r.addr)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(got) != want || err != nil {
				t.Errorf("%q, %v, want %s", got, err, want)
			}
		}
	}
	r.settled("c")
}

// TestHTTP2Cancelled: that an upstream has cancelled an answer, as gRPC servers do at a call's deadline, is not told to the
// client as a fault of the proxy's.
func TestHTTP2Cancelled(t *testing.T) {
	t.Parallel()
	for code, want := range map[http2.ErrCode]http2.ErrCode{
		http2.ErrCodeCancel: http2.ErrCodeCancel, http2.ErrCodeNo: http2.ErrCodeInternal, http2.ErrCodeEnhanceYourCalm: http2.ErrCodeInternal,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster2("c", resetter(t, code)))
			resp, err := client2(t).Get("http://" + r.addr)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(b) != "beginning" || err == nil || !strings.Contains(err.Error(), "; "+want.String()+";") {
				t.Errorf("%q, then %v, want %v", b, err, want)
			}
			if o := r.rec.wait(t, 1)[0]; o.Failure != mesh.UpstreamReset || o.Details != "upstream_reset_after_response_started{remote_reset}" {
				t.Errorf("%v, %s", o.Failure, o.Details)
			}
			r.settled("c")
		})
	}
}

// resetter is an upstream of HTTP/2 that resets each stream after the beginning of its answer.
func resetter(t testing.TB, code http2.ErrCode) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { l.Close() })
	wg.Go(func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			t.Cleanup(func() { c.Close() })
			wg.Go(func() {
				_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
				fr := http2.NewFramer(c, c)
				_ = fr.WriteSettings()
				for f, err := fr.ReadFrame(); err == nil; f, err = fr.ReadFrame() {
					if f, is := f.(*http2.HeadersFrame); is {
						_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true})
						_ = fr.WriteData(f.StreamID, false, []byte("beginning"))
						_ = fr.WriteRSTStream(f.StreamID, code)
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// TestHTTP2LostBehindHead: a call whose answer breaks off behind its head, or its message, is made again as long as the
// client has nothing of it, where a policy says so; and never after.
func TestHTTP2LostBehindHead(t *testing.T) {
	t.Parallel()
	again := &mesh.RetryPolicy{On: mesh.RetryOnGRPCUnavailable, Retries: 1}
	for name, tc := range map[string]struct {
		policy   *mesh.RetryPolicy
		message  bool
		seen     bool // the client has the head by then
		attempts int
		body     string
	}{
		"head":                    {again, false, false, 2, "whole"},
		"message":                 {again, true, false, 2, "whole"},
		"message, without policy": {nil, true, false, 1, "begun"},
		"head that was passed on": {again, false, true, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan struct{})
			r := newRig(t)
			a := to("c")
			a.Retry = tc.policy
			r.serve(manager(), []*mesh.Route{prefix("/", a)}, cluster2("c", breaksOff(t, tc.message, tc.seen, seen)))
			q, _ := http.NewRequest(http.MethodPost, "http://"+r.addr, nil)
			q.Header.Set("Content-Type", "application/grpc")
			resp, err := client2(t).Do(q)
			if err != nil {
				t.Fatal(err)
			}
			close(seen)
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(b) != tc.body || (err == nil) != (tc.body == "whole") {
				t.Errorf("%q, %v", b, err)
			}
			if o := r.rec.wait(t, 1)[0]; o.Attempts != tc.attempts || len(o.Tries) != tc.attempts-1 {
				t.Errorf("%d attempts, after %v", o.Attempts, o.Tries)
			}
			r.settled("c")
		})
	}
}

// breaksOff is an upstream of HTTP/2 that resets its first answer of gRPC behind the head, or behind a message, at once
// or when seen is closed; later ones are whole.
func breaksOff(t testing.TB, message, wait bool, seen <-chan struct{}) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { l.Close() })
	var calls atomic.Int64
	wg.Go(func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			t.Cleanup(func() { c.Close() })
			wg.Go(func() {
				_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
				var out, head bytes.Buffer
				fr := http2.NewFramer(&out, c)
				_ = fr.WriteSettings()
				_, _ = out.WriteTo(c)
				for f, err := fr.ReadFrame(); err == nil; f, err = fr.ReadFrame() {
					if f, is := f.(*http2.HeadersFrame); is {
						head.Reset()
						enc := hpack.NewEncoder(&head)
						_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
						_ = enc.WriteField(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
						_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: head.Bytes(), EndHeaders: true})
						switch first := calls.Add(1) == 1; {
						case !first:
							_ = fr.WriteData(f.StreamID, true, []byte("whole"))
						case message:
							_ = fr.WriteData(f.StreamID, false, []byte("begun"))
							fallthrough
						default:
							if wait {
								_, _ = out.WriteTo(c)
								<-seen
							}
							_ = fr.WriteRSTStream(f.StreamID, http2.ErrCodeInternal)
						}
						_, _ = out.WriteTo(c) // all at once
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// TestHTTP2BetweenProxies: what HTTP/1.1 knows goes from a client to a server that both speak that, over HTTP/2 from one proxy
// to another: WebSocket as extended CONNECT (RFC 8441), interim answers, and a body that is waited for.
func TestHTTP2BetweenProxies(t *testing.T) {
	t.Parallel()
	near, far := newRig(t), newRig(t)
	m := manager()
	m.Upgrades, m.HTTP2 = []mesh.Upgrade{{Type: "websocket", Enabled: true}}, mesh.HTTP2Options{
		MaxConcurrentStreams: 100, StreamWindow: 256 << 10, ConnectionWindow: 1 << 20, HeaderTable: 4096, AllowConnect: true,
		OutboundFrames: 10_000, OutboundControlFrames: 1000, EmptyFrames: 1, PriorityFrames: 100, WindowUpdates: 10,
	}
	far.serve(m, []*mesh.Route{prefix("/", to("c"))}, cluster("c", backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Upgrade") == "" {
			w.Header().Set("Link", "x")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.Copy(w, q.Body)
			return
		}
		c, rw, _ := w.(http.Hijacker).Hijack()
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello ")
		_, _ = io.Copy(c, rw)
	})))
	n := manager()
	n.Upgrades = m.Upgrades
	near.serve(n, []*mesh.Route{prefix("/", to("far"))}, cluster2("far", far.addr))

	const head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	c, err := net.Dial("tcp", near.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(hang))
	_, _ = io.WriteString(c, head+"early ")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	// The keys are of the two ends of each connection: RFC 6455 section 1.3 has this one's answer.
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatal(resp, err)
	}
	_, _ = io.WriteString(c, "late")
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(br); string(got) != "hello early late" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}

	var interims []int
	q, _ := http.NewRequest(http.MethodPost, "http://"+near.addr, strings.NewReader("body"))
	q.Header.Set("Expect", "100-continue")
	q = q.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got100Continue: func() { interims = append(interims, 100) },
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { interims = append(interims, code); return nil },
	}))
	resp, err = (&http.Client{Timeout: hang, Transport: &http.Transport{ExpectContinueTimeout: hang, DisableKeepAlives: true}}).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "body" || err != nil || !slices.Contains(interims, 100) || !slices.Contains(interims, 103) {
		t.Errorf("%q, %v, after %v", body, err, interims)
	}
	for _, r := range []*rig{near, far} {
		if o := r.rec.wait(t, 2)[0]; o.Status != 101 || o.Flags != 0 || o.BytesSent != 16 || o.BytesReceived != 10 {
			t.Errorf("%d %s sent %d received %d", o.Status, o.Flags, o.BytesSent, o.BytesReceived)
		}
	}
	near.settled("far")
	far.settled("c")
}

// TestHTTP2ApplyUnderLoad is TestApplyUnderLoad with HTTP/2 on both sides: clusters are replaced while their streams run,
// and hosts come and go.
func TestHTTP2ApplyUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	backends := []string{backend2(t, named("a")), backend2(t, named("b")), backend2(t, named("c"))}
	r.serve(manager(), []*mesh.Route{prefix("/", to("v0"))}, cluster2("v0", backends[0]))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var served atomic.Int64
	for i := range 8 {
		own := client2(t)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var body io.Reader
				if i%2 == 0 {
					body = io.MultiReader(strings.NewReader("body"), strings.NewReader("more")) // of unknown length
				}
				resp, err := own.Post("http://"+r.addr, "", body)
				if err != nil {
					t.Error(err)
					return
				}
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("%d %s", resp.StatusCode, b)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := 1; i <= 200 && !t.Failed(); i++ {
		snap := *r.snap
		name := fmt.Sprintf("v%d", i/3) // which replaces a cluster by another, and by one with other hosts or settings
		c := cluster2(name, backends[i%3])
		if i%3 == 2 {
			c.HTTP.MaxRequestsPerConnection = 5
		}
		snap.Clusters = map[string]*mesh.Cluster{name: c}
		snap.RouteTables = map[string]*mesh.RouteTable{}
		r.snap = &snap
		r.route(prefix("/", to(name)))
		r.apply()
		seen := served.Load()
		for deadline := time.Now().Add(hang); served.Load() < seen+2 && !t.Failed(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Error("nothing is served")
				break
			}
		}
	}
	close(stop)
	wg.Wait()
	for name := range r.snap.Clusters {
		r.settled(name)
	}
}

// TestHTTP2Drain: a drain under load reaches all connections, also those that nobody uses, and loses no request.
func TestHTTP2Drain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster2("c", backend2(t, named("a"))))
	idle := client2(t)
	if resp, err := idle.Get("http://" + r.addr); err != nil {
		t.Fatal(err)
	} else {
		_, _ = io.Copy(io.Discard, resp.Body) // one that is not read is reset
		resp.Body.Close()
	}
	var stopping atomic.Bool
	var asked atomic.Int64
	var wg sync.WaitGroup
	own := client2(t)
	for range 8 {
		wg.Go(func() {
			for i := 0; i < 300 || !stopping.Load(); i++ {
				resp, err := own.Get("http://" + r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
					t.Errorf("%d %v", resp.StatusCode, err)
				}
				resp.Body.Close()
				asked.Add(1)
			}
		})
	}
	r.rec.wait(t, 200)
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	drained := make(chan int64)
	go func() { drained <- r.Drain(ctx, listener.All, 300*time.Millisecond) }()
	for !r.Listeners()[0].Draining {
		time.Sleep(time.Millisecond)
	}
	stopping.Store(true)
	wg.Wait()
	if left := <-drained; left != 0 {
		t.Errorf("%d connections are left", left)
	}
	for _, o := range r.rec.wait(t, int(asked.Load())+1) {
		if o.Status != 200 || o.Failure != mesh.NoFailure {
			t.Errorf("%+v", o)
		}
	}
	r.settled("c")
}

// A request whose headers are more than the upstream says it takes is answered here, costs no connection and is not held
// against the host.
func TestHTTP2HeaderListSize(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := httptest.NewUnstartedServer(named("a"))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.MaxHeaderBytes = 1000
	s.Start()
	t.Cleanup(s.Close)
	c := cluster2("c", s.Listener.Addr().String())
	c.Outlier = &mesh.Outlier{Interval: time.Hour, BaseEjection: time.Hour, MaxEjection: time.Hour, Consecutive5xx: 1, Enforcing5xx: 100, MaxEjectionPercent: 100, AlwaysEjectOne: true}
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, c)
	for i, n := range []int{10, 5000, 10} {
		q, err := http.NewRequest("GET", "http://"+r.addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("X-Large", strings.Repeat("a", n))
		resp, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		want := 200
		if n > 1000 {
			want = 431
		}
		if resp.StatusCode != want || err != nil || want == 431 && string(body) != "the request's headers are larger than the upstream takes" {
			t.Errorf("%d bytes: status %d, %q, %v", n, resp.StatusCode, body, err)
		}
		if o := r.rec.wait(t, i+1)[i]; want == 431 && (o.Side != mesh.SideDownstream || o.Details != "head_too_large_for_upstream" || o.Attempts != 1) {
			t.Errorf("%+v", o)
		}
	}
	for _, c := range r.Clusters() {
		if n := c.Stats.Value(metrics.UpstreamCxTotal); n != 1 {
			t.Errorf("%d connections", n)
		}
	}
}
