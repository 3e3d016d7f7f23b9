// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/meshtap/meshtap/eventtap/event"
)

// gaps finds what is missing in a stream of events. The events that one sink is meant to carry are numbered without holes
// for each boot of a proxy (the extension streamseq); a hole is either told of by a lost event, or is unexplained. It is
// pure: it neither reads nor prints.
type gaps struct {
	boots map[string]*boot
	order []string // the boots by when they were first seen, to forget the oldest
	// seen are the latest ids, to leave out what comes twice.
	seen, before map[string]struct{}
}

const (
	// maxBoots bounds how many runs of proxies are followed at a time.
	maxBoots = 4096
	// maxHoles bounds the open holes of one run.
	maxHoles = 256
	// patience is how many events of a run may pass before its hole is told: events of one bus can change places, and a
	// lost event comes about where the hole is.
	patience = 256
	// maxSeen bounds the ids that are remembered: twice this.
	maxSeen = 16 << 10
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

// missing is a hole that nothing explains.
type missing struct {
	boot, source string
	from, to     uint64
	count        uint64
}

func (m missing) String() string {
	return fmt.Sprintf("gap: %s of boot %s of %s did not come (numbers %d to %d), reason unknown",
		events(m.count), short(m.boot), proxyOf(m.source), m.from, m.to)
}

func short(id string) string {
	if len(id) > 8 {
		return id[:8]
	}
	return id
}

func newGaps() *gaps {
	return &gaps{boots: map[string]*boot{}, seen: map[string]struct{}{}}
}

// repeated reports whether the event came before; at least the last maxSeen are remembered.
func (g *gaps) repeated(e *event.Event) bool {
	id := string(e.ID)
	if _, ok := g.seen[id]; ok {
		return true
	}
	if _, ok := g.before[id]; ok {
		return true
	}
	if len(g.seen) == maxSeen {
		g.before, g.seen = g.seen, map[string]struct{}{}
	}
	g.seen[id] = struct{}{}
	return false
}

// see takes the next event that is not repeated, and returns the holes that it is time to tell of.
func (g *gaps) see(e *event.Event) []missing {
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
	return b.overdue(id, patience)
}

func (g *gaps) add(id string, b *boot) {
	if len(g.order) == maxBoots {
		delete(g.boots, g.order[0])
		g.order = slices.Delete(g.order, 0, 1)
	}
	g.boots[id], g.order = b, append(g.order, id)
}

// rest returns the holes that are left at the end.
func (g *gaps) rest() (out []missing) {
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
	for i, h := range b.holes {
		if n < h.from || n > h.to {
			continue
		}
		b.holes = slices.Delete(b.holes, i, i+1)
		if h.from < n {
			b.holes = append(b.holes, hole{h.from, n - 1, h.at})
		}
		if n < h.to {
			b.holes = append(b.holes, hole{n + 1, h.to, h.at})
		}
		return
	}
}

// overdue takes out the holes that have been open for so many events and that nothing explains.
func (b *boot) overdue(id string, wait uint64) (out []missing) {
	slices.SortFunc(b.holes, func(x, y hole) int { return cmp.Compare(x.from, y.from) })
	keep := b.holes[:0]
	for i, h := range b.holes {
		if b.count-h.at < wait && len(b.holes)-i <= maxHoles {
			keep = append(keep, h)
			continue
		}
		n := h.to - h.from + 1
		known := min(b.told, n)
		b.told -= known
		if n > known {
			out = append(out, missing{id, b.source, h.from, h.to, n - known})
		}
	}
	b.holes = keep
	return out
}
