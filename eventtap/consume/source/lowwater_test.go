// SPDX-License-Identifier: Apache-2.0

package source

import (
	"math/rand/v2"
	"testing"
)

// TestLowWater: in whatever order messages are handled, the mark never passes one that is not, and ends at the last.
func TestLowWater(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		mark := -1
		handled := map[int]bool{}
		l := &lowWater[int]{done: func(n int) {
			for i := mark + 1; i <= n; i++ {
				if !handled[i] {
					t.Fatalf("seed %d: the mark is %d, and %d is not handled", seed, n, i)
				}
			}
			mark = n
		}}
		const n = 50
		var done []func()
		for i := range n {
			done = append(done, l.add(i))
		}
		for _, i := range rnd.Perm(n) {
			handled[i] = true
			done[i]()
		}
		if mark != n-1 || len(l.open) != 0 {
			t.Fatalf("seed %d: the mark is %d, %d are open", seed, mark, len(l.open))
		}
	}
}
