// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"runtime"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// one is an acceptor with one place.
type one struct {
	st ServerStream
	q  codec.Request
}

func (o *one) Open() (*ServerStream, *codec.Request) { return &o.st, &o.q }
func (o *one) Serve(*ServerStream)                   {}
func (o *one) HandOut(*socket.Worker)                {}
func (o *one) Drop(_ *ServerStream, why string)      { panic(why) }
func (o *one) Refused()                              { panic("refused") }

// requests makes header blocks of a request as our own client would send them one after the other.
func requests() func(end bool) []byte {
	var cl Client
	cl.enc.init()
	q := request("GET", "/api/v1/orders/42", requestFields...)
	q.Header.AddString("x-request-id", "463ac35c-9f64-4ad4-8485-a3953bb61240")
	return func(end bool) []byte {
		flags := uint8(flagEndHeaders)
		if end {
			flags |= flagEndStream
		}
		p := cl.appendRequest(nil, q, nil)
		return append(appendFrameHeader(nil, len(p), frameHeaders, flags, 0), p...)
	}
}

// TestServerAllocs: a request and its answer allocate nothing, x-request-id and all.
func TestServerAllocs(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector and the invariants allocate")
	}
	x := newWorld(t)
	cfg := Defaults()
	cfg.PrematureStreams = 0
	var s Server
	var o one
	c := &memConn{open: true, in: append([]byte(Preface), aSettings...)}
	s.Init(c, &x.e.Bufs, &cfg, &o)
	var r codec.Response
	body := bytebuf.Of([]byte(strings.Repeat("x", 1000)))
	next := requests()
	blocks := [][]byte{next(true), next(true), next(true), next(true)}
	n := 0
	x.do(func(w *socket.Worker) {
		exchange := func() {
			in := blocks[min(n, 3)]
			id := 2*n + 1
			in[5], in[6], in[7], in[8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
			n++
			c.in = in
			c.out.Reset()
			s.mu.Lock()
			s.sendWindow = 1 << 20
			s.mu.Unlock()
			if err := s.Turn(w, int64(n)); err != nil {
				t.Error(err)
			}
			r.Reset()
			r.Status, r.Length = 200, 1000
			for i := 0; i < len(answerFields); i += 2 {
				r.Header.AddString(answerFields[i], answerFields[i+1])
			}
			if _, end, err := o.st.Buffered(); !end || err != nil {
				t.Error(end, err)
			}
			if err := o.st.Head(w, &r, body, true); err != nil {
				t.Error(err)
			}
			o.st.Finish()
		}
		if err := s.Turn(w, 0); err != nil {
			t.Error(err)
		}
		for range 10 {
			exchange()
		}
		if a := testing.AllocsPerRun(1000, exchange); a != 0 {
			t.Errorf("%v allocations", a)
		}
		s.Close(w, NoError)
	})
	if o.q.Header.Len() != len(requestFields)/2+1 {
		t.Errorf("%d fields", o.q.Header.Len())
	}
}

// TestClientAllocs: the same for the other role.
func TestClientAllocs(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector and the invariants allocate")
	}
	x := newWorld(t)
	cfg := Defaults()
	var cl Client
	c := &memConn{open: true, in: aSettings}
	cl.Init(c, &x.e.Bufs, &cfg, quiet{})
	var e encoder
	e.init()
	var l header.List
	for i := 0; i < len(answerFields); i += 2 {
		l.AddString(answerFields[i], answerFields[i+1])
	}
	data := strings.Repeat("x", 1000)
	answer := func() []byte {
		p := e.list(append(e.begin(nil), 0x88), &l, nil)
		return append(aFrame(frameHeaders, flagEndHeaders, 0, string(p)), aFrame(frameData, flagEndStream, 0, data)...)
	}
	blocks := [][]byte{answer(), answer(), answer(), answer()}
	q := request("GET", "/api/v1/orders/42", requestFields...)
	var r codec.Response
	n := 0
	x.do(func(w *socket.Worker) {
		exchange := func() {
			st, ok := cl.Reserve()
			if !ok {
				t.Error("no place")
			}
			if err := st.open(w, q, true, nil); err != nil {
				t.Error(err)
			}
			in := blocks[min(n, 3)]
			id := 2*n + 1
			at := len(in) - 1000 - headerBytes
			for _, p := range [][]byte{in[5:9], in[at+5 : at+9]} {
				p[0], p[1], p[2], p[3] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
			}
			n++
			c.in = in
			c.out.Reset()
			if err := cl.Turn(w, int64(n)); err != nil {
				t.Error(err)
			}
			if err := st.Answer(w, &r); err != nil || r.Status != 200 {
				t.Error(err)
			}
			if p, end, err := st.Next(w); p.Len() != 1000 || !end || err != nil {
				t.Error(p.Len(), end, err)
			}
			st.Release()
		}
		if err := cl.Turn(w, 0); err != nil {
			t.Error(err)
		}
		for range 10 {
			exchange()
		}
		if a := testing.AllocsPerRun(1000, exchange); a != 0 {
			t.Errorf("%v allocations", a)
		}
		cl.Close(w, NoError)
	})
	if r.Header.Len() != len(answerFields)/2 {
		t.Errorf("%d fields", r.Header.Len())
	}
}

// TestIdleMemory: what an idle connection holds once it has served: no buffer, and less than 12 KiB.
func TestIdleMemory(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector has memory of its own")
	}
	x := newWorld(t)
	cfg := Defaults()
	next := requests()
	first := next(true)
	first[8] = 1
	const many = 1000
	servers := make([]*Server, many)
	o := new(one)
	var r codec.Response
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	c := &memConn{open: true}
	x.do(func(w *socket.Worker) {
		before := heap()
		for i := range servers {
			s := new(Server)
			servers[i] = s
			c.in = append(append([]byte(Preface), aSettings...), first...)
			c.out.Reset()
			s.Init(c, &x.e.Bufs, &cfg, o)
			if err := s.Turn(w, 0); err != nil {
				t.Error(err)
			}
			r.Reset()
			r.Status = 200
			for i := 0; i < len(answerFields); i += 2 {
				r.Header.AddString(answerFields[i], answerFields[i+1])
			}
			if err := o.st.Head(w, &r, bytebuf.Piece{}, true); err != nil {
				t.Error(err)
			}
			o.st.Finish()
		}
		each := (heap() - before) / many
		t.Logf("%d bytes for each idle connection", each)
		if each > 12<<10 {
			t.Errorf("%d bytes for each idle connection", each)
		}
		for _, s := range servers {
			s.Close(w, NoError)
		}
	})
}
