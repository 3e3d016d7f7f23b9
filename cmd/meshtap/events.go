// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/consume/stream"
	"github.com/meshtap/meshtap/eventtap/event"
)

func newEvents() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "events COMMAND",
		Short:   "Look into the events that a bus has stored",
		Example: `  meshtap events ls --since 10m --status 5xx`,
		Args:    cli.KnownVerb,
		RunE:    help,
	}
	cmd.AddCommand(newEventsList(), newEventsVerify())
	return cmd
}

// eventsFlags are the flags of "meshtap events ls".
type eventsFlags struct {
	filter
	cli.Targets
	cli.Output
	since  string
	follow bool
	limit  int
}

// newest is how many messages are looked through where nothing says since when.
const newest = 1000

func newEventsList() *cobra.Command {
	f := &eventsFlags{}
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List stored events, the newest last; with -f go on",
		Example: `  meshtap events ls --since 10m --status 5xx
  meshtap events ls --since 2026-11-22T08:00:00Z --type circuit -o jsonl`,
		Args: cli.NoArgs,
	}
	f.filter.add(cmd)
	f.Targets.AddContext(cmd)
	f.Targets.AddBus(cmd)
	f.Output.Add(cmd, cli.Table, cli.Wide, cli.Compact, cli.JSON, cli.JSONL)
	s := cmd.Flags()
	s.StringVar(&f.since, "since", "", "`time`: from then on; an age as 10m, or RFC 3339")
	s.BoolVarP(&f.follow, "follow", "f", false, "go on with what comes")
	s.IntVar(&f.limit, "limit", 50, "`number`: the newest so many that match; 0 is all")
	cmd.RunE = verb(f.run)
	return cmd
}

func (f *eventsFlags) run(ctx context.Context, cmd *cobra.Command, _ []string) error {
	if err := f.filter.check(); err != nil {
		return err
	}
	if f.limit < 0 {
		return cli.Usage("0 is all", "--limit %d: a count is not negative", f.limit)
	}
	now := time.Now()
	start := stream.Start{Newest: uint64(max(newest, f.limit))}
	if f.since != "" {
		var err error
		if start.Since, err = parseSince(f.since, now); err != nil {
			return err
		}
	}
	s, err := f.Open(cmd)
	if err != nil {
		return err
	}
	c, err := f.Bus()
	if err != nil {
		return err
	}
	known, err := f.Context()
	if err != nil {
		return err
	}
	bus, err := cli.OpenBus(ctx, c)
	if err != nil {
		return err
	}
	defer bus.Close()
	l := &lister{
		printer: newPrinter(s, now), filter: &f.filter, names: newDirectory(known.Proxies), gaps: consume.NewGaps(0), window: consume.NewWindow(), limit: f.limit,
		lost: map[string]uint64{}, notes: cmd.ErrOrStderr(),
	}
	err = l.list(ctx, bus, start)
	if err == nil && f.follow {
		err = l.follow(ctx, bus)
	}
	return cmp.Or(s.Flush(), l.sum(f.since != ""), err)
}

// parseSince reads an age or a time.
func parseSince(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	return time.Time{}, cli.Usage("write --since 10m, or --since 2026-11-22T08:00:00Z", "--since %q is neither an age nor a time", s)
}

// lister shows stored events. It belongs to one goroutine.
type lister struct {
	printer *printer
	filter  *filter
	names   directory
	gaps    *consume.Gaps
	window  *consume.Window
	notes   io.Writer // standard error
	// limit is how many events are kept for the list; 0 is all. While it lists, rows wait in kept.
	limit int
	kept  []row
	live  bool
	last  uint64 // the last message that was read

	came, matched, shown, repeated, unreadable, missing uint64

	lost map[string]uint64 // by reason
}

// row is an event, or a gap, that waits to be printed.
type row struct {
	event consume.Event
	gap   string
}

// list shows what is stored.
func (l *lister) list(ctx context.Context, b *cli.Bus, start stream.Start) error {
	if err := b.Read(ctx, start, false, l.message); err != nil {
		return err
	}
	for _, m := range l.gaps.Rest() {
		if err := l.gap(m); err != nil {
			return err
		}
	}
	for _, r := range l.kept[max(len(l.kept)-l.limit, 0):] {
		if err := l.print(r); err != nil {
			return err
		}
	}
	l.kept, l.live, l.last = nil, true, max(l.last, b.Last())
	return l.printer.s.Flush()
}

// follow goes on behind what was listed.
func (l *lister) follow(ctx context.Context, b *cli.Bus) error {
	start := stream.Start{After: l.last}
	if l.last == 0 { // there was nothing at all
		start.Newest = math.MaxUint64
	}
	return b.Read(ctx, start, true, func(m *consume.Message) error {
		if err := l.message(m); err != nil {
			return err
		}
		return l.printer.s.Flush()
	})
}

// message takes one message.
func (l *lister) message(m *consume.Message) (err error) {
	l.last = m.Seq
	consume.Decode(m, func(e consume.Event) {
		if err == nil {
			err = l.take(e)
		}
	}, func(error) { l.unreadable++ })
	return err
}

func (l *lister) take(e consume.Event) error {
	if l.window.Repeated(e.Event) {
		l.repeated++
		return nil
	}
	l.came++
	if e.Kind == event.Lost {
		l.lost[string(e.Texts[event.Reason])] += e.Uint(event.Count)
	}
	for _, m := range l.gaps.See(e.Event) {
		if err := l.gap(m); err != nil {
			return err
		}
	}
	if !l.filter.passes(l.names.show(e.Event, "")) {
		return nil
	}
	if e.Kind != event.Lost {
		l.matched++
	}
	return l.put(row{event: e})
}

func (l *lister) gap(g consume.Gap) error {
	l.missing += g.Count
	return l.put(row{gap: gapStory(g)})
}

// put prints a row, or keeps it until it is known to be among the newest.
func (l *lister) put(r row) error {
	if l.live || l.limit == 0 {
		return l.print(r)
	}
	if len(l.kept) == 2*l.limit {
		l.kept = append(l.kept[:0], l.kept[l.limit:]...)
	}
	l.kept = append(l.kept, r)
	return nil
}

func (l *lister) print(r row) error {
	if r.gap != "" {
		if !l.printer.note(r.gap) {
			fmt.Fprintf(l.notes, "meshtap: %s\n", cli.Clean(r.gap))
		}
		return nil
	}
	if r.event.Kind != event.Lost {
		l.shown++
	}
	return l.printer.event(l.names.show(r.event.Event, ""), r.event.JSON)
}

// sum says how much was shown of what there is, and what is missing.
func (l *lister) sum(since bool) error {
	line := fmt.Sprintf("%d shown of %s", l.shown, events(l.came))
	if l.matched > l.shown {
		line = fmt.Sprintf("%d shown of %d that match, of %s", l.shown, l.matched, events(l.came))
	}
	if len(l.lost) > 0 {
		line += ", " + sumOf(l.lost) + " lost"
	}
	if l.missing > 0 {
		line += fmt.Sprintf(", %d missing", l.missing)
	}
	if l.repeated > 0 {
		line += fmt.Sprintf(", %d came twice", l.repeated)
	}
	if l.unreadable > 0 {
		line += fmt.Sprintf(", %d not readable", l.unreadable)
	}
	switch {
	case !l.live:
		line += "; the list was not finished"
	case !since:
		line += "; --since looks further back"
	}
	_, err := fmt.Fprintf(l.notes, "meshtap: %s\n", cli.Clean(line))
	return err
}
