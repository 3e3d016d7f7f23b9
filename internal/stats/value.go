// SPDX-License-Identifier: Apache-2.0

package stats

// codeKey is the key of a code's cell in Group.zero; numbers have their index.
func codeKey(family, i int) int { return 1000 + family*1000 + i }

// Value returns number i: what all shards counted, or what was set. A text is 0.
func (g *Group) Value(i int) int64 {
	d := &g.schema.Defs[i]
	if d.Sum != nil {
		var n int64
		for _, j := range d.Sum {
			n += g.Value(j)
		}
		return n
	}
	if f := g.fn(i); f != nil {
		return f()
	}
	return g.total(i) - g.zeroOf(i)
}

// Text returns text i, "" where it was never set.
func (g *Group) Text(i int) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text[i]
}

// CodeValue returns how often a family counted a status code.
func (g *Group) CodeValue(family, status int) int64 {
	if sum := g.schema.Codes[family].Sum; sum != nil {
		var n int64
		for _, f := range sum {
			n += g.CodeValue(f, status)
		}
		return n
	}
	return g.codeCell(family, status-minCode)
}

// Used reports whether number i was ever written.
func (g *Group) Used(i int) bool {
	for _, j := range g.schema.Defs[i].Sum {
		if g.Used(j) {
			return true
		}
	}
	return g.used[i/64].Load()&(1<<(i%64)) != 0 || g.total(i) != 0
}

func (g *Group) fn(i int) func() int64 {
	if g.schema.Defs[i].Kind != Gauge {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.funcs[i]
}

// total adds up the cells of number i.
func (g *Group) total(i int) int64 {
	var n int64
	for s := range g.blocks {
		if b := g.blocks[s].Load(); b != nil {
			n += b.read(i)
		}
	}
	return n
}

func (g *Group) zeroOf(key int) int64 {
	if z := g.zero.Load(); z != nil {
		return (*z)[key]
	}
	return 0
}

// codeCell returns a cell of a family that is counted: i is the status minus 100, or otherCode.
func (g *Group) codeCell(family, i int) int64 {
	return g.codeTotal(family, i) - g.zeroOf(codeKey(family, i))
}

func (g *Group) codeTotal(family, i int) int64 {
	var n int64
	for s := range g.blocks {
		t := g.blocks[s].Load().peek(family)
		if t == nil {
			continue
		}
		if p := t.pages[i/pageSize].Load(); p != nil {
			n += p[i%pageSize].Load()
		}
	}
	return n
}

// codeSum adds up the codes [from, to) of a family, and tells whether one of them was ever used.
func (g *Group) codeSum(family, from, to int) (n int64, used bool) {
	if sum := g.schema.Codes[family].Sum; sum != nil {
		for _, f := range sum {
			m, u := g.codeSum(f, from, to)
			n, used = n+m, used || u
		}
		return n, used
	}
	for s := range g.blocks {
		t := g.blocks[s].Load().peek(family)
		for i := from; t != nil && i < to; i++ {
			p := t.pages[i/pageSize].Load()
			if p == nil {
				i |= pageSize - 1 // the rest of the page
				continue
			}
			n += p[i%pageSize].Load()
		}
	}
	used = n != 0
	if z := g.zero.Load(); z != nil && used {
		for i := from; i < to; i++ {
			n -= (*z)[codeKey(family, i)]
		}
	}
	return n, used
}

// reset remembers what the counters have now.
func (g *Group) reset() {
	z := map[int]int64{}
	for i, d := range g.schema.Defs {
		if d.Kind == Counter && d.Sum == nil {
			if n := g.total(i); n != 0 {
				z[i] = n
			}
		}
	}
	for f, d := range g.schema.Codes {
		for i := 0; d.Sum == nil && i <= otherCode; i++ {
			if n := g.codeTotal(f, i); n != 0 {
				z[codeKey(f, i)] = n
			}
		}
	}
	g.zero.Store(&z)
}
