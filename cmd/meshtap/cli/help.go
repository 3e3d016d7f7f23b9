// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commonFlag and restFlag mark flags that the help of a verb only names: those that many verbs share, which "meshtap help
// common" explains, and those that few need, which docs/cli.md explains.
const (
	commonFlag = "meshtap_common"
	restFlag   = "meshtap_rest"
)

// IsCommon reports whether a flag is shared by many verbs.
func IsCommon(f *pflag.Flag) bool {
	_, ok := f.Annotations[commonFlag]
	return ok
}

// Common marks flags of a verb as shared by many.
func Common(cmd *cobra.Command, names ...string) { mark(cmd, commonFlag, names) }

// Rest marks flags of a verb as needed by few.
func Rest(cmd *cobra.Command, names ...string) { mark(cmd, restFlag, names) }

func mark(cmd *cobra.Command, as string, names []string) {
	for _, n := range names {
		f := cmd.Flags().Lookup(n)
		f.Annotations = with(f.Annotations, as)
	}
}

// Help prints the help of a command: what it does, how it is called, examples, flags; in at most 24 lines of 80 columns.
func Help(cmd *cobra.Command, _ []string) { help(cmd.OutOrStdout(), cmd) }

func help(w io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(w, "%s\n", cmd.Short)
	if cmd.Long != "" {
		fmt.Fprintf(w, "%s\n", strings.TrimRight(cmd.Long, "\n"))
	}
	if cmd.Runnable() || cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nusage: %s\n", usageLine(cmd))
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintln(w)
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-11s %s\n", sub.Name(), sub.Short)
			}
		}
	}
	flags(w, cmd)
	if !cmd.HasParent() && cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n%s help COMMAND says more, and help common what flags they share.\n", cmd.Name())
	}
}

func usageLine(cmd *cobra.Command) string {
	return strings.TrimSuffix(cmd.UseLine(), " [flags]")
}

// flags prints a verb's own flags one by one, and the names of the others.
func flags(w io.Writer, cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	var own [][2]string
	var common, rest []string
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		_, isRest := f.Annotations[restFlag]
		switch {
		case f.Hidden || f.Name == "help" || f.Name == "version":
		case IsCommon(f):
			common = append(common, "--"+f.Name)
		case isRest:
			rest = append(rest, "--"+f.Name)
		default:
			own = append(own, flagLine(f))
		}
	})
	if len(own) > 0 {
		fmt.Fprintln(w)
	}
	width := 0
	for _, l := range own {
		width = max(width, len(l[0]))
	}
	for _, l := range own {
		fmt.Fprintf(w, "  %-*s  %s\n", width, l[0], l[1])
	}
	names(w, "also (docs/cli.md):", rest)
	names(w, "also (meshtap help common):", common)
}

// FlagUsage returns what a flag takes, "" where that is nothing, and what it does.
func FlagUsage(f *pflag.Flag) (takes, does string) {
	kind, text := pflag.UnquoteUsage(f)
	if name, rest, ok := strings.Cut(f.Usage, "`: "); ok && strings.HasPrefix(name, "`") { // the value's name is no word of the text
		kind, text = name[1:], rest
	}
	return kind, text
}

func flagLine(f *pflag.Flag) [2]string {
	kind, text := FlagUsage(f)
	left := "    --" + f.Name
	if f.Shorthand != "" {
		left = "-" + f.Shorthand + ", --" + f.Name
	}
	if kind != "" {
		left += " " + kind
	}
	switch f.DefValue {
	case "", "false", "[]", "0", "0s", "0%":
	default:
		text += " (" + f.DefValue + ")"
	}
	return [2]string{left, text}
}

// names prints a list in lines of at most 78 columns.
func names(w io.Writer, head string, list []string) {
	if len(list) == 0 {
		return
	}
	slices.Sort(list)
	line := head
	for _, n := range list {
		if len(line)+1+len(n) > 78 {
			fmt.Fprintln(w, line)
			line = "  "
		}
		line += " " + n
	}
	fmt.Fprintln(w, line)
}

// Complete offers values for a flag to the shell.
func Complete(cmd *cobra.Command, flag string, values ...string) {
	// It fails only where the flag does not exist.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
