// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/meshtap/meshtap/test/bench/plan"
)

// step is the change below which nothing is said to have changed, whatever the rounds say.
const step = 0.03

// Change is a figure in two reports. Metric is also the name of a proxy, for the quotient of processor times.
type Change struct {
	Row, Peer, Metric string
	Old, New          Spread
}

// Says tells whether the figure changed: better and worse only where the rounds of both reports lie apart and the medians
// differ by more than 3 %.
func (c Change) Says() string {
	by := 0.0
	if c.Old.Median != 0 {
		by = c.New.Median/c.Old.Median - 1
	}
	apart := c.New.Min > c.Old.Max || c.New.Max < c.Old.Min
	if !apart || by > -step && by < step || c.Old.Median == 0 {
		return "~"
	}
	better := by < 0
	if c.Metric == "rate" {
		better = !better
	}
	word := "WORSE"
	if better {
		word = "better"
	}
	return fmt.Sprintf("%s %+.0f%%", word, 100*by)
}

// Changes lists the figures that both reports have, and for Meshtap the quotients, which machines have in common.
func Changes(older, newer *Report) (all []Change) {
	for _, n := range newer.inOrder() {
		o := older.Find(n.Row, n.Peer)
		names := []string{plan.CPU, plan.P99, "rate"}
		if n.Metric(plan.CPU).Median == 0 {
			names = []string{plan.RSS, plan.PerConn}
		}
		for _, name := range names {
			all = append(all, Change{n.Row, n.Peer, name, o.Metric(name), n.Metric(name)})
		}
		for _, against := range []string{"haproxy", "envoy"} {
			if strings.HasPrefix(n.Peer, "meshtap") {
				all = append(all, Change{
					n.Row, n.Peer, against,
					older.Ratio(n.Row, plan.CPU, n.Peer, against), newer.Ratio(n.Row, plan.CPU, n.Peer, against),
				})
			}
		}
	}
	return slices.DeleteFunc(all, func(c Change) bool { return c.Old.N == 0 || c.New.N == 0 })
}

// Compare writes what changed from one report to another.
func Compare(w io.Writer, older, newer *Report) error {
	if o, n := older.Machine, newer.Machine; o != n {
		fmt.Fprintf(w, "TWO MACHINES, so only ratios can be compared:\n  old %+v\n  new %+v\n", o, n)
	}
	for _, r := range []*Report{older, newer} {
		fmt.Fprintf(w, "%s  commit %s, %d rounds of %v\n", r.Began.UTC().Format("2006-01-02 15:04"), r.commit(), r.Flags.Rounds, r.Flags.Measure)
		for _, why := range r.noise() {
			fmt.Fprintf(w, "  NOT QUIET: %s\n", why)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nrow\tproxy\tfigure\told\tspread\tnew\tspread\tchange")
	for _, c := range Changes(older, newer) {
		fmt.Fprintln(t, strings.Join([]string{
			c.Row, c.Peer, label(c.Metric), figure(c.Old.Median, 2), spread(c.Old), figure(c.New.Median, 2), spread(c.New), c.Says(),
		}, "\t"))
	}
	fmt.Fprintln(t)
	for _, s := range newer.Peers {
		for _, o := range older.Peers {
			if s.Name == o.Name && s.Version != o.Version {
				fmt.Fprintf(t, "%s: version %s, then %s\n", s.Name, o.Version, s.Version)
			}
		}
	}
	return t.Flush()
}

// label is a metric's name for a person.
func label(metric string) string {
	return map[string]string{
		plan.CPU: "us/request", plan.P99: "p99 us", plan.RSS: "MiB", plan.PerConn: "KiB/connection", "rate": "requests/s",
		"haproxy": "us/request / haproxy", "envoy": "us/request / envoy",
	}[metric]
}
