// SPDX-License-Identifier: Apache-2.0

//go:build netns

package netns_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshtap/meshtap/proxy/accelerate"
	"github.com/meshtap/meshtap/test/netns"
)

// spliced is the kernel at work for this process, in a cgroup of its own.
func spliced(t *testing.T, cfg accelerate.Config) *accelerate.Sockmap {
	t.Helper()
	cg := netns.NewCgroup(t)
	cg.Enter()
	cfg.Cgroup = cg.Dir
	s, err := accelerate.Start(cfg)
	// What is missing for want of a newer kernel is left out by name; for want of rights, that is a failure.
	if why := new(accelerate.UnavailableError); errors.As(err, &why) && strings.Contains(why.Do, "newer") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ends are the two ends of a connection: the client's and the server's.
type ends struct {
	t    *testing.T
	s    *accelerate.Sockmap
	a, b *net.TCPConn
}

// connect makes a connection in the namespace of the caller, or in ns.
func connect(t *testing.T, s *accelerate.Sockmap, ns *netns.Namespace, listenAt, dialTo string, from int) *ends {
	t.Helper()
	e := &ends{t: t, s: s}
	do := func(f func() error) {
		t.Helper()
		err := error(nil)
		if ns == nil {
			err = f()
		} else {
			err = ns.Do(f)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var l net.Listener
	do(func() (err error) {
		l, err = net.Listen("tcp", listenAt)
		return err
	})
	defer l.Close()
	if dialTo == "" {
		dialTo = l.Addr().String()
	} else if host, port, _ := net.SplitHostPort(dialTo); port == "0" {
		_, port, _ = net.SplitHostPort(l.Addr().String())
		dialTo = net.JoinHostPort(host, port)
	}
	do(func() error {
		d := net.Dialer{Timeout: hang}
		if from != 0 {
			d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: from}
		}
		c, err := d.Dial("tcp", dialTo)
		if err == nil {
			e.a = c.(*net.TCPConn)
		}
		return err
	})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	e.b = c.(*net.TCPConn)
	for _, c := range []*net.TCPConn{e.a, e.b} {
		c.SetDeadline(time.Now().Add(hang))
		t.Cleanup(func() { c.Close() })
	}
	return e
}

// both runs a test for connections of each sort, from the client to the server and the other way round.
func both(t *testing.T, s *accelerate.Sockmap, test func(t *testing.T, e *ends)) {
	for _, tc := range []struct{ name, listen, dial string }{
		{"IPv4", "127.0.0.1:0", ""}, {"IPv6", "[::1]:0", ""}, {"IPv4 to a socket for both", "[::]:0", "127.0.0.1:0"},
	} {
		for _, turned := range []bool{false, true} {
			name := tc.name + ", client sends"
			if turned {
				name = tc.name + ", server sends"
			}
			t.Run(name, func(t *testing.T) {
				e := connect(t, s, nil, tc.listen, tc.dial, 0)
				if turned {
					e.a, e.b = e.b, e.a
				}
				test(t, e)
			})
		}
	}
}

func number(t *testing.T, c *net.TCPConn) (n int) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) { n = int(fd) })
	return n
}

// wants checks how a has sent so far.
func (e *ends) wants(messages int, left bool) {
	e.t.Helper()
	n, l, ok := e.s.Spliced(number(e.t, e.a))
	if !ok || int(n) < messages || l != left {
		e.t.Errorf("entered %v, %d messages spliced, left to TCP %v; want at least %d and %v", ok, n, l, messages, left)
	}
}

func (e *ends) send(b []byte) {
	e.t.Helper()
	if _, err := e.a.Write(b); err != nil {
		e.t.Fatal(err)
	}
}

func (e *ends) receive(want []byte) {
	e.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(e.b, got); err != nil || !bytes.Equal(got, want) {
		e.t.Fatalf("%d of %d bytes came, %v; the same: %v", n, len(want), err, bytes.Equal(got[:n], want[:n]))
	}
}

// fill sends until the socket takes no more.
func (e *ends) fill(piece int) (taken []byte) {
	e.t.Helper()
	rc, err := e.a.SyscallConn()
	if err != nil {
		e.t.Fatal(err)
	}
	buf := make([]byte, piece)
	rc.Write(func(fd uintptr) bool {
		for len(taken) < 64<<20 {
			for i := range buf {
				n := len(taken) + i
				buf[i] = byte(n ^ n>>8 ^ n>>16)
			}
			n, err := syscall.Write(int(fd), buf)
			if err != nil {
				return true
			}
			taken = append(taken, buf[:n]...)
		}
		return true
	})
	return taken
}

// poll waits until the socket tells of one of the events.
func poll(t *testing.T, c *net.TCPConn, events int16) int16 {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(number(t, c)), Events: events}}
	for {
		n, err := unix.Poll(p, int(hang/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			t.Fatalf("the event does not come: %d, %v", n, err)
		}
		return p[0].Revents
	}
}

// What one end sends, the other reads, whatever is used to read.
func TestSplice(t *testing.T) {
	s := spliced(t, accelerate.Config{})
	both(t, s, func(t *testing.T, e *ends) {
		e.send([]byte("hello"))
		e.wants(1, false)
		// Poll and a look that takes nothing see it as well.
		poll(t, e.b, unix.POLLIN)
		var b [16]byte
		if n, _, err := unix.Recvfrom(number(t, e.b), b[:], unix.MSG_PEEK); n != 5 || err != nil {
			t.Errorf("looked at %d bytes, %v", n, err)
		}
		e.receive([]byte("he"))
		e.receive([]byte("llo"))
		if _, _, err := unix.Recvfrom(number(t, e.b), b[:], unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("an empty socket says %v", err)
		}
		e.a, e.b = e.b, e.a
		e.send([]byte("hi"))
		e.wants(1, false)
		e.receive([]byte("hi"))
	})
	if c, err := s.Counts(); err != nil || c.Entered != 2*6+2 || c.Full != 0 {
		t.Errorf("%+v, %v; want 14 entered, with the trial's", c, err)
	}
}

// A reader who does not read holds the sender back, and then gets everything in order, and the end.
func TestSpliceHoldsBack(t *testing.T) {
	s := spliced(t, accelerate.Config{})
	for _, piece := range []int{1, 100, 4096, 16 << 10, 64 << 10, 1 << 20} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			both(t, s, func(t *testing.T, e *ends) {
				if piece == 1 {
					// TCP takes single bytes for a long time: what counts is that no more of them are spliced.
					for range 4 * accelerate.MaxMessages {
						e.send([]byte("x"))
					}
					e.wants(1, true)
					if n, _, _ := s.Spliced(number(t, e.a)); n > accelerate.MaxMessages {
						t.Errorf("%d messages wait", n)
					}
					e.receive(bytes.Repeat([]byte("x"), 4*accelerate.MaxMessages))
					return
				}
				before, _ := s.Counts()
				sent := e.fill(piece)
				after, _ := s.Counts()
				if n := after.Bytes - before.Bytes; n > accelerate.MaxQueued || len(sent) >= 64<<20 {
					t.Errorf("%d bytes were taken, %d of them spliced", len(sent), n)
				}
				e.wants(0, true)
				// More than nothing goes in again once the reader reads.
				e.receive(sent)
				again := e.fill(piece)
				if err := e.a.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				e.receive(again)
				wantEnd(t, e.b)
			})
		})
	}
}

// Random writes and reads on many connections at once, in both directions, give the bytes that were sent.
func TestSpliceKeepsOrder(t *testing.T) {
	s := spliced(t, accelerate.Config{})
	var wg sync.WaitGroup
	for i := range 40 {
		e := connect(t, s, nil, "127.0.0.1:0", "", 0)
		for k, way := range [][2]*net.TCPConn{{e.a, e.b}, {e.b, e.a}} {
			seed := uint64(2*i + k)
			total := 1 + rand.New(rand.NewPCG(seed, 0)).IntN(4<<20)
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, 1))
				buf := make([]byte, 128<<10)
				for sent := 0; sent < total; {
					n := min(1+r.IntN(1<<r.IntN(18)), total-sent)
					fillFrom(buf[:n], seed, sent)
					if _, err := way[0].Write(buf[:n]); err != nil {
						t.Errorf("connection %d: after %d bytes: %v", i, sent, err)
						return
					}
					sent += n
				}
				way[0].CloseWrite()
			})
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, 2))
				buf, want := make([]byte, 128<<10), make([]byte, 128<<10)
				for got := 0; ; {
					n, err := way[1].Read(buf[:1+r.IntN(1<<r.IntN(18))])
					fillFrom(want[:n], seed, got)
					if !bytes.Equal(buf[:n], want[:n]) {
						t.Errorf("connection %d: other bytes behind %d", i, got)
						return
					}
					got += n
					if err == io.EOF && got == total {
						return
					}
					if err != nil {
						t.Errorf("connection %d: %d of %d bytes came: %v", i, got, total, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	c, err := s.Counts()
	t.Logf("figure: %+v, %v", c, err)
	if c.Messages == 0 {
		t.Error("nothing was spliced")
	}
}

func fillFrom(b []byte, seed uint64, from int) {
	for i := range b {
		n := uint64(from+i)*0x9e3779b97f4a7c15 + seed
		b[i] = byte(n >> 32)
	}
}

// The end of a connection comes behind all that was sent, however it ends and however late the reader is.
func TestSpliceEnds(t *testing.T) {
	s := spliced(t, accelerate.Config{})
	body := bytes.Repeat([]byte("0123456789abcdef"), 8<<10) // 128 KiB: as much as can be spliced at once
	t.Run("closed", func(t *testing.T) {
		both(t, s, func(t *testing.T, e *ends) {
			e.send(body)
			e.wants(1, false)
			e.a.Close()
			poll(t, e.b, unix.POLLRDHUP)
			e.receive(body)
			wantEnd(t, e.b)
		})
	})
	t.Run("half closed, and answered", func(t *testing.T) {
		both(t, s, func(t *testing.T, e *ends) {
			e.send([]byte("question"))
			e.a.CloseWrite()
			e.receive([]byte("question"))
			wantEnd(t, e.b)
			e.a, e.b = e.b, e.a
			e.send(body)
			e.wants(1, false)
			e.a.Close()
			// Both sides have ended: the socket is closed for the system, and what is in it must stay.
			poll(t, e.b, unix.POLLHUP)
			e.receive(body)
			wantEnd(t, e.b)
		})
	})
	t.Run("both closed before the reader reads", func(t *testing.T) {
		both(t, s, func(t *testing.T, e *ends) {
			e.send(body)
			e.a.CloseWrite()
			poll(t, e.b, unix.POLLRDHUP)
			e.b.CloseWrite()
			poll(t, e.b, unix.POLLHUP)
			e.receive(body)
			wantEnd(t, e.b)
		})
	})
	t.Run("nothing can be sent behind the own end", func(t *testing.T) {
		both(t, s, func(t *testing.T, e *ends) {
			e.send(body)
			e.a.CloseWrite()
			if _, err := e.a.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("sending says %v", err)
			}
			e.receive(body)
			wantEnd(t, e.b)
		})
	})
	t.Run("the reader has gone", func(t *testing.T) {
		both(t, s, func(t *testing.T, e *ends) {
			e.send(body)
			e.b.Close()
			poll(t, e.a, unix.POLLRDHUP)
			var err error
			for range 1000 { // the first may be taken: the reset comes back
				if _, err = e.a.Write(body); err != nil {
					break
				}
			}
			if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("sending to nobody says %v", err)
			}
		})
	})
}

// A reset is told of as one, never as an end in order.
func TestSpliceReset(t *testing.T) {
	s := spliced(t, accelerate.Config{})
	for _, unread := range []int{0, 5, 128 << 10} {
		t.Run(fmt.Sprintf("%d bytes unread", unread), func(t *testing.T) {
			both(t, s, func(t *testing.T, e *ends) {
				sent := bytes.Repeat([]byte("r"), unread)
				if unread > 0 {
					e.send(sent)
					e.wants(1, false)
				}
				e.a.SetLinger(0)
				e.a.Close()
				poll(t, e.b, unix.POLLHUP)
				got, err := io.ReadAll(e.b)
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("reading says %v", err)
				}
				t.Logf("figure: %d of %d bytes were read before the reset", len(got), unread)
				if !bytes.HasPrefix(sent, got) {
					t.Error("other bytes were read")
				}
			})
		})
	}
}

// Only true pairs are joined.
func TestSplicePairs(t *testing.T) {
	s := spliced(t, accelerate.Config{})
	t.Run("the same addresses in two namespaces", func(t *testing.T) {
		one, two := netns.New(t, "pod"), netns.New(t, "pod")
		x := connect(t, s, one, "127.0.0.1:7000", "", 6000)
		y := connect(t, s, two, "127.0.0.1:7000", "", 6000)
		x.send([]byte("to one"))
		y.send([]byte("to two"))
		x.wants(1, false)
		y.wants(1, false)
		x.receive([]byte("to one"))
		y.receive([]byte("to two"))
	})
	t.Run("another host", func(t *testing.T) {
		pod, remote := pair(t)
		l := listen(t, remote, at(remoteIP, 7000))
		defer l.Close()
		c := dial(t, pod, 0, at(remoteIP, 7000)).(*net.TCPConn)
		d, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, c := range []*net.TCPConn{c, d.(*net.TCPConn)} {
			if _, _, ok := s.Spliced(number(t, c)); ok {
				t.Errorf("%v, whose other end is elsewhere, is entered", c.LocalAddr())
			}
		}
		e := &ends{t: t, s: s, a: c, b: d.(*net.TCPConn)}
		e.send([]byte("far"))
		e.receive([]byte("far"))
	})
	t.Run("redirected to a proxy", func(t *testing.T) {
		each(t, func(t *testing.T, f family) {
			pod, _ := pair(t)
			pod.Redirect(netns.Redirect{To: outbound, ExceptUID: -1, IPv6: f.v6})
			l := listen(t, pod, at(f.local, outbound))
			defer l.Close()
			c := dial(t, pod, appUser, at(f.remote, 80)).(*net.TCPConn)
			d, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			e := &ends{t: t, s: s, a: c, b: d.(*net.TCPConn)}
			e.send([]byte("question"))
			e.wants(1, false)
			e.receive([]byte("question"))
			e.a, e.b = e.b, e.a
			e.send([]byte("answer"))
			e.wants(1, false)
			e.receive([]byte("answer"))
		})
	})
	t.Run("two connections from one address at a time", func(t *testing.T) {
		ns := netns.New(t, "pod")
		option := func(level, opt int) func(string, string, syscall.RawConn) error {
			return func(_, _ string, rc syscall.RawConn) (err error) {
				rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, opt, 1) })
				return err
			}
		}
		// The servers' handshakes end with the first bytes: there are two clients for whom theirs is over.
		var l [2]net.Listener
		var e [2]ends
		for i := range e {
			addr := fmt.Sprintf("127.0.0.1:%d", 7000+i)
			if err := ns.Do(func() (err error) {
				lc := net.ListenConfig{Control: option(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)}
				if l[i], err = lc.Listen(t.Context(), "tcp", addr); err != nil {
					return err
				}
				d := net.Dialer{Control: option(unix.SOL_SOCKET, unix.SO_REUSEADDR), LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6000}}
				c, err := d.Dial("tcp", addr)
				if err == nil {
					e[i] = ends{t: t, s: s, a: c.(*net.TCPConn)}
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer l[i].Close()
			defer e[i].a.Close()
		}
		for i := range e {
			e[i].send(fmt.Appendf(nil, "question %d", i))
			c, err := l[i].Accept()
			if err != nil {
				t.Fatal(err)
			}
			e[i].b = c.(*net.TCPConn)
			defer c.Close()
			e[i].receive(fmt.Appendf(nil, "question %d", i))
			e[i].a, e[i].b = e[i].b, e[i].a
			e[i].send(fmt.Appendf(nil, "answer %d", i))
		}
		for i := range e {
			e[i].b.SetDeadline(time.Now().Add(hang))
			e[i].receive(fmt.Appendf(nil, "answer %d", i))
		}
	})
	t.Run("a client outside of the cgroup", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		e := &ends{t: t, s: s}
		outside(t, func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			e.a = c.(*net.TCPConn)
		})
		d, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		e.b = d.(*net.TCPConn)
		for _, c := range []*net.TCPConn{e.a, e.b} {
			defer c.Close()
			if _, _, ok := s.Spliced(number(t, c)); ok {
				t.Error("entered")
			}
		}
		e.send([]byte("plain"))
		e.receive([]byte("plain"))
	})
}

// outside runs f with this process in another cgroup, and comes back.
func outside(t *testing.T, f func()) {
	t.Helper()
	other := netns.NewCgroup(t)
	t.Run("elsewhere", func(t *testing.T) {
		other.EnterFor(t)
		f()
	})
}

// What finds no place uses plain TCP, and is counted.
func TestSpliceFull(t *testing.T) {
	s := spliced(t, accelerate.Config{Sockets: 3})
	first := connect(t, s, nil, "127.0.0.1:0", "", 0)
	second := connect(t, s, nil, "127.0.0.1:0", "", 0) // its client finds the last place, its server none
	third := connect(t, s, nil, "127.0.0.1:0", "", 0)
	for _, e := range []*ends{first, second, third} {
		e.send([]byte("question"))
		e.receive([]byte("question"))
		e.a, e.b = e.b, e.a
		e.send([]byte("answer"))
		e.receive([]byte("answer"))
	}
	first.wants(1, false)
	if n, _, _ := s.Spliced(number(t, second.b)); n != 0 {
		t.Errorf("%d messages went to a socket without a place", n)
	}
	if c, err := s.Counts(); err != nil || c.Full != 2 {
		t.Errorf("%+v, %v; want 2 that found no place", c, err)
	}
	// A place becomes free.
	first.a.Close()
	first.b.Close()
	fourth := connect(t, s, nil, "127.0.0.1:0", "", 0)
	fourth.send([]byte("again"))
	fourth.receive([]byte("again"))
	fourth.wants(1, false)
}

// When splicing ends, pairs that stand lose nothing, and new ones are plain.
func TestSpliceStops(t *testing.T) {
	s := spliced(t, accelerate.Config{})
	e := connect(t, s, nil, "127.0.0.1:0", "", 0)
	e.send([]byte("before"))
	e.wants(1, false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	e.send([]byte(" and after"))
	e.a.CloseWrite()
	e.receive([]byte("before and after"))
	wantEnd(t, e.b)
	e.a, e.b = e.b, e.a
	e.send([]byte("answer"))
	e.receive([]byte("answer"))
	if again := connect(t, s, nil, "127.0.0.1:0", "", 0); again != nil {
		again.send([]byte("plain"))
		again.receive([]byte("plain"))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Bytes that go with the handshake, or that wait for it, are no reason for disorder.
func TestSpliceEarlyBytes(t *testing.T) {
	s := spliced(t, accelerate.Config{})
	for _, tc := range []struct {
		name             string
		listener, dialer int // options of TCP
		pair             bool
	}{
		{"accepted with the first bytes", unix.TCP_DEFER_ACCEPT, 0, true},
		{"sent with the handshake", unix.TCP_FASTOPEN, unix.TCP_FASTOPEN_CONNECT, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns := netns.New(t, "pod")
			ns.Run("sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
			set := func(opt, value int) func(string, string, syscall.RawConn) error {
				return func(_, _ string, rc syscall.RawConn) (err error) {
					if opt != 0 {
						rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, opt, value) })
					}
					return err
				}
			}
			var l net.Listener
			if err := ns.Do(func() (err error) {
				lc := net.ListenConfig{Control: set(tc.listener, 10)}
				l, err = lc.Listen(t.Context(), "tcp", "127.0.0.1:7000")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for range 5 { // the first fetches the cookie of Fast Open
				e := &ends{t: t, s: s}
				if err := ns.Do(func() error {
					c, err := (&net.Dialer{Control: set(tc.dialer, 1), Timeout: hang}).Dial("tcp", "127.0.0.1:7000")
					if err == nil {
						e.a = c.(*net.TCPConn)
					}
					return err
				}); err != nil {
					t.Fatal(err)
				}
				defer e.a.Close()
				e.send([]byte("first "))
				d, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				e.b = d.(*net.TCPConn)
				defer e.b.Close()
				e.send([]byte("second "))
				e.send([]byte("third"))
				e.receive([]byte("first second third"))
				// The server has read what went by TCP: from here on it is spliced, where the handshake showed a pair.
				e.send([]byte("fourth"))
				if tc.pair {
					e.wants(1, false)
				}
				e.receive([]byte("fourth"))
				e.a, e.b = e.b, e.a
				e.send([]byte("answer"))
				e.receive([]byte("answer"))
				// Nothing follows the own end, though the other side has read it.
				e.a.CloseWrite()
				wantEnd(t, e.b)
				if _, err := e.a.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
					t.Errorf("sending behind the own end says %v", err)
				}
			}
		})
	}
}

// The proxy's own tests, chaos among them, pass with all their connections spliced.
func TestSpliceUnderTheProxy(t *testing.T) {
	s := spliced(t, accelerate.Config{})
	before, _ := s.Counts()
	out, err := exec.CommandContext(t.Context(), "go", "test", "-pgo=off", "-count=1", "-timeout=5m", "../../proxy").CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	after, err := s.Counts()
	if err != nil || after.Messages < before.Messages+10_000 {
		t.Errorf("%d messages were spliced before and %d after, %v", before.Messages, after.Messages, err)
	}
	t.Logf("figure: %+v", after)
}
