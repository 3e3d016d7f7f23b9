// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// What a hostile client sends, in bytes.
var (
	aSettings = appendFrameHeader(nil, 0, frameSettings, 0, 0)
	aHead     = []byte{0x83, 0x86, 0x84, 0x01, 0x01, 'a'}
)

func aFrame(typ frameType, flags uint8, id uint32, payload string) []byte {
	return append(appendFrameHeader(nil, len(payload), typ, flags, id), payload...)
}

// target is a server in memory whose streams are held until somebody finishes them.
type target struct {
	Server
	hold
	c    *memConn
	once bool // finish each turn's streams behind it
}

func newTarget(x *world, cfg *Config) *target {
	s := &target{c: &memConn{open: true}}
	s.Init(s.c, &x.e.Bufs, cfg, &s.hold)
	s.c.in = append([]byte(Preface), aSettings...)
	return s
}

// take feeds the server and takes a turn at a time.
func (s *target) take(w *socket.Worker, now int64, in ...[]byte) error {
	s.c.in = append(s.c.in, slices.Concat(in...)...)
	err := s.Turn(w, now)
	if s.once {
		s.finish()
	}
	return err
}

// calm reports whether err says that the peer is to calm down.
func calm(err error) bool {
	var ce *ConnError
	return errors.As(err, &ce) && ce.Code == EnhanceYourCalm && !ce.Remote
}

const second = int64(time.Second)

// TestFloods: each cheap frame has a rate or a number beyond which the connection ends, and an honest client is far from
// all of them (F43 to F45).
func TestFloods(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("\x00", 8)
	head := func(id uint32, end bool) []byte {
		flags := uint8(flagEndHeaders)
		if end {
			flags |= flagEndStream
		}
		return aFrame(frameHeaders, flags, id, string(aHead))
	}
	rst := func(id uint32) []byte { return aFrame(frameReset, 0, id, "\x00\x00\x00\x08") }
	for _, c := range []struct {
		name  string
		once  bool // streams are finished at once
		frame func(i int) []byte
		every time.Duration // between two
		n     int           // how many are sent
		most  int           // the connection ends at this one at the latest; 0: it goes on
		least int           // and not before this one
	}{
		{"rapid reset", true, func(i int) []byte { return append(head(uint32(2*i+1), false), rst(uint32(2*i+1))...) }, time.Microsecond, 5000, 600, 400},
		{"rapid reset, work goes on", false, func(i int) []byte { return append(head(uint32(2*i+1), false), rst(uint32(2*i+1))...) }, time.Microsecond, 5000, 1100, 400},
		{"resets of our making", true, func(i int) []byte {
			return append(head(uint32(2*i+1), false), aFrame(frameWindowUpdate, 0, uint32(2*i+1), zeros[:4])...)
		}, time.Microsecond, 5000, 600, 400},
		{"malformed requests", true, func(i int) []byte { return aFrame(frameHeaders, 5, uint32(2*i+1), "\x82") }, time.Microsecond, 5000, 600, 400},
		{"streams above the limit, SETTINGS never acknowledged", false, func(i int) []byte { return head(uint32(2*i+1), false) },
			time.Microsecond, 5000, 1200, 1000},
		{"a reset now and then", true, func(i int) []byte {
			if i%3 == 0 {
				return append(head(uint32(2*i+1), false), rst(uint32(2*i+1))...)
			}
			return head(uint32(2*i+1), true)
		}, 10 * time.Millisecond, 5000, 0, 0},
		{"more resets than the bucket refills", true, func(i int) []byte {
			if i == 0 {
				return slices.Concat(head(1, true))
			}
			return rst(1)
		}, time.Millisecond, 5000, 1500, 1000},
		{"honest requests", true, func(i int) []byte { return head(uint32(2*i+1), true) }, time.Microsecond, 20000, 0, 0},
		{"PING", false, func(int) []byte { return aFrame(framePing, 0, 0, zeros) }, time.Millisecond, 500, 110, 90},
		{"PING with traffic", true, func(i int) []byte { return append(head(uint32(2*i+1), true), aFrame(framePing, 0, 0, zeros)...) }, time.Millisecond, 5000, 0, 0},
		{"PING ten times a second", false, func(int) []byte { return aFrame(framePing, 0, 0, zeros) }, 100 * time.Millisecond, 2000, 0, 0},
		{"SETTINGS", false, func(int) []byte { return aSettings }, time.Millisecond, 500, 110, 90},
		{"empty DATA", false, func(i int) []byte {
			if i == 0 {
				return head(1, false)
			}
			return aFrame(frameData, 0, 1, "")
		}, time.Millisecond, 10, 2, 2},
		{"DATA of padding", false, func(i int) []byte {
			if i == 0 {
				return head(1, false)
			}
			return aFrame(frameData, flagPadded, 1, "\x02\x00\x00")
		}, time.Millisecond, 10, 2, 2},
		{"PRIORITY", false, func(int) []byte { return aFrame(framePriority, 0, 1, zeros[:5]) }, time.Millisecond, 1000, 101, 90},
		{"WINDOW_UPDATE", false, func(int) []byte { return aFrame(frameWindowUpdate, 0, 0, "\x00\x00\x00\x01") }, time.Millisecond, 1000, 101, 90},
		{"CONTINUATION", false, func(i int) []byte {
			if i == 0 {
				return aFrame(frameHeaders, 0, 1, "\x82")
			}
			return aFrame(frameContinuation, 0, 1, "")
		}, time.Millisecond, 100, 6, 6},
		{"large CONTINUATION", false, func(i int) []byte {
			if i == 0 {
				return aFrame(frameHeaders, 0, 1, strings.Repeat("\x82", 16<<10))
			}
			return aFrame(frameContinuation, 0, 1, strings.Repeat("\x82", 16<<10))
		}, time.Millisecond, 100, 5, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			cfg.PingInterval = 0
			s := newTarget(x, &cfg)
			s.once = c.once
			ended := 0
			start := s.now
			x.do(func(w *socket.Worker) {
				for i := range c.n {
					err := s.take(w, start+int64(i)*int64(c.every), c.frame(i))
					if len(s.held) > cfg.Streams || s.active > cfg.Streams {
						t.Errorf("%d streams are served", len(s.held))
					}
					if err == nil {
						continue
					}
					ended = i
					if !calm(err) {
						t.Errorf("%d: %v", i, err)
					}
					break
				}
				s.finish()
				s.Close(w, NoError)
			})
			if c.most == 0 && ended != 0 || ended > c.most || c.most > 0 && ended < c.least {
				t.Errorf("ended at %d, want %d to %d", ended, c.least, c.most)
			}
		})
	}
}

// TestHeaderBomb: fields that are one byte on the wire and thousands in memory are counted as what they are (F45, T3); the
// table goes on, so that the connection does.
func TestHeaderBomb(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"cookie", "trailer", "expect", "x"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			cfg.HeldHeads = 8 << 20 // the test keeps them all
			s := newTarget(x, &cfg)
			start := s.now
			x.do(func(w *socket.Worker) {
				put := literal(slices.Clone(aHead), 0x40, []byte(name), []byte(strings.Repeat("v", 3000)))
				bomb := append(put, slices.Repeat([]byte{0x80 | 62}, 12000)...)
				for i := range 100 {
					if err := s.take(w, start+int64(i)*second, aFrame(frameHeaders, 5, uint32(2*i+1), string(bomb))); err != nil {
						t.Error(i, err)
						return
					}
				}
				if len(s.held) != 100 {
					t.Errorf("%d streams", len(s.held))
				}
				for _, st := range s.held {
					if st.Refused() == nil {
						t.Error("a bomb was let in")
					}
					if n := len(st.q.Header.Bytes()); n > 128<<10 {
						t.Errorf("%d bytes of header are kept", n)
					}
				}
				s.finish()
				// The table has the field: an honest request may name it.
				if err := s.take(w, start+200*second, aFrame(frameHeaders, 5, 1001, string(append(slices.Clone(aHead), 0x80|62)))); err != nil || len(s.held) != 1 {
					t.Errorf("%v, %d streams", err, len(s.held))
				}
				s.finish()
				s.Close(w, NoError)
			})
		})
	}
}

// TestNoReader: a client that makes us send and does not read is cut off, and takes no more than its bound until then.
func TestNoReader(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	cfg.Pings = 1 << 30
	s := newTarget(x, &cfg)
	s.c.full = true
	start := s.now
	x.do(func(w *socket.Worker) {
		for i := range 5000 {
			if err := s.take(w, start+int64(i)*second/100, aFrame(framePing, 0, 0, "12345678")); err != nil {
				if !calm(err) || i < 900 || i > 1100 {
					t.Errorf("%d: %v", i, err)
				}
				return
			}
		}
		t.Error("1000 control frames wait")
	})
}

// TestStalls: a client that gives no window, or takes no bytes, or does not answer PING, does not last; what waited for
// it is told.
func TestStalls(t *testing.T) {
	t.Parallel()
	cfg := Defaults()
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		x := newWorld(t)
		failed := make(chan error, 1)
		addr, servers := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
			first := string(q.Path) == "/"
			if first {
				w.Own(nil) // the stream's own reason, please
			}
			if err := answer(w, st, 200, strings.Repeat("x", 1000)); first {
				failed <- err
			}
		})
		p := x.toServer(t, addr, setting(settingWindow, 10))
		p.get(1, true)
		p.until("DATA 1 10")
		s := <-servers
		s.later(cfg.StallTimeout / 2)
		p.sync()
		p.expect("HEADERS 1 200", "DATA 1 10")
		s.later(cfg.StallTimeout)
		var reset *codec.ResetError
		if err := <-failed; !errors.As(err, &reset) || reset.Remote {
			t.Errorf("%v", err)
		}
		p.until("RST 1 CANCEL")
		p.fr.WriteSettings(setting(settingWindow, 65535))
		p.headers(3, true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/2")
		p.until("DATA 3 1000 end")
	})
	t.Run("socket", func(t *testing.T) {
		t.Parallel()
		x := newWorld(t)
		s := newTarget(x, &cfg)
		s.c.full = true
		x.do(func(w *socket.Worker) {
			now := s.now
			if err := s.take(w, now, aFrame(framePing, 0, 0, "12345678")); err != nil {
				t.Error(err)
			}
			if s.c.until == 0 || s.c.until > now+int64(cfg.StallTimeout)+second {
				t.Errorf("the next turn is at %d", s.c.until)
			}
			if err := s.take(w, now+int64(cfg.StallTimeout)+second); !calm(err) {
				t.Error(err)
			}
		})
	})
	t.Run("silence", func(t *testing.T) {
		t.Parallel()
		x := newWorld(t)
		s := newTarget(x, &cfg)
		x.do(func(w *socket.Worker) {
			now := s.now
			take := func(d time.Duration, in ...[]byte) error {
				now += int64(d)
				s.c.out.Reset()
				return s.take(w, now, in...)
			}
			_ = take(0)
			if want := now + int64(cfg.PingInterval); s.c.until != want {
				t.Errorf("the next turn is at %d, want %d", s.c.until, want)
			}
			for range 3 { // it answers
				if err := take(cfg.PingInterval); err != nil || !strings.Contains(s.c.out.String(), alivePing) {
					t.Errorf("%v, %q", err, s.c.out.String())
				}
				if err := take(time.Second, aFrame(framePing, flagAck, 0, alivePing)); err != nil || s.c.out.Len() > 0 {
					t.Errorf("%v, %q", err, s.c.out.String())
				}
			}
			for range 2 {
				if err := take(cfg.PingInterval); err != nil {
					t.Error(err)
				}
				if err := take(3*cfg.PingTimeout, aFrame(framePing, flagAck, 0, alivePing)); err != nil {
					t.Errorf("the answer was here when the turn came, which was late: %v", err)
				}
			}
			if err := take(cfg.PingInterval); err != nil {
				t.Error(err)
			}
			if err := take(cfg.PingTimeout); err != errSilent {
				t.Errorf("%v", err)
			}
		})
	})
}

// TestSlowHead: a preface, the first SETTINGS and a head come whole in time; a slow body is nobody's fault.
func TestSlowHead(t *testing.T) {
	t.Parallel()
	hello := string(Preface) + string(aSettings)
	for _, c := range []struct {
		name, in string
		slow     bool
	}{
		{"nothing", "", true},
		{"half a preface", Preface[:10], true},
		{"no SETTINGS", Preface, true},
		{"idle", hello, false},
		{"half a frame's header", hello + "\x00\x00", true},
		{"half a HEADERS frame", hello + "\x00\x00\x10\x01\x05\x00\x00\x00\x01\x82", true},
		{"half a block", hello + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82", true},
		{"half a DATA frame", hello + string(aFrame(frameHeaders, 4, 1, string(aHead))) + "\x00\x00\x10\x00\x00\x00\x00\x00\x01x", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			s := newTarget(x, &cfg)
			x.do(func(w *socket.Worker) {
				now := s.now
				s.c.in = []byte(c.in)
				if err := s.take(w, now); err != nil {
					t.Error(err)
				}
				now += int64(cfg.HeadTimeout)
				if due := s.c.until != 0 && s.c.until <= now; due != c.slow {
					t.Errorf("the next turn is at %d of %d", s.c.until, now)
				}
				s.c.in = nil
				if err := s.take(w, now); (err == errSlow) != c.slow {
					t.Errorf("%v", err)
				}
				s.finish()
				s.Close(w, NoError)
			})
		})
	}
}

// TestHeadsInParts: a client whose writes end in the middle of heads, each of which is whole soon after, is not slow.
func TestHeadsInParts(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	s := newTarget(x, &cfg)
	s.once = true
	x.do(func(w *socket.Worker) {
		var rest []byte
		for i := range uint32(10) {
			head := aFrame(frameHeaders, 5, 2*i+1, string(aHead))
			if i%2 > 0 { // in a frame more
				head = append(aFrame(frameHeaders, 1, 2*i+1, string(aHead[:1])), aFrame(frameContinuation, flagEndHeaders, 2*i+1, string(aHead[1:]))...)
			}
			if err := s.take(w, s.now+int64(cfg.HeadTimeout)*3/5, rest, head[:len(head)/2]); err != nil {
				t.Fatal(err)
			}
			rest = head[len(head)/2:]
		}
		if err := s.take(w, s.now+int64(cfg.HeadTimeout)); err != errSlow {
			t.Errorf("the last was never whole: %v", err)
		}
	})
}

// TestDrain: a drain lets the client finish what it has and sends it elsewhere with the rest, whether or not it answers
// our PING.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprint(answers), func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			s := newTarget(x, &cfg)
			head := func(id uint32) []byte { return aFrame(frameHeaders, 5, id, string(aHead)) }
			x.do(func(w *socket.Worker) {
				now := s.now
				if err := s.take(w, now, head(1)); err != nil {
					t.Error(err)
				}
				s.now -= int64(time.Hour) // there was no turn for so long: the client's time begins with the drain all the same
				s.Drain()
				s.Drain()
				if err := s.take(w, now, head(3)); err != nil || len(s.held) != 2 {
					t.Errorf("between the two GOAWAYs: %v, %d streams", err, len(s.held))
				}
				ack := aFrame(framePing, flagAck, 0, drainPing)
				if !answers {
					ack = nil
					now = mono.Now() + int64(cfg.DrainTimeout)
				}
				if err := s.take(w, now, ack, head(5)); err != nil || len(s.held) != 2 && answers {
					t.Errorf("behind the last: %v, %d streams", err, len(s.held))
				}
				n := len(s.held)
				if got := strings.Count(s.c.out.String(), string(appendFrameHeader(nil, 8, frameGoAway, 0, 0))); got != 2 {
					t.Errorf("%d GOAWAYs", got)
				}
				for i, st := range s.held {
					if idle := st.Finish(); idle != (i == n-1) {
						t.Errorf("%d of %d: idle %v", i, n, idle)
					}
				}
				s.held = nil
				if s.c.until != 1 {
					t.Error("no turn was asked for")
				}
				if err := s.take(w, now); err != ErrDrained {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestClose: closing tells the client and all streams, and what they do later touches nothing.
func TestClose(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	s := newTarget(x, &cfg)
	x.do(func(w *socket.Worker) {
		if err := s.take(w, 0, aFrame(frameHeaders, 4, 1, string(aHead))); err != nil {
			t.Error(err)
		}
		st := s.held[0]
		s.Close(w, EnhanceYourCalm)
		said := s.c.out.Len()
		if !st.HungUp() {
			t.Error("the stream does not know")
		}
		if _, _, err := st.Next(w); err == nil {
			t.Error("a body from nowhere")
		}
		if err := answer(w, st, 200, "x"); err == nil {
			t.Error("an answer to nobody")
		}
		st.CloseAfter()
		s.finish()
		s.Drain()
		s.Close(w, NoError)
		if s.c.out.Len() != said {
			t.Error("something was written after the end")
		}
	})
	if !strings.HasSuffix(s.c.out.String(), "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0b") {
		t.Errorf("%x", s.c.out.Bytes())
	}
}
