// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtap/meshtap/internal/nearest"
)

// FlagError says what is wrong with a flag, and which one may be meant.
func FlagError(cmd *cobra.Command, err error) error {
	hint := "see " + cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if s := nearest.Name(unknown.GetSpecifiedName(), names); s != "" {
			hint = "did you mean --" + s + "?"
		}
	}
	var wrong *pflag.InvalidValueError
	if errors.As(err, &wrong) {
		return Usage(hint, "--%s: %s", wrong.GetFlag().Name, WrongValue(err))
	}
	return Usage(hint, "%v", err)
}

// KnownVerb refuses what is no verb below cmd.
func KnownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
		for _, below := range c.Commands() {
			if below.Name() == args[0] {
				return Usage("did you mean "+below.CommandPath()+"?", "there is no command %q", args[0])
			}
		}
	}
	if len(names) == 0 {
		return NoArgs(cmd, args)
	}
	slices.Sort(names)
	return Usage(DidYouMean(args[0], names), "there is no command %q", args[0])
}

// NoArgs refuses arguments.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usage("see "+cmd.CommandPath()+" --help", "%s takes no %q", cmd.CommandPath(), args[0])
	}
	return nil
}
