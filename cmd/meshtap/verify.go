// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/consume"
	buses "github.com/meshtap/meshtap/eventtap/consume/source"
	"github.com/meshtap/meshtap/eventtap/consume/stream"
)

// verifyFlags are the flags of "meshtap events verify".
type verifyFlags struct {
	cli.Targets
	cli.Output
	capture
	sink string
}

// capture are the flags that say what to read of a bus that was named by an address.
type capture struct {
	topics                 []string
	queue                  string
	unreadable, unnumbered uint64
}

func (c *capture) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&c.topics, "topic", nil, "`topics` of a Kafka cluster")
	cmd.Flags().StringVar(&c.queue, "queue", "", "`queue` of a RabbitMQ broker")
}

// read calls each for the events of a capture: a file, or what a bus holds now.
func (c *capture) read(ctx context.Context, address string, each func(consume.Event) error) error {
	src, err := buses.Open(ctx, address, buses.Options{All: true, Topics: c.topics, Queue: c.queue})
	if err != nil {
		return captureError(address, err)
	}
	defer src.Close()
	err = src.Read(ctx, func(m *consume.Message) error { return c.message(m, each) })
	if err != nil && ctx.Err() == nil {
		return captureError(address, err)
	}
	return err
}

func captureError(address string, err error) error {
	var away *stream.ConnectError
	if errors.As(err, &away) {
		return cli.Errorf(cli.ExitUnreachable, "%s cannot be reached: %v", address, away.Err)
	}
	if errors.Is(err, buses.ErrScheme) {
		return cli.Usage("", "%v", err)
	}
	return cli.Errorf(cli.ExitFailure, "%v", err)
}

// message takes one message.
func (c *capture) message(m *consume.Message, each func(consume.Event) error) (err error) {
	consume.Decode(m, func(e consume.Event) {
		if err == nil {
			err = each(e)
		}
	}, func(error) { c.unreadable++ })
	return err
}

func newEventsVerify() *cobra.Command {
	f := &verifyFlags{}
	cmd := &cobra.Command{
		Use:   "verify [CAPTURE]",
		Short: "Prove that no event is missing, against the proxies' own counters",
		Long: `
CAPTURE is a file of the file sink, or nats://, kafka:// or amqp://; without
one, --bus is read. Without proxies to ask, only numbers are looked at.
It ends with 1 where something is missing.`,
		Example: `  meshtap events verify --bus nats://127.0.0.1:4222 --admin 127.0.0.1:9901
  meshtap events verify --bus kafka://127.0.0.1:9092 --topic meshtap.events
  meshtap events verify events.jsonl --admin /run/meshtap/admin.sock -o json`,
		Args: someArgs(0, 1, "at most one capture"),
	}
	f.Targets.Add(cmd)
	f.Targets.AddBus(cmd)
	cmd.Flags().Lookup("bus").Usage = "`URL` of the bus: nats://, kafka:// or amqp://"
	f.capture.add(cmd)
	f.Output.Add(cmd, cli.Table, cli.JSON)
	cmd.Flags().StringVar(&f.sink, "sink", "", "`name` of the sink that wrote it, if there are several")
	cmd.RunE = verb(f.run)
	return cmd
}

func (f *verifyFlags) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	s, err := f.Open(cmd)
	if err != nil {
		return err
	}
	before, err := f.accounts(ctx)
	if err != nil {
		return err
	}
	l := consume.NewLedger()
	take := func(e consume.Event) error {
		if e.StreamSeq == 0 && len(e.BootID) > 0 && e.Sequence != 0 {
			f.unnumbered++
		}
		return l.Take(e.Event)
	}
	switch foreign := f.ForeignBus(); {
	case len(args) == 1:
		err = f.capture.read(ctx, args[0], take)
	case foreign != "":
		err = f.capture.read(ctx, foreign, take)
	default:
		err = f.readBus(ctx, take)
	}
	if err != nil {
		return err
	}
	after, err := f.accounts(ctx)
	if err != nil {
		return err
	}
	checks := checkAll(l.Boots(), before, after)
	bad := slices.ContainsFunc(checks, func(c check) bool { return !c.OK })
	if s.Format == cli.JSON {
		err = s.JSON(document{"boots": checks, "ok": !bad, "unreadable": f.unreadable})
	} else {
		printChecks(s, checks)
	}
	if err = cmp.Or(err, s.Flush()); err != nil {
		return err
	}
	if f.unreadable > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "meshtap: %d messages of the capture are no events\n", f.unreadable)
	}
	if f.unnumbered > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "meshtap: %s have no streamseq; what a hub shows is no sink's stream\n", events(f.unnumbered))
	}
	if bad {
		return cli.Quiet(cli.ExitFailure)
	}
	return nil
}

// readBus reads all that the bus of the flags holds.
func (f *verifyFlags) readBus(ctx context.Context, each func(consume.Event) error) error {
	c, err := f.Bus()
	if err != nil {
		return err
	}
	bus, err := cli.OpenBus(ctx, c)
	if err != nil {
		return err
	}
	defer bus.Close()
	return bus.Read(ctx, buses.Start{Newest: math.MaxUint64}, false, func(m *consume.Message) error { return f.message(m, each) })
}

// accounts asks the proxies for the counters of the sink, by boot. There are none where nobody says where a proxy is.
func (f *verifyFlags) accounts(ctx context.Context) (map[string]*account, error) {
	if has, err := f.HasProxies(); err != nil || !has {
		return nil, err
	}
	proxies, err := f.Proxies()
	if err != nil {
		return nil, err
	}
	out := map[string]*account{}
	for _, a := range cli.Ask(ctx, proxies, f.account) {
		if a.Err != nil {
			return nil, a.Err
		}
		out[a.Value.boot] = a.Value
	}
	return out, nil
}

// account is what a proxy counts for one sink.
type account struct {
	proxy, boot, sink                            string
	produced, recovered, acked, pending, dropped uint64
	reasons                                      map[string]uint64
}

const sinkStats = "meshtap.tap.sink."

// account asks one proxy.
func (f *verifyFlags) account(ctx context.Context, a *cli.Admin) (*account, error) {
	var answer statsJSON
	if err := a.JSON(ctx, "/stats?format=json&filter="+url.QueryEscape(`^meshtap\.tap\.sink\.`), &answer); err != nil {
		return nil, err
	}
	sinks := map[string]*account{}
	for _, m := range answer.Stats {
		rest, ok := strings.CutPrefix(m.Name, sinkStats)
		name, what, _ := strings.Cut(rest, ".")
		var v uint64
		if !ok || json.Unmarshal(m.Value, &v) != nil || name == eventtap.HubName {
			continue
		}
		if sinks[name] == nil {
			sinks[name] = &account{proxy: a.Label(), sink: name, reasons: map[string]uint64{}}
		}
		sinks[name].set(what, v)
	}
	var names []string
	for name := range sinks {
		names = append(names, name)
	}
	slices.Sort(names)
	name := f.sink
	switch {
	case name == "" && len(names) == 1:
		name = names[0]
	case len(names) == 0:
		return nil, cli.Errorf(cli.ExitFailure, "%s has no sink for its events", a.Label())
	case sinks[name] == nil:
		return nil, cli.Usage("name one with --sink; its sinks are "+strings.Join(names, ", "), "%s: which of its sinks wrote the capture?", a.Label())
	}
	out := sinks[name]
	var err error
	out.boot, err = bootOf(ctx, a)
	return out, err
}

func (a *account) set(what string, v uint64) {
	switch what {
	case "produced":
		a.produced = v
	case "recovered":
		a.recovered = v
	case "acked":
		a.acked = v
	case "pending":
		a.pending = v
	default:
		if reason, ok := strings.CutPrefix(what, "dropped_"); ok && v > 0 {
			a.reasons[reason] = v
			a.dropped += v
		}
	}
}

// left is what a stream was not meant to carry: it has no number.
func (a *account) left() uint64 {
	return a.reasons[eventtap.Sampled.String()] + a.reasons[eventtap.Unselected.String()] + a.reasons[eventtap.Filtered.String()]
}

var errBoot = errors.New("enough")

// bootOf returns the boot id of a proxy, which its own events tell; "" where it remembers none.
func bootOf(ctx context.Context, a *cli.Admin) (boot string, err error) {
	f := buses.Feed{Get: a.Get, From: 1}
	err = f.Read(ctx, func(e consume.Event) error {
		if boot = string(e.BootID); boot != "" {
			return errBoot
		}
		return nil
	})
	if errors.Is(err, errBoot) {
		err = nil
	}
	return boot, err
}

// check is what was found of one run of a proxy.
type check struct {
	Boot        string            `json:"boot"`                // the run
	Proxy       string            `json:"proxy"`               // the proxy, by the name that it was asked by, or by its source
	Sink        string            `json:"sink,omitempty"`      // the sink whose counters were read; without one there are none
	Produced    *uint64           `json:"produced,omitempty"`  // events that were to be made since the sink was there
	Recovered   uint64            `json:"recovered,omitempty"` // events of earlier runs that the sink's spool had
	Received    uint64            `json:"received"`            // events of the capture, each once
	Pending     uint64            `json:"pending"`             // events that wait in the proxy
	Dropped     map[string]uint64 `json:"dropped"`             // events that the proxy dropped, by reason
	Told        map[string]uint64 `json:"told"`                // what lost events of the capture tell of, by reason
	Repeated    uint64            `json:"repeated"`            // events that came again
	Unexplained uint64            `json:"unexplained"`         // numbers that neither came nor are told of
	Missing     uint64            `json:"missing"`             // events that should be in the capture and are not
	Extra       uint64            `json:"extra"`               // events that are in the capture and were not made
	OK          bool              `json:"ok"`                  // whether it adds up
	Note        string            `json:"note,omitempty"`      // what could not be proved
}

// checkAll compares the runs of a capture with the proxies' counters from before and after it was read.
func checkAll(boots []*consume.BootLedger, before, after map[string]*account) []check {
	out := []check{}
	seen := map[string]bool{}
	for _, b := range boots {
		seen[b.Boot] = true
		if after[b.Boot] == nil || before[b.Boot] == nil {
			out = append(out, numbersOnly(b))
			continue
		}
		out = append(out, compare(b, before[b.Boot], after[b.Boot]))
	}
	for boot, a := range after {
		if !seen[boot] && before[boot] != nil {
			out = append(out, compare(&consume.BootLedger{Boot: boot}, before[boot], a))
		}
	}
	return out
}

// numbersOnly looks at a run whose counters nobody has.
func numbersOnly(b *consume.BootLedger) check {
	c := check{Boot: b.Boot, Proxy: proxyOf(b.Source), Received: b.Received, Told: b.Told, Repeated: b.Repeated, Dropped: map[string]uint64{},
		Unexplained: b.Unexplained(false), Note: "no counters: what is missing before the first and behind the last number cannot be seen"}
	c.Missing, c.OK = c.Unexplained, c.Unexplained == 0
	return c
}

// compare compares a run with its counters:
//
//	produced + recovered = received + dropped + pending
//
// While a proxy goes on, the capture lies between the two readings. Events of earlier runs that a spool had are
// acknowledged in this run and received in theirs.
func compare(b *consume.BootLedger, before, after *account) check {
	c := check{Boot: b.Boot, Proxy: after.proxy, Sink: after.sink, Produced: &after.produced, Recovered: after.recovered, Received: b.Received,
		Pending: after.pending, Dropped: after.reasons, Told: b.Told, Repeated: b.Repeated, Unexplained: b.Unexplained(true)}
	least, most := before.acked, after.acked+after.pending
	if before.produced == after.produced && before.pending == 0 && after.pending == 0 {
		most = after.acked
	} else {
		c.Note = "the proxy goes on: received may be between its counters before and after"
	}
	if after.recovered > 0 {
		least -= min(least, after.recovered)
		c.Note = join(c.Note, fmt.Sprintf("up to %d of those acknowledged are of earlier runs", after.recovered))
	}
	c.Missing = max(least-min(least, b.Received), c.Unexplained)
	c.Extra = b.Received - min(b.Received, most)
	told := b.Lost()
	if numbered := after.dropped - after.left(); told > numbered {
		c.Note = join(c.Note, fmt.Sprintf("lost events tell of %d more than the counters", told-numbered))
		c.Extra += told - numbered
	} else if told < numbered {
		c.Note = join(c.Note, fmt.Sprintf("%d dropped are not told of yet", numbered-told))
	}
	sum := after.acked + after.pending + after.dropped
	if sum != after.produced+after.recovered {
		c.Note = join(c.Note, fmt.Sprintf("the proxy's own counters differ by %d", int64(sum-after.produced-after.recovered)))
	}
	c.OK = c.Missing == 0 && c.Extra == 0 && sum == after.produced+after.recovered
	return c
}

func printChecks(s *cli.Screen, checks []check) {
	right := func(name string) cli.Column { return cli.Column{Name: name, Right: true} }
	g := cli.NewGrid(cli.Column{Name: "PROXY"}, cli.Column{Name: "BOOT"}, cli.Column{Name: "SINK"}, right("PRODUCED"), right("RECEIVED"),
		right("DROPPED"), right("TOLD"), right("PENDING"), right("MISSING"), right("EXTRA"), cli.Column{Name: "RESULT"}, cli.Column{Name: "NOTE", Flex: 20})
	count := func(n uint64) cli.Cell { return cli.T(strconv.FormatUint(n, 10)) }
	for _, c := range checks {
		produced, dropped, pending := cli.T(""), cli.T(""), cli.T("")
		if c.Produced != nil {
			produced, pending = count(*c.Produced+c.Recovered), count(c.Pending)
			n := uint64(0)
			for _, v := range c.Dropped {
				n += v
			}
			dropped = count(n)
		}
		told := uint64(0)
		for _, v := range c.Told {
			told += v
		}
		result := cli.Cell{Text: "adds up", Style: cli.Good}
		if !c.OK {
			result = cli.Cell{Text: "DOES NOT", Style: cli.Bad}
		}
		g.Row(cli.T(c.Proxy), cli.T(short(c.Boot)), cli.T(c.Sink), produced, count(c.Received), dropped, count(told), pending,
			count(c.Missing), count(c.Extra), result, cli.T(c.Note))
	}
	g.Print(s)
}
