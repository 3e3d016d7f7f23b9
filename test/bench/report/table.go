// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/meshtap/meshtap/test/bench/plan"
)

// Table writes a report for a person at a terminal.
func (r *Report) Table(w io.Writer, rows []plan.Row) error {
	fmt.Fprintf(w, "%s, %d cores, kernel %s; commit %s; %d rounds of %v\n", r.Machine.Processor, r.Machine.Cores, r.Machine.Kernel, r.commit(), r.Flags.Rounds, r.Flags.Measure)
	for _, why := range r.noise() {
		fmt.Fprintf(w, "NOT QUIET: %s\n", why)
	}
	for _, row := range rows {
		if !slices.Contains(r.Flags.Rows, row.Name) {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n", row.Name, row.Title)
		header, lines := r.grid(row)
		if err := columns(w, header, lines); err != nil {
			return err
		}
	}
	if header, lines := r.syscalls(); len(lines) > 0 {
		fmt.Fprintln(w)
		if err := columns(w, header, lines); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	return columns(w, goalHeader, standingLines(r.Standings(rows)))
}

// columns writes a table for a terminal.
func columns(w io.Writer, header []string, lines [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range append([][]string{header}, lines...) {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(line, "\t"), "\t"))
	}
	return t.Flush()
}

// grid is the table of a row: figures are medians, in brackets the spread between the rounds.
func (r *Report) grid(row plan.Row) (header []string, lines [][]string) {
	header = []string{"proxy", "us/request", "spread", "xHAProxy", "xEnvoy", "user", "system", "p50 us", "p99 us", "p99.9 us", "requests/s", "errors", "notes"}
	if row.Job.Idle {
		header = []string{"proxy", "MiB", "spread", "KiB/connection", "spread", "errors", "notes"}
	}
	if row.Job.Held {
		header[3] = "KiB/stream"
	}
	for _, p := range r.Peers {
		s := r.Find(row.Name, p.Name)
		switch {
		case p.Absent != "":
			lines = append(lines, pad([]string{p.Name}, header, "left out: "+p.Absent))
		case s != nil && s.Absent != "":
			lines = append(lines, pad([]string{p.Name}, header, "left out: "+s.Absent))
		case s == nil:
			lines = append(lines, pad([]string{p.Name}, header, "not measured"))
		case s.Metric("rate").N == 0:
			lines = append(lines, pad([]string{p.Name}, header, "no figures: "+s.Cells[0].Failed))
		case row.Job.Idle:
			rss, per := s.Metric(plan.RSS), s.Metric(plan.PerConn)
			lines = append(lines, []string{p.Name, figure(rss.Median, 1), spread(rss), figure(per.Median, 2), spread(per), s.errors(), s.notes(row)})
		default:
			m := func(name string, digits int) string { return figure(s.Metric(name).Median, digits) }
			lines = append(lines, []string{
				p.Name, m(plan.CPU, 1), spread(s.Metric(plan.CPU)),
				figure(r.Ratio(row.Name, plan.CPU, p.Name, "haproxy").Median, 2), figure(r.Ratio(row.Name, plan.CPU, p.Name, "envoy").Median, 2),
				m("user", 1), m("system", 1), m("p50", 0), m(plan.P99, 0), m("p999", 0), m("rate", 0), s.errors(), s.notes(row),
			})
		}
	}
	return header, lines
}

// pad fills a line up so that its note stands in the last column.
func pad(line, header []string, note string) []string {
	for len(line) < len(header)-1 {
		line = append(line, "")
	}
	return append(line, note)
}

func figure(f float64, digits int) string {
	if !finite(f) {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, f)
}

// spread is half of the distance between the ends, as a share of the median.
func spread(s Spread) string {
	if s.N < 2 {
		return "-"
	}
	return fmt.Sprintf("±%.0f%%", 50*s.Relative())
}

func (s *Series) errors() string {
	var n uint64
	for _, c := range s.Cells {
		n += c.Errors + c.Bad + uint64(c.Stuck)
	}
	return fmt.Sprint(n)
}

// notes tell what a reader must know of a series before he believes it.
func (s *Series) notes(row plan.Row) string {
	var notes []string
	failed, behind, generator, unfair := 0, 0, 0.0, 0.0
	for _, c := range s.Cells {
		if c.Failed != "" {
			failed++
			continue
		}
		if c.Backlog > int(c.Requests/100) {
			behind++
		}
		generator = max(generator, c.Generator)
		unfair = max(unfair, c.Balance)
	}
	if failed > 0 {
		notes = append(notes, fmt.Sprintf("%d rounds failed", failed))
	}
	if behind > 0 {
		notes = append(notes, fmt.Sprintf("did not keep the rate in %d rounds", behind))
	}
	if s.noisy() {
		notes = append(notes, "noisy")
	}
	if row.Job.Rate == 0 && generator > 0.95 {
		notes = append(notes, "the generator's core was full: requests/s is a lower bound")
	}
	if unfair > 0.55 {
		notes = append(notes, fmt.Sprintf("one upstream had %.0f %%", 100*unfair))
	}
	return strings.Join(notes, "; ")
}

// syscalls is the table of the system calls per request, as far as they were counted: the total, and by name those above
// a tenth, most frequent first.
func (r *Report) syscalls() (header []string, lines [][]string) {
	for _, s := range r.inOrder() {
		if len(s.Syscalls) == 0 {
			continue
		}
		names := slices.SortedFunc(maps.Keys(s.Syscalls), func(a, b string) int {
			return cmp.Or(cmp.Compare(s.Syscalls[b], s.Syscalls[a]), cmp.Compare(a, b))
		})
		total := 0.0
		var parts []string
		for _, name := range names {
			total += s.Syscalls[name]
			if s.Syscalls[name] >= 0.1 {
				parts = append(parts, fmt.Sprintf("%s %.1f", name, s.Syscalls[name]))
			}
		}
		lines = append(lines, []string{s.Row, s.Peer, figure(total, 1), strings.Join(parts, ", ")})
	}
	return []string{"row", "proxy", "system calls per request", "of them"}, lines
}

// inOrder returns the series in the order of the rows, and of the peers in each.
func (r *Report) inOrder() (all []*Series) {
	for _, row := range r.Flags.Rows {
		for _, p := range r.Peers {
			if s := r.Find(row, p.Name); s != nil {
				all = append(all, s)
			}
		}
	}
	return all
}

// goalHeader is the first line of the table of goals.
var goalHeader = []string{"row", "what", "figure", "spread", "goal", "floor", "stands"}

// cells are a goal's line in a table.
func (s Standing) cells() []string {
	what := s.Subject + " " + map[string]string{plan.CPU: "us/request", plan.P99: "p99", plan.RSS: "MiB", plan.PerConn: "KiB/connection"}[s.Metric]
	if s.Against != "" {
		what += " / " + s.Against
	}
	return []string{s.Row, what, figure(s.Figure.Median, 2), spread(s.Figure), figure(s.Goal.Goal, 2), figure(s.Floor, 2), string(s.Verdict)}
}

func (r *Report) commit() string {
	c := r.Commit[:min(12, len(r.Commit))]
	if c == "" {
		c = "unknown"
	}
	if r.Dirty {
		c += " with changes"
	}
	return c
}

// noise says why the figures are not to be trusted, as far as that is known.
func (r *Report) noise() []string {
	var why []string
	for _, d := range r.Before.Disturbed() {
		why = append(why, "before: "+d)
	}
	for _, p := range r.After.Busy {
		why = append(why, fmt.Sprintf("after: %s (process %d) uses %.0f %% of a core", p.Name, p.PID, 100*p.Share))
	}
	n, all := 0, 0
	for i := range r.Series {
		for _, c := range r.Series[i].Cells {
			all++
			if c.Disturbance() > quiet {
				n++
			}
		}
	}
	if n > 0 {
		why = append(why, fmt.Sprintf("others used more than %.0f %% of a core in %d of %d measurements", 100*quiet, n, all))
	}
	return why
}
