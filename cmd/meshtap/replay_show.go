// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/internal/whatif"
)

// replay is the answer of "meshtap replay".
type replay struct {
	Cluster  string   `json:"cluster"`  // the cluster
	Requests int      `json:"requests"` // the requests that were run
	Seed     uint64   `json:"seed"`     // with the same one comes the same
	Columns  []column `json:"results"`  // what was recorded, and what came of each policy
	Notes    []string `json:"notes"`    // what the model does, and what it cannot know
}

// column is what came of one policy.
type column struct {
	Name string `json:"name"` // recorded, baseline or policy
	outcomeView
}

// outcomeView is a whatif.Result as programs read it.
type outcomeView struct {
	Requests    uint64     `json:"requests"`     // all requests
	Failed      uint64     `json:"failed"`       // those of them that failed
	ErrorRate   float64    `json:"error_rate"`   // failed by requests
	Timeouts    uint64     `json:"timeouts"`     // those that failed by a timeout
	NoHost      uint64     `json:"no_host"`      // for want of a host
	Overflow    uint64     `json:"overflow"`     // at a limit
	CircuitOpen uint64     `json:"circuit_open"` // at an open circuit
	Attempts    uint64     `json:"attempts"`     // attempts at hosts
	Retries     uint64     `json:"retries"`      // those of them after the first of a request
	Ejections   uint64     `json:"ejections"`    // how often a host was ejected; not recorded
	Openings    uint64     `json:"openings"`     // how often a circuit opened; not recorded
	P50         int64      `json:"p50_ns"`       // percentiles of the times of requests
	P90         int64      `json:"p90_ns"`       // percentiles of the times of requests
	P99         int64      `json:"p99_ns"`       // percentiles of the times of requests
	Max         int64      `json:"max_ns"`       // the longest time of a request
	Hosts       []hostView `json:"hosts"`        // what each host got, by address
}

// hostView is what a host got.
type hostView struct {
	Host     string  `json:"host"`     // its address
	Attempts uint64  `json:"attempts"` // attempts at it
	Failed   uint64  `json:"failed"`   // those of them that failed
	Share    float64 `json:"share"`    // of all attempts
}

func view(r whatif.Result) outcomeView {
	v := outcomeView{Requests: r.Requests, Failed: r.Failed, ErrorRate: ratio(r.Failed, r.Requests), Timeouts: r.Timeouts, NoHost: r.NoHost,
		Overflow: r.Overflow, CircuitOpen: r.CircuitOpen, Attempts: r.Attempts, Retries: r.Retries, Ejections: r.Ejections,
		Openings: r.Openings, P50: r.P50, P90: r.P90, P99: r.P99, Max: r.Max, Hosts: []hostView{}}
	for _, name := range slices.Sorted(maps.Keys(r.Hosts)) {
		h := r.Hosts[name]
		v.Hosts = append(v.Hosts, hostView{name, h.Attempts, h.Failed, ratio(h.Attempts, r.Attempts)})
	}
	return v
}

func ratio(a, b uint64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// print prints the figures, then the hosts, then what to know of them. The change is from the column before the last.
func (r *replay) print(s *cli.Screen) {
	cols := []cli.Column{{Name: r.Cluster}}
	for _, c := range r.Columns {
		cols = append(cols, cli.Column{Name: c.Name, Right: true})
	}
	g := cli.NewGrid(append(cols, cli.Column{Name: "CHANGE", Right: true})...)
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	row := func(name string, value func(*outcomeView) string, number func(*outcomeView) float64) {
		cells := []cli.Cell{cli.T(name)}
		for i := range r.Columns {
			cells = append(cells, cli.T(value(&r.Columns[i].outcomeView)))
		}
		last := len(r.Columns) - 1
		g.Row(append(cells, cli.T(changeOf(number(&r.Columns[last-1].outcomeView), number(&r.Columns[last].outcomeView))))...)
	}
	counted := func(name string, of func(*outcomeView) uint64) {
		row(name, func(v *outcomeView) string { return count(of(v)) }, func(v *outcomeView) float64 { return float64(of(v)) })
	}
	timed := func(name string, of func(*outcomeView) int64) {
		row(name, func(v *outcomeView) string { return time.Duration(of(v)).Round(10 * time.Microsecond).String() }, func(v *outcomeView) float64 { return float64(of(v)) })
	}
	counted("requests", func(v *outcomeView) uint64 { return v.Requests })
	counted("failed", func(v *outcomeView) uint64 { return v.Failed })
	row("failed %", func(v *outcomeView) string { return fmt.Sprintf("%.2f", 100*v.ErrorRate) }, func(v *outcomeView) float64 { return v.ErrorRate })
	counted("- timeouts", func(v *outcomeView) uint64 { return v.Timeouts })
	counted("- circuit open", func(v *outcomeView) uint64 { return v.CircuitOpen })
	counted("- at a limit", func(v *outcomeView) uint64 { return v.Overflow })
	counted("- no host", func(v *outcomeView) uint64 { return v.NoHost })
	counted("attempts", func(v *outcomeView) uint64 { return v.Attempts })
	counted("retries", func(v *outcomeView) uint64 { return v.Retries })
	counted("ejections", func(v *outcomeView) uint64 { return v.Ejections })
	timed("p50", func(v *outcomeView) int64 { return v.P50 })
	timed("p90", func(v *outcomeView) int64 { return v.P90 })
	timed("p99", func(v *outcomeView) int64 { return v.P99 })
	g.Print(s)
	r.printHosts(s)
	for _, n := range r.Notes {
		s.Line(cli.Cell{Text: "note: " + cli.Clean(n), Style: cli.Faint})
	}
}

// changeOf is how much more or less the second is.
func changeOf(a, b float64) string {
	switch {
	case a == b:
		return "="
	case a == 0:
		return "new"
	}
	return fmt.Sprintf("%+.1f%%", 100*(b-a)/a)
}

// maxHostRows bounds the hosts of the table; JSON has all.
const maxHostRows = 40

func (r *replay) printHosts(s *cli.Screen) {
	cols := []cli.Column{{Name: "HOST"}}
	byHost := map[string][]cli.Cell{}
	for i, c := range r.Columns {
		cols = append(cols, cli.Column{Name: c.Name + " %", Right: true}, cli.Column{Name: "FAILED", Right: true})
		for _, h := range c.Hosts {
			if byHost[h.Host] == nil {
				byHost[h.Host] = make([]cli.Cell, 2*len(r.Columns))
			}
			byHost[h.Host][2*i] = cli.T(fmt.Sprintf("%.1f", 100*h.Share))
			byHost[h.Host][2*i+1] = cli.T(strconv.FormatUint(h.Failed, 10))
		}
	}
	g := cli.NewGrid(cols...)
	names := slices.Sorted(maps.Keys(byHost))
	for _, name := range names[:min(len(names), maxHostRows)] {
		g.Row(append([]cli.Cell{cli.T(name)}, byHost[name]...)...)
	}
	s.Line(cli.T(""))
	g.Print(s)
	if more := len(names) - maxHostRows; more > 0 {
		s.Line(cli.T(fmt.Sprintf("and %d hosts more, with -o json", more)))
	}
	s.Line(cli.T(""))
}
