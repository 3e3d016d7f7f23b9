// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// circuitsFlags are the flags of "meshtap circuits".
type circuitsFlags struct {
	cli.Targets
	cli.Output
}

func newCircuits() *cobra.Command {
	f := &circuitsFlags{}
	cmd := &cobra.Command{
		Use:   "circuits [CLUSTER...]",
		Short: "Show circuit breakers: their state, why, and when they probe",
		Example: `  meshtap circuits
  meshtap circuits orders -o json`,
	}
	f.Targets.Add(cmd)
	f.Output.Add(cmd, cli.Table, cli.JSON)
	cmd.RunE = verb(f.run)
	return cmd
}

func (f *circuitsFlags) run(ctx context.Context, cmd *cobra.Command, clusters []string) error {
	s, err := f.Open(cmd)
	if err != nil {
		return err
	}
	proxies, err := f.Proxies()
	if err != nil {
		return err
	}
	answers := cli.Ask(ctx, proxies, askCircuits)
	failed := cli.Failed(cmd.ErrOrStderr(), answers)
	list := []circuitJSON{}
	for _, a := range answers {
		for _, c := range a.Value {
			if len(clusters) == 0 || slices.Contains(clusters, c.Cluster) {
				list = append(list, c)
			}
		}
	}
	if reached(answers) == 0 {
		return failed
	}
	if s.Format == cli.JSON {
		err = s.JSON(document{"circuits": list})
	} else {
		printCircuits(s, cmd.ErrOrStderr(), list, time.Now())
	}
	return cmp.Or(err, s.Flush(), failed)
}

func askCircuits(ctx context.Context, a *cli.Admin) ([]circuitJSON, error) {
	if _, err := nameProxy(ctx, a); err != nil {
		return nil, err
	}
	var answer circuitsJSON
	if err := a.JSON(ctx, "/circuits", &answer); err != nil {
		return nil, err
	}
	for i := range answer.Circuits {
		answer.Circuits[i].Proxy = a.Label()
	}
	return answer.Circuits, nil
}

func printCircuits(s *cli.Screen, notes io.Writer, list []circuitJSON, now time.Time) {
	if len(list) == 0 {
		fmt.Fprintln(notes, "meshtap: there is no circuit breaker to show; a cluster has one where its metadata says so (meshtap explain circuit)")
		return
	}
	g := cli.NewGrid(
		cli.Column{Name: "PROXY", Flex: 6}, cli.Column{Name: "CLUSTER", Flex: 8}, cli.Column{Name: "HOST", Flex: 8}, cli.Column{Name: "STATE"},
		cli.Column{Name: "FOR", Right: true}, cli.Column{Name: "REASON", Flex: 8}, cli.Column{Name: "PROBE IN", Right: true},
		cli.Column{Name: "SEEN", Right: true}, cli.Column{Name: "FAILED", Right: true}, cli.Column{Name: "SLOW", Right: true})
	for _, c := range list {
		since, probe := "", ""
		if !c.Since.IsZero() {
			since = age(now.Sub(c.Since))
		}
		if !c.NextProbe.IsZero() {
			probe = age(c.NextProbe.Sub(now))
		}
		count := func(n uint32) cli.Cell { return cli.T(strconv.FormatUint(uint64(n), 10)) }
		g.Row(cli.T(c.Proxy), cli.T(c.Cluster), cli.T(c.Host), cli.Cell{Text: word(c.State), Style: circuitStyle(c.State)},
			cli.T(since), cli.T(c.Reason), cli.T(probe), count(c.Requests), count(c.Failures), count(c.Slow))
	}
	g.Print(s)
}
