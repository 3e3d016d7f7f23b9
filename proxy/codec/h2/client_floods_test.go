// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/socket"
)

// origin is a client in memory with a request under way on stream 1, which a test answers.
type origin struct {
	Client
	c  *memConn
	st *ClientStream
}

func newOrigin(t testing.TB, x *world, w *socket.Worker, cfg *Config) *origin {
	o := &origin{c: &memConn{open: true, in: slices.Clone(aSettings)}}
	o.Init(o.c, &x.e.Bufs, cfg, quiet{})
	st, ok := o.Reserve()
	if !ok {
		t.Fatal("no place")
	}
	if err := st.Head(w, request("POST", "/")); err != nil {
		t.Fatal(err)
	}
	o.st = st
	return o
}

// say feeds the client and takes a turn.
func (o *origin) say(w *socket.Worker, now int64, in []byte) error {
	o.c.in = append(o.c.in, in...)
	return o.Turn(w, now)
}

// TestClientFloods: what TestFloods holds clients to, a server is held to as well.
func TestClientFloods(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("\x00", 8)
	answer := aFrame(frameHeaders, flagEndHeaders, 1, "\x88")
	behind := func(f []byte) func(int) []byte {
		return func(i int) []byte {
			if i == 0 {
				return answer
			}
			return f
		}
	}
	always := func(f []byte) func(int) []byte { return func(int) []byte { return f } }
	for _, c := range []struct {
		name        string
		frame       func(i int) []byte
		least, most int // the connection ends between these
	}{
		{"PING", always(aFrame(framePing, 0, 0, zeros)), 90, 110},
		{"SETTINGS", always(aSettings), 90, 110},
		{"empty DATA", behind(aFrame(frameData, 0, 1, "")), 2, 2},
		{"DATA of padding", behind(aFrame(frameData, flagPadded, 1, "\x02\x00\x00")), 2, 2},
		{"PRIORITY", always(aFrame(framePriority, 0, 1, zeros[:5])), 190, 201},
		{"WINDOW_UPDATE", always(aFrame(frameWindowUpdate, 0, 0, "\x00\x00\x00\x01")), 90, 103},
		{"CONTINUATION", func(i int) []byte {
			if i == 0 {
				return aFrame(frameHeaders, 0, 1, "\x88")
			}
			return aFrame(frameContinuation, 0, 1, "")
		}, 6, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			cfg.PingInterval = 0
			x.do(func(w *socket.Worker) {
				o := newOrigin(t, x, w, &cfg)
				start, ended := o.now, 0
				for i := 0; i < 500 && ended == 0; i++ {
					if err := o.say(w, start+int64(i)*int64(time.Millisecond), c.frame(i)); err != nil {
						if ended = i; !calm(err) {
							t.Errorf("%d: %v", i, err)
						}
					}
				}
				if ended < c.least || ended > c.most {
					t.Errorf("ended at %d, want %d to %d", ended, c.least, c.most)
				}
				o.st.Abort()
				o.Close(w, NoError)
			})
		})
	}
}

// TestClientHeaderBomb: the head of an answer that is small on the wire and large in memory fails its request alone, and is
// not kept.
func TestClientHeaderBomb(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"set-cookie", "x"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t)
			cfg := Defaults()
			x.do(func(w *socket.Worker) {
				o := newOrigin(t, x, w, &cfg)
				put := literal([]byte{0x88}, 0x40, []byte(name), []byte(strings.Repeat("v", 3000)))
				bomb := append(put, slices.Repeat([]byte{0x80 | 62}, 12000)...)
				if err := o.say(w, o.now, aFrame(frameHeaders, flagEndHeaders, 1, string(bomb))); err != nil {
					t.Error(err)
				}
				var r codec.Response
				var refused *codec.ProtocolError
				if err := o.st.Answer(w, &r); !errors.As(err, &refused) || refused.Code != "head_too_large" {
					t.Errorf("%v", err)
				}
				if n := len(o.resp.Header.Bytes()) + len(r.Header.Bytes()); n > 2*cfg.HeadBytes {
					t.Errorf("%d bytes of header are kept", n)
				}
				o.st.Abort()
				st, ok := o.Reserve()
				if !ok {
					t.Fatal("the connection takes no other request")
				}
				if err := st.Head(w, request("GET", "/")); err != nil {
					t.Error(err)
				}
				// The table has the field: an honest answer may name it.
				if err := o.say(w, o.now, aFrame(frameHeaders, 5, 3, string([]byte{0x88, 0x80 | 62}))); err != nil {
					t.Error(err)
				}
				if err := st.Answer(w, &r); err != nil || r.Status != 200 || !r.Header.Has(name) {
					t.Errorf("%d, %v", r.Status, err)
				}
				st.Abort()
				o.Close(w, NoError)
			})
		})
	}
}
