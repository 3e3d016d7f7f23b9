// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/event"
)

// tapFlags are the flags of "meshtap tap".
type tapFlags struct {
	filter
	cli.Targets
	cli.Output
	count  int
	follow bool
}

func newTap() *cobra.Command {
	f := &tapFlags{}
	cmd := &cobra.Command{
		Use:   "tap",
		Short: "Show requests and what happens to the mesh as it happens",
		Example: `  meshtap tap --to orders --status 5xx
  meshtap tap --filter meshtap.attempts==3
  meshtap tap --slow 250ms --not --method GET -o jsonl -n 100`,
		Args: cli.NoArgs,
	}
	f.filter.add(cmd)
	f.Targets.Add(cmd)
	f.Targets.AddBus(cmd)
	f.Output.Add(cmd, cli.Table, cli.Wide, cli.Compact, cli.JSON, cli.JSONL)
	cmd.Flags().IntVarP(&f.count, "count", "n", 0, "`number`: end after so many events")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", true, "go on; -f=false: what the proxies remember")
	cmd.RunE = verb(f.run)
	return cmd
}

func (f *tapFlags) run(ctx context.Context, cmd *cobra.Command, _ []string) error {
	if err := f.filter.check(); err != nil {
		return err
	}
	if f.count < 0 {
		return cli.Usage("", "-n %d: a count is at least 1", f.count)
	}
	s, err := f.Open(cmd)
	if err != nil {
		return err
	}
	sources, names, err := f.sources()
	if err != nil {
		return err
	}
	v := &viewer{
		printer: newPrinter(s, time.Now()), filter: &f.filter, names: names, notes: cmd.ErrOrStderr(), left: f.count,
		lost: map[string]uint64{},
	}
	err = v.watch(ctx, sources)
	return cmp.Or(s.Flush(), v.sum(), err)
}

// sources returns where events come from.
func (f *tapFlags) sources() ([]*source, directory, error) {
	bus, err := f.WantsBus()
	if err != nil {
		return nil, nil, err
	}
	if !bus {
		proxies, err := f.Proxies()
		if err != nil {
			return nil, nil, err
		}
		var out []*source
		for _, p := range proxies {
			out = append(out, newProxySource(p, f.kinds(), f.filter.expression(), f.follow))
		}
		return out, newDirectory(proxies), nil
	}
	if !f.follow {
		return nil, nil, cli.Usage("meshtap events ls shows what a bus holds", "a bus is only followed by tap")
	}
	c, err := f.Bus()
	if err != nil {
		return nil, nil, err
	}
	known, err := f.Context()
	if err != nil {
		return nil, nil, err
	}
	return []*source{newBusSource(c)}, newDirectory(known.Proxies), nil
}

// viewer shows what arrives. It belongs to one goroutine.
type viewer struct {
	printer *printer
	filter  *filter
	names   directory
	// notes is for what is no event: standard error.
	notes io.Writer
	// left is how many events are still to be shown; 0 is no end.
	left int

	came, shown, unreadable uint64
	lost                    map[string]uint64 // by reason
	down                    int               // sources that were never connected
	partial                 bool
}

// inFlight is how many arrivals wait for the screen. It lets sources read on while a line is written; what is more waits
// in the proxies, which count what they cannot hold.
const inFlight = 256

// errDone ends a view that has shown what it was to show.
var errDone = errors.New("all is shown")

// watch shows events of the sources until ctx ends, enough were shown, or there are no more. It joins the sources.
func (v *viewer) watch(ctx context.Context, sources []*source) error {
	inner, cancel := context.WithCancel(ctx)
	out := make(chan arrival, inFlight)
	var running sync.WaitGroup
	for _, s := range sources {
		running.Go(func() { s.run(inner, out) })
	}
	go func() {
		running.Wait()
		close(out)
	}()
	var err error
	for a := range out {
		if err != nil {
			continue // the sources are being joined
		}
		if err = v.arrived(a, len(sources)); err == nil && len(out) == 0 {
			err = v.printer.s.Flush()
		}
		if err != nil {
			cancel()
		}
	}
	cancel()
	switch {
	case errors.Is(err, errDone):
		return nil
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case v.partial:
		return cli.Quiet(cli.ExitPartial)
	}
	return nil
}

// arrived takes what a source sent.
func (v *viewer) arrived(a arrival, sources int) error {
	s := a.source
	switch {
	case a.up:
		if s.lost {
			fmt.Fprintf(v.notes, "meshtap: connected to %s again; what happened in between is not shown\n", cli.Clean(s.label))
		}
		s.ever, s.lost = true, false
		return nil
	case a.down != nil:
		return v.fell(s, a.down, sources)
	case a.unreadable > 0:
		v.unreadable++
		return nil
	}
	return v.show(a.event, s)
}

// fell says that a source is down, once for each time. If all are that never were up, there is nothing to wait for.
func (v *viewer) fell(s *source, err error, sources int) error {
	if s.lost {
		return nil
	}
	if s.lost = true; !s.ever {
		if v.down++; v.down == sources {
			return err
		}
	}
	v.partial = true
	next := ""
	if s.follow {
		next = "; trying again"
	}
	what := err.Error()
	if errors.Is(err, errEnded) {
		what = s.label + ": " + what
	}
	fmt.Fprintf(v.notes, "meshtap: %s%s\n", cli.Clean(what), next)
	return nil
}

func (v *viewer) show(e consume.Event, s *source) error {
	v.came++
	if e.Kind == event.Lost {
		v.lost[string(e.Texts[event.Reason])] += e.Uint(event.Count)
	}
	own := s.service
	if string(e.Source) == "/meshtap/hub" { // it is the proxy's own word about this reader
		own = s.label
	}
	view := v.names.show(e.Event, own)
	if !v.filter.passes(view) {
		return nil
	}
	if err := v.printer.event(view, e.JSON); err != nil {
		return err
	}
	if e.Kind == event.Lost {
		return nil
	}
	v.shown++
	if v.left > 0 {
		if v.left--; v.left == 0 {
			return errDone
		}
	}
	return nil
}

// sum says how much of what came was shown and what was lost.
func (v *viewer) sum() error {
	if v.came+v.unreadable == 0 {
		return nil
	}
	line := fmt.Sprintf("%d shown of %s", v.shown, events(v.came))
	if n := len(v.lost); n > 0 {
		line += ", " + sumOf(v.lost) + " lost"
	}
	if v.unreadable > 0 {
		line += fmt.Sprintf(", %d not readable", v.unreadable)
	}
	_, err := fmt.Fprintf(v.notes, "meshtap: %s\n", cli.Clean(line))
	return err
}

// sumOf is a sum of counts with its parts.
func sumOf(counts map[string]uint64) string {
	var n uint64
	var parts []string
	for reason, c := range counts {
		n += c
		parts = append(parts, fmt.Sprintf("%s %d", reason, c))
	}
	slices.Sort(parts)
	return fmt.Sprintf("%d (%s)", n, strings.Join(parts, ", "))
}
