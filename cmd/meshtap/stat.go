// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// statFlags are the flags of "meshtap stat".
type statFlags struct {
	cli.Targets
	cli.Output
	all, watch bool
	window     time.Duration
}

func newStat() *cobra.Command {
	f := &statFlags{}
	cmd := &cobra.Command{
		Use:   "stat [NAME...]",
		Short: "Show success, rate and latency of each service, measured now",
		Long:  "\nEVENTS/S and DROPPED (since its start) are those of the service's own proxies,\nwhich add them up once a second: a shorter --window may see none.",
		Example: `  meshtap stat
  meshtap stat -w orders
  meshtap stat -A --window 10s -o json`,
	}
	f.Targets.Add(cmd)
	f.Output.Add(cmd, cli.Table, cli.Wide, cli.JSON)
	s := cmd.Flags()
	s.BoolVarP(&f.all, "all", "A", false, "also clusters that have had no request")
	s.BoolVarP(&f.watch, "watch", "w", false, "measure again and again")
	s.DurationVar(&f.window, "window", time.Second, "`time`: how long to measure")
	cmd.RunE = verb(f.run)
	return cmd
}

// minWindow is the shortest time that says anything about a rate.
const minWindow = 100 * time.Millisecond

func (f *statFlags) run(ctx context.Context, cmd *cobra.Command, names []string) error {
	if f.window < minWindow {
		return cli.Usage("", "--window %v: at least %v are needed", f.window, minWindow)
	}
	s, err := f.Open(cmd)
	if err != nil {
		return err
	}
	proxies, err := f.Proxies()
	if err != nil {
		return err
	}
	before := cli.Ask(ctx, proxies, sampleProxy)
	if reached(before) == 0 {
		return cli.Failed(cmd.ErrOrStderr(), before)
	}
	tick := time.NewTicker(f.window)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		after := cli.Ask(ctx, proxies, sampleProxy)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rows, err := only(measure(before, after), f.all, names)
		if err != nil {
			return err
		}
		if f.watch {
			s.Clear()
		}
		if err := f.print(s, cmd.ErrOrStderr(), rows); err != nil {
			return err
		}
		failed := cli.Failed(cmd.ErrOrStderr(), after)
		if !f.watch {
			return failed
		}
		before = keep(before, after)
	}
}

// reached counts the proxies that answered.
func reached[T any](answers []cli.Answer[T]) (n int) {
	for _, a := range answers {
		if a.Err == nil {
			n++
		}
	}
	return n
}

// keep returns the newest sample of each proxy.
func keep(before, after []cli.Answer[*sample]) []cli.Answer[*sample] {
	for i := range after {
		if after[i].Err != nil {
			after[i] = before[i]
		}
	}
	return after
}

// only leaves the rows that are asked for. A name that no row has is an error.
func only(rows []statRow, all bool, names []string) ([]statRow, error) {
	var known []string
	for _, r := range rows {
		known = append(known, r.Name)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, cli.Usage(cli.DidYouMean(n, known), "there is no service or cluster %q", n)
		}
	}
	out := []statRow{}
	for _, r := range rows {
		named := len(names) == 0 || slices.Contains(names, r.Name)
		if named && (all || r.used || len(names) > 0) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (f *statFlags) print(s *cli.Screen, notes io.Writer, rows []statRow) error {
	if s.Format == cli.JSON {
		if err := s.JSON(document{"window_ms": f.window.Milliseconds(), "services": rows}); err != nil {
			return err
		}
		return s.Flush()
	}
	cols := []cli.Column{{Name: "NAME", Flex: 8}, {Name: "MESHED"}, {Name: "SUCCESS", Right: true}, {Name: "RPS", Right: true},
		{Name: "P50", Right: true}, {Name: "P95", Right: true}, {Name: "P99", Right: true}, {Name: "CONN", Right: true},
		{Name: "CIRCUIT", Flex: 6}, {Name: "EVENTS/S", Right: true}, {Name: "DROPPED", Right: true}}
	if s.Format == cli.Wide {
		cols = append(cols, cli.Column{Name: "SEEN BY"}, cli.Column{Name: "HOSTS", Right: true}, cli.Column{Name: "REQUESTS", Right: true})
	}
	g := cli.NewGrid(cols...)
	for _, r := range rows {
		g.Row(r.cells(s.Format == cli.Wide)...)
	}
	if len(rows) == 0 {
		fmt.Fprintln(notes, "meshtap: no service has had a request yet; -A shows all clusters")
	} else {
		g.Print(s)
	}
	return s.Flush()
}

func (r *statRow) cells(wide bool) []cli.Cell {
	cells := []cli.Cell{
		cli.T(r.Name), cli.T(r.Meshed), r.successCell(), cli.T(rate(r.RPS)), cli.T(millis(r.P50)), cli.T(millis(r.P95)), cli.T(millis(r.P99)),
		cli.T(strconv.FormatInt(r.Connections, 10)), {Text: r.circuits, Style: circuitStyle(r.Circuit)}, cli.T(rateOf(r.EventsPerSecond)), r.droppedCell(),
	}
	if wide {
		hosts := ""
		if r.Hosts != nil {
			hosts = fmt.Sprintf("%d/%d", r.Hosts.Healthy, r.Hosts.Total)
		}
		cells = append(cells, cli.T(r.SeenBy), cli.T(hosts), cli.T(strconv.FormatInt(r.Requests, 10)))
	}
	return cells
}

func (r *statRow) successCell() cli.Cell {
	if r.Success == nil {
		return cli.T("")
	}
	c := cli.Cell{Text: fmt.Sprintf("%.2f%%", math.Floor(*r.Success*1e4)/100)}
	switch {
	case *r.Success >= 0.999:
		c.Style = cli.Good
	case *r.Success >= 0.9:
		c.Style = cli.Warning
	default:
		c.Style = cli.Bad
	}
	return c
}

func (r *statRow) droppedCell() cli.Cell {
	if r.Dropped == nil {
		return cli.T("")
	}
	c := cli.T(strconv.FormatInt(*r.Dropped, 10))
	if *r.Dropped > 0 {
		c.Style = cli.Bad
	}
	return c
}

func rateOf(v *float64) string {
	if v == nil {
		return ""
	}
	return rate(*v)
}

// rate is a number of things in a second.
func rate(v float64) string {
	if v > 0 && v < 10 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// millis is a time in milliseconds as the table shows it.
func millis(v *float64) string {
	if v == nil {
		return ""
	}
	return took(int64(*v * 1e6))
}
