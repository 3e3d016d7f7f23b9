// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/internal/version"
	"github.com/meshtap/meshtap/xds/bootstrap"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config COMMAND",
		Short:   "Work with bootstrap files, and with what proxies have in force",
		Example: `  meshtap config validate bootstrap.yaml`,
		Args:    cli.KnownVerb,
		RunE:    help,
	}
	cmd.AddCommand(newValidate(), newHistory(), newRollback(), newRelease(), newDiff())
	return cmd
}

func newValidate() *cobra.Command {
	var out cli.Output
	var opt bootstrap.Options
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Say everything that is wrong with bootstrap files, with places",
		Long:  "\nExit code 3 says that a file has errors; warnings alone are 0.",
		Example: `  meshtap config validate bootstrap.yaml
  meshtap config validate -o json *.yaml`,
		Args: someArgs(1, -1, "at least one file"),
	}
	out.Add(cmd, cli.Table, cli.JSON)
	s := cmd.Flags()
	s.StringVar(&opt.YAML, "config-yaml", "", "`text`: YAML that is merged over each file")
	s.StringVar(&opt.NodeID, "service-node", "", "`id`: node.id")
	s.StringVar(&opt.NodeCluster, "service-cluster", "", "`name`: node.cluster")
	s.StringVar(&opt.NodeZone, "service-zone", "", "`name`: node.locality.zone")
	s.BoolVar(&opt.AllowUnknownStaticFields, "allow-unknown-static-fields", false, "report unknown fields, do not refuse them")
	s.BoolVar(&opt.AcceptObservational, "accept-observational", false, "take tracing and the like without effect")
	cmd.RunE = verb(func(_ context.Context, cmd *cobra.Command, files []string) error {
		opt.Version, opt.LookupEnv = version.Number, os.LookupEnv
		return validate(cmd, &out, opt, files)
	})
	return cmd
}

// validate reports on the files, one after the other.
func validate(cmd *cobra.Command, out *cli.Output, opt bootstrap.Options, files []string) error {
	s, err := out.Open(cmd)
	if err != nil {
		return err
	}
	opt.Parsers = app.NewExtensions(io.Discard).Parsers()
	broken := false
	for _, file := range files {
		opt.Path = file
		report := bootstrap.Validate(opt)
		broken = broken || report.Errors() > 0
		if s.Format == cli.JSON {
			b, err := report.JSON()
			if err != nil {
				return err
			}
			s.JSONText(b)
			continue
		}
		printReport(s, &report, len(files) > 1)
	}
	if err := s.Flush(); err != nil {
		return err
	}
	if broken {
		return cli.Quiet(cli.ExitConfig)
	}
	return nil
}

func printReport(s *cli.Screen, r *bootstrap.Report, named bool) {
	if named {
		s.Line(cli.Cell{Text: r.File, Style: cli.Strong})
	}
	s.Lines(r.Text())
}
