// SPDX-License-Identifier: Apache-2.0

package health

import (
	"math"
	"time"

	"github.com/meshtap/meshtap/internal/runtimekeys"
)

// bounded returns a wait within the bounds that the runtime has now.
func (d *Deps) bounded(wait time.Duration) time.Duration {
	if d.Runtime == nil {
		return wait
	}
	longest := milliseconds(d.Runtime.Integer(runtimekeys.HealthMaxInterval, math.MaxUint64))
	shortest := milliseconds(d.Runtime.Integer(runtimekeys.HealthMinInterval, 0))
	return max(min(wait, longest), shortest, minWait)
}

func milliseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(maxWait/time.Millisecond))) * time.Millisecond
}

// verifies reports whether the name of the service counts in this check: the runtime can say so for a share of them.
func (d *Deps) verifies() bool {
	return d.Runtime == nil || d.Random()%100 < d.Runtime.Integer(runtimekeys.HealthVerifyCluster, 100)
}
