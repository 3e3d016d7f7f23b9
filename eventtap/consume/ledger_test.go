// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestLedgerModel: in any order and with repeats, what came, what is told of and what is neither is as it was made.
func TestLedgerModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		n := uint64(1 + rnd.IntN(9000))
		l := NewLedger()
		var came []uint64
		var lost, gone, first uint64
		for i := uint64(1); i <= n; i++ {
			switch rnd.IntN(20) {
			case 0:
				lost++
				e := lostUpTo("a", 1, i)
				e.ID = strconv.AppendUint(nil, i, 10)
				for range 1 + rnd.IntN(2) {
					_ = l.Take(e)
				}
			case 1:
				if first == 0 {
					first = i
				}
				if i < n { // what is missing behind the last number, a stream alone cannot tell
					gone++
				}
			default:
				came = append(came, i)
			}
		}
		for _, i := range rnd.Perm(len(came)) {
			for range 1 + rnd.IntN(2) {
				_ = l.Take(numbered("a", came[i]))
			}
		}
		if len(came) == 0 {
			continue
		}
		b := l.Boots()[0]
		if b.Top < n { // the last is gone, and those before it in a row
			gone = b.Top - uint64(len(came)) - lost
		}
		if b.Received != uint64(len(came)) || b.Lost() != lost || b.Unexplained(true) != gone {
			t.Fatalf("seed %d: %d came, %d told, %d unexplained; want %d, %d, %d", seed, b.Received, b.Lost(), b.Unexplained(true), len(came), lost, gone)
		}
		for _, i := range came {
			if !b.Has(i) {
				t.Fatalf("seed %d: %d did not come", seed, i)
			}
		}
		if m := b.FirstMissing(); b.Has(m) || m > 1 && !b.Has(m-1) {
			t.Fatalf("seed %d: the first that is missing is %d", seed, m)
		}
	}
}
