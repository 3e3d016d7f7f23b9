// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
)

// TestPipelinedBeyondABuffer: more requests at once than a buffer holds, so that one lies across its end.
func TestPipelinedBeyondABuffer(t *testing.T) {
	t.Parallel()
	for _, pad := range []int{0, 1, 900, 1023, 1024, 3000} {
		one := "GET / HTTP/1.1\r\nHost: a\r\nX-Pad: " + strings.Repeat("x", pad) + "\r\n\r\n"
		n := 3*bytebuf.Size/len(one) + 1
		s, w := server(strings.Repeat(one, n))
		var st ServerStream
		var q codec.Request
		served := 0
		for next(t, s, w, &st, &q) == nil {
			served++
			st.Head(nil, reply(200, 0), bytebuf.Piece{}, true)
			if !st.Finish() {
				t.Fatal("not kept")
			}
		}
		if served != n {
			t.Errorf("pad %d: %d of %d served", pad, served, n)
		}
	}
}

// TestInterimAnswersBeyondABuffer: 1xx heads fill the buffer until the final one lies across its end.
func TestInterimAnswersBeyondABuffer(t *testing.T) {
	t.Parallel()
	for cut := range 60 {
		interim := "HTTP/1.1 103 Early Hints\r\nLink: " + strings.Repeat("l", bytebuf.Size-60-cut) + "\r\n\r\n"
		in := interim + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + strings.Repeat("y", 3000) + "\r\n\r\nok"
		w := &wire{in: []string{in[:bytebuf.Size], in[bytebuf.Size:]}}
		lim := Defaults()
		lim.ValueBytes, lim.HeadBytes = bytebuf.Size, 2*bytebuf.Size
		cl := NewClient(w, &bufs, &lim, func(*Client, bool) {})
		cl.Begin()
		var r codec.Response
		q := codec.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a")}
		err := cl.Call(nil, &q, nil, &r)
		if err == nil && r.Status == 103 {
			err = cl.Answer(nil, &r)
		}
		if err != nil || r.Status != 200 {
			t.Fatalf("cut %d: %d %v", cut, r.Status, err)
		}
		if body, err := readAll(t, cl.Body()); body != "ok" || err != nil {
			t.Fatalf("cut %d: %q %v", cut, body, err)
		}
		cl.Release()
	}
}

// TestDripIsNotParsedAgainAndAgain: a large head that comes byte by byte costs little more than one that comes at once.
func TestDripIsNotParsedAgainAndAgain(t *testing.T) {
	t.Parallel()
	head := "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 10<<10) + "\r\n\r\n"
	s, w := server(strings.Split(head, "")...)
	var st ServerStream
	var q codec.Request
	parsed, looks := 0, 0
	for {
		before := s.tried
		s.Edge()
		ok, err := s.Poll(&st, &q)
		if err != nil {
			t.Fatal(err)
		}
		if looks++; ok || s.tried != before {
			parsed++
		}
		if ok {
			break
		}
		if s.buf != nil {
			t.Fatal("a buffer is held between the drips")
		}
		w.AwaitRead(nil)
	}
	if looks < len(head) || parsed > 20 {
		t.Errorf("parsed %d times in %d looks", parsed, looks)
	}
	if s.part != nil {
		t.Error("the memory of the dripped head is kept")
	}
}

// TestRefusedSwitchCloses: what a client sends behind a request to switch must never be read as a request.
func TestRefusedSwitchCloses(t *testing.T) {
	t.Parallel()
	for _, head := range []string{
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n",
	} {
		for _, status := range []int{200, 403, 426} {
			if head[0] == 'C' && status == 200 {
				continue
			}
			s, w := server(head + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			var st ServerStream
			var q codec.Request
			if err := next(t, s, w, &st, &q); err != nil {
				t.Fatal(err)
			}
			st.Head(nil, reply(status, 0), bytebuf.Piece{}, true)
			if st.Finish() || !strings.Contains(w.out.String(), "connection: close\r\n") {
				t.Errorf("%.8s %d: the connection goes on after %q", head, status, w.out.String())
			}
		}
	}
}

// TestBodyErrorIsFinal: a body that was refused once does not become good by being looked at again.
func TestBodyErrorIsFinal(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"Z\r\n", "1\rX", "1\r\naXX", "1;\x01\r\n", "1\r\na\r\n0\r\nbad header\r\n\r\n", "\n1\r\na"} {
		s, w := server("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
		var st ServerStream
		var q codec.Request
		if err := next(t, s, w, &st, &q); err != nil {
			t.Fatal(err)
		}
		_, _, first := st.Buffered()
		for range 3 {
			if _, end, err := st.Buffered(); err != first || err == nil || end {
				t.Errorf("%q: first %v, then %v, end %v", body, first, err, end)
			}
		}
	}
}

// TestIdleConnectionIsSmall: what a large request needed is not kept with the connection.
func TestIdleConnectionIsSmall(t *testing.T) {
	t.Parallel()
	lim := Defaults()
	w := &wire{in: []string{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}}
	cl := NewClient(w, &bufs, &lim, func(*Client, bool) {})
	cl.Begin()
	q := codec.Request{Method: []byte("POST"), Path: []byte("/"), Authority: []byte("a"), Length: 64 << 10}
	q.Header.AddString("x", strings.Repeat("y", 30<<10))
	var r codec.Response
	if err := cl.Call(nil, &q, make([]byte, 64<<10), &r); err != nil {
		t.Fatal(err)
	}
	cl.Release()
	if cap(cl.scratch) > 4<<10 || cl.buf != nil {
		t.Errorf("%d bytes are kept", cap(cl.scratch))
	}
	if want := fmt.Sprintf("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\nx: ", 64<<10); !strings.HasPrefix(w.out.String(), want) {
		t.Errorf("sent %.80q", w.out.String())
	}
}
