// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/internal/version"
)

func newVersion() *cobra.Command {
	var out cli.Output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Say which build this is",
		Example: `  meshtap version
  meshtap version -o json`,
		Args: cli.NoArgs,
	}
	out.Add(cmd, cli.Table, cli.JSON)
	cmd.RunE = verb(func(_ context.Context, cmd *cobra.Command, _ []string) error {
		s, err := out.Open(cmd)
		if err != nil {
			return err
		}
		v := version.Get()
		if s.Format == cli.JSON {
			err = s.JSON(document{"version": v.Number, "revision": v.Revision, "tree": v.Status, "go": v.GoVersion, "os": runtime.GOOS, "arch": runtime.GOARCH})
		} else {
			s.Text(fmt.Sprintf("meshtap %s (%.12s, %s, %s, %s/%s)", v.Number, v.Revision, v.Status, v.GoVersion, runtime.GOOS, runtime.GOARCH))
		}
		return cmp.Or(err, s.Flush())
	})
	return cmd
}
