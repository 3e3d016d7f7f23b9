// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// verb makes of what a verb does what cobra runs: flags get their values from the environment, the context ends with an
// interrupt or with the time of --timeout, and a second interrupt ends the process.
func verb(run func(context.Context, *cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := cli.FromEnv(cmd, os.LookupEnv); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		context.AfterFunc(ctx, stop)
		if cmd.Flags().Lookup("timeout") != nil {
			d, err := cmd.Flags().GetDuration("timeout")
			if err != nil || d < 0 {
				return cli.Usage("", "--timeout %v: a time is not negative", d)
			}
			if d > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, d)
				defer cancel()
			}
		}
		return run(ctx, cmd, args)
	}
}

// help is what a command does that only has commands below it.
func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// someArgs wants from least to most arguments; most is -1 where there is no bound.
func someArgs(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return cli.Usage("see "+cmd.CommandPath()+" --help", "%s wants %s", cmd.CommandPath(), what)
		}
		return nil
	}
}
