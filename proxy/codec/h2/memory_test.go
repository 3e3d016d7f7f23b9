// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"golang.org/x/net/http2"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// memConn is a connection in memory: in can be read, and then there is the end, or nothing more for now.
type memConn struct {
	in    []byte
	step  int // how much comes at once; 0 for all
	open  bool
	out   bytes.Buffer
	full  bool // takes nothing
	until int64
}

func (c *memConn) TryRead(p []byte) (int, error) {
	if len(c.in) == 0 {
		if c.open {
			return 0, socket.ErrWouldBlock
		}
		return 0, io.EOF
	}
	n := len(c.in)
	if c.step > 0 {
		n = min(n, c.step)
	}
	n = copy(p, c.in[:n])
	c.in = c.in[n:]
	return n, nil
}

func (c *memConn) TryWrite(p []byte) (int, error) {
	if c.full {
		return 0, socket.ErrWouldBlock
	}
	return c.out.Write(p)
}

func (c *memConn) HungUp() bool      { return !c.open || len(c.in) > 0 }
func (c *memConn) SetExpire(t int64) { c.until = t }

// hold is an acceptor that keeps what it is given, unserved.
type hold struct {
	held    []*ServerStream
	late    int // how many of them nobody was handed yet
	dropped int
	refused int
}

func (h *hold) Open() (*ServerStream, *codec.Request) {
	return new(ServerStream), new(codec.Request)
}
func (h *hold) Serve(st *ServerStream)     { h.held, h.late = append(h.held, st), h.late+1 }
func (h *hold) HandOut(*socket.Worker)     { h.late = 0 }
func (h *hold) Drop(*ServerStream, string) { h.dropped++ }
func (h *hold) Refused()                   { h.refused++ }

func (h *hold) finish() {
	for _, st := range h.held {
		st.Finish()
	}
	h.held = nil
}

// quiet is an owner that does not care.
type quiet struct{}

func (quiet) Capacity(*Client) {}
func (quiet) Draining(*Client) {}

// serve feeds a server with in and returns what it says and the error of its turn. Every stream is finished then.
func serveBytes(t testing.TB, w *socket.Worker, cfg *Config, bufs *bytebuf.Pool, in []byte, step int) (out []byte, err error) {
	c := &memConn{in: in, step: step}
	var h hold
	var s Server
	s.Init(c, bufs, cfg, &h)
	err = s.Turn(w, 0)
	if h.late > 0 {
		t.Fatalf("%d streams were not handed out", h.late)
	}
	h.finish()
	if s.active != 0 || len(s.streams) != 0 || s.held != 0 {
		t.Fatalf("%d active, %d streams, %d bytes held", s.active, len(s.streams), s.held)
	}
	return c.out.Bytes(), err
}

// askBytes has a client with n requests under way, and feeds it with in.
func askBytes(t testing.TB, w *socket.Worker, cfg *Config, bufs *bytebuf.Pool, n int, in []byte, step int) (out []byte, err error) {
	c := &memConn{in: in, step: step}
	var cl Client
	cl.Init(c, bufs, cfg, quiet{})
	var open []*ClientStream
	for range n {
		st, ok := cl.Reserve()
		if !ok {
			t.Fatal("no place")
		}
		if err := st.Head(w, request("POST", "/")); err != nil {
			t.Fatal(err)
		}
		open = append(open, st)
	}
	err = cl.Turn(w, 0)
	for _, st := range open {
		var r codec.Response
		for err := error(nil); err == nil; { // nothing waits: the connection has ended
			if err = st.Answer(w, &r); r.Status >= 200 {
				break
			}
		}
		_, _ = readBody(w, st)
		st.Release()
	}
	if cl.active != 0 || len(cl.streams) != 0 || cl.held != 0 {
		t.Fatalf("%d active, %d streams, %d bytes held", cl.active, len(cl.streams), cl.held)
	}
	return c.out.Bytes(), err
}

// wellFormed checks that what we sent is whole frames that x/net can read, with no codes but known ones.
func wellFormed(t testing.TB, out []byte) {
	t.Helper()
	fr := http2.NewFramer(nil, bytes.NewReader(bytes.TrimPrefix(out, []byte(Preface))))
	for {
		f, err := fr.ReadFrame()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("we sent %x: %v", out, err)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok && Code(g.ErrCode) >= numCodes {
			t.Fatalf("GOAWAY with %v", g.ErrCode)
		}
	}
}

// oracle reports whether x/net's Framer takes the frames of in for the end of a connection.
func oracle(in []byte) (ends bool) {
	fr := http2.NewFramer(nil, bytes.NewReader(in))
	fr.SetMaxReadFrameSize(16 << 10)
	for {
		_, err := fr.ReadFrame()
		var ce http2.ConnectionError
		switch {
		case errors.As(err, &ce), errors.Is(err, http2.ErrFrameTooLarge):
			return true
		case err == nil:
		case errors.As(err, new(http2.StreamError)):
		default:
			return false
		}
	}
}

// TestEveryFrame sends all 16 types with all flags and 16 lengths to both roles, in three states each (F46). Nothing
// panics or is left, what we say is well-formed, and what x/net's Framer takes for a connection error we do, too.
func TestEveryFrame(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	lengths := []int{0, 1, 3, 4, 5, 6, 7, 8, 9, 12, 16, 63, 255, 1024, 16384, 16385}
	payloads := [][]byte{make([]byte, 16385), bytes.Repeat([]byte{0xff}, 16385), bytes.Repeat([]byte{0x82, 0x84, 0x86, 1}, 16388/4)}
	settings := appendFrameHeader(nil, 0, frameSettings, 0, 0)
	get := appendFrameHeader(nil, 6, frameHeaders, flagEndHeaders, 1)
	get = append(get, 0x83, 0x86, 0x84, 0x01, 0x01, 'a')
	ok := append(appendFrameHeader(nil, 1, frameHeaders, flagEndHeaders, 1), 0x88)
	open := append(appendFrameHeader(nil, 1, frameHeaders, 0, 3), 0x82)
	half := append(appendFrameHeader(nil, 1, frameHeaders, 0, 3), 0x88)
	stride := 1
	if invariant.On {
		stride = 16 // the race detector would take minutes; it looks at the same code all the same
	}
	both := func(t *testing.T, w *socket.Worker, server, client []byte, what string) {
		out, err := serveBytes(t, w, &cfg, &x.e.Bufs, append([]byte(Preface), server...), 0)
		wellFormed(t, out)
		if oracle(server) && err == io.EOF {
			t.Errorf("server: %s: x/net ends the connection", what)
		}
		out, err = askBytes(t, w, &cfg, &x.e.Bufs, 2, client, 0)
		wellFormed(t, out)
		if oracle(client) && err == io.EOF {
			t.Errorf("client: %s: x/net ends the connection", what)
		}
	}
	for typ := range 16 {
		t.Run(fmt.Sprint(typ), func(t *testing.T) {
			x.do(func(w *socket.Worker) {
				for n := typ % stride; n < 256*len(lengths); n += stride {
					flags, length := n/len(lengths), lengths[n%len(lengths)]
					p := payloads[(flags+n)%len(payloads)]
					id := uint32(n / 3 % 4)
					f := append(appendFrameHeader(nil, length, frameType(typ), uint8(flags), id), p[:length]...)
					what := fmt.Sprintf("flags %x, length %d, stream %d", flags, length, id)
					both(t, w, slices.Concat(settings, f), slices.Concat(settings, f), what)
					both(t, w, slices.Concat(settings, get, f), slices.Concat(settings, ok, f), what)
					both(t, w, slices.Concat(settings, get, open, f), slices.Concat(settings, ok, half, f), what)
				}
			})
		})
	}
}

// FuzzServer feeds a server with anything behind the preface, in steps of any size: nothing panics, nothing is left, and
// the steps make no difference.
func FuzzServer(f *testing.F) {
	settings := string(appendFrameHeader(nil, 0, frameSettings, 0, 0))
	f.Add([]byte(settings+"\x00\x00\x06\x01\x04\x00\x00\x00\x01\x83\x86\x84\x01\x01a"), 7)
	f.Add([]byte(settings+"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x01\x01a\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01"), 1)
	f.Add([]byte(settings+"\x00\x00\x03\x01\x00\x00\x00\x00\x01\x82\x86\x84\x00\x00\x03\x09\x04\x00\x00\x00\x01\x01\x01a"), 3)
	f.Add([]byte(settings+"\x00\x00\x06\x01\x04\x00\x00\x00\x01\x83\x86\x84\x01\x01a\x00\x00\x04\x00\x08\x00\x00\x00\x01\x01ab\x00\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08"), 0)
	e, err := socket.NewEngine(socket.Options{Sets: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(e.Close)
	cfg := Defaults()
	cfg.ExtendedConnect = true
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		in = append([]byte(Preface), in...)
		onWorker(e, func(w *socket.Worker) {
			out, err := serveBytes(t, w, &cfg, &e.Bufs, in, 0)
			wellFormed(t, out)
			out2, err2 := serveBytes(t, w, &cfg, &e.Bufs, in, max(step%100, 1))
			if why(err) != why(err2) {
				t.Errorf("in steps: %v, at once: %v (%x, %x)", err2, err, out2, out)
			}
		})
	})
}

// FuzzClient is the same for a client with three requests under way.
func FuzzClient(f *testing.F) {
	settings := string(appendFrameHeader(nil, 0, frameSettings, 0, 0))
	f.Add([]byte(settings+"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"), 7)
	f.Add([]byte(settings+"\x00\x00\x01\x01\x04\x00\x00\x00\x03\x88\x00\x00\x02\x00\x01\x00\x00\x00\x03ab"), 1)
	f.Add([]byte(settings+"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"), 3)
	e, err := socket.NewEngine(socket.Options{Sets: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(e.Close)
	cfg := Defaults()
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		onWorker(e, func(w *socket.Worker) {
			out, err := askBytes(t, w, &cfg, &e.Bufs, 3, bytes.Clone(in), 0)
			wellFormed(t, out)
			_, err2 := askBytes(t, w, &cfg, &e.Bufs, 3, bytes.Clone(in), max(step%100, 1))
			if why(err) != why(err2) {
				t.Errorf("in steps: %v, at once: %v", err2, err)
			}
		})
	})
}

func why(err error) string { return err.Error() }

// onWorker runs f on a worker of e.
func onWorker(e *socket.Engine, f func(w *socket.Worker)) {
	done := make(chan struct{})
	e.Go(runFunc(func(w *socket.Worker) {
		defer close(done)
		f(w)
	}))
	<-done
}
