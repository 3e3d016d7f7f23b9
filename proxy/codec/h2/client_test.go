// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// result is what came of a request.
type result struct {
	status   int
	body     string
	trailers string
	err      error
	st       *ClientStream
}

// start makes a request on a worker of its own; the result comes on the channel.
func (x *world) start(c *testClient, q *codec.Request, body string) chan result {
	done := make(chan result, 1)
	st, ok := c.Reserve()
	if !ok {
		x.t.Error("no place")
		close(done)
		return done
	}
	x.e.Go(runFunc(func(w *socket.Worker) {
		var r codec.Response
		res := result{st: st}
		res.err = st.Call(w, q, []byte(body), &r)
		for res.err == nil && r.Status < 200 && !r.Switched {
			res.err = st.Answer(w, &r)
		}
		if res.err == nil {
			var b []byte
			b, res.err = readBody(w, st.Body())
			res.status, res.body = r.Status, string(b)
			if tr := st.Trailers(); tr != nil {
				res.trailers = string(tr.AppendHTTP1(nil))
			}
		}
		st.Release()
		done <- res
	}))
	return done
}

// TestClientAnswers: what becomes of each answer, good or bad, and what the server is told.
func TestClientAnswers(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	status := func(s string, fields ...string) []string { return append([]string{":status", s}, fields...) }
	for _, c := range []struct {
		name   string
		method string
		send   func(p *script)
		want   string // status body trailers | error code
		told   string
	}{
		{"empty", "GET", func(p *script) { p.headers(1, true, status("200")...) }, "200", ""},
		{"body", "GET", func(p *script) { p.headers(1, false, status("200")...); p.fr.WriteData(1, true, []byte("ab")) }, "200 ab", ""},
		{"length", "GET", func(p *script) {
			p.headers(1, false, status("200", "content-length", "2")...)
			p.fr.WriteData(1, true, []byte("ab"))
		}, "200 ab", ""},
		{"padded", "GET", func(p *script) {
			p.headers(1, false, status("200")...)
			p.fr.WriteDataPadded(1, true, []byte("ab"), make([]byte, 9))
		}, "200 ab", ""},
		{"trailers", "GET", func(p *script) {
			p.headers(1, false, status("200")...)
			p.fr.WriteData(1, false, []byte("ab"))
			p.headers(1, true, "grpc-status", "0", "content-length", "5")
		}, "200 ab grpc-status: 0", ""},
		{"interim", "GET", func(p *script) {
			p.headers(1, false, status("103", "link", "x")...)
			p.headers(1, false, status("100")...)
			p.headers(1, true, status("404")...)
		}, "404", ""},
		{"HEAD", "HEAD", func(p *script) { p.headers(1, true, status("200", "content-length", "5")...) }, "200", ""},
		{"HEAD with a late end", "HEAD", func(p *script) {
			p.headers(1, false, status("200", "content-length", "5")...)
			p.fr.WriteData(1, true, nil)
		}, "200", ""},
		{"HEAD with a body", "HEAD", func(p *script) {
			p.headers(1, false, status("200", "content-length", "5")...)
			p.fr.WriteData(1, true, []byte("hello"))
		}, "content_length_and_body_differ", "RST 1 PROTOCOL_ERROR"},
		{"304", "GET", func(p *script) { p.headers(1, true, status("304", "content-length", "5")...) }, "304", ""},
		{"204 with a body", "GET", func(p *script) {
			p.headers(1, false, status("204")...)
			p.fr.WriteData(1, true, []byte("x"))
		}, "content_length_and_body_differ", "RST 1 PROTOCOL_ERROR"},
		{"length too small", "GET", func(p *script) {
			p.headers(1, false, status("200", "content-length", "2")...)
			p.fr.WriteData(1, true, []byte("abc"))
		}, "content_length_and_body_differ", "RST 1 PROTOCOL_ERROR"},
		{"length too large", "GET", func(p *script) {
			p.headers(1, false, status("200", "content-length", "2")...)
			p.fr.WriteData(1, true, []byte("a"))
		}, "content_length_and_body_differ", "RST 1 PROTOCOL_ERROR"},
		{"length without a body", "GET", func(p *script) { p.headers(1, true, status("200", "content-length", "2")...) }, "content_length_and_body_differ", "RST 1 PROTOCOL_ERROR"},
		{"no status", "GET", func(p *script) { p.headers(1, true, "a", "b") }, "pseudo_header_missing", "RST 1 PROTOCOL_ERROR"},
		{"101", "GET", func(p *script) { p.headers(1, false, status("101")...) }, "bad_status", "RST 1 PROTOCOL_ERROR"},
		{"status of two digits", "GET", func(p *script) { p.headers(1, true, status("20")...) }, "bad_status", "RST 1 PROTOCOL_ERROR"},
		{"status 600", "GET", func(p *script) { p.headers(1, true, status("600")...) }, "bad_status", "RST 1 PROTOCOL_ERROR"},
		{"status twice", "GET", func(p *script) { p.headers(1, true, status("200", ":status", "200")...) }, "pseudo_header_repeated", "RST 1 PROTOCOL_ERROR"},
		{"path", "GET", func(p *script) { p.headers(1, true, status("200", ":path", "/")...) }, "unexpected_pseudo_header", "RST 1 PROTOCOL_ERROR"},
		{"transfer-encoding", "GET", func(p *script) { p.headers(1, true, status("200", "transfer-encoding", "chunked")...) }, "connection_specific_field", "RST 1 PROTOCOL_ERROR"},
		{"upper case", "GET", func(p *script) { p.headers(1, true, status("200", "X-A", "b")...) }, "bad_field_name", "RST 1 PROTOCOL_ERROR"},
		{"LF", "GET", func(p *script) { p.headers(1, true, status("200", "x-a", "b\nc: d")...) }, "bad_field_value", "RST 1 PROTOCOL_ERROR"},
		{"too many fields", "GET", func(p *script) {
			var f []string
			for range 101 {
				f = append(f, "a", "b")
			}
			p.headers(1, true, status("200", f...)...)
		}, "too_many_fields", "RST 1 ENHANCE_YOUR_CALM"},
		{"interim with end", "GET", func(p *script) { p.headers(1, true, status("103")...) }, "interim_answer_with_end", "RST 1 PROTOCOL_ERROR"},
		{"data first", "GET", func(p *script) { p.fr.WriteData(1, false, []byte("x")) }, "data_before_head", "RST 1 PROTOCOL_ERROR"},
		{"trailers that do not end", "GET", func(p *script) {
			p.headers(1, false, status("200")...)
			p.headers(1, false, "a", "b")
		}, "trailers_without_end", "RST 1 PROTOCOL_ERROR"},
		{"refused", "GET", func(p *script) { p.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream) }, "reset 7 unprocessed", ""},
		{"cancelled", "GET", func(p *script) { p.fr.WriteRSTStream(1, http2.ErrCodeCancel) }, "reset 8", ""},
		{"cancelled in the middle", "GET", func(p *script) {
			p.headers(1, false, status("200")...)
			p.fr.WriteData(1, false, []byte("ab"))
			p.fr.WriteRSTStream(1, http2.ErrCodeInternal)
		}, "reset 2", ""},
		{"goes away before", "GET", func(p *script) { p.fr.WriteGoAway(0, http2.ErrCodeNo, nil) }, "reset 0 unprocessed", ""},
		{"goes away after", "GET", func(p *script) {
			p.fr.WriteGoAway(1, http2.ErrCodeNo, nil)
			p.headers(1, true, status("200")...)
		}, "200", ""},
		{"closes", "GET", func(p *script) { p.hangUp() }, "EOF", "-"},
		{"closes in the middle", "GET", func(p *script) { p.headers(1, false, status("200")...); p.hangUp() }, "unexpected EOF", "-"},
		{"PUSH_PROMISE", "GET", func(p *script) {
			p.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: p.block(":method", "GET"), EndHeaders: true})
		}, "PUSH_PROMISE", "GOAWAY 0 PROTOCOL_ERROR"},
		{"ENABLE_PUSH", "GET", func(p *script) { p.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}) }, "bad SETTINGS_ENABLE_PUSH", "GOAWAY 0 PROTOCOL_ERROR"},
		{"an idle stream", "GET", func(p *script) { p.headers(3, true, status("200")...) }, "HEADERS on an idle stream", "GOAWAY 0 PROTOCOL_ERROR"},
		{"DATA on an idle stream", "GET", func(p *script) { p.fr.WriteData(3, true, nil) }, "DATA on an idle stream", "GOAWAY 0 PROTOCOL_ERROR"},
		{"a stream of its own", "GET", func(p *script) { p.headers(2, true, status("200")...) }, "HEADERS on an idle stream", "GOAWAY 0 PROTOCOL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, cl := x.toClient(t, &cfg)
			done := x.start(cl, request(c.method, "/"), "")
			p.until("HEADERS 1 " + c.method + " end")
			p.got = nil
			c.send(p)
			r := <-done
			var got string
			var reset *codec.ResetError
			var refused *codec.ProtocolError
			switch {
			case errors.As(r.err, &reset):
				if got = "reset " + string('0'+rune(reset.Code)); reset.Unprocessed {
					got += " unprocessed"
				}
				if !reset.Remote {
					t.Error("the reset was not ours")
				}
			case errors.As(r.err, &refused):
				got = refused.Code
			case r.err != nil:
				got = r.err.Error()
			default:
				got = strings.TrimSpace(strings.Join([]string{string('0'+rune(r.status/100)) + string('0'+rune(r.status/10%10)) + string('0'+rune(r.status%10)), r.body, r.trailers}, " "))
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if c.told == "-" {
				return
			}
			p.sync()
			if s := strings.Join(p.got, "; "); s != c.told {
				t.Errorf("told %q, want %q", s, c.told)
			}
		})
	}
}

// TestClientRequest: what a request is on the wire.
func TestClientRequest(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	for _, c := range []struct {
		name string
		q    *codec.Request
		want string
	}{
		{"GET", request("GET", "/a?b", "host", "x", "connection", "y", "te", "trailers", "X-A", "1"), ":method=GET :authority=example.com :scheme=http :path=/a?b te=trailers x-a=1"},
		{"unknown length", &codec.Request{Method: []byte("PUT"), Scheme: []byte("https"), Authority: []byte("a"), Path: []byte("/"), Length: codec.Unknown}, ":method=PUT :authority=a :scheme=https :path=/"},
		{"CONNECT", &codec.Request{Method: []byte("CONNECT"), Authority: []byte("a:1")}, ":method=CONNECT :authority=a:1"},
		{"WebSocket", func() *codec.Request {
			q := request("GET", "/ws", "sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version", "13")
			q.Upgrade = []byte("websocket")
			return q
		}(), ":method=CONNECT :authority=example.com :scheme=http :path=/ws :protocol=websocket sec-websocket-version=13"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, cl := x.toClient(t, &cfg, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
			done := x.start(cl, c.q, "")
			for {
				f, ok := p.next()
				if !ok {
					t.Fatal(p.err)
				}
				if h, is := f.(*http2.MetaHeadersFrame); is {
					var got []string
					for _, hf := range h.Fields {
						got = append(got, hf.Name+"="+hf.Value)
					}
					if s := strings.Join(got, " "); s != c.want {
						t.Errorf("%q, want %q", s, c.want)
					}
					break
				}
			}
			p.headers(1, true, ":status", "200")
			if r := <-done; r.err != nil {
				t.Error(r.err)
			}
		})
	}
}

// TestClientTunnel: CONNECT, and WebSocket by extended CONNECT, which looks like an upgrade of HTTP/1.1.
func TestClientTunnel(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	p, cl := x.toClient(t, &cfg, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		p.until("HEADERS 1 CONNECT")
		p.headers(1, false, ":status", "200")
		p.until("DATA 1 5 end")
		p.fr.WriteData(1, true, []byte("world"))
	}()
	x.do(func(w *socket.Worker) {
		q := request("GET", "/ws", "sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
		q.Upgrade = []byte("websocket")
		st, _ := cl.Reserve()
		var r codec.Response
		if err := st.Call(w, q, nil, &r); err != nil {
			t.Error(err)
			return
		}
		if r.Status != 101 || !r.Switched || string(r.Upgrade) != "websocket" || string(r.Header.Get("sec-websocket-accept")) != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Errorf("%d %v %q %q", r.Status, r.Switched, r.Upgrade, r.Header.Get("sec-websocket-accept"))
		}
		if err := st.Data(w, bytebuf.Of([]byte("hello")), true); err != nil {
			t.Error(err)
		}
		if b, err := readBody(w, st.Body()); err != nil || string(b) != "world" {
			t.Errorf("%q, %v", b, err)
		}
		st.Release()
	})
	<-sent

	p2, cl2 := x.toClient(t, &cfg)
	x.do(func(w *socket.Worker) {
		q := request("GET", "/ws")
		q.Upgrade = []byte("websocket")
		st, _ := cl2.Reserve()
		var r codec.Response
		if err := st.Call(w, q, nil, &r); err != error(errNoConnect) {
			t.Errorf("a server that does not allow it: %v", err)
		}
		st.Abort()
	})
	p2.sync()
	p2.expect()
}

// A request that is larger than the server takes fails alone, before anything of it is sent; the connection goes on.
func TestClientHeaderListSize(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	p, cl := x.toClient(t, &cfg, http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 300})
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		p.until("HEADERS 1 GET end")
		p.headers(1, true, ":status", "200")
	}()
	for known := false; !known; runtime.Gosched() {
		cl.conn.mu.Lock()
		known = cl.peer.known
		cl.conn.mu.Unlock()
	}
	x.do(func(w *socket.Worker) {
		st, _ := cl.Reserve()
		var r codec.Response
		err := st.Call(w, request("GET", "/", "x-long", strings.Repeat("a", 200)), nil, &r)
		var f *mesh.Failure
		if !errors.As(err, &f) || f.Reply == nil || f.Reply.Status != 431 || f.Side != mesh.SideDownstream || f.Retry != mesh.RetryNever {
			t.Errorf("%+v", err)
		}
		st.Abort()
		st, _ = cl.Reserve()
		if err := st.Call(w, request("GET", "/", "x-short", "a"), nil, &r); err != nil || r.Status != 200 {
			t.Errorf("%v, %d", err, r.Status)
		}
		st.Release()
	})
	<-heard
}

// TestClientUpload: bodies in pieces and trailers go out; an answer that comes before the end does not lose the rest.
func TestClientUpload(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	p, cl := x.toClient(t, &cfg)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		p.until("HEADERS 1 POST")
		p.headers(1, false, ":status", "200")
		p.until("HEADERS 1 end")
		p.fr.WriteData(1, true, []byte("done"))
	}()
	x.do(func(w *socket.Worker) {
		st, _ := cl.Reserve()
		q := request("POST", "/")
		q.Length = codec.Unknown
		var r codec.Response
		var l header.List
		l.AddString("x-sum", "1")
		for _, err := range []error{
			st.Head(w, q), st.Data(w, bytebuf.Of([]byte("abc")), false), st.Answer(w, &r),
			st.Data(w, bytebuf.Piece{}, false), st.Data(w, bytebuf.Of([]byte("de")), false), st.SendTrailers(w, &l),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		if err := st.Data(w, bytebuf.Of([]byte("x")), true); err == nil {
			t.Error("data behind the end")
		}
		if b, err := readBody(w, st.Body()); err != nil || string(b) != "done" {
			t.Errorf("%q, %v", b, err)
		}
		if st.Sent() == 0 || st.Received() == 0 || !st.Answered() || st.Reused() {
			t.Error("the stream's numbers are wrong")
		}
		st.Release()
	})
	<-heard
	p.sync()
	p.expect("HEADERS 1 POST", "DATA 1 3", "DATA 1 2", "HEADERS 1 end")
}

// TestClientEarlyAnswer: a server that answers in full and then says that it needs no more (RFC 9113 section 8.1) has
// answered, and the upload ends.
func TestClientEarlyAnswer(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	p, cl := x.toClient(t, &cfg, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	p.sync() // the window is known
	done := x.start(cl, request("POST", "/"), strings.Repeat("x", 100))
	p.until("DATA 1 10")
	p.headers(1, true, ":status", "413")
	p.fr.WriteRSTStream(1, http2.ErrCodeNo)
	if r := <-done; r.err != nil || r.status != 413 {
		t.Errorf("%d, %v", r.status, r.err)
	}
	p.sync()
	p.expect("HEADERS 1 POST", "DATA 1 10")
}

// TestClientPlaces: streams are opened as far as the server allows, and the owner hears when there is room again.
func TestClientPlaces(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	cfg.Streams = 3
	p, cl := x.toClient(t, &cfg, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
	p.sync()
	<-cl.capacity
	if n := cl.Places(); n != 2 {
		t.Errorf("%d places", n)
	}
	a, _ := cl.Reserve()
	b, ok := cl.Reserve()
	if _, more := cl.Reserve(); !ok || more {
		t.Errorf("%v %v", ok, more)
	}
	a.Abort()
	<-cl.capacity
	if cl.Streams() != 1 {
		t.Errorf("%d streams", cl.Streams())
	}
	p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
	p.sync()
	if _, ok := cl.Reserve(); ok {
		t.Error("a stream where none is allowed")
	}
	b.Abort()
	p.sync()
	p.expect()
}

// TestClientGoesAway: a connection that takes no more streams says so once, serves those that it has, and ends.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	p, cl := x.toClient(t, &cfg)
	reserved, _ := cl.Reserve()
	done := x.start(cl, request("GET", "/"), "")
	p.until("HEADERS 1 GET end")
	p.fr.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
	p.fr.WriteGoAway(1, http2.ErrCodeNo, nil)
	p.sync()
	<-cl.draining
	if _, ok := cl.Reserve(); ok || !cl.Client.Draining() {
		t.Error("a stream on a connection that goes away")
	}
	x.do(func(w *socket.Worker) {
		var reset *codec.ResetError
		if err := reserved.Head(w, request("GET", "/")); !errors.As(err, &reset) || !reset.Unprocessed {
			t.Errorf("a stream that was reserved before: %v", err)
		}
		reserved.Abort()
	})
	p.headers(1, true, ":status", "200")
	if r := <-done; r.err != nil {
		t.Error(r.err)
	}
	if err := cl.ended(t); err != ErrDrained {
		t.Errorf("ended with %v", err)
	}
}

// TestClientNumbers: a connection whose stream numbers are used up serves the last and takes no more.
func TestClientNumbers(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	p, cl := x.toClient(t, &cfg)
	p.sync()
	cl.Client.mu.Lock()
	cl.nextID = maxStreamID
	cl.Client.mu.Unlock()
	late, _ := cl.Reserve()
	done := x.start(cl, request("GET", "/"), "")
	p.until("HEADERS 2147483647 GET end")
	x.do(func(w *socket.Worker) {
		var reset *codec.ResetError
		if err := late.Head(w, request("GET", "/")); !errors.As(err, &reset) || !reset.Unprocessed {
			t.Errorf("a stream without a number: %v", err)
		}
		late.Abort()
	})
	if _, ok := cl.Reserve(); ok {
		t.Error("a place for a stream without a number")
	}
	p.headers(2147483647, true, ":status", "200")
	if r := <-done; r.err != nil {
		t.Error(r.err)
	}
	if err := cl.ended(t); err != ErrDrained {
		t.Errorf("%v", err)
	}
}

// TestClientNeverSent: a request that was still in our hands when the connection ended can be sent again.
func TestClientNeverSent(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	p, cl := x.toClient(t, &cfg)
	p.sync()
	cl.Client.mu.Lock()
	cl.out.blocked = true // as by a full socket
	cl.Client.mu.Unlock()
	st, _ := cl.Reserve()
	opened := make(chan error, 1)
	x.e.Go(runFunc(func(w *socket.Worker) {
		var r codec.Response
		if err := st.Head(w, request("POST", "/")); err != nil {
			t.Error(err)
		}
		opened <- nil
		opened <- st.Answer(w, &r)
		st.Abort()
	}))
	<-opened
	cl.Client.mu.Lock()
	cl.out.err = io.ErrClosedPipe
	cl.Client.mu.Unlock()
	cl.SetExpire(1)
	var reset *codec.ResetError
	if err := <-opened; !errors.As(err, &reset) || !reset.Unprocessed {
		t.Errorf("%v", err)
	}
	_ = p
}

// TestClientStale: a request that is lost with its connection met a stale one only where nothing was heard of the server
// since. Any frame of it shows that it may have acted on the request.
func TestClientStale(t *testing.T) {
	t.Parallel()
	for name, lives := range map[string]bool{"silent": false, "alive": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			p, cl := x.toClient(t, &cfg)
			p.sync()
			st, _ := cl.Reserve()
			failed := make(chan error, 1)
			x.e.Go(runFunc(func(w *socket.Worker) {
				var r codec.Response
				failed <- st.Call(w, request("GET", "/"), nil, &r)
			}))
			p.until("HEADERS 1 GET end")
			if lives {
				p.sync()
			}
			p.c.Close()
			var reset *codec.ResetError
			if err := <-failed; err == nil || errors.As(err, &reset) || st.Answered() != lives {
				t.Errorf("%v, answered %v", err, st.Answered())
			}
			st.Abort()
		})
	}
}

// TestClientAborts: an attempt that is given up is cancelled, at each of its stages, and its place is free.
func TestClientAborts(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	p, cl := x.toClient(t, &cfg)
	x.do(func(w *socket.Worker) {
		st, _ := cl.Reserve()
		st.Abort()
		st, _ = cl.Reserve()
		if err := st.Head(w, request("POST", "/")); err != nil {
			t.Error(err)
		}
		st.Abort()
		st, _ = cl.Reserve()
		if err := st.Head(w, request("POST", "/")); err != nil {
			t.Error(err)
		}
		if err := st.Data(w, bytebuf.Of([]byte("x")), true); err != nil {
			t.Error(err)
		}
		st.Abort()
	})
	p.sync()
	p.expect("HEADERS 1 POST", "RST 1 CANCEL", "HEADERS 3 POST", "DATA 3 1 end", "RST 3 CANCEL")
	// What was on its way meanwhile is no fault.
	p.headers(1, false, ":status", "200")
	p.fr.WriteData(1, true, []byte("x"))
	p.sync()
	p.expect()
	if cl.Streams() != 0 {
		t.Errorf("%d streams", cl.Streams())
	}
}

// TestClientInterrupted: whoever waits for an answer and is told to stop, stops; the answer that comes is nobody's.
func TestClientInterrupted(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	p, cl := x.toClient(t, &cfg)
	stop := errors.New("stop")
	worker := make(chan *socket.Worker, 1)
	done := make(chan error, 1)
	st, _ := cl.Reserve()
	x.e.Go(runFunc(func(w *socket.Worker) {
		w.Own(ownerFunc(func() error { return stop }))
		worker <- w
		var r codec.Response
		done <- st.Call(w, request("GET", "/"), nil, &r)
		st.Abort()
	}))
	p.until("HEADERS 1 GET end")
	(<-worker).Interrupt()
	if err := <-done; err != stop {
		t.Error(err)
	}
	p.until("RST 1 CANCEL")
	p.headers(1, true, ":status", "200")
	p.sync()
	p.expect("HEADERS 1 GET end", "RST 1 CANCEL")
}

type ownerFunc func() error

func (f ownerFunc) Interrupted() error { return f() }
