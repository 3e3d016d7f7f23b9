// SPDX-License-Identifier: Apache-2.0

package stats

// The step arithmetic, for the property tests.
var (
	StepOf = stepOf
	Lower  = lower
)

// Steps and MaxValue bound it.
const (
	Steps    = steps
	MaxValue = maxValue
)

// Cell returns the address of the cell of number i.
func (g *Group) Cell(shard uint32, i int) any { return g.blocks[shard&g.mask].Load().def(i) }

// NumShards returns the number of shards.
func (r *Registry) NumShards() int { return int(r.shards) }
