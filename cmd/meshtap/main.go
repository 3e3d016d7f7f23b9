// SPDX-License-Identifier: Apache-2.0

// Command meshtap is the sidecar proxy and the command line that looks into it. With the flags of Envoy and no verb it is
// the proxy, so that it can stand where an envoy binary stood.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/internal/version"
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr))
}

// run executes a command line, of which the first word is the program's name, and returns the exit code.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	root := newRoot()
	if filepath.Base(args[0]) == "envoy" {
		root = newEnvoy()
	}
	root.SetArgs(args[1:])
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	var config app.ConfigError
	if errors.As(err, &config) {
		printLines(errOut, config.Error())
		return cli.ExitConfig
	}
	return cli.Report(errOut, err, wantsJSON(cmd, args))
}

// printLines prints an error of several lines.
func printLines(w io.Writer, text string) {
	head := "meshtap: "
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "%s%s\n", head, cli.Clean(strings.TrimSuffix(line, "\n")))
		head = ""
	}
}

// wantsJSON reports whether errors are to be read by a program, also where the flags could not be read to their end.
func wantsJSON(cmd *cobra.Command, args []string) bool {
	f := cmd.Flags().Lookup("output")
	if f == nil {
		return false
	}
	isJSON := func(s string) bool { return s == cli.JSON || s == cli.JSONL }
	for i, a := range args {
		short, long := strings.TrimPrefix(a, "-o"), strings.TrimPrefix(a, "--output=")
		if isJSON(short) && short != a || isJSON(long) && long != a {
			return true
		}
		if (a == "-o" || a == "--output") && i+1 < len(args) && isJSON(args[i+1]) {
			return true
		}
	}
	return isJSON(f.Value.String())
}

func newRoot() *cobra.Command {
	serve := &serveFlags{}
	root := &cobra.Command{
		Use:   "meshtap COMMAND",
		Short: "The sidecar whose traffic is a stream of events, and its command line",
		Example: `  meshtap serve -c bootstrap.yaml
  meshtap -c bootstrap.yaml --service-node web-1   (as one would start envoy)
  meshtap tap --status 5xx`,
		Args:              cli.KnownVerb,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().NFlag() == 0 {
				return cmd.Help()
			}
			return serve.run(cmd)
		},
	}
	serve.add(root)
	root.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = true }) // they are in the help of serve
	prepare(root)
	root.AddCommand(newServe(), newTap(), newEvents(), newStat(), newStatus(), newCircuits(), newReplay(), newSpool(), newFault(), newConfig(),
		newExplain(), newVersion(), newCompletion(), newCommon())
	root.SetHelpCommand(newHelp())
	return root
}

// newEnvoy is what the program is under the name of envoy: the proxy alone, with Envoy's flags.
func newEnvoy() *cobra.Command {
	root := newServe()
	root.Use = "envoy -c FILE"
	root.Example = `  envoy -c bootstrap.yaml --service-node web-1
  envoy -c bootstrap.yaml --mode validate`
	root.SilenceUsage, root.SilenceErrors, root.CompletionOptions.DisableDefaultCmd = true, true, true
	prepare(root)
	return root
}

// prepare sets what holds for all commands below a root.
func prepare(root *cobra.Command) {
	addVersion(root)
	root.SetHelpFunc(cli.Help)
	root.SetFlagErrorFunc(cli.FlagError)
}

// addVersion adds --version. cobra's own takes a text/template, which finds methods by name: with it the linker has to
// keep every exported method of every type, and the program is a quarter larger, in memory too.
func addVersion(root *cobra.Command) {
	asked := root.Flags().BoolP("version", "v", false, "version for "+root.Name())
	run := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if !*asked {
			return run(cmd, args)
		}
		// Envoy's line, which kuma-dp and others take apart.
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "\n%s  version: %s\n\n", cmd.Name(), version.Get())
		return err
	}
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command; help common shows shared flags",
		Example: `  meshtap help tap
  meshtap help common`,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return cli.KnownVerb(found, rest)
			}
			return found.Help()
		},
	}
}

// newCommon is a topic of the help.
func newCommon() *cobra.Command {
	return &cobra.Command{
		Use:   "common",
		Short: "Flags that many commands share",
		Long: `
Where to look; without these, in the context that meshtapd demo writes
  --admin ADDRESS        a proxy's administration server: the path of a unix
                         socket, host:port or an http URL; may be repeated
  --context FILE         a context; else $XDG_STATE_HOME/meshtap/context.json
  --bus URL              a NATS server, as nats://127.0.0.1:4222
  --bus-token-file FILE, --bus-credentials FILE    how to log in there
  --stream NAME, --subject SUBJECTS                where the events are there
How to print
  -o, --output FORMAT    table, wide, json and others, by command
  --no-headers           no line with the names of the columns
  --color WHEN           auto, always or never; auto obeys NO_COLOR
And
  --timeout TIME         end with exit code 124 after so long

Each flag has a variable: --no-headers is MESHTAP_NO_HEADERS. A flag comes
before its variable, and that before the context. MESHTAP_ADMIN may hold
several addresses, separated by commas.`,
		Example: `  meshtap status --admin /run/meshtap/admin.sock`,
	}
}
