// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"math/rand/v2"
)

// Random makes an event of any kind from a seed.
func Random(seed uint64) *Event {
	r := rand.New(rand.NewPCG(seed, 7))
	return random(r, Request+Kind(seed)%(NumKinds-Request))
}

// Full makes an event of the kind with every attribute, every field, and a full list. What a field holds tells its number.
func Full(k Kind) *Event {
	e := new(Event)
	e.Reset(k)
	e.BootID = []byte("9f86d081884c7d65673f2a10")
	e.ID, e.Source = fmt.Appendf(nil, "%s-7", e.BootID), []byte("/meshtap/c/n/w/p")
	e.Subject, e.PartitionKey = []byte("orders"), []byte("orders")
	e.TraceParent = []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	e.Time, e.Sequence, e.StreamSeq, e.SampledRate = 1763790000123456789, 7, 1<<64-1, 32
	m := &messages[k]
	fillAll(m.fields, e.Texts[:], e.Numbers[:])
	for m.list != nil && e.NumItems < MaxItems {
		it := e.AddItem()
		fillAll(m.list.fields, it.Texts[:], it.Numbers[:])
	}
	return e
}

func fillAll(fields []field, texts [][]byte, numbers []int64) {
	for _, f := range fields {
		switch f.form {
		case text:
			texts[f.slot] = fmt.Appendf(nil, "text %d", f.num)
		case flag:
			numbers[f.slot] = 1
		default:
			numbers[f.slot] = int64(f.num)
		}
	}
}

// Equal compares two events.
func Equal(a, b *Event) error { return equal(a, b) }
