// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// unused returns an address that nobody listens on.
func unused(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// ticking is a clock that goes on by a millisecond whenever it is read.
func ticking() func() int64 {
	var clock atomic.Int64
	return func() int64 { return clock.Add(int64(time.Millisecond)) }
}

// both is a job whose clients and upstream speak HTTP/2.
func both() Job {
	return Job{Down: HTTP2, Up: HTTP2, Host: "svc-a.mesh.local", Path: "/x", Conns: 4, Streams: 8, Body: 1024, Measure: 5 * time.Second}
}

// The generator's clients and upstreams understand each other, and all windows are given back.
func TestHTTP2WithoutProxy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*Job)
	}{
		{"closed loop", func(*Job) {}},
		{"open loop", func(j *Job) { j.Rate = 500 }},
		{"more than the windows", func(j *Job) { j.Body, j.Upload, j.Measure = 3<<20, 100<<10, time.Second }},
		{"gRPC", func(j *Job) { j.GRPC, j.Body, j.Upload = true, 64, 64 }},
		{"gRPC with large messages", func(j *Job) { j.GRPC, j.Body, j.Upload, j.Measure = true, 2<<20, 2<<20, time.Second }},
		{"gRPC streams", func(j *Job) { j.GRPC, j.Streaming, j.Body, j.Upload = true, true, 64, 64 }},
		{"gRPC streams with a rate", func(j *Job) { j.GRPC, j.Streaming, j.Body, j.Upload, j.Rate = true, true, 64, 64, 500 }},
		{"gRPC streams of large messages", func(j *Job) {
			j.GRPC, j.Streaming, j.Body, j.Upload, j.Measure = true, true, 2<<20, 2<<20, time.Second
		}},
		{"no body", func(j *Job) { j.Body = 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := both()
			j.Target = unused(t)
			j.Upstreams = []netip.AddrPort{j.Target}
			tt.change(&j)
			r, err := Run(t.Context(), j, Deps{Now: ticking()})
			if err != nil {
				t.Fatal(err)
			}
			if r.Requests == 0 || r.Errors+r.Bad != 0 || r.Connections[0] != 4 || r.Answers[0] < r.Requests {
				t.Errorf("%+v", r)
			}
			if j.Rate > 0 && (r.Requests < 2400 || r.Requests > 2500) {
				t.Errorf("%d requests in 5 s at 500 a second", r.Requests)
			}
		})
	}
}

// The standard library's server and client understand the generator, and get the same fields in both versions of HTTP.
func TestThroughNetHTTP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*Job)
	}{
		{"both", func(*Job) {}},
		{"down", func(j *Job) { j.Up = HTTP1 }},
		{"up", func(j *Job) { j.Down, j.Streams = HTTP1, 0 }},
		{"uploads", func(j *Job) { j.Upload, j.Body = 200<<10, 200<<10 }},
		{"gRPC", func(j *Job) { j.GRPC, j.Upload, j.Body = true, 64, 64 }},
		{"TLS", func(j *Job) { j.TLS = true }},
		{"TLS with uploads", func(j *Job) { j.TLS, j.Upload, j.Body = true, 200<<10, 200<<10 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := both()
			j.Upstreams = []netip.AddrPort{unused(t)}
			tt.change(&j)
			var seen sync.Map
			j.Target = proxy(t, &j, &seen)
			r, err := Run(t.Context(), j, Deps{Now: ticking()})
			if err != nil || r.Requests == 0 || r.Errors+r.Bad != 0 {
				t.Errorf("%v, %+v", err, r)
			}
			for field, want := range map[string]string{
				":proto": proto(j.Down), ":host": j.Host, ":uri": j.Path, "Te": map[bool]string{true: "trailers"}[j.GRPC],
				"Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			} {
				if got, _ := seen.Load(field); got != want {
					t.Errorf("%s is %q, want %q", field, got, want)
				}
			}
		})
	}
}

func proto(p Protocol) string { return map[Protocol]string{HTTP1: "HTTP/1.1", HTTP2: "HTTP/2.0"}[p] }

// protocols are what one side of the standard library's proxy speaks.
func protocols(p Protocol) *http.Protocols {
	all := &http.Protocols{}
	all.SetHTTP1(p == HTTP1)
	all.SetUnencryptedHTTP2(p == HTTP2)
	return all
}

// proxy forwards to the job's upstream, and remembers a request.
func proxy(t *testing.T, j *Job, seen *sync.Map) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Protocols: protocols(j.Up), MaxIdleConnsPerHost: 100, DisableCompression: true}
	forward := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", j.Upstreams[0].String()
	}, ErrorLog: log.New(io.Discard, "", 0)}
	s := &http.Server{Protocols: protocols(j.Down), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(":proto", r.Proto)
		seen.Store(":host", r.Host)
		seen.Store(":uri", r.RequestURI)
		seen.Store("Te", r.Header.Get("Te"))
		seen.Store("Traceparent", r.Header.Get("Traceparent"))
		forward.ServeHTTP(w, r)
	})}
	if j.TLS {
		s.Protocols.SetUnencryptedHTTP2(false)
		s.Protocols.SetHTTP2(true)
		certified := httptest.NewUnstartedServer(nil)
		certified.StartTLS()
		s.TLSConfig = &tls.Config{Certificates: certified.TLS.Certificates}
		certified.Close()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if j.TLS {
			_ = s.ServeTLS(l, "", "")
			return
		}
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { _ = s.Close(); <-done; transport.CloseIdleConnections() })
	return netip.MustParseAddrPort(l.Addr().String())
}

// Answers that are held back leave their streams open until the generator is told.
func TestHeldStreams(t *testing.T) {
	t.Parallel()
	j := both()
	j.Target = unused(t)
	j.Upstreams = []netip.AddrPort{j.Target}
	j.Idle, j.Held, j.Streams = true, true, 100
	ready := 0
	r, err := Run(t.Context(), j, Deps{Ready: func() { ready++ }})
	if err != nil || ready != 1 || r.Errors+r.Bad != 0 || r.Answers[0] != 400 || r.Connections[0] != 4 {
		t.Errorf("ready %d times: %v %+v", ready, err, r)
	}
}

// framed answers requests in HTTP/2 with the frames of a test.
type framed struct {
	*http2.Framer
	conn   net.Conn
	fields *hpack.Encoder
	block  bytes.Buffer
}

// head sends fields, given as name and value in turn.
func (f *framed) head(id uint32, end bool, fields ...string) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.encode(fields...), EndHeaders: true, EndStream: end})
}

func (f *framed) encode(fields ...string) []byte {
	f.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = f.fields.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return f.block.Bytes()
}

// serve answers the requests on a connection until the answer says that it is over.
func (f *framed) serve(clock *atomic.Int64, answer func(f *framed, id uint32) bool) {
	defer f.conn.Close()
	if _, err := io.CopyN(io.Discard, f.conn, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	_ = f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch h := frame.Header(); {
		case h.Type == http2.FrameSettings && !h.Flags.Has(http2.FlagSettingsAck):
			_ = f.WriteSettingsAck()
		case (h.Type == http2.FrameHeaders || h.Type == http2.FrameData) && h.Flags.Has(http2.FlagHeadersEndStream):
			clock.Add(int64(time.Second))
			if !answer(f, h.StreamID) {
				// An end with an acknowledgement unread would be a reset.
				_ = f.conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, f.conn)
				return
			}
		}
	}
}

func TestHTTP2AnswersThatDoNotCount(t *testing.T) {
	t.Parallel()
	hello := func(f *framed, id uint32) { _ = f.WriteData(id, true, []byte("hello")) }
	for _, tt := range []struct {
		name   string
		grpc   bool
		answer func(f *framed, id uint32) bool
		bad    string // in the account; "" says that it is good
		error  bool
	}{
		{"good", false, func(f *framed, id uint32) bool {
			f.head(id, false, ":status", "200")
			hello(f, id)
			return true
		}, "", false},
		{"good in pieces", false, func(f *framed, id uint32) bool {
			f.head(id, false, ":status", "103", "link", "</a>")
			block := bytes.Clone(f.encode(":status", "200", "a", "b"))
			_ = f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: id, BlockFragment: block[:2], PadLength: 3, Priority: http2.PriorityParam{Weight: 3},
			})
			_ = f.WriteContinuation(id, true, block[2:])
			_ = f.WriteDataPadded(id, false, []byte("hel"), make([]byte, 7))
			_ = f.WritePing(false, [8]byte{1})
			_ = f.WriteData(id, false, []byte("lo"))
			f.head(id, true, "a-trailer", "c")
			return true
		}, "", false},
		{"another status", false, func(f *framed, id uint32) bool {
			f.head(id, false, ":status", "503")
			hello(f, id)
			return true
		}, "status 503 and 5 bytes", false},
		{"a short body", false, func(f *framed, id uint32) bool {
			f.head(id, false, ":status", "200")
			_ = f.WriteData(id, true, []byte("hell"))
			return true
		}, "status 200 and 4 bytes", false},
		{"no body", false, func(f *framed, id uint32) bool {
			f.head(id, true, ":status", "200")
			return true
		}, "status 200 and 0 bytes", false},
		{"nobody asked", false, func(f *framed, id uint32) bool {
			f.head(id+2, true, ":status", "200")
			return true
		}, "on which nobody asked", false},
		{"no HTTP/2", false, func(f *framed, _ uint32) bool {
			_, _ = io.WriteString(f.conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			return true
		}, "no HTTP/2", false},
		{"going away", false, func(f *framed, id uint32) bool {
			_ = f.WriteGoAway(id, http2.ErrCodeEnhanceYourCalm, []byte("calm"))
			return true
		}, `code 11 "calm"`, false},
		{"a reset", false, func(f *framed, id uint32) bool {
			_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
			return true
		}, "code 7", true},
		{"the end", false, func(*framed, uint32) bool { return false }, "closed a connection with 1 requests", true},
		{"a good call", true, func(f *framed, id uint32) bool {
			f.head(id, false, ":status", "200")
			_ = f.WriteData(id, false, []byte("\x00\x00\x00\x00\x05hello"))
			f.head(id, true, "grpc-status", "0")
			return true
		}, "", false},
		{"a failed call", true, func(f *framed, id uint32) bool {
			f.head(id, false, ":status", "200")
			_ = f.WriteData(id, false, []byte("\x00\x00\x00\x00\x05hello"))
			f.head(id, true, "grpc-status", "14")
			return true
		}, "without grpc-status 0", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var clock atomic.Int64
			s := &script{}
			j := s.job(t)
			_ = s.Close() // the connections are served here
			l, err := net.Listen("tcp4", j.Target.String())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for c, err := l.Accept(); err == nil; c, err = l.Accept() {
					f := &framed{Framer: http2.NewFramer(c, c), conn: c}
					f.fields = hpack.NewEncoder(&f.block)
					go f.serve(&clock, tt.answer)
				}
			}()
			j.Down, j.Up, j.GRPC = HTTP2, HTTP2, tt.grpc
			r, err := Run(t.Context(), j, Deps{Now: clock.Load})
			if err != nil {
				t.Fatal(err)
			}
			if (r.Bad > 0) != (tt.bad != "" && !tt.error) || (r.Errors > 0) != tt.error || !strings.Contains(r.First, tt.bad) {
				t.Errorf("want %q in the account: %+v", tt.bad, r)
			}
			if good := r.Requests > 0; good == (tt.bad != "") {
				t.Errorf("%d requests counted", r.Requests)
			}
		})
	}
}

// conversation is what a client sends: the preface, settings, and requests in frames of all kinds.
func conversation(t *testing.T, window uint32) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := &framed{Framer: http2.NewFramer(&b, nil)}
	f.fields = hpack.NewEncoder(&f.block)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	get := []string{":method", "GET", ":scheme", "http", ":authority", "h", ":path", "/x", "x-request-id", "1"}
	f.head(1, true, get...)
	f.head(3, false, get...)
	_ = f.WriteDataPadded(3, true, nil, []byte{0, 0})
	block := bytes.Clone(f.encode(get...))
	_ = f.WritePriority(5, http2.PriorityParam{Weight: 9})
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: block[:1], EndStream: true})
	_ = f.WriteContinuation(5, true, block[1:])
	return b.Bytes()
}

// upstreamSession is an upstream's end of a connection that is nowhere.
func upstreamSession(j Job) (*loop, *session) {
	l := &loop{job: j, up: j.payload(j.Upload), down: j.payload(j.Body), answers: encode(j.answers())}
	l.result.Answers = make([]uint64, 1)
	return l, l.serve(1<<20, 0)
}

// What comes is the same whatever pieces it comes in.
func TestFramesInPieces(t *testing.T) {
	t.Parallel()
	text := conversation(t, startWindow)
	var want []byte
	for size := len(text); size > 0; size-- {
		l, s := upstreamSession(both())
		for rest := text; len(rest) > 0; {
			n := min(size, len(rest))
			if err := s.feed(rest[:n]); err != nil {
				t.Fatalf("pieces of %d: %v", size, err)
			}
			rest = rest[n:]
		}
		if want == nil {
			want = s.out
		}
		if l.result.Answers[0] != 3 || !bytes.Equal(s.out, want) || len(s.streams) != 0 {
			t.Fatalf("pieces of %d: %d answers, %d streams", size, l.result.Answers[0], len(s.streams))
		}
	}
}

// Bodies wait for the windows of their streams and for that of the connection, and go on where these are widened.
func TestWindows(t *testing.T) {
	t.Parallel()
	j := both()
	j.Body = 30
	_, s := upstreamSession(j)
	s.window = 50
	var updates bytes.Buffer
	f := http2.NewFramer(&updates, nil)
	sent := func(more func()) string {
		updates.Reset()
		if more(); s.feed(updates.Bytes()) != nil {
			t.Fatal("refused")
		}
		text := ""
		for r := http2.NewFramer(nil, bytes.NewReader(s.out)); ; {
			frame, err := r.ReadFrame()
			if err != nil {
				break
			}
			if d, ok := frame.(*http2.DataFrame); ok {
				text += fmt.Sprintf("%d:%d:%v ", d.StreamID, len(d.Data()), d.StreamEnded())
			}
		}
		s.out = s.out[:0]
		return strings.TrimSpace(text)
	}
	for i, step := range []struct {
		more func()
		want string
	}{
		{func() { updates.Write(conversation(t, 20)) }, "1:20:false 3:20:false 5:10:false"},
		{func() { _ = f.WriteWindowUpdate(1, 100) }, ""}, // the connection's is used up
		{func() { _ = f.WriteWindowUpdate(0, 15) }, "1:10:true 5:5:false"},
		{func() { _ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 30}) }, ""},
		{func() { _ = f.WriteRSTStream(3, http2.ErrCodeCancel) }, ""},
		{func() { _ = f.WriteWindowUpdate(0, 1000) }, "5:15:true"},
	} {
		if got := sent(step.more); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	if len(s.streams)+len(s.waiting) != 0 {
		t.Errorf("%d streams and %d that wait are left", len(s.streams), len(s.waiting))
	}
}

// Fields mean the same from the first head on, and for a peer without a table.
func TestHeads(t *testing.T) {
	t.Parallel()
	j := both()
	j.GRPC = true
	for name, fields := range map[string][]hpack.HeaderField{"asks": j.asks(), "answers": j.answers()} {
		h := encode(fields)
		d := hpack.NewDecoder(tableSize, nil)
		for _, block := range [][]byte{h.first, h.rest, trailers, h.rest, h.bare, h.bare} {
			got, err := d.DecodeFull(block)
			if err != nil || len(block) != len(trailers) && fmt.Sprint(got) != fmt.Sprint(fields) {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
	}
	if len(encode(j.asks()).rest) > 20 {
		t.Error("fields that were sent before are sent again")
	}
}

func TestHTTP2AnswerCostsNothing(t *testing.T) {
	j := both()
	_, s := upstreamSession(j)
	h := encode(j.asks())
	if err := s.feed(append([]byte(preface), appendSettings(nil, true)...)); err != nil {
		t.Fatal(err)
	}
	frame := func(block []byte) []byte {
		return append(appendFrame(nil, len(block), frameHeaders, flagEndHeaders|flagEndStream, 1), block...)
	}
	if err := s.feed(frame(h.first)); err != nil {
		t.Fatal(err)
	}
	again, id := frame(h.rest), uint32(1)
	if n := testing.AllocsPerRun(100, func() {
		id += 2
		binary.BigEndian.PutUint32(again[5:], id)
		_ = s.feed(again)
		s.window, s.out = startWindow, s.out[:0]
	}); n != 0 {
		t.Errorf("%v allocations for an answer", n)
	}
}
