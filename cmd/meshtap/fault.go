// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

func newFault() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fault COMMAND",
		Short: "Break services of a demo on purpose, and mend them",
		Example: `  meshtap fault add orders --abort 30%
  meshtap fault rm orders`,
		Args: cli.KnownVerb,
		RunE: help,
	}
	cmd.AddCommand(newFaultAdd(), newFaultList(), newFaultRemove())
	return cmd
}

// faults are what is switched on for one service, as the demo's socket has it.
type faults struct {
	AbortPercent float64 `json:"abort_percent"` // the share of requests that are answered with abort_status
	AbortStatus  int     `json:"abort_status"`  // 400 to 599, 0 where no request is
	DelayMS      int64   `json:"delay_ms"`      // how long requests wait, in milliseconds
	DelayPercent float64 `json:"delay_percent"` // the share of requests that wait
	ResetPercent float64 `json:"reset_percent"` // the share of requests whose connection is cut
}

// percent is a flag such as 30%.
type percent float64

// Set reads it; the sign may be left out.
func (p *percent) Set(s string) error {
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(v >= 0 && v <= 100) {
		return cli.Errorf(cli.ExitUsage, "%q is no share; 0%% to 100%% are", s)
	}
	*p = percent(v)
	return nil
}

// String prints it.
func (p *percent) String() string { return share(float64(*p)) }

// Type names what the flag takes.
func (p *percent) Type() string { return "percent" }

func share(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) + "%" }

// faultSocket returns a client of the socket that the context offers. Close it.
func faultSocket(t *cli.Targets) (*cli.Admin, error) {
	c, err := t.Context()
	if err != nil {
		return nil, err
	}
	if c.Faults == "" {
		return nil, &cli.Error{Exit: cli.ExitUnreachable, Msg: "there is nothing here whose faults can be switched", Hint: "meshtapd demo offers it"}
	}
	return cli.NewAdmin(cli.Proxy{Name: "the demo", Admin: c.Faults}), nil
}

func newFaultAdd() *cobra.Command {
	var t cli.Targets
	var abort, reset percent
	some := percent(100)
	var status int
	var delay time.Duration
	cmd := &cobra.Command{
		Use:   "add SERVICE",
		Short: "Switch faults of a service on; those that it had are replaced",
		Example: `  meshtap fault add orders --abort 30% --status 503
  meshtap fault add orders --delay 200ms --percent 10% --reset 5%`,
		Args: someArgs(1, 1, "one service"),
	}
	t.AddContext(cmd)
	s := cmd.Flags()
	s.Var(&abort, "abort", "`share`: answer so many requests with --status")
	s.IntVar(&status, "status", http.StatusServiceUnavailable, "`code`: the status for --abort")
	s.DurationVar(&delay, "delay", 0, "`time`: let requests wait so long")
	s.Var(&some, "percent", "`share`: how many requests --delay is for")
	s.Var(&reset, "reset", "`share`: break the connections of so many requests")
	cmd.RunE = verb(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		f := faults{float64(abort), status, delay.Milliseconds(), float64(some), float64(reset)}
		switch {
		case status < 400 || status > 599:
			return cli.Usage("", "--status %d: 400 to 599 are allowed", status)
		case delay < 0:
			return cli.Usage("", "--delay %v: a time is not negative", delay)
		case f.AbortPercent == 0 && f.DelayMS == 0 && f.ResetPercent == 0:
			return cli.Usage("give --abort, --delay or --reset; meshtap fault rm switches off", "there is no fault to switch on")
		}
		if f.AbortPercent == 0 {
			f.AbortStatus = 0
		}
		if f.DelayMS == 0 {
			f.DelayPercent = 0
		}
		if err := sendFault(ctx, &t, http.MethodPut, args[0], f); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "meshtap: switched on; meshtap fault rm %s switches it off\n", cli.Clean(args[0]))
		return err
	})
	return cmd
}

func newFaultRemove() *cobra.Command {
	var t cli.Targets
	cmd := &cobra.Command{
		Use:     "rm SERVICE",
		Short:   "Switch all faults of a service off",
		Example: `  meshtap fault rm orders`,
		Args:    someArgs(1, 1, "one service"),
	}
	t.AddContext(cmd)
	cmd.RunE = verb(func(ctx context.Context, _ *cobra.Command, args []string) error {
		return sendFault(ctx, &t, http.MethodDelete, args[0], nil)
	})
	return cmd
}

func sendFault(ctx context.Context, t *cli.Targets, method, service string, v any) error {
	a, err := faultSocket(t)
	if err != nil {
		return err
	}
	defer a.Close()
	return a.Send(ctx, method, "/faults/"+url.PathEscape(service), v)
}

func newFaultList() *cobra.Command {
	var t cli.Targets
	var out cli.Output
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List what is switched on",
		Example: `  meshtap fault ls`,
		Args:    cli.NoArgs,
	}
	t.AddContext(cmd)
	out.Add(cmd, cli.Table, cli.JSON)
	cmd.RunE = verb(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		s, err := out.Open(cmd)
		if err != nil {
			return err
		}
		a, err := faultSocket(&t)
		if err != nil {
			return err
		}
		defer a.Close()
		list := map[string]faults{}
		if err := a.JSON(ctx, "/faults", &list); err != nil {
			return err
		}
		if s.Format == cli.JSON {
			err = s.JSON(document{"faults": list})
		} else {
			printFaults(s, cmd.ErrOrStderr(), list)
		}
		return cmp.Or(err, s.Flush())
	})
	return cmd
}

func printFaults(s *cli.Screen, notes io.Writer, list map[string]faults) {
	if len(list) == 0 {
		fmt.Fprintln(notes, "meshtap: no faults are switched on")
		return
	}
	g := cli.NewGrid(cli.Column{Name: "SERVICE", Flex: 8}, cli.Column{Name: "ABORT"}, cli.Column{Name: "DELAY"}, cli.Column{Name: "RESET"})
	for _, name := range slices.Sorted(maps.Keys(list)) {
		f := list[name]
		abort, delay, reset := "", "", ""
		if f.AbortPercent > 0 {
			abort = share(f.AbortPercent) + " with " + strconv.Itoa(f.AbortStatus)
		}
		if f.DelayMS > 0 {
			delay = share(f.DelayPercent) + " by " + (time.Duration(f.DelayMS) * time.Millisecond).String()
		}
		if f.ResetPercent > 0 {
			reset = share(f.ResetPercent)
		}
		g.Row(cli.T(name), cli.T(abort), cli.T(delay), cli.T(reset))
	}
	g.Print(s)
}
