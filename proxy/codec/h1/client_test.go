// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// halfWire is a wire that notes the end of what is sent.
type halfWire struct {
	wire
	ended int
}

func (w *halfWire) CloseWrite() error { w.ended++; return nil }

// TestClientUpload sends a request in parts: as it frames them, and whether the connection may serve another after a
// whole answer. Each piece lies in a buffer whose other bytes must stay as they are.
func TestClientUpload(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	big := strings.Repeat("x", smallPiece+1)
	for _, c := range []struct {
		name     string
		length   int64
		pieces   []string
		end      bool // the last piece is the end; otherwise trailers are
		trailers *header.List
		out      string // behind the head
		reuse    bool
	}{
		{"by length", 6, []string{"abc", "def"}, true, nil, "abcdef", true},
		{"by length, with an empty end", 3, []string{"abc", ""}, true, nil, "abc", true},
		{"chunks", codec.Unknown, []string{"abc", "", "d"}, true, nil, "3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", true},
		{"chunks, with an empty end", codec.Unknown, []string{"abc", ""}, true, nil, "3\r\nabc\r\n0\r\n\r\n", true},
		{"a large chunk", codec.Unknown, []string{big}, true, nil, "2001\r\n" + big + "\r\n0\r\n\r\n", true},
		{"trailers", codec.Unknown, []string{"abc"}, false, fieldsOf("x-sum", "1"), "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n", true},
		{"trailers have no place behind a length", 3, []string{"abc"}, false, fieldsOf("x-sum", "1"), "abc", true},
		{"not whole", 6, []string{"abc"}, false, nil, "abc", false},
		{"chunks that are not whole", codec.Unknown, []string{"abc"}, false, nil, "3\r\nabc\r\n", false},
	} {
		for _, room := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				w := &halfWire{wire: wire{in: []string{ok}}}
				lim := Defaults()
				reuse, done := false, 0
				cl := NewClient(w, &bufs, &lim, func(_ *Client, r bool) { reuse = r; done++ })
				cl.Begin()
				q := codec.Request{Method: []byte("POST"), Path: []byte("/"), Authority: []byte("a"), Length: c.length}
				if err := cl.Head(nil, &q); err != nil {
					t.Fatal(err)
				}
				head := w.out.Len()
				for i, s := range c.pieces {
					p := bytebuf.Of([]byte(s))
					var b *bytebuf.Buf
					if room && s != "" {
						b = bufs.Get()
						b.Grow(len(s) + 100)
						b.Hi += copy(b.Free(), s+"behind")
						p = b.Piece(0, b.Lo, b.Lo+len(s), b.Lo+len(s)) // no room behind: what is there is somebody else's
					}
					if err := cl.Data(nil, p, c.end && i == len(c.pieces)-1); err != nil {
						t.Fatal(err)
					}
					if b != nil {
						if !strings.HasSuffix(string(b.Bytes()), "behind") {
							t.Errorf("the bytes behind the piece became %q", b.Bytes()[len(s):])
						}
						bufs.Put(b)
					}
				}
				if c.trailers != nil {
					if err := cl.SendTrailers(nil, c.trailers); err != nil {
						t.Fatal(err)
					}
				}
				if got := w.out.String()[head:]; got != c.out {
					t.Errorf("sent %q", got)
				}
				if n := cl.Sent(); n != int64(w.out.Len()) {
					t.Errorf("%d bytes sent", n)
				}
				var r codec.Response
				if err := cl.Answer(nil, &r); err != nil || r.Status != 200 {
					t.Fatal(r.Status, err)
				}
				if cl.Received() != int64(len(ok)) || !cl.Answered() || cl.Reused() {
					t.Errorf("received %d", cl.Received())
				}
				if _, end, _ := cl.Body().Buffered(); !end {
					t.Error("the answer has not ended")
				}
				cl.Release()
				if reuse != c.reuse || done != 1 || w.ended != 0 {
					t.Errorf("reuse %v, done %d, ended %d", reuse, done, w.ended)
				}
			})
		}
	}
}

func fieldsOf(name, value string) *header.List {
	l := &header.List{}
	l.AddString(name, value)
	return l
}

// TestClientSwitch: once both have switched protocols, bytes flow as they are, the end of the client's is told to the
// upstream, and the connection serves nobody else; nor is its end one that the upstream announced.
func TestClientSwitch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ method, upgrade, answer string }{
		{"GET", "ws", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n"},
		{"CONNECT", "", "HTTP/1.1 200 OK\r\n\r\n"},
	} {
		w := &halfWire{wire: wire{in: []string{c.answer + "down"}}}
		lim := Defaults()
		reuse := true
		cl := NewClient(w, &bufs, &lim, func(_ *Client, r bool) { reuse = r })
		cl.Begin()
		q := codec.Request{Method: []byte(c.method), Path: []byte("/"), Authority: []byte("a:1"), Upgrade: []byte(c.upgrade)}
		var r codec.Response
		if err := cl.Call(nil, &q, nil, &r); err != nil || !r.Switched {
			t.Fatal(r.Status, err)
		}
		head := w.out.Len()
		cl.Data(nil, bytebuf.Of([]byte("up")), false)
		if w.ended != 0 {
			t.Error("the sending side ended early")
		}
		cl.Data(nil, bytebuf.Piece{}, true)
		if got := w.out.String()[head:]; got != "up" || w.ended != 1 {
			t.Errorf("sent %q, ended %d", got, w.ended)
		}
		if got, err := readAll(t, cl.Body()); got != "down" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if cl.Closes() {
			t.Error("a tunnel's end was taken for an announcement")
		}
		cl.Release()
		if reuse {
			t.Error("the connection of a tunnel is used again")
		}
	}
}

// TestClientCloses: only a head announces the end of the connection.
func TestClientCloses(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":                           false,
		"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n":      true,
		"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n":                           true,
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n": false,
		"HTTP/1.1 200 OK\r\n\r\nbody":                                            false,
	} {
		reuse := false
		lim := Defaults()
		cl := NewClient(&wire{in: []string{answer}}, &bufs, &lim, func(_ *Client, r bool) { reuse = r })
		cl.Begin()
		var r codec.Response
		q := codec.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a")}
		if err := cl.Call(nil, &q, nil, &r); err != nil {
			t.Fatal(err)
		}
		readAll(t, cl.Body())
		if cl.Closes() != want {
			t.Errorf("%q: closes %v", answer, cl.Closes())
		}
		cl.Release()
		if reuse != (!want && !strings.HasSuffix(answer, "body")) {
			t.Errorf("%q: reuse %v", answer, reuse)
		}
	}
}

// TestServerEdges: the calls of an answer in an order that is not for the wire.
func TestServerEdges(t *testing.T) {
	t.Parallel()
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	begin := func(in string) (*ServerStream, *wire, *Server) {
		s, w := server(in)
		st := &ServerStream{}
		if err := next(t, s, w, st, &codec.Request{}); err != nil {
			t.Fatal(err)
		}
		return st, w, s
	}
	t.Run("twice", func(t *testing.T) {
		st, w, _ := begin(get)
		st.Head(nil, reply(200, 0), bytebuf.Piece{}, true)
		n := w.out.Len()
		if st.Head(nil, reply(200, 0), bytebuf.Piece{}, true) == nil || st.Data(nil, bytebuf.Of([]byte("x")), true) == nil || st.SendTrailers(nil, nil) == nil {
			t.Error("an answer can be answered again")
		}
		if st.Inform(nil, 103, &header.List{}) != nil || st.Continue(nil) != nil || w.out.Len() != n || st.Sent() != int64(n) {
			t.Errorf("then %q was sent", w.out.String()[n:])
		}
	})
	t.Run("broken off", func(t *testing.T) {
		for _, c := range []struct {
			in    string
			r     *codec.Response
			reset bool
		}{
			{get, reply(200, 9), false},
			{get, reply(200, codec.Unknown), false},
			{"GET / HTTP/1.0\r\nHost: a\r\n\r\n", reply(200, codec.Unknown), true},
			{"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", &codec.Response{Status: 200, Switched: true, Length: codec.Unknown}, true},
		} {
			st, _, _ := begin(c.in)
			if st.Broken() {
				t.Error("broken before it began")
			}
			st.Head(nil, c.r, bytebuf.Of([]byte("part")), false)
			st.Abort(false)
			if !st.Broken() || st.MustReset() != c.reset || st.Finish() {
				t.Errorf("%q: broken %v, reset %v", c.in, st.Broken(), st.MustReset())
			}
		}
	})
	t.Run("204 of our own with a body", func(t *testing.T) {
		st, w, _ := begin(get)
		r := reply(204, 4)
		r.Header.AddString("content-length", "4")
		st.Head(nil, r, bytebuf.Of([]byte("body")), true)
		if got := w.out.String(); got != "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n" || !st.Finish() {
			t.Errorf("sent %q", got)
		}
	})
	t.Run("trailers without chunks", func(t *testing.T) {
		st, w, _ := begin(get)
		st.Head(nil, reply(200, 2), bytebuf.Of([]byte("ok")), false)
		st.SendTrailers(nil, fieldsOf("a", "b"))
		if got := w.out.String(); !strings.HasSuffix(got, "\r\n\r\nok") || !st.Finish() {
			t.Errorf("sent %q", got)
		}
	})
	t.Run("a large piece", func(t *testing.T) {
		st, w, _ := begin(get)
		big := strings.Repeat("x", smallPiece+1)
		st.Head(nil, reply(200, codec.Unknown), bytebuf.Of([]byte(big)), true)
		if got := w.out.String(); !strings.HasSuffix(got, "\r\n\r\n2001\r\n"+big+"\r\n0\r\n\r\n") {
			t.Errorf("sent %d bytes", len(got))
		}
	})
}

var _ Peer = (*halfWire)(nil)

// errWire fails at its n-th write.
type errWire struct {
	wire
	n int
}

func (w *errWire) Write(wk *socket.Worker, p []byte) error {
	if w.n--; w.n < 0 {
		return errAnswerEnded
	}
	return w.wire.Write(wk, p)
}

// TestWriteErrors: an error of any write of a message is told, and the connection does not go on.
func TestWriteErrors(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", smallPiece+1)
	for n := range 4 {
		w := &errWire{n: n}
		lim := Defaults()
		reuse := true
		cl := NewClient(w, &bufs, &lim, func(_ *Client, r bool) { reuse = r })
		cl.Begin()
		q := codec.Request{Method: []byte("POST"), Path: []byte("/"), Authority: []byte("a"), Length: codec.Unknown}
		err := cl.Head(nil, &q)
		if err == nil {
			err = cl.Data(nil, bytebuf.Of([]byte(big)), true)
		}
		if err == nil {
			t.Errorf("write %d failed unseen", n)
		}
		cl.Abort()
		if reuse {
			t.Error("the connection is used again")
		}
	}
}
