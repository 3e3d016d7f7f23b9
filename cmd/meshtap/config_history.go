// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// pastJSON is one configuration of /config_history.
type pastJSON struct {
	Proxy     string    `json:"proxy"`
	Snapshot  uint64    `json:"snapshot"`
	At        time.Time `json:"at"`
	Listeners string    `json:"listeners"`
	Routes    string    `json:"routes"`
	Clusters  string    `json:"clusters"`
	InForce   bool      `json:"in_force"`
	Held      bool      `json:"held,omitempty"`
	Changed   []string  `json:"changed"`
	Changes   int       `json:"changes"`
}

// historyFlags are the flags of "meshtap config history".
type historyFlags struct {
	cli.Targets
	cli.Output
}

func newHistory() *cobra.Command {
	f := &historyFlags{}
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the last configurations of proxies, and their changes",
		Example: `  meshtap config history
  meshtap config history -o json`,
		Args: cli.NoArgs,
	}
	f.Targets.Add(cmd)
	f.Output.Add(cmd, cli.Table, cli.JSON)
	cmd.RunE = verb(f.run)
	return cmd
}

func (f *historyFlags) run(ctx context.Context, cmd *cobra.Command, _ []string) error {
	s, err := f.Open(cmd)
	if err != nil {
		return err
	}
	proxies, err := f.Proxies()
	if err != nil {
		return err
	}
	answers := cli.Ask(ctx, proxies, askHistory)
	failed := cli.Failed(cmd.ErrOrStderr(), answers)
	list := []pastJSON{}
	for _, a := range answers {
		list = append(list, a.Value...)
	}
	if len(list) == 0 && failed != nil {
		return failed
	}
	if s.Format == cli.JSON {
		err = s.JSON(document{"snapshots": list})
	} else {
		printHistory(s, list)
	}
	return cmp.Or(err, s.Flush(), failed)
}

func askHistory(ctx context.Context, a *cli.Admin) ([]pastJSON, error) {
	if _, err := nameProxy(ctx, a); err != nil {
		return nil, err
	}
	var answer struct {
		Snapshots []pastJSON `json:"snapshots"`
	}
	if err := a.JSON(ctx, "/config_history", &answer); err != nil {
		return nil, err
	}
	for i := range answer.Snapshots {
		answer.Snapshots[i].Proxy = a.Label()
	}
	return answer.Snapshots, nil
}

func printHistory(s *cli.Screen, list []pastJSON) {
	g := cli.NewGrid(cli.Column{Name: "PROXY", Flex: 8}, cli.Column{Name: "SNAPSHOT", Right: true}, cli.Column{Name: "AT"}, cli.Column{Name: "STATE"},
		cli.Column{Name: "CLUSTERS", Flex: 6}, cli.Column{Name: "ROUTES", Flex: 6}, cli.Column{Name: "LISTENERS", Flex: 6}, cli.Column{Name: "CHANGES", Flex: 10})
	for _, p := range list {
		state := ""
		switch {
		case p.Held:
			state = "held"
		case p.InForce:
			state = "in force"
		}
		changed := strings.Join(p.Changed, " ")
		if n := p.Changes - len(p.Changed); n > 0 {
			changed += fmt.Sprintf(" and %d more", n)
		}
		g.Row(cli.T(p.Proxy), cli.T(strconv.FormatUint(p.Snapshot, 10)), cli.T(p.At.UTC().Format(time.RFC3339)), cli.T(state), cli.T(p.Clusters),
			cli.T(p.Routes), cli.T(p.Listeners), cli.T(changed))
	}
	g.Print(s)
}

func newRollback() *cobra.Command {
	return postConfig(&cobra.Command{
		Use:   "rollback VERSION",
		Short: "Go back to an older configuration, until it is released",
		Long: `
VERSION is the number of a snapshot of meshtap config history, or a version
that it had. Newer configuration is accepted and kept meanwhile.`,
		Example: `  meshtap config rollback 17`,
		Args:    someArgs(1, 1, "one version"),
	}, func(args []string) string { return "/config_rollback?version=" + url.PathEscape(args[0]) })
}

func newRelease() *cobra.Command {
	return postConfig(&cobra.Command{
		Use:     "release",
		Short:   "End a rollback: the newest configuration is in force",
		Example: `  meshtap config release`,
		Args:    cli.NoArgs,
	}, func([]string) string { return "/config_release" })
}

// postConfig lets a verb post a path to each proxy.
func postConfig(cmd *cobra.Command, path func(args []string) string) *cobra.Command {
	var t cli.Targets
	t.Add(cmd)
	cmd.RunE = verb(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		proxies, err := t.Proxies()
		if err != nil {
			return err
		}
		answers := cli.Ask(ctx, proxies, func(ctx context.Context, a *cli.Admin) (struct{}, error) {
			return struct{}{}, a.Send(ctx, http.MethodPost, path(args), nil)
		})
		return cli.Failed(cmd.ErrOrStderr(), answers)
	})
	return cmd
}
