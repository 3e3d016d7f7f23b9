// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"strings"
	"testing"

	"github.com/meshtap/meshtap/proxy/socket"
)

// TestTogether: what an attack over ten connections makes them hold, each within its own bounds, is bounded together
// (F45), and a connection that holds little is served as ever meanwhile.
func TestTogether(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	cfg.Together = NewTogether()
	const n = 10
	var all [n]*target
	bigHead := string(aHead)
	for range 3 {
		bigHead += string(literal(nil, 0, []byte("x"), []byte(strings.Repeat("v", 15<<10))))
	}
	data := aFrame(frameData, 0, 1, strings.Repeat("x", frameBytes))
	x.do(func(w *socket.Worker) {
		take := func(s *target, p []byte) {
			if err := s.take(w, s.now, p); err != nil {
				t.Error(err)
			}
		}
		sum, refused := 0, 0
		for i := range all {
			s := newTarget(x, &cfg)
			all[i] = s
			for id := uint32(1); id < 120; id += 2 { // heads, up to the bound and beyond
				p := aFrame(frameHeaders, 0, id, bigHead[:frameBytes])
				p = append(p, aFrame(frameContinuation, 0, id, bigHead[frameBytes:2*frameBytes])...)
				take(s, append(p, aFrame(frameContinuation, flagEndHeaders, id, bigHead[2*frameBytes:])...))
			}
			for _, st := range s.held { // bodies, as long as there is a window
				data[8] = byte(st.id)
				for s.recvWindow >= frameBytes && st.recvWindow >= frameBytes {
					take(s, data)
				}
			}
			sum += s.conn.held + s.heads
			refused += s.refused
		}
		most := togetherBytes + n*(shareBytes+cfg.ConnWindow)
		t.Logf("%d connections hold %d KiB, of %d KiB that they may; %d streams were refused", n, sum>>10, most>>10, refused)
		if sum < togetherBytes || sum > most {
			t.Errorf("%d bytes are held, of %d", sum, most)
		}
		if last := all[n-1]; last.heads > shareBytes || len(last.held) == 0 {
			t.Errorf("the last connection has %d streams with %d bytes of heads", len(last.held), last.heads)
		}
		honest := newTarget(x, &cfg)
		for id := uint32(1); id < 100; id += 2 {
			take(honest, aFrame(frameHeaders, flagEndHeaders, id, string(aHead)))
			data[8] = byte(id)
			take(honest, data)
			st := honest.held[len(honest.held)-1]
			if p, _, err := st.Next(w); p.Len() != frameBytes || err != nil {
				t.Fatalf("%d bytes, %v", p.Len(), err)
			}
			st.Finish()
		}
		if honest.refused > 0 || honest.withheld || len(honest.held) != 50 {
			t.Errorf("an honest connection had %d streams refused", honest.refused)
		}
		for _, s := range append(all[:], honest) {
			s.finish()
			s.Close(w, NoError)
		}
	})
	if left := cfg.Together.beyond.Load(); left != 0 {
		t.Errorf("%d bytes are counted at the end", left)
	}
}

// A first head is taken however large heads may be, and however much the others hold.
func TestTogetherFirstHead(t *testing.T) {
	t.Parallel()
	cfg := Config{HeadBytes: 1 << 20, Together: NewTogether()}
	cfg.Together.beyond.Store(togetherBytes + 1)
	c := &conn{cfg: &cfg}
	if c.headsFull() {
		t.Error("there is no room for the first")
	}
	if c.heads = 1; !c.headsFull() {
		t.Error("there is room for a second")
	}
}
