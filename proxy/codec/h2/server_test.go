// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// echo answers with what it was sent, after it was sent all, and a refused request with its refusal.
func echo(w *socket.Worker, st *ServerStream, q *codec.Request) {
	if r := st.Refused(); r != nil {
		_ = answer(w, st, r.Status, r.Code)
		return
	}
	body, err := readBody(w, st.Body())
	if err != nil {
		return
	}
	if t := st.Trailers(); t != nil {
		r := &codec.Response{Status: 200, Length: codec.Unknown}
		if st.Head(w, r, bytebuf.Of(body), false) == nil {
			_ = st.SendTrailers(w, t)
		}
		return
	}
	_ = answer(w, st, 200, string(body))
}

// TestServerFrames: what RFC 9113 asks a server to do with each frame that is not as it should be. A stream error leaves
// the connection as it is; the others end it.
func TestServerFrames(t *testing.T) {
	t.Parallel()
	raw := func(typ, flags uint8, id uint32, payload string) func(*script) {
		return func(p *script) { p.fr.WriteRawFrame(http2.FrameType(typ), http2.Flags(flags), id, []byte(payload)) }
	}
	all := func(fs ...func(*script)) func(*script) {
		return func(p *script) {
			for _, f := range fs {
				f(p)
			}
		}
	}
	post := func(p *script) { p.post(1) }
	get := func(p *script) { p.get(1, true); p.until("DATA 1 0 end") }
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	x := newWorld(t)
	cfg := Defaults()
	addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
		if _, err := readBody(w, st.Body()); err == nil {
			r := &codec.Response{Status: 200, Length: codec.Unknown}
			_ = st.Head(w, r, bytebuf.Piece{}, false)
			_ = st.Data(w, bytebuf.Piece{}, true)
		}
	})
	for _, c := range []struct {
		name string
		send func(*script)
		want string
	}{
		{"unknown type", raw(0x42, 0xff, 1, "x"), ""},
		{"DATA on stream 0", raw(0, 0, 0, "x"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"DATA on an idle stream", raw(0, 0, 5, "x"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"DATA on a server's stream", raw(0, 0, 2, "x"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"DATA with more padding than frame", all(post, raw(0, 8, 1, "\x05x")), "GOAWAY 1 PROTOCOL_ERROR"},
		{"DATA padded, and empty", all(post, raw(0, 8, 1, "")), "GOAWAY 1 PROTOCOL_ERROR"},
		{"DATA behind the end", all(post, raw(0, 1, 1, "x"), raw(0, 0, 1, "x")), "RST 1 STREAM_CLOSED"},
		{"DATA behind the client's reset", all(post, raw(3, 0, 1, zeros(4)), raw(0, 0, 1, "x")), "GOAWAY 1 STREAM_CLOSED"},
		{"HEADERS on stream 0", raw(1, 4, 0, "\x82"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"HEADERS on an even stream", raw(1, 4, 2, "\x82"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"HEADERS padded too much", raw(1, 0xc, 1, "\xff\x82"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"HEADERS with half a priority", raw(1, 0x24, 1, "\x00\x00"), "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"HEADERS that depend on themselves", raw(1, 0x24, 1, "\x00\x00\x00\x01\x00\x82"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"HEADERS with a bad block", raw(1, 5, 1, "\xff\xff\xff\xff\xff\xff"), "GOAWAY 1 COMPRESSION_ERROR"},
		{"HEADERS with index 0", raw(1, 5, 1, "\x80"), "GOAWAY 1 COMPRESSION_ERROR"},
		{"HEADERS of an older stream", all(func(p *script) { p.post(3) }, func(p *script) { p.post(1) }), "GOAWAY 3 STREAM_CLOSED"},
		{"trailers without an end", all(post, func(p *script) { p.headers(1, false, "a", "b") }), "RST 1 PROTOCOL_ERROR"},
		{"trailers with a pseudo-header", all(post, func(p *script) { p.headers(1, true, ":path", "/") }), "RST 1 PROTOCOL_ERROR"},
		{"trailers that are too large", all(post, func(p *script) { p.headers(1, true, "a", strings.Repeat("x", 9000)) }), "RST 1 ENHANCE_YOUR_CALM"},
		{"trailers behind the end", all(get, func(p *script) { p.headers(1, true, "a", "b") }), "GOAWAY 1 STREAM_CLOSED"},
		{"a frame inside a block", all(raw(1, 0, 1, "\x82"), raw(6, 0, 0, zeros(8))), "GOAWAY 0 PROTOCOL_ERROR"},
		{"a block goes on elsewhere", all(raw(1, 0, 1, "\x82"), raw(9, 4, 3, "\x82")), "GOAWAY 0 PROTOCOL_ERROR"},
		{"CONTINUATION of nothing", raw(9, 4, 1, "\x82"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"PRIORITY on stream 0", raw(2, 0, 0, zeros(5)), "GOAWAY 0 PROTOCOL_ERROR"},
		{"PRIORITY of four bytes", raw(2, 0, 1, zeros(4)), "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"PRIORITY that depends on itself", raw(2, 0, 1, "\x00\x00\x00\x01\x00"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"PRIORITY of an idle stream", raw(2, 0, 9, zeros(5)), ""},
		{"PRIORITY_UPDATE", raw(0x10, 0, 0, "\x00\x00\x00\x01u=1"), ""},
		{"RST_STREAM on stream 0", raw(3, 0, 0, zeros(4)), "GOAWAY 0 PROTOCOL_ERROR"},
		{"RST_STREAM on an idle stream", raw(3, 0, 1, zeros(4)), "GOAWAY 0 PROTOCOL_ERROR"},
		{"RST_STREAM of five bytes", all(post, raw(3, 0, 1, zeros(5))), "GOAWAY 1 FRAME_SIZE_ERROR"},
		{"RST_STREAM twice", all(post, raw(3, 0, 1, zeros(4)), raw(3, 0, 1, zeros(4))), ""},
		{"SETTINGS on a stream", raw(4, 0, 1, ""), "GOAWAY 0 PROTOCOL_ERROR"},
		{"SETTINGS of five bytes", raw(4, 0, 0, zeros(5)), "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"SETTINGS acknowledged with something", raw(4, 1, 0, zeros(6)), "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"SETTINGS acknowledged twice", all(raw(4, 1, 0, ""), raw(4, 1, 0, "")), "GOAWAY 0 PROTOCOL_ERROR"},
		{"SETTINGS of an unknown kind", raw(4, 0, 0, "\x12\x34\xff\xff\xff\xff"), ""},
		{"ENABLE_PUSH 2", raw(4, 0, 0, "\x00\x02\x00\x00\x00\x02"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"INITIAL_WINDOW_SIZE 2³¹", raw(4, 0, 0, "\x00\x04\x80\x00\x00\x00"), "GOAWAY 0 FLOW_CONTROL_ERROR"},
		{"MAX_FRAME_SIZE 0", raw(4, 0, 0, "\x00\x05\x00\x00\x00\x00"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"MAX_FRAME_SIZE 2²⁴", raw(4, 0, 0, "\x00\x05\x01\x00\x00\x00"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"ENABLE_CONNECT_PROTOCOL 2", raw(4, 0, 0, "\x00\x08\x00\x00\x00\x02"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"ENABLE_CONNECT_PROTOCOL taken back", raw(4, 0, 0, "\x00\x08\x00\x00\x00\x01\x00\x08\x00\x00\x00\x00"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"PUSH_PROMISE", raw(5, 4, 1, "\x00\x00\x00\x02\x82"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"PING on a stream", raw(6, 0, 1, zeros(8)), "GOAWAY 0 PROTOCOL_ERROR"},
		{"PING of seven bytes", raw(6, 0, 0, zeros(7)), "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"PING that nobody asked for is acknowledged", raw(6, 1, 0, zeros(8)), ""},
		{"GOAWAY on a stream", raw(7, 0, 1, zeros(8)), "GOAWAY 0 PROTOCOL_ERROR"},
		{"GOAWAY of seven bytes", raw(7, 0, 0, zeros(7)), "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"GOAWAY", raw(7, 0, 0, zeros(8)), ""},
		{"WINDOW_UPDATE of three bytes", raw(8, 0, 0, zeros(3)), "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"WINDOW_UPDATE by 0", raw(8, 0, 0, zeros(4)), "GOAWAY 0 PROTOCOL_ERROR"},
		{"WINDOW_UPDATE by 0 on a stream", all(post, raw(8, 0, 1, zeros(4))), "RST 1 PROTOCOL_ERROR"},
		{"WINDOW_UPDATE on an idle stream", raw(8, 0, 1, "\x00\x00\x00\x01"), "GOAWAY 0 PROTOCOL_ERROR"},
		{"WINDOW_UPDATE beyond 2³¹-1", raw(8, 0, 0, "\x7f\xff\xff\xff"), "GOAWAY 0 FLOW_CONTROL_ERROR"},
		{"WINDOW_UPDATE beyond 2³¹-1 on a stream", all(post, raw(8, 0, 1, "\x7f\xff\xff\xff")), "RST 1 FLOW_CONTROL_ERROR"},
		{"INITIAL_WINDOW_SIZE makes a window too large", all(post, raw(8, 0, 1, "\x7f\xff\x00\x00"), raw(4, 0, 0, "\x00\x04\x7f\xff\xff\xff")), "GOAWAY 1 FLOW_CONTROL_ERROR"},
		{"WINDOW_UPDATE on a stream that has ended", all(get, raw(8, 0, 1, "\x00\x00\x00\x01")), ""},
		{"a frame of 16,385 bytes", raw(0, 0, 1, zeros(16385)), "GOAWAY 0 FRAME_SIZE_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := x.toServer(t, addr)
			c.send(p)
			p.sync()
			var got []string
			for _, g := range p.got {
				if !strings.HasPrefix(g, "HEADERS") && !strings.HasPrefix(g, "DATA") {
					got = append(got, g)
				}
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Errorf("%q, want %q", s, c.want)
			}
			if ended := p.err != nil; ended != strings.HasPrefix(c.want, "GOAWAY") {
				t.Errorf("the connection ended: %v", p.err)
			}
		})
	}
}

// TestServerPreface: a client that speaks something else is sent away, and the first frame is SETTINGS.
func TestServerPreface(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	addr, _ := x.listen(&cfg, echo)
	for name, in := range map[string]string{
		"HTTP/1.1":          "GET / HTTP/1.1\r\n\r\n",
		"bad in the middle": Preface[:10] + "xxxxxxxxxxxxxxxxxxxxxxx",
		"no SETTINGS":       Preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678",
		"SETTINGS ack":      Preface + "\x00\x00\x00\x04\x01\x00\x00\x00\x00",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, c)
		io.WriteString(c, in)
		p.ends()
		if len(p.got) != 1 || p.got[0] != "GOAWAY 0 PROTOCOL_ERROR" {
			t.Errorf("%s: %q", name, p.got)
		}
	}
	// It may come byte by byte.
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, c)
	for i := range Preface {
		io.WriteString(c, Preface[i:i+1])
	}
	p.fr.WriteSettings()
	p.get(1, true)
	p.until("HEADERS 1 200 end")
}

// TestServerHeads: which requests are served, which are answered with a refusal, and which are malformed.
func TestServerHeads(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	cfg.ExtendedConnect = true
	addr, _ := x.listen(&cfg, echo)
	base := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	with := func(fields ...string) []string { return append(append([]string(nil), base...), fields...) }
	many := func(n int, name string) (out []string) {
		for range n {
			out = append(out, name, "1")
		}
		return out
	}
	for _, c := range []struct {
		name   string
		fields []string
		want   string
	}{
		{"plain", base, "200"},
		{"https", []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"}, "200"},
		{"no method", base[2:], "PROTOCOL_ERROR"},
		{"no scheme", append(base[:2:2], base[4:]...), "PROTOCOL_ERROR"},
		{"no path", base[:6], "PROTOCOL_ERROR"},
		{"no authority", append(base[:4:4], ":path", "/"), "400"},
		{"host for the authority", append(base[:4:4], ":path", "/", "host", "b"), "200"},
		{"two hosts", append(base[:4:4], ":path", "/", "host", "b", "host", "b"), "PROTOCOL_ERROR"},
		{"host as the authority", with("host", "A"), "200"},
		{"host other than the authority", with("host", "b"), "PROTOCOL_ERROR"},
		{"empty authority", []string{":method", "GET", ":scheme", "http", ":authority", "", ":path", "/"}, "400"},
		{"user in the authority", []string{":method", "GET", ":scheme", "http", ":authority", "u@a", ":path", "/"}, "400"},
		{"a list as authority", []string{":method", "GET", ":scheme", "http", ":authority", "a/b", ":path", "/"}, "400"},
		{"method twice", append([]string{":method", "GET"}, base...), "PROTOCOL_ERROR"},
		{"path twice", with(":path", "/"), "PROTOCOL_ERROR"},
		{"pseudo behind a field", append([]string{"x", "y"}, base...), "PROTOCOL_ERROR"},
		{"status", append([]string{":status", "200"}, base...), "PROTOCOL_ERROR"},
		{"unknown pseudo", append([]string{":x", "y"}, base...), "PROTOCOL_ERROR"},
		{"protocol without CONNECT", append([]string{":protocol", "websocket"}, base...), "PROTOCOL_ERROR"},
		{"empty path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", ""}, "PROTOCOL_ERROR"},
		{"path without a slash", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "x"}, "PROTOCOL_ERROR"},
		{"absolute path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "http://b/"}, "PROTOCOL_ERROR"},
		{"star", []string{":method", "OPTIONS", ":scheme", "http", ":authority", "a", ":path", "*"}, "200"},
		{"star to GET", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "*"}, "PROTOCOL_ERROR"},
		{"space in the path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a b"}, "400"},
		{"fragment", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a#b"}, "400"},
		{"byte in the path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/\xff"}, "400"},
		{"CR LF in the path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/\r\nx: y"}, "PROTOCOL_ERROR"},
		{"long path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/" + strings.Repeat("x", 8<<10)}, "414"},
		{"odd scheme", []string{":method", "GET", ":scheme", "ftp", ":authority", "a", ":path", "/"}, "400"},
		{"space in the method", []string{":method", "GET x", ":scheme", "http", ":authority", "a", ":path", "/"}, "PROTOCOL_ERROR"},
		{"empty method", []string{":method", "", ":scheme", "http", ":authority", "a", ":path", "/"}, "PROTOCOL_ERROR"},
		{"upper case", with("X-A", "1"), "PROTOCOL_ERROR"},
		{"empty name", with("", "1"), "PROTOCOL_ERROR"},
		{"space in a name", with("a b", "1"), "PROTOCOL_ERROR"},
		{"colon in a name", with("a:b", "1"), "PROTOCOL_ERROR"},
		{"byte in a name", with("a\x80", "1"), "PROTOCOL_ERROR"},
		{"NUL in a value", with("a", "b\x00c"), "PROTOCOL_ERROR"},
		{"CR in a value", with("a", "b\rc"), "PROTOCOL_ERROR"},
		{"LF in a value", with("a", "b\nc"), "PROTOCOL_ERROR"},
		{"space in front of a value", with("a", " b"), "PROTOCOL_ERROR"},
		{"tab behind a value", with("a", "b\t"), "PROTOCOL_ERROR"},
		{"tab in a value", with("a", "b\tc"), "200"},
		{"empty value", with("a", ""), "200"},
		{"UTF-8 in a value", with("a", "ä"), "200"},
		{"connection", with("connection", "close"), "PROTOCOL_ERROR"},
		{"keep-alive", with("keep-alive", "1"), "PROTOCOL_ERROR"},
		{"proxy-connection", with("proxy-connection", "x"), "PROTOCOL_ERROR"},
		{"transfer-encoding", with("transfer-encoding", "chunked"), "PROTOCOL_ERROR"},
		{"upgrade", with("upgrade", "h2c"), "PROTOCOL_ERROR"},
		{"te", with("te", "gzip"), "PROTOCOL_ERROR"},
		{"te trailers", with("te", "trailers"), "200"},
		{"content-length 0", with("content-length", "0"), "200"},
		{"content-length without a body", with("content-length", "1"), "PROTOCOL_ERROR"},
		{"content-length twice", with("content-length", "0", "content-length", "0"), "PROTOCOL_ERROR"},
		{"content-length that is none", with("content-length", "+0"), "PROTOCOL_ERROR"},
		{"content-length list", with("content-length", "0,0"), "PROTOCOL_ERROR"},
		{"content-length without end", with("content-length", "99999999999999999999"), "PROTOCOL_ERROR"},
		{"expectation", with("expect", "100-continue"), "200"},
		{"odd expectation", with("expect", "miracle"), "417"},
		{"100 fields", with(many(100, "a")...), "200"},
		{"101 fields", with(many(101, "a")...), "431"},
		{"101 crumbs", with(many(101, "cookie")...), "431"},
		{"101 trailers fields, which are dropped", with(many(101, "trailer")...), "431"},
		{"large value", with("a", strings.Repeat("x", 16<<10+1)), "431"},
		{"large cookie of small crumbs", with("cookie", strings.Repeat("x", 9<<10), "cookie", strings.Repeat("y", 9<<10)), "431"},
		{"large head", with("a", strings.Repeat("x", 16<<10), "b", strings.Repeat("x", 16<<10), "c", strings.Repeat("x", 16<<10), "d", strings.Repeat("x", 12<<10)), "431"},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "a:443"}, "200"},
		{"CONNECT with a path", []string{":method", "CONNECT", ":authority", "a:443", ":path", "/"}, "PROTOCOL_ERROR"},
		{"CONNECT with a scheme", []string{":method", "CONNECT", ":authority", "a:443", ":scheme", "http"}, "PROTOCOL_ERROR"},
		{"CONNECT to nowhere", []string{":method", "CONNECT"}, "PROTOCOL_ERROR"},
		{"CONNECT without a port", []string{":method", "CONNECT", ":authority", "a"}, "400"},
		{"CONNECT with a length", []string{":method", "CONNECT", ":authority", "a:443", "content-length", "0"}, "PROTOCOL_ERROR"},
		{"extended CONNECT", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a"}, "200"},
		{"extended CONNECT without a path", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a"}, "PROTOCOL_ERROR"},
		{"extended CONNECT with two words", []string{":method", "CONNECT", ":protocol", "web socket", ":scheme", "http", ":path", "/", ":authority", "a"}, "PROTOCOL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := x.toServer(t, addr)
			p.fr.MaxHeaderListSize = 0
			block := p.block(c.fields...)
			first := block[:min(len(block), 16<<10)]
			p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: len(first) == len(block), EndStream: true})
			for rest := block[len(first):]; len(rest) > 0; {
				n := min(len(rest), 16<<10)
				p.fr.WriteContinuation(1, n == len(rest), rest[:n])
				rest = rest[n:]
			}
			for len(p.got) == 0 {
				if _, ok := p.next(); !ok {
					t.Fatalf("the connection ended: %v", p.err)
				}
			}
			if f := strings.Fields(p.got[0]); f[2] != c.want {
				t.Errorf("%q, want %s", p.got, c.want)
			}
			p.get(3, true)
			p.until("HEADERS 3 200 end") // and the connection goes on
		})
	}
}

// TestServerRequest: what a request looks like to those above.
func TestServerRequest(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	cfg.ExtendedConnect = true
	type seen struct{ head, fields string }
	got := make(chan seen, 1)
	addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
		got <- seen{
			strings.Join([]string{string(q.Method), string(q.Scheme), string(q.Authority), string(q.Path), string(q.Upgrade)}, " "),
			string(q.Header.AppendHTTP1(nil)),
		}
		_ = answer(w, st, 200, "")
	})
	p := x.toServer(t, addr)
	id := uint32(1)
	for _, c := range []struct {
		fields []string
		end    bool
		want   seen
	}{
		{
			[]string{":method", "GET", ":scheme", "https", ":path", "/a?b", ":authority", "x:1", "host", "X:1", "cookie", "a=b", "accept", "*/*", "cookie", "c=d"}, true,
			seen{"GET https x:1 /a?b ", "accept: */*\r\ncookie: a=b; c=d\r\n"},
		},
		{
			[]string{":method", "PUT", ":scheme", "http", ":path", "/", "host", "h", "te", "trailers", "trailer", "x", "expect", "100-continue", "content-length", "3"}, false,
			seen{"PUT http h / ", "te: trailers\r\ncontent-length: 3\r\n"},
		},
		{[]string{":method", "CONNECT", ":authority", "x:1"}, false, seen{"CONNECT  x:1  ", ""}},
		{
			[]string{":method", "CONNECT", ":protocol", "WebSocket", ":scheme", "http", ":path", "/ws", ":authority", "x", "sec-websocket-key", "k"}, false,
			seen{"GET http x /ws WebSocket", "sec-websocket-key: k\r\n"},
		},
	} {
		p.headers(id, c.end, c.fields...)
		if s := <-got; s != c.want {
			t.Errorf("%q, want %q", s, c.want)
		}
		id += 2
	}
}

// TestServerAnswers: interim answers, bodies, trailers and early answers, as they are on the wire.
func TestServerAnswers(t *testing.T) {
	t.Parallel()
	piece := func(s string) bytebuf.Piece { return bytebuf.Of([]byte(s)) }
	for _, c := range []struct {
		name  string
		open  func(p *script)
		serve func(w *socket.Worker, st *ServerStream)
		want  []string
	}{
		{"empty", func(p *script) { p.get(1, true) }, func(w *socket.Worker, st *ServerStream) {
			_ = st.Head(w, &codec.Response{Status: 204}, bytebuf.Piece{}, true)
		}, []string{"HEADERS 1 204 end"}},
		{"in pieces", func(p *script) { p.get(1, true) }, func(w *socket.Worker, st *ServerStream) {
			_ = st.Head(w, &codec.Response{Status: 200, Length: codec.Unknown}, bytebuf.Piece{}, false)
			_ = st.Data(w, piece("ab"), false)
			_ = st.Data(w, bytebuf.Piece{}, false)
			_ = st.Data(w, piece("c"), true)
		}, []string{"HEADERS 1 200", "DATA 1 2", "DATA 1 1 end"}},
		{"HEAD", func(p *script) {
			p.headers(1, true, ":method", "HEAD", ":scheme", "http", ":path", "/", ":authority", "a")
		}, func(w *socket.Worker, st *ServerStream) {
			_ = st.Head(w, &codec.Response{Status: 200, Length: 5}, piece("hello"), true)
		}, []string{"HEADERS 1 200 end"}},
		{"304", func(p *script) { p.get(1, true) }, func(w *socket.Worker, st *ServerStream) {
			_ = st.Head(w, &codec.Response{Status: 304}, bytebuf.Piece{}, false)
		}, []string{"HEADERS 1 304 end"}},
		{"interim", func(p *script) { p.get(1, true) }, func(w *socket.Worker, st *ServerStream) {
			var l header.List
			l.AddString("link", "x")
			_ = st.Inform(w, 103, &l)
			_ = answer(w, st, 200, "")
			_ = st.Inform(w, 103, &l)
		}, []string{"HEADERS 1 103", "HEADERS 1 200 end"}},
		{"continue", func(p *script) { p.post(1, "expect", "100-continue") }, func(w *socket.Worker, st *ServerStream) {
			_ = st.Continue(w)
			_ = st.Continue(w)
			_ = answer(w, st, 200, "")
		}, []string{"HEADERS 1 100", "HEADERS 1 200 end", "RST 1 NO_ERROR"}},
		{"continue where nobody waits", func(p *script) { p.get(1, true, "expect", "100-continue") }, func(w *socket.Worker, st *ServerStream) {
			_ = st.Continue(w)
			_ = answer(w, st, 200, "")
		}, []string{"HEADERS 1 200 end"}},
		{"trailers", func(p *script) { p.get(1, true) }, func(w *socket.Worker, st *ServerStream) {
			_ = st.Head(w, &codec.Response{Status: 200, Length: codec.Unknown}, piece("a"), false)
			var l header.List
			l.AddString("Grpc-Status", "0")
			_ = st.SendTrailers(w, &l)
		}, []string{"HEADERS 1 200", "DATA 1 1", "HEADERS 1 end"}},
		{"no trailers after all", func(p *script) { p.get(1, true) }, func(w *socket.Worker, st *ServerStream) {
			_ = st.Head(w, &codec.Response{Status: 200, Length: codec.Unknown}, piece("a"), false)
			_ = st.SendTrailers(w, nil)
		}, []string{"HEADERS 1 200", "DATA 1 1", "DATA 1 0 end"}},
		{"nothing", func(p *script) { p.get(1, true) }, func(*socket.Worker, *ServerStream) {}, []string{"RST 1 INTERNAL_ERROR"}},
		{"half of it", func(p *script) { p.get(1, true) }, func(w *socket.Worker, st *ServerStream) {
			_ = st.Head(w, &codec.Response{Status: 200, Length: 2}, piece("a"), false)
			st.Abort(false)
			if !st.Broken() {
				panic("not broken")
			}
		}, []string{"HEADERS 1 200", "DATA 1 1", "RST 1 INTERNAL_ERROR"}},
		{"half of it, cancelled", func(p *script) { p.get(1, true) }, func(w *socket.Worker, st *ServerStream) {
			_ = st.Head(w, &codec.Response{Status: 200, Length: 2}, piece("a"), false)
			st.Abort(true)
		}, []string{"HEADERS 1 200", "DATA 1 1", "RST 1 CANCEL"}},
		{"early", func(p *script) { p.post(1) }, func(w *socket.Worker, st *ServerStream) {
			_ = answer(w, st, 413, "no")
		}, []string{"HEADERS 1 413", "DATA 1 2 end", "RST 1 NO_ERROR"}},
		{"the last", func(p *script) { p.get(1, true) }, func(w *socket.Worker, st *ServerStream) {
			st.CloseAfter()
			_ = answer(w, st, 200, "")
		}, []string{"GOAWAY 2147483647 NO_ERROR", "HEADERS 1 200 end", "GOAWAY 1 NO_ERROR"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			done := make(chan struct{})
			addr, servers := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, _ *codec.Request) {
				c.serve(w, st)
			})
			_ = done
			p := x.toServer(t, addr)
			c.open(p)
			<-servers
			for len(p.got) < len(c.want) {
				f, ok := p.next()
				if !ok {
					break
				}
				if pf, is := f.(*http2.PingFrame); is && !pf.IsAck() {
					p.fr.WritePing(true, pf.Data)
				}
			}
			p.expect(c.want...)
		})
	}
}

// TestServerNegativeWindow: SETTINGS can make a stream's window negative (RFC 9113 section 6.9.2): data waits, an end
// without data does not.
func TestServerNegativeWindow(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	shrunk := make(chan struct{})
	addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
		r := &codec.Response{Status: 200, Length: codec.Unknown}
		_ = st.Head(w, r, bytebuf.Of(make([]byte, 1000)), false)
		<-shrunk
		if string(q.Path) == "/more" {
			_ = st.Data(w, bytebuf.Of(make([]byte, 10)), true)
			return
		}
		_ = st.Data(w, bytebuf.Piece{}, true)
	})
	p := x.toServer(t, addr)
	p.get(1, true)
	p.until("DATA 1 1000")
	p.headers(3, true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/more")
	p.until("DATA 3 1000")
	p.fr.WriteSettings(setting(settingWindow, 10))
	p.sync()
	close(shrunk)
	p.until("DATA 1 0 end")
	p.fr.WriteWindowUpdate(3, 994)
	p.until("DATA 3 4")
	p.fr.WriteSettings(setting(settingWindow, 65535))
	p.until("DATA 3 6 end")
	p.expect("HEADERS 1 200", "DATA 1 1000", "HEADERS 3 200", "DATA 3 1000", "DATA 1 0 end", "DATA 3 4", "DATA 3 6 end")
}
