// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// wire is a connection in memory: in holds what arrives, one element for each time the reader waits.
type wire struct {
	now  []byte   // readable
	in   []string // later
	out  bytes.Buffer
	hung bool
}

func (c *wire) TryRead(p []byte) (int, error) {
	if len(c.now) == 0 {
		if len(c.in) == 0 {
			return 0, io.EOF
		}
		return 0, socket.ErrWouldBlock
	}
	n := copy(p, c.now)
	c.now = c.now[n:]
	return n, nil
}

func (c *wire) AwaitRead(*socket.Worker) error {
	if len(c.in) > 0 {
		c.now, c.in = append(c.now, c.in[0]...), c.in[1:]
	}
	return nil
}

func (c *wire) Write(_ *socket.Worker, p []byte) error { c.out.Write(p); return nil }
func (c *wire) HungUp() bool                           { return c.hung }

// Call, Recv and CloseWrite make a wire the client half's peer.
func (c *wire) Call(w *socket.Worker, out []byte) (*bytebuf.Buf, error) {
	c.out.Write(out)
	return c.Recv(w, nil)
}

var bufs bytebuf.Pool

func (c *wire) Recv(w *socket.Worker, b *bytebuf.Buf) (*bytebuf.Buf, error) {
	if len(c.now) == 0 {
		c.AwaitRead(w)
	}
	if len(c.now) == 0 {
		return b, io.EOF
	}
	if b == nil {
		b = bufs.Get()
	}
	n := copy(b.Free(), c.now)
	b.Hi += n
	c.now = c.now[n:]
	return b, nil
}

func (c *wire) CloseWrite() error   { return nil }
func (c *wire) Wrote() int64        { return int64(c.out.Len()) }
func (c *wire) Bufs() *bytebuf.Pool { return &bufs }

func server(in ...string) (*Server, *wire) {
	c := &wire{in: in}
	lim := Defaults()
	lim.HTTP10 = true
	s := &Server{}
	s.Init(c, &lim)
	return s, c
}

// TestDry: a read that leaves nothing behind is the last until there is an edge; one that may have left something, or that a
// hang-up came with, is not.
func TestDry(t *testing.T) {
	t.Parallel()
	get := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	s, w := server()
	w.now = []byte(get)
	var st ServerStream
	var q codec.Request
	if s.Dry() {
		t.Error("nothing was read yet")
	}
	if ok, err := s.Poll(&st, &q); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if !s.Dry() || s.buf != nil {
		t.Error("the request was all there was, and its buffer should be back")
	}
	w.now = []byte(get)
	if ok, err := s.Poll(&st, &q); ok || err != nil {
		t.Errorf("read without an edge: %v, %v", ok, err)
	}
	s.Edge()
	if ok, err := s.Poll(&st, &q); !ok || err != nil {
		t.Errorf("after the edge: %v, %v", ok, err)
	}

	s, w = server()
	w.now = []byte(get + get)
	if ok, err := s.Poll(&st, &q); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if s.Dry() {
		t.Error("a second request is here already")
	}

	s, w = server()
	w.now, w.hung = []byte(get), true
	if ok, err := s.Poll(&st, &q); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if s.Dry() {
		t.Error("the hang-up was not read yet")
	}
}

// next polls until there is a request, as the idle set would.
func next(t *testing.T, s *Server, c *wire, st *ServerStream, q *codec.Request) error {
	t.Helper()
	for range 1000 {
		s.Edge()
		ok, err := s.Poll(st, q)
		if ok || err != nil {
			return err
		}
		if s.buf != nil {
			t.Fatal("a buffer is held while idle")
		}
		c.AwaitRead(nil)
	}
	t.Fatal("no request")
	return nil
}

func readAll(t *testing.T, b codec.Body) (string, error) {
	t.Helper()
	var got []byte
	for {
		p, end, err := b.Next(nil)
		got = append(got, p.Bytes()...)
		if end || err != nil {
			return string(got), err
		}
	}
}

func reply(status int, length int64) *codec.Response {
	r := &codec.Response{Status: status, Length: length}
	r.Header.AddString("x", "y")
	return r
}

// TestServer runs whole connections: what arrives, what the handler does, what leaves.
func TestServer(t *testing.T) {
	t.Parallel()
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	const ok0 = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: y\r\n\r\n"
	empty := func(t *testing.T, st *ServerStream) { st.Head(nil, reply(200, 0), bytebuf.Piece{}, true) }
	echo := func(t *testing.T, st *ServerStream) {
		st.Continue(nil)
		body, err := readAll(t, st.Body())
		if err != nil {
			t.Fatal(err)
		}
		st.Head(nil, reply(200, int64(len(body))), bytebuf.Of([]byte(body)), true)
	}
	cases := []struct {
		name   string
		in     []string
		handle func(t *testing.T, st *ServerStream)
		out    string
		served int
		end    string
	}{
		{"keep-alive", []string{get, get}, empty, ok0 + ok0, 2, "EOF"},
		{"pipelined", []string{get + get + get[:7], get[7:]}, empty, ok0 + ok0 + ok0, 3, "EOF"},
		{"empty lines between", []string{get + "\r\n\r\n" + get}, empty, ok0 + ok0, 2, "EOF"},
		{"dripping", strings.Split(strings.Join(strings.Split(get, ""), "|"), "|"), empty, ok0, 1, "EOF"},
		{"asked to close", []string{"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"}, empty, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\nx: y\r\n\r\n", 1, "close"},
		{"HTTP/1.0", []string{"GET / HTTP/1.0\r\nHost: a\r\n\r\n"}, empty, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\nx: y\r\n\r\n", 1, "close"},
		{"HTTP/1.0 keep-alive", []string{"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"}, empty, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\nx: y\r\n\r\n", 1, "EOF"},
		{"body with the head", []string{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + get}, echo, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: y\r\n\r\nabc" + ok0, 2, "EOF"},
		{"body in pieces", []string{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", "a", "b", "c" + get}, echo, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: y\r\n\r\nabc" + ok0, 2, "EOF"},
		{"chunked", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "2\r\nbc", "\r\n0\r\n\r\n" + get}, echo, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: y\r\n\r\nabc" + ok0, 2, "EOF"},
		{"100 is sent when the body is wanted", []string{"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", "abc"}, echo, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: y\r\n\r\nabc", 1, "EOF"},
		{"and not where it is not", []string{"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", "abc"}, empty, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\nx: y\r\n\r\n", 1, "close"},
		{"answered before the body is in", []string{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na"}, empty, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\nx: y\r\n\r\n", 1, "close"},
		{
			"chunked answer", []string{get},
			func(t *testing.T, st *ServerStream) {
				st.Head(nil, reply(200, codec.Unknown), bytebuf.Of([]byte("ab")), false)
				st.Data(nil, bytebuf.Of([]byte("c")), false)
				st.Data(nil, bytebuf.Piece{}, false)
				st.Data(nil, bytebuf.Piece{}, true)
			},
			"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 1, "EOF",
		},
		{
			"chunked answer in one", []string{get},
			func(t *testing.T, st *ServerStream) {
				st.Head(nil, reply(200, codec.Unknown), bytebuf.Of([]byte("ab")), true)
			},
			"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n2\r\nab\r\n0\r\n\r\n", 1, "EOF",
		},
		{
			"trailers", []string{get},
			func(t *testing.T, st *ServerStream) {
				st.Head(nil, reply(200, codec.Unknown), bytebuf.Of([]byte("ab")), false)
				var h header.List
				h.AddString("sum", "1")
				st.SendTrailers(nil, &h)
			},
			"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n2\r\nab\r\n0\r\nsum: 1\r\n\r\n", 1, "EOF",
		},
		{
			"an answer of unknown length to HTTP/1.0", []string{"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"},
			func(t *testing.T, st *ServerStream) {
				st.Head(nil, reply(200, codec.Unknown), bytebuf.Of([]byte("ab")), false)
				st.Data(nil, bytebuf.Of([]byte("c")), true)
			},
			"HTTP/1.1 200 OK\r\nconnection: close\r\nx: y\r\n\r\nabc", 1, "close",
		},
		{
			"HEAD", []string{"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"},
			func(t *testing.T, st *ServerStream) {
				r := reply(200, 0)
				r.Header.AddString("content-length", "5")
				st.Head(nil, r, bytebuf.Piece{}, true)
			},
			"HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 5\r\n\r\n", 1, "EOF",
		},
		{
			"switched", []string{"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\nearly", "late"},
			func(t *testing.T, st *ServerStream) {
				if p, end, _ := st.Body().Buffered(); p.Len() > 0 || !end {
					t.Errorf("bytes behind an upgrade are a body before it is accepted: %q", p.Bytes())
				}
				st.Head(nil, &codec.Response{Status: 101, Switched: true, Upgrade: []byte("ws")}, bytebuf.Piece{}, false)
				got, _ := readAll(t, st.Body())
				st.Data(nil, bytebuf.Of([]byte(got)), true)
			},
			"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ws\r\n\r\nearlylate", 1, "close",
		},
		{"refused", []string{get + "BAD\r\n\r\n"}, empty, ok0, 1, "bad_request_line"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, w := server(c.in...)
			var st ServerStream
			var q codec.Request
			served, end := 0, ""
			for end == "" {
				if err := next(t, s, w, &st, &q); err != nil {
					end = code(err)
					break
				}
				served++
				handle := c.handle
				if q.Length == 0 && served > 1 {
					handle = empty
				}
				handle(t, &st)
				if !st.Finish() {
					end = "close"
				}
			}
			if w.out.String() != c.out || served != c.served || end != c.end {
				t.Errorf("served %d, end %q\n got %q\nwant %q", served, end, w.out.String(), c.out)
			}
		})
	}
}

// TestServerBodyTruncated: the client goes away in the middle of a body.
func TestServerBodyTruncated(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"Content-Length: 5\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n5\r\nab"} {
		s, w := server("POST / HTTP/1.1\r\nHost: a\r\n" + in)
		var st ServerStream
		var q codec.Request
		if err := next(t, s, w, &st, &q); err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(t, st.Body()); err != io.ErrUnexpectedEOF || got != "ab" {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
}

// TestClient runs exchanges on one upstream connection.
func TestClient(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	cases := []struct {
		name, method string
		length       int64
		body         string
		in           []string
		out, got     string
		reuse        bool
	}{
		{"whole", "GET", 0, "", []string{ok}, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "200 ok", true},
		{"in pieces", "GET", 0, "", strings.Split(strings.Join(strings.Split(ok, ""), "|"), "|"), "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "200 ok", true},
		{"body", "POST", 3, "abc", []string{ok}, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", "200 ok", true},
		{"chunked body", "POST", codec.Unknown, "abc", []string{ok}, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "200 ok", true},
		{"chunked answer", "GET", 0, "", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n", "1\r\nk\r\n0\r\n\r\n"}, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "200 ok", true},
		{"bytes behind the answer", "GET", 0, "", []string{ok + "H"}, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "200 ok", false},
		{"to the end", "GET", 0, "", []string{"HTTP/1.1 200 OK\r\n\r\no", "k"}, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "200 ok", false},
		{"close", "GET", 0, "", []string{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"}, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "200 ok", false},
		{"truncated", "GET", 0, "", []string{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"}, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "200 ok unexpected EOF", false},
		{"HEAD", "HEAD", 0, "", []string{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"}, "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", "200 ", true},
		{"garbage", "GET", 0, "", []string{"garbage\r\n\r\n"}, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "0 bad_status_line", false},
		{"no answer", "GET", 0, "", nil, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "0 EOF", false},
		{"100 first", "GET", 0, "", []string{"HTTP/1.1 100 Continue\r\n\r\n" + ok}, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "200 ok", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := &wire{in: c.in}
			lim := Defaults()
			reuse := false
			cl := NewClient(w, &bufs, &lim, func(_ *Client, r bool) { reuse = r })
			cl.Begin()
			q := codec.Request{Method: []byte(c.method), Path: []byte("/"), Authority: []byte("a"), Length: c.length}
			var r codec.Response
			err := cl.Call(nil, &q, []byte(c.body), &r)
			for err == nil && r.Status == 100 {
				err = cl.Answer(nil, &r)
			}
			got := fmt.Sprint(r.Status, " ", code(err))
			if err == nil {
				body, err := readAll(t, cl.Body())
				got = strings.TrimSuffix(fmt.Sprint(r.Status, " ", body, " ", code(err)), " ")
			}
			if strings.Contains(got, "EOF") || err != nil {
				cl.Abort()
			} else {
				cl.Release()
			}
			if strings.TrimSpace(got) != strings.TrimSpace(c.got) || w.out.String() != c.out || reuse != c.reuse {
				t.Errorf("got %q reuse %v sent %q", got, reuse, w.out.String())
			}
		})
	}
}

// TestNoAllocations: a request and its answer, both ways, without the sockets.
func TestNoAllocations(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector allocates")
	}
	c := &wire{}
	lim := Defaults()
	var s Server
	s.Init(c, &lim)
	var st ServerStream
	var q codec.Request
	var r codec.Response
	up := &wire{}
	cl := NewClient(up, &bufs, &lim, func(*Client, bool) {})
	in := []byte("POST /a HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc")
	answer := []byte("HTTP/1.1 200 OK\r\nServer: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	n := testing.AllocsPerRun(1000, func() {
		c.out.Reset()
		up.out.Reset()
		c.now, up.now = in, answer
		s.Edge()
		if ok, err := s.Poll(&st, &q); !ok || err != nil {
			t.Fatal(ok, err)
		}
		body, _, _ := st.Buffered()
		cl.Begin()
		if err := cl.Call(nil, &q, body.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		r.Header.SetString("x-envoy-upstream-service-time", "1")
		p, end, err := cl.Body().Buffered()
		if err != nil || !end {
			t.Fatal(end, err)
		}
		if err := st.Head(nil, &r, p, end); err != nil {
			t.Fatal(err)
		}
		cl.Release()
		if !st.Finish() {
			t.Fatal("not kept")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per request", n)
	}
	if want := "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nServer: x\r\nx-envoy-upstream-service-time: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n"; c.out.String() != want {
		t.Errorf("got %q", c.out.String())
	}
}
