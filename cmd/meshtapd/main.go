// SPDX-License-Identifier: Apache-2.0

// Command meshtapd is the mesh daemon: the small control plane, the event bus that runs inside it, and the demo. The
// sidecar and the command line are the other binary, meshtap.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/internal/version"
	"github.com/meshtap/meshtap/xds/control"
)

func main() {
	root := newRoot()
	root.SetArgs(os.Args[1:])
	os.Exit(report(os.Stderr, root.Execute()))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "meshtapd COMMAND",
		Short: "The mesh daemon: a control plane for meshtap sidecars, and a demo",
		Example: `  meshtapd demo
  meshtapd control --config mesh.yaml`,
		Args:              cli.KnownVerb,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Version = version.Get().String()
	root.SetVersionTemplate("meshtapd  version: {{.Version}}\n")
	root.SetFlagErrorFunc(cli.FlagError)
	root.AddCommand(newControl(), newDemo(), newToy())
	for _, cmd := range root.Commands() {
		cmd.SetHelpFunc(cli.Help)
	}
	root.SetHelpFunc(rootHelp)
	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return cli.KnownVerb(cmd.Root(), args)
			}
			return found.Help()
		},
	})
	return root
}

// rootHelp lists the commands.
func rootHelp(root *cobra.Command, _ []string) {
	w := root.OutOrStdout()
	fmt.Fprintf(w, "%s\n\nusage: meshtapd COMMAND\n%s\n\n", root.Short, root.Example)
	for _, cmd := range root.Commands() {
		if cmd.IsAvailableCommand() {
			fmt.Fprintf(w, "  %-8s %s\n", cmd.Name(), cmd.Short)
		}
	}
	fmt.Fprintln(w, "\nmeshtapd COMMAND --help says more. The sidecar and the command line are meshtap.")
}

// verb makes of what a verb does what cobra runs: flags get their values from the environment, and the context ends with
// the first SIGINT, SIGTERM or other signal of these. The second ends the process at once.
func verb(run func(context.Context, *cobra.Command) error, others ...os.Signal) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		if err := cli.FromEnv(cmd, os.LookupEnv); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), append(others, os.Interrupt, syscall.SIGTERM)...)
		defer stop()
		context.AfterFunc(ctx, stop)
		err := run(ctx, cmd)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // it was asked to end while it started
		}
		return err
	}
}

// report tells of an error on w and returns the code to end with; nil is 0.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	var invalid *control.Invalid
	if errors.As(err, &invalid) {
		fmt.Fprintln(w, invalid)
		return cli.ExitConfig
	}
	e := &cli.Error{Exit: cli.ExitFailure, Msg: err.Error()}
	errors.As(err, &e)
	for i, line := range strings.Split(e.Msg, "\n") {
		if i == 0 {
			line = "meshtapd: " + line
		}
		fmt.Fprintln(w, cli.Clean(line))
	}
	if e.Hint != "" {
		fmt.Fprintln(w, "  hint: "+cli.Clean(e.Hint))
	}
	return e.Exit
}

// newLogger logs to a file: for a person on a terminal and in JSON elsewhere.
func newLogger(out *os.File, level string) (*zap.Logger, error) {
	at, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, cli.Usage("debug, info, warn and error are allowed", "--log-level %q", level)
	}
	cfg := zap.NewProductionEncoderConfig()
	cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	enc := zapcore.NewJSONEncoder(cfg)
	if info, err := out.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		cfg.EncodeTime, cfg.EncodeLevel = zapcore.ISO8601TimeEncoder, zapcore.CapitalLevelEncoder
		enc = zapcore.NewConsoleEncoder(cfg)
	}
	return zap.New(zapcore.NewCore(enc, zapcore.Lock(out), at)), nil
}
