// SPDX-License-Identifier: Apache-2.0

package whatif

import (
	"slices"

	"github.com/meshtap/meshtap/mesh"
)

// Result is what came of the requests.
type Result struct {
	// Requests are all; of them Failed failed, as events tell it: by an error of the proxy or a status of 500 and above.
	Requests, Failed uint64
	// Of those that failed: by a timeout, for want of a host, at a limit, and at an open circuit.
	Timeouts, NoHost, Overflow, CircuitOpen uint64
	// Attempts are those at a host, Retries those of them after a request's first.
	Attempts, Retries uint64
	// Ejections and Openings are how often a host was ejected and a circuit opened; a recording does not tell them.
	Ejections, Openings uint64
	// P50, P90, P99 and Max are times of whole requests, in nanoseconds.
	P50, P90, P99, Max int64
	// Hosts is what each host got.
	Hosts map[string]Load

	took []int64
}

// Load is what a host got.
type Load struct{ Attempts, Failed uint64 }

func (r *Result) add(took int64, failed bool, failure mesh.FailureKind) {
	r.Requests++
	r.took = append(r.took, took)
	if !failed {
		return
	}
	r.Failed++
	switch failure {
	case mesh.RequestTimeout, mesh.PerTryTimeout, mesh.StreamIdleTimeout, mesh.MaxDuration:
		r.Timeouts++
	case mesh.NoHealthyHost:
		r.NoHost++
	case mesh.Overflow:
		r.Overflow++
	case mesh.CircuitOpen:
		r.CircuitOpen++
	}
}

func (r *Result) attempt(host string, failed bool) {
	l := r.Hosts[host]
	l.Attempts++
	if failed {
		l.Failed++
	}
	r.Hosts[host] = l
}

// finish computes the percentiles, by nearest rank.
func (r *Result) finish() {
	slices.Sort(r.took)
	at := func(percent int) int64 {
		if len(r.took) == 0 {
			return 0
		}
		return r.took[max((len(r.took)*percent+99)/100-1, 0)]
	}
	r.P50, r.P90, r.P99, r.Max = at(50), at(90), at(99), at(100)
	r.took = nil
}
