// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"sync"
	"sync/atomic"
)

// Group is the numbers of one cluster, one listener, and so on: a schema under a prefix. All methods may be called from
// any goroutine. Methods that take a shard are for the data path; the shard is taken modulo the number of shards.
type Group struct {
	// Immutable.
	reg    *Registry
	schema *compiled
	prefix string
	tags   []Tag
	// folded marks the group that stands for all beyond the registry's limit.
	folded bool
	mask   uint32

	// blocks has one place for each shard, and one behind them for what is set.
	blocks []atomic.Pointer[block]
	// used has a bit for each number that was set or has gone down: its value alone does not tell that it was used.
	used [maxPages * pageSize / 64]atomic.Uint64
	// zero is what counters had when they were last reset, by def or codeKey. It is replaced, never changed.
	zero atomic.Pointer[map[int]int64]

	refs int // guarded by reg.mu

	mu sync.Mutex
	// Guarded by mu.
	text  map[int]string
	funcs map[int]func() int64
	cuts  [maxTables]*cut
	// seen is how metrics are shown, tags0 the tags of the last of them; only where the registry has a Naming.
	seen      []*shown // by item.at
	seenCodes map[shownKey]*shown
	tags0     []Tag
}

func newGroup(r *Registry, c *compiled, prefix string, tags []Tag) *Group {
	return &Group{reg: r, schema: c, prefix: prefix, tags: tags, mask: r.shards - 1,
		blocks: make([]atomic.Pointer[block], r.shards+1)}
}

// Add adds delta to number i. A delta below 0 is for gauges only.
func (g *Group) Add(shard uint32, i int, delta int64) {
	b := g.blocks[shard&g.mask].Load()
	if b == nil {
		b = orNew(&g.blocks[shard&g.mask])
	}
	b.def(i).Add(delta)
	if delta < 0 {
		g.markUsed(i)
	}
}

// Inc adds 1 to number i.
func (g *Group) Inc(shard uint32, i int) { g.Add(shard, i, 1) }

// Dec takes 1 from gauge i.
func (g *Group) Dec(shard uint32, i int) { g.Add(shard, i, -1) }

// Set sets gauge i.
func (g *Group) Set(i int, v int64) {
	if g.folded {
		return // the last of many clusters is not the value of all
	}
	orNew(&g.blocks[len(g.blocks)-1]).def(i).Store(v)
	g.markUsed(i)
}

// SetFunc makes gauge i what f returns. f is called by whoever reads, from any goroutine, and must not block; nil takes
// it away.
func (g *Group) SetFunc(i int, f func() int64) {
	if g.folded {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if f == nil {
		delete(g.funcs, i)
		return
	}
	if g.funcs == nil {
		g.funcs = map[int]func() int64{}
	}
	g.funcs[i] = f
	g.markUsed(i)
}

// SetText sets text i.
func (g *Group) SetText(i int, s string) {
	if g.folded {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.text == nil {
		g.text = map[int]string{}
	}
	g.text[i] = s
	g.markUsed(i)
}

// Code counts a status code in a family.
func (g *Group) Code(shard uint32, family, status int) {
	i := status - minCode
	if uint(i) >= codes {
		i = otherCode
	}
	g.table(shard, family).cell(i).Add(1)
}

// Observe adds a value to histogram h, in nanoseconds; one below 0 counts as 0.
func (g *Group) Observe(shard uint32, h int, nanoseconds int64) {
	t := g.table(shard, len(g.schema.Codes)+h)
	v := max(nanoseconds, 0)
	t.cell(stepOf(v)).Add(1)
	t.sum.Add(v)
}

// ObserveCount adds a plain number to histogram h, one that does not measure time.
func (g *Group) ObserveCount(shard uint32, h int, n int64) { g.Observe(shard, h, n*perUnit) }

// Release gives the group back. Its numbers stay listed until everyone who asked for it has released it. It may still be
// counted on, without effect, by requests that end later.
func (g *Group) Release() { g.reg.release(g) }

func (g *Group) table(shard uint32, n int) *table {
	b := g.blocks[shard&g.mask].Load()
	if b == nil {
		b = orNew(&g.blocks[shard&g.mask])
	}
	return b.table(n)
}

// markUsed looks before it writes: the line is shared by all shards.
func (g *Group) markUsed(i int) {
	w, bit := &g.used[i/64], uint64(1)<<(i%64)
	if w.Load()&bit == 0 {
		w.Or(bit)
	}
}
