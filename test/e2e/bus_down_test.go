// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// A bus that is down, with a spool, is no matter for requests: the time within which 99 % are answered is a figure, with the
// bus there and away in turn. No request fails and all events come (F78).
func TestBusDownUnderRequests(t *testing.T) {
	t.Parallel()
	rounds, each := 2, int64(200)
	if soak() {
		rounds, each = 20, 3000
	}
	r := examples.NewRig(t)
	r.Start(withSpool(t, r.Read("tap-nats.yaml"), filepath.Join(r.Files, "spool"), filepath.Join(r.Files, "events.jsonl")), "")
	l := load.Start(t, load.Options{Workers: 8, Rate: 2000, Addr: func() string { return r.Addr("") }})
	p99 := func() time.Duration {
		l.Quantile(0.99) // what was before does not count
		l.After(each)
		return l.Quantile(0.99)
	}
	var there, away []time.Duration
	var ratios []float64
	for range rounds {
		untilLedger(r, func(now ledger) bool { return now.acked > 0 && now.pending < each }) // it is quiet again
		there = append(there, p99())
		r.Bus.Kill()
		away = append(away, p99())
		r.Bus.Revive()
		ratios = append(ratios, float64(away[len(away)-1])/float64(there[len(there)-1]))
	}
	res := l.Stop()
	slices.Sort(there)
	slices.Sort(away)
	slices.Sort(ratios)
	t.Logf("figure: %v; 99 %% within %v with the bus, %v without, %.2f times, all medians of %d rounds", res,
		there[rounds/2], away[rounds/2], ratios[rounds/2], rounds)
	if res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	}
	r.Admin.UntilStats(func(s sidecar.Stats) bool {
		now := readLedger(s)
		return now.produced == res.Requests && now.pending == 0
	})
	checkStream(t, r, readLedger(r.Admin.Stats()))
}
