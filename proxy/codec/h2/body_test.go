// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestServerBodies: what a client sends behind its head, and what comes of it.
func TestServerBodies(t *testing.T) {
	t.Parallel()
	kib := strings.Repeat("x", 1<<10)
	for _, c := range []struct {
		name string
		send func(p *script)
		want []string
	}{
		{"as long as it says", func(p *script) {
			p.post(1, "content-length", "3")
			p.fr.WriteData(1, false, []byte("ab"))
			p.fr.WriteData(1, true, []byte("c"))
		}, []string{"HEADERS 1 200", "DATA 1 3 end"}},
		{"shorter than it says", func(p *script) {
			p.post(1, "content-length", "3")
			p.fr.WriteData(1, true, []byte("ab"))
		}, []string{"RST 1 PROTOCOL_ERROR"}},
		{"longer than it says", func(p *script) {
			p.post(1, "content-length", "3")
			p.fr.WriteData(1, false, []byte("abcd"))
		}, []string{"RST 1 PROTOCOL_ERROR"}},
		{"shorter, with trailers", func(p *script) {
			p.post(1, "content-length", "3")
			p.headers(1, true, "a", "b")
		}, []string{"RST 1 PROTOCOL_ERROR"}},
		{"trailers", func(p *script) {
			p.post(1)
			p.fr.WriteData(1, false, []byte("ab"))
			p.headers(1, true, "a", "b", "content-length", "7")
		}, []string{"HEADERS 1 200", "DATA 1 2", "HEADERS 1 end"}},
		{"padded", func(p *script) {
			p.post(1)
			p.fr.WriteDataPadded(1, true, []byte("ab"), make([]byte, 200))
		}, []string{"HEADERS 1 200", "DATA 1 2 end"}},
		{"more than the stream's window", func(p *script) {
			p.headers(1, false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/wait")
			for range 257 {
				p.fr.WriteData(1, false, []byte(kib))
			}
		}, []string{"RST 1 FLOW_CONTROL_ERROR"}},
		{"more than the window, by the padding", func(p *script) {
			p.headers(1, false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/wait")
			for range 256 {
				p.fr.WriteData(1, false, []byte(kib))
			}
			p.fr.WriteDataPadded(1, true, nil, make([]byte, 10))
		}, []string{"RST 1 FLOW_CONTROL_ERROR"}},
		{"one stream too many", func(p *script) {
			for id := uint32(1); id <= 2*100+1; id += 2 {
				p.headers(id, false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/wait")
			}
		}, []string{"RST 201 REFUSED_STREAM"}},
		{"one stream too many, behind resets whose work goes on", func(p *script) {
			for id := uint32(1); id <= 2*100+1; id += 2 {
				p.headers(id, false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/stuck")
				if id < 100 {
					p.fr.WriteRSTStream(id, http2.ErrCodeCancel)
				}
			}
		}, []string{"RST 201 REFUSED_STREAM"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			stop := make(chan struct{})
			defer close(stop)
			addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
				switch string(q.Path) {
				case "/stuck", "/wait":
					<-stop
				default:
					echo(w, st, q)
				}
			})
			p := x.toServer(t, addr)
			c.send(p)
			for len(p.got) < len(c.want) {
				if _, ok := p.next(); !ok {
					break
				}
			}
			p.sync()
			p.expect(c.want...)
		})
	}
}

// TestServerPlaces: a stream whose answer is out makes room for the next before its user has finished, since the client
// cannot know of that; but only for so many.
func TestServerPlaces(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	cfg.Streams = 5
	s := newTarget(x, &cfg)
	x.do(func(w *socket.Worker) {
		for i := range 12 {
			if err := s.take(w, s.now, aFrame(frameHeaders, 5, uint32(2*i+1), string(aHead))); err != nil {
				t.Error(err)
			}
			if n := len(s.held); n != min(i+1, 10) {
				t.Errorf("%d: %d streams", i, n)
			} else if i < 10 {
				_ = answer(w, s.held[i], 200, "")
			}
		}
		for _, st := range s.held {
			st.Finish()
		}
		if s.active != 0 || s.over != 0 {
			t.Errorf("%d active, %d of them over", s.active, s.over)
		}
		s.held = nil
		if err := s.take(w, s.now, aFrame(frameHeaders, 5, 101, string(aHead))); err != nil || len(s.held) != 1 {
			t.Errorf("%v, %d streams", err, len(s.held))
		}
		s.finish()
		s.Close(w, NoError)
	})
}

// TestServerConnectionWindow: what is beyond the connection's window ends the connection, whatever the streams' allow.
func TestServerConnectionWindow(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	cfg.HeldBytes = 1 // nothing is given back
	stop := make(chan struct{})
	defer close(stop)
	addr, _ := x.listen(&cfg, func(*socket.Worker, *ServerStream, *codec.Request) { <-stop })
	p := x.toServer(t, addr)
	kib := make([]byte, 16<<10)
	for id := uint32(1); id < 11; id += 2 {
		p.post(id)
		for range 15 {
			p.fr.WriteData(id, false, kib)
		}
	}
	p.ends()
	p.expect("GOAWAY 9 FLOW_CONTROL_ERROR")
}

// TestServerReset: a client that resets its stream interrupts whoever serves it, who can see how.
func TestServerReset(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	type end struct {
		err, body error
		r         codec.ResetError
		ok        bool
	}
	ended := make(chan end, 1)
	addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, _ *codec.Request) {
		_, err := readBody(w, st)
		var e end
		e.err = err
		e.r, e.ok = st.Reset()
		w.Own(nil)
		for end := false; e.body == nil && !end; { // what came before the reset may be read still
			_, end, e.body = st.Next(w)
		}
		if answer(w, st, 200, "") == nil || !st.HungUp() {
			t.Error("an answer to a stream that was reset")
		}
		ended <- e
	})
	p := x.toServer(t, addr)
	p.post(1)
	p.fr.WriteData(1, false, []byte("x"))
	p.fr.WriteRSTStream(1, http2.ErrCodeCancel)
	e := <-ended
	if e.err != errGone || !e.ok || Code(e.r.Code) != Cancel || !e.r.Remote || e.body == nil {
		// The reader may find the stream's own error before the interrupt.
		if _, is := e.err.(*codec.ResetError); !is {
			t.Errorf("%+v", e)
		}
	}
	p.sync()
	p.expect()
}

// TestServerTunnel: what comes before a tunnel is open is held back (T7), and flows when it is; WebSocket by extended
// CONNECT looks like an upgrade of HTTP/1.1.
func TestServerTunnel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		head []string
		open bool
		want []string
	}{
		{"CONNECT", []string{":method", "CONNECT", ":authority", "a:1"}, true, []string{"HEADERS 1 200", "DATA 1 5", "DATA 1 0 end"}},
		{"WebSocket", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a"}, true, []string{"HEADERS 1 200", "DATA 1 5", "DATA 1 0 end"}},
		{"refused", []string{":method", "CONNECT", ":authority", "a:1"}, false, []string{"HEADERS 1 403 end"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			cfg.ExtendedConnect = true
			sent := make(chan struct{})
			addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
				<-sent
				if p, end, err := st.Buffered(); p.Len() > 0 || !end || err != nil {
					t.Errorf("%d bytes are seen before the tunnel is open, %v, %v", p.Len(), end, err)
				}
				if !c.open {
					_ = answer(w, st, 403, "")
					return
				}
				r := &codec.Response{Status: 200, Switched: true, Length: codec.Unknown}
				if c.name == "WebSocket" {
					if string(q.Method) != "GET" || string(q.Upgrade) != "websocket" || len(q.Header.Get("sec-websocket-key")) != 24 {
						t.Errorf("%q %q %q", q.Method, q.Upgrade, q.Header.AppendHTTP1(nil))
					}
					r.Status, r.Upgrade = 101, q.Upgrade
					r.Header.AddString("sec-websocket-accept", "x")
				}
				if err := st.Head(w, r, bytebuf.Piece{}, false); err != nil {
					t.Error(err)
				}
				for end := false; !end; {
					p, e, err := st.Next(w)
					if err != nil {
						t.Error(err)
						return
					}
					if p.Len() > 0 {
						_ = st.Data(w, p, false)
					}
					end = e
				}
				_ = st.Data(w, bytebuf.Piece{}, true)
			})
			p := x.toServer(t, addr)
			p.headers(1, false, c.head...)
			p.fr.WriteData(1, false, []byte("early"))
			p.sync()
			p.expect()
			close(sent)
			p.until(c.want[0])
			p.fr.WriteData(1, true, nil)
			p.until(c.want[len(c.want)-1])
			var got []string
			for _, g := range p.got {
				if !strings.HasPrefix(g, "RST 1 NO_ERROR") {
					got = append(got, g)
				}
			}
			p.got = got
			p.expect(c.want...)
		})
	}
}

// TestLargeHeads: a head that does not fit into one frame goes out in several, and comes together at the other end.
func TestLargeHeads(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	value := strings.Repeat("v", 9000)
	addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
		r := &codec.Response{Status: 200}
		for i := range 5 {
			name := fmt.Sprint("x-", i)
			r.Header.Add(name, q.Header.Get(name))
		}
		if err := st.Head(w, r, bytebuf.Piece{}, true); err != nil {
			t.Error(err)
		}
	})
	c := x.dial(addr, &cfg)
	for range 3 {
		x.do(func(w *socket.Worker) {
			st, _ := c.Reserve()
			defer st.Release()
			var r codec.Response
			q := request("GET", "/")
			for i := range 5 {
				q.Header.AddString(fmt.Sprint("x-", i), value)
			}
			if err := st.Call(w, q, nil, &r); err != nil {
				t.Error(err)
			}
			for i := range 5 {
				if v := r.Header.Get(fmt.Sprint("x-", i)); string(v) != value {
					t.Errorf("%d: %d bytes", i, len(v))
				}
			}
		})
	}
}

// TestPieces: a body that comes in frames of any size is the same whatever it is kept in, and what is kept for it is in
// proportion to what came.
func TestPieces(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	for _, size := range []int{1, 100, 8 << 10, 8<<10 + 1, 16 << 10} {
		s := newTarget(x, &cfg)
		x.do(func(w *socket.Worker) {
			if err := s.take(w, s.now, aFrame(frameHeaders, 4, 1, string(aHead))); err != nil {
				t.Error(err)
			}
			st := s.held[0]
			var want, got []byte
			for i := range 12 {
				piece := pattern(size + i)[:size]
				want = append(want, piece...)
				if err := s.take(w, s.now, aFrame(frameData, 0, 1, string(piece))); err != nil {
					t.Error(err)
				}
				if n := len(st.more) * bytebuf.Size; n > 4*len(want)+bytebuf.Size/2 {
					t.Errorf("%d bytes are kept in %d", len(want), n)
				}
				if i%4 == 3 {
					p, _, err := st.Next(w)
					if err != nil {
						t.Error(err)
					}
					got = append(got, p.Bytes()...)
				}
			}
			if err := s.take(w, s.now, aFrame(frameData, flagEndStream, 1, "")); err != nil {
				t.Error(err)
			}
			rest, err := readBody(w, st)
			if got = append(got, rest...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d: %d bytes of %d, %v", size, len(got), len(want), err)
			}
			s.finish()
			s.Close(w, NoError)
		})
	}
}
