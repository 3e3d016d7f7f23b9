// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// shells are those that a script can be written for.
var shells = map[string]func(*cobra.Command, io.Writer) error{
	"bash": func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
	"zsh":  func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) },
	"fish": func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
	"pwsh": func(root *cobra.Command, w io.Writer) error { return root.GenPowerShellCompletionWithDesc(w) },
}

func newCompletion() *cobra.Command {
	names := slices.Sorted(maps.Keys(shells))
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish|pwsh",
		Short: "Write a script that completes commands in a shell",
		Example: `  meshtap completion bash > /etc/bash_completion.d/meshtap
  source <(meshtap completion zsh)`,
		Args:      someArgs(1, 1, "a shell: bash, zsh, fish or pwsh"),
		ValidArgs: names,
	}
	cmd.RunE = verb(func(_ context.Context, cmd *cobra.Command, args []string) error {
		write := shells[args[0]]
		if write == nil {
			return cli.Usage(cli.DidYouMean(args[0], names), "there is no completion for %q", args[0])
		}
		return write(cmd.Root(), cmd.OutOrStdout())
	})
	return cmd
}
