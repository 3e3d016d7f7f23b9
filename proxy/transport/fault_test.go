// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/socket"
)

// sink keeps what it reads and how that ended.
type sink struct {
	mu  sync.Mutex
	got []byte
	err error
}

func (s *sink) serve(_ *socket.Worker, c *socket.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p [1000]byte
	for {
		n, err := c.TryRead(p[:])
		s.got = append(s.got, p[:n]...)
		if err == socket.ErrWouldBlock {
			return true
		}
		if err != nil {
			s.err = err
			return false
		}
	}
}

// cut passes the first n bytes on that a client writes, and says then that there was more.
type cut struct {
	net.Conn
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	if n > 0 {
		if _, err := c.Conn.Write(p[:n]); err != nil {
			return 0, err
		}
		c.left -= n
	}
	if n < len(p) {
		c.Conn.(*net.TCPConn).CloseWrite()
		return n, errors.New("cut")
	}
	return n, nil
}

const secret = "attack at dawn"

// TestCutAtEveryByte of the handshake and of a record: nothing that is not whole is ever read, and an end without
// close_notify is no end in order.
func TestCutAtEveryByte(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			s := r.server(nil)
			cfg := r.trust()
			cfg.MaxVersion, cfg.CurvePreferences = version, []tls.CurveID{tls.X25519}
			whole := false
			for n := 0; !whole; n++ {
				var k sink
				far, h := r.accept(s, k.serve)
				c := tls.Client(&cut{far, n}, cfg)
				_, err := io.WriteString(c, secret)
				if err == nil {
					err = c.CloseWrite() // a record of its own
				}
				whole = err == nil
				if whole {
					far.(*net.TCPConn).CloseWrite()
				}
				r.wait("the end", h.done)
				switch {
				case h.err == nil && whole && (string(k.got) != secret || k.err != io.EOF):
					t.Fatalf("whole: got %q, %v", k.got, k.err)
				case h.err == nil && !whole && (k.err != ErrTruncated || len(k.got) > 0 && string(k.got) != secret):
					t.Fatalf("cut at %d: got %q, %v", n, k.got, k.err)
				case h.err != nil && (whole || len(k.got) > 0 || !h.err.Closed):
					t.Fatalf("cut at %d: handshake %v", n, h.err)
				}
				far.Close()
			}
		})
	}
}

// TestEnds are the ways in which a connection ends, seen from the client.
func TestEnds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		serve func(w *socket.Worker, c *socket.Conn) bool
		want  func(rest []byte, err error) bool
	}{
		{"closed", func(w *socket.Worker, c *socket.Conn) bool { c.Write(w, []byte(secret)); return false },
			func(rest []byte, err error) bool { return string(rest) == secret && err == nil }},
		{"our side ended", func(w *socket.Worker, c *socket.Conn) bool {
			if c.HungUp() {
				return false
			}
			c.Write(w, []byte(secret))
			c.CloseWrite()
			return true
		}, func(rest []byte, err error) bool { return string(rest) == secret && err == nil }},
		{"reset", func(w *socket.Worker, c *socket.Conn) bool {
			c.Write(w, []byte(secret))
			c.Reset()
			return false
		}, func(_ []byte, err error) bool { return err != nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			far, _ := r.accept(r.server(nil), tc.serve)
			c := tls.Client(far, r.trust())
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(c)
			if !tc.want(rest, err) {
				t.Errorf("got %q, %v", rest, err)
			}
		})
	}
}

// TestHalfClose: after our side has ended, the client's bytes still come.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var k sink
	ended := false
	far, h := r.accept(r.server(nil), func(w *socket.Worker, c *socket.Conn) bool {
		if !ended {
			ended = true
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
		}
		return k.serve(w, c)
	})
	c := tls.Client(far, r.trust())
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Fatalf("got %q, %v", rest, err)
	}
	if _, err := io.WriteString(c, secret); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	far.(*net.TCPConn).CloseWrite()
	r.wait("the end", h.done)
	if string(k.got) != secret || k.err != io.EOF {
		t.Errorf("got %q, %v", k.got, k.err)
	}
}

// TestNotTLS: whatever is sent in place of a ClientHello is answered with an alert, or with nothing.
func TestNotTLS(t *testing.T) {
	t.Parallel()
	for name, hello := range map[string]string{
		"HTTP":               "GET / HTTP/1.1\r\nhost: server.test\r\n\r\n",
		"zeros":              strings.Repeat("\x00", 100),
		"an empty record":    "\x16\x03\x01\x00\x00",
		"a record too long":  "\x16\x03\x01\xff\xff" + strings.Repeat("x", 100),
		"application data":   "\x17\x03\x03\x00\x05hello",
		"an alert":           "\x15\x03\x01\x00\x02\x02\x28",
		"no hello":           "\x16\x03\x01\x00\x04\x02\x00\x00\x00",
		"SSL 2":              "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + strings.Repeat("x", 40),
		"a hello of 2^24":    "\x16\x03\x01\x00\x04\x01\xff\xff\xff",
		"hello, then no end": "\x16\x03\x01\x40\x00\x01\x00\xff\xfc" + strings.Repeat("x", 1<<14-4),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			far, h := r.accept(r.server(nil), func(*socket.Worker, *socket.Conn) bool {
				t.Error("it was served")
				return false
			})
			io.WriteString(far, hello)
			far.(*net.TCPConn).CloseWrite()
			answer, _ := io.ReadAll(far)
			r.wait("the end", h.done)
			if h.err == nil || r.count("connection_error") != 1 || r.count("handshake") != 0 {
				t.Errorf("no error was counted: %v", h.err)
			}
			if len(answer) > 0 && answer[0] != 21 {
				t.Errorf("answered with %q", answer)
			}
		})
	}
}

// TestAfterTheHandshake: records that were not sealed by the client end the connection.
func TestAfterTheHandshake(t *testing.T) {
	t.Parallel()
	for name, forged := range map[string]string{
		"plain text":       "GET / HTTP/1.1\r\n\r\n",
		"a forged record":  "\x17\x03\x03\x00\x20" + strings.Repeat("x", 32),
		"too long":         "\x17\x03\x03\x50\x00" + strings.Repeat("x", 0x5000),
		"a plain alert":    "\x15\x03\x03\x00\x02\x01\x00",
		"a plain finished": "\x16\x03\x03\x00\x04\x14\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			var k sink
			far, h := r.accept(r.server(nil), k.serve)
			c := tls.Client(far, r.trust())
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			io.WriteString(far, forged)
			r.wait("the end", h.done)
			if len(k.got) > 0 || k.err == nil || k.err == io.EOF {
				t.Errorf("read %q, %v", k.got, k.err)
			}
		})
	}
}

// TestSlowHandshake: who does not get on in time is dropped, wherever the handshake is.
func TestSlowHandshake(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 5, 100, 260} {
		t.Run(fmt.Sprint(n, " bytes"), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			far, fd := r.pair()
			defer far.Close()
			h := &shaker{server: r.server(nil), deadline: 30 * time.Millisecond, done: make(chan struct{}), shaken: make(chan struct{})}
			if err := r.engine.Adopt(fd, h).Start(false); err != nil {
				t.Fatal(err)
			}
			go tls.Client(&stall{far, n}, r.trust()).Handshake()
			r.wait("the end", h.done)
			if h.err == nil || !h.err.TimedOut {
				t.Errorf("got %v, want a timeout", h.err)
			}
		})
	}
}

// stall passes the first bytes on and pretends that the others were.
type stall struct {
	net.Conn
	left int
}

func (c *stall) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if n > 0 {
		c.Conn.Write(p[:n])
	}
	return len(p), nil
}

// joined holds a client's writes back until it reads: its last words of the handshake and its first of the application
// come in one segment, behind which there is no edge.
type joined struct {
	net.Conn
	out bytes.Buffer
}

func (j *joined) Write(p []byte) (int, error) { return j.out.Write(p) }

func (j *joined) Read(p []byte) (int, error) {
	j.out.WriteTo(j.Conn)
	return j.Conn.Read(p)
}

func TestDataBehindTheHandshake(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			s := r.server(nil)
			for range 20 {
				far, _ := r.accept(s, echo)
				cfg := r.trust()
				cfg.MaxVersion = version
				c := tls.Client(&joined{Conn: far}, cfg)
				if _, err := io.WriteString(c, secret); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(secret))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != secret {
					t.Fatalf("got %q, %v", got, err)
				}
				far.Close()
			}
		})
	}
}

// TestTryWrite: a connection that is idle whenever its socket is full loses and repeats nothing, with the other direction
// in full flow.
func TestTryWrite(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	want := make([]byte, 8<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	rest := want
	var full, received atomic.Int64
	far, h := r.accept(r.server(nil), func(_ *socket.Worker, c *socket.Conn) bool {
		var p [4000]byte
		for {
			n, err := c.TryRead(p[:])
			received.Add(int64(n))
			if err == socket.ErrWouldBlock {
				break
			}
			if err != nil {
				return false
			}
		}
		n, err := c.TryWrite(rest[:min(len(rest), 100_000)])
		for rest = rest[n:]; err == nil && len(rest) > 0; rest = rest[n:] {
			n, err = c.TryWrite(rest[:min(len(rest), 100_000)])
		}
		switch err {
		case nil:
			c.CloseWrite()
			return true
		case socket.ErrWouldBlock:
			full.Add(1)
			return true
		}
		t.Error(err)
		return false
	})
	c := tls.Client(far, r.trust())
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 512 {
			if _, err := c.Write(make([]byte, 5000)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for end := time.Now().Add(20 * time.Second); full.Load() == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		// Nobody reads before the socket was full.
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	wg.Wait()
	c.Close()
	r.wait("the end", h.done)
	if full.Load() == 0 || received.Load() != 512*5000 {
		t.Errorf("full %d times, %d bytes received", full.Load(), received.Load())
	}
}

// TestTryWriteHolds: TryWrite says that something is left as long as ciphertext is held, even where all plaintext is taken.
func TestTryWriteHolds(t *testing.T) {
	t.Parallel()
	raw := &tightRaw{}
	s := shakenSession(t)
	s.Bind(raw)
	raw.room = 10
	msg := []byte("hello, who is there?")
	n, err := s.TryWrite(msg)
	if n != len(msg) || err != socket.ErrWouldBlock || len(raw.sent) != 10 {
		t.Fatalf("took %d, %v; sent %d", n, err, len(raw.sent))
	}
	if n, err := s.TryWrite(msg); n != 0 || err != socket.ErrWouldBlock {
		t.Fatalf("took %d, %v while something is held", n, err)
	}
	raw.room = 1 << 20
	if n, err := s.TryWrite(nil); n != 0 || err != nil || raw.ended {
		t.Fatalf("took %d, %v", n, err)
	}
	one := len(raw.sent)
	raw.room = one + 5
	if _, err := s.TryWrite(msg); err != socket.ErrWouldBlock {
		t.Fatal(err)
	}
	// The end waits for what is held.
	if err := s.CloseWrite(); err != nil || raw.ended {
		t.Fatalf("%v, ended %v", err, raw.ended)
	}
	raw.room = 1 << 20
	if _, err := s.TryRead(make([]byte, 1)); err != socket.ErrWouldBlock || !raw.ended {
		t.Fatalf("%v, ended %v", err, raw.ended)
	}
}

// tightRaw is a socket that takes room bytes in all, and gives none.
type tightRaw struct {
	sent  []byte
	room  int
	ended bool
	bufs  bytebuf.Pool
}

func (*tightRaw) TryRead([]byte) (int, error) { return 0, socket.ErrWouldBlock }

func (r *tightRaw) TryWrite(p []byte) (int, error) {
	n := min(len(p), r.room-len(r.sent))
	r.sent = append(r.sent, p[:n]...)
	if n < len(p) {
		return n, socket.ErrWouldBlock
	}
	return n, nil
}

func (*tightRaw) HungUp() bool          { return false }
func (r *tightRaw) Bufs() *bytebuf.Pool { return &r.bufs }
func (*tightRaw) SetHungUp()            {}
func (r *tightRaw) CloseWrite() error   { r.ended = true; return nil }

// shakenSession returns a session whose handshake is over.
func shakenSession(t testing.TB) *Session {
	t.Helper()
	r := newRig(t)
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Client(b, r.trust()).Handshake()
	}()
	s := &Session{}
	cfg, err := r.server(func(m *mesh.TLSContext) { m.NoTickets = true }).tls.config()
	if err != nil {
		t.Fatal(err)
	}
	s.tls = tls.Server(&s.wire, cfg)
	if _, err := s.shake(a); err != nil {
		t.Fatal(err)
	}
	r.wait("the client", done)
	return s
}

// TestHeldIsBounded: a peer that makes us answer and does not read gets an error, not our memory.
func TestHeldIsBounded(t *testing.T) {
	t.Parallel()
	x := &wire{raw: &tightRaw{}}
	var err error
	total := 0
	for err == nil {
		var n int
		n, err = x.Write(make([]byte, 1000))
		total += n
	}
	if err != errHeld || total > maxHeld {
		t.Errorf("held %d bytes, then %v", total, err)
	}
}

// drip writes byte by byte.
type drip struct{ net.Conn }

func (d drip) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestByteByByte(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	far, _ := r.accept(r.server(nil), echo)
	c := tls.Client(drip{far}, r.trust())
	say(t, c, []byte(secret))
	say(t, c, bytes.Repeat([]byte("0123456789"), 300))
}
