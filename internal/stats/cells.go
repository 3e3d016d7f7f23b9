// SPDX-License-Identifier: Apache-2.0

package stats

import "sync/atomic"

// page is the unit of allocation: 16 numbers that one shard writes, on two cache lines of their own. The allocator aligns
// a pointer-free object of 128 bytes to 128.
type page [pageSize]atomic.Int64

// block is what one shard writes of one group. Pages and tables appear with the first write.
type block struct {
	defs   [maxPages]atomic.Pointer[page]
	tables [maxTables]atomic.Pointer[table]
}

// table is a sparse row of numbers: the codes of a family, or the steps of a histogram and the sum of what it observed.
type table struct {
	pages [tablePages]atomic.Pointer[page]
	sum   atomic.Int64
}

// tablePages is enough for the 501 cells of a code family and for the steps of a histogram.
const tablePages = 37

// orNew returns what p points to, making it first where there is nothing.
func orNew[T any](p *atomic.Pointer[T]) *T {
	if v := p.Load(); v != nil {
		return v
	}
	v := new(T)
	if p.CompareAndSwap(nil, v) {
		return v
	}
	return p.Load()
}

// def returns the cell of number i.
func (b *block) def(i int) *atomic.Int64 {
	p := b.defs[i/pageSize].Load()
	if p == nil {
		p = orNew(&b.defs[i/pageSize])
	}
	return &p[i%pageSize]
}

// table returns table n.
func (b *block) table(n int) *table {
	t := b.tables[n].Load()
	if t == nil {
		t = orNew(&b.tables[n])
	}
	return t
}

// cell returns the cell of step i.
func (t *table) cell(i int) *atomic.Int64 {
	p := t.pages[i/pageSize].Load()
	if p == nil {
		p = orNew(&t.pages[i/pageSize])
	}
	return &p[i%pageSize]
}

// read returns number i without making its page.
func (b *block) read(i int) int64 {
	if p := b.defs[i/pageSize].Load(); p != nil {
		return p[i%pageSize].Load()
	}
	return 0
}

// peek returns table n where there is one; b may be nil.
func (b *block) peek(n int) *table {
	if b == nil {
		return nil
	}
	return b.tables[n].Load()
}
