// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"errors"
	"math/bits"

	"github.com/meshtap/meshtap/eventtap/event"
)

// Ledger adds up a whole capture of one sink's stream, to the event, whatever its order: what came, what is told of as
// lost, and what is neither. Where Gaps looks at a window, it keeps a bit for each number. One goroutine uses it.
type Ledger struct {
	boots map[string]*BootLedger
	order []string
}

// BootLedger is what a capture has of one run of a proxy.
type BootLedger struct {
	Boot, Source string
	// Received counts the numbered events, each once; Repeated those that came again.
	Received, Repeated uint64
	// Top is the greatest number that came or that a lost event tells of; numbers begin with 1.
	Top uint64
	// Told is what lost events tell of, by reason.
	Told map[string]uint64

	first uint64              // the least number that came
	pages map[uint64]*seenSet // of 4096 numbers
	lost  map[string]struct{} // the ids of lost events
}

type seenSet [64]uint64

// ErrTooManyBoots says that a capture is of more runs than can be added up at a time.
var ErrTooManyBoots = errors.New("the capture is of more than 4096 runs of proxies")

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{boots: map[string]*BootLedger{}} }

// Take adds an event.
func (l *Ledger) Take(e *event.Event) error {
	id := string(e.BootID)
	if id == "" || e.StreamSeq == 0 && e.Kind != event.Lost {
		return nil // it is of no sink's stream, such as what a hub says to its reader
	}
	b := l.boots[id]
	if b == nil {
		if len(l.order) == maxBoots {
			return ErrTooManyBoots
		}
		b = &BootLedger{Boot: id, Source: string(e.Source), Told: map[string]uint64{}, pages: map[uint64]*seenSet{}, lost: map[string]struct{}{}}
		l.boots[id], l.order = b, append(l.order, id)
	}
	b.take(e)
	return nil
}

func (b *BootLedger) take(e *event.Event) {
	if e.Kind == event.Lost {
		if _, again := b.lost[string(e.ID)]; again {
			b.Repeated++
			return
		}
		b.lost[string(e.ID)] = struct{}{}
		b.Told[string(e.Texts[event.Reason])] += e.Uint(event.Count)
		b.Top = max(b.Top, e.Uint(event.LastStreamSeq))
		return
	}
	n := e.StreamSeq
	page := b.pages[n/4096]
	if page == nil {
		page = &seenSet{}
		b.pages[n/4096] = page
	}
	word, bit := &page[n%4096/64], uint64(1)<<(n%64)
	if *word&bit != 0 {
		b.Repeated++
		return
	}
	*word |= bit
	b.Received++
	b.Top = max(b.Top, n)
	if b.first == 0 || n < b.first {
		b.first = n
	}
}

// Lost is what lost events tell of, in all.
func (b *BootLedger) Lost() (n uint64) {
	for _, c := range b.Told {
		n += c
	}
	return n
}

// Unexplained is how many of the numbers from the first of the capture on, or with whole from 1 on, up to Top neither came
// nor are told of.
func (b *BootLedger) Unexplained(whole bool) uint64 {
	from := uint64(1)
	if !whole {
		from = max(b.first, 1)
	}
	missing := b.Top - min(b.Top, from-1) - b.Received
	return missing - min(missing, b.Lost())
}

// Has reports whether a number came.
func (b *BootLedger) Has(n uint64) bool {
	page := b.pages[n/4096]
	return page != nil && page[n%4096/64]>>(n%64)&1 != 0
}

// FirstMissing is the least number from 1 on that did not come, which a lost event may tell of.
func (b *BootLedger) FirstMissing() uint64 {
	for p := uint64(0); ; p++ {
		page := b.pages[p]
		if page == nil {
			return max(p*4096, 1)
		}
		for i, word := range page {
			if p == 0 && i == 0 {
				word |= 1 // there is no number 0
			}
			if word != 1<<64-1 {
				return p*4096 + uint64(i)*64 + uint64(bits.TrailingZeros64(^word))
			}
		}
	}
}

// Boots returns the runs in the order in which they were first seen.
func (l *Ledger) Boots() []*BootLedger {
	var out []*BootLedger
	for _, id := range l.order {
		out = append(out, l.boots[id])
	}
	return out
}
