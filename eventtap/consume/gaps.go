// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"cmp"
	"slices"

	"github.com/meshtap/meshtap/eventtap/event"
)

// Gaps finds what is missing in a stream of events. The events that one sink is meant to carry are numbered without holes
// for each boot of a proxy (the extension streamseq); a hole is either told of by a lost event, or is unexplained. It is
// pure, for one stream of one sink; one goroutine uses it.
type Gaps struct {
	boots    map[string]*boot
	order    []string // the boots by when they were first seen, to forget the oldest
	patience uint64
}

const (
	// maxHoles bounds the open holes of one run, where its patience is not more.
	maxHoles = 256
	// DefaultPatience is how many events of a run may pass before its hole is told: events of one bus can change places,
	// and a lost event comes about where the hole is.
	DefaultPatience = 256
)

// boot is one run of one proxy.
type boot struct {
	source string
	next   uint64 // 0 until the first event
	first  uint64
	count  uint64 // events that came
	holes  []hole
	told   uint64 // what lost events told of and no hole has used
}

// hole is numbers that did not come, from and to included.
type hole struct {
	from, to uint64
	at       uint64 // boot.count when it was found
}

// Gap is a hole that nothing explains.
type Gap struct {
	// Boot and Source are the run and the proxy whose events are missing.
	Boot, Source string
	// From and To are the first and the last number that did not come. Count may be less than they span: a part of it
	// may be explained.
	From, To uint64
	Count    uint64
}

// NewGaps returns a Gaps that has seen nothing. patience is as DefaultPatience, which 0 means.
func NewGaps(patience uint64) *Gaps {
	return &Gaps{boots: map[string]*boot{}, patience: cmp.Or(patience, DefaultPatience)}
}

// See takes the next event that is not repeated, and returns the holes that it is time to tell of.
func (g *Gaps) See(e *event.Event) []Gap {
	id := string(e.BootID)
	if id == "" {
		return nil
	}
	b := g.boots[id]
	if b == nil {
		b = &boot{source: string(e.Source)}
		g.add(id, b)
	}
	if e.Kind == event.Lost {
		b.lose(e)
		return nil
	}
	b.came(e.StreamSeq)
	return b.overdue(id, g.patience)
}

func (g *Gaps) add(id string, b *boot) {
	if len(g.order) == maxBoots {
		delete(g.boots, g.order[0])
		g.order = slices.Delete(g.order, 0, 1)
	}
	g.boots[id], g.order = b, append(g.order, id)
}

// Rest returns the holes that are left at the end.
func (g *Gaps) Rest() (out []Gap) {
	for _, id := range g.order {
		out = append(out, g.boots[id].overdue(id, 0)...)
	}
	return out
}

// lose takes what a lost event tells of: those of its numbers that this reader would have seen.
func (b *boot) lose(e *event.Event) {
	if n, last := e.Uint(event.Count), e.Uint(event.LastStreamSeq); b.first > 0 && last >= b.first {
		b.told += n
	}
}

// came takes a number.
func (b *boot) came(n uint64) {
	if n == 0 {
		return
	}
	b.count++
	switch {
	case b.next == 0:
		b.first, b.next = n, n+1
	case n >= b.next:
		if n > b.next {
			b.holes = append(b.holes, hole{b.next, n - 1, b.count})
		}
		b.next = n + 1
	default:
		b.fill(n)
	}
}

// fill closes a hole, or a part of it, by a number that came late.
func (b *boot) fill(n uint64) {
	i, _ := slices.BinarySearchFunc(b.holes, n, func(h hole, n uint64) int { return cmp.Compare(h.to, n) })
	if i == len(b.holes) || n < b.holes[i].from {
		return
	}
	h := &b.holes[i]
	switch {
	case h.from == h.to:
		b.holes = slices.Delete(b.holes, i, i+1)
	case n == h.from:
		h.from++
	case n == h.to:
		h.to--
	default:
		after := hole{n + 1, h.to, h.at}
		h.to = n - 1
		b.holes = slices.Insert(b.holes, i+1, after)
	}
}

// overdue takes out the holes that have been open for so many events, and those that are too many, which nothing explains.
// Holes stand in the order of their numbers, which is that in which they were found.
func (b *boot) overdue(id string, wait uint64) (out []Gap) {
	n := 0
	for ; n < len(b.holes); n++ {
		h := b.holes[n]
		if b.count-h.at < wait && uint64(len(b.holes)-n) <= max(wait, maxHoles) {
			break
		}
		count := h.to - h.from + 1
		known := min(b.told, count)
		b.told -= known
		if count > known {
			out = append(out, Gap{id, b.source, h.from, h.to, count - known})
		}
	}
	b.holes = slices.Delete(b.holes, 0, n)
	return out
}
