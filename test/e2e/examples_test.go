// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
)

// Every file of configs/ does what it says.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, e := range examples.All() {
		t.Run(e.File, func(t *testing.T) {
			t.Parallel()
			r := examples.NewRig(t)
			r.Start(r.Read(e.File), "")
			for _, q := range e.Requests {
				q.Check(t, r.Do(q))
			}
			if e.Do != nil {
				e.Do(t, r)
			}
		})
	}
}
