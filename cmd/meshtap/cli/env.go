// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// EnvName returns the environment variable of a flag: MESHTAP_ and its name.
func EnvName(flag string) string {
	return "MESHTAP_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// FromEnv gives each flag of a verb that the command line does not set the value that its variable has. An empty
// variable is as one that is not there.
func FromEnv(cmd *cobra.Command, lookup func(string) (string, bool)) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		v, ok := lookup(EnvName(f.Name))
		if f.Changed || !ok || v == "" || err != nil || !HasEnv(f) {
			return
		}
		if e := cmd.Flags().Set(f.Name, v); e != nil {
			err = Usage("", "%s: %s", EnvName(f.Name), WrongValue(e))
			return
		}
		f.Annotations = with(f.Annotations, envFlag)
	})
	return err
}

// WrongValue says why a flag's value was refused, "" where err is about something else.
func WrongValue(err error) string {
	var wrong *pflag.InvalidValueError
	if !errors.As(err, &wrong) {
		return ""
	}
	var number *strconv.NumError
	switch {
	case !errors.As(err, &number):
		return wrong.Unwrap().Error()
	case number.Func == "ParseBool":
		return fmt.Sprintf("%q is neither true nor false", number.Num)
	}
	return fmt.Sprintf("%q is no number that is possible here", number.Num)
}

// NoEnv marks flags that only mean something on a command line.
func NoEnv(cmd *cobra.Command, names ...string) { mark(cmd, noEnvFlag, names) }

// noEnvFlag marks a flag that has no variable.
const noEnvFlag = "meshtap_no_env"

// HasEnv reports whether a flag has a variable.
func HasEnv(f *pflag.Flag) bool {
	_, never := f.Annotations[noEnvFlag]
	return !never && f.Name != "help"
}

// envFlag marks a flag whose value came from the environment.
const envFlag = "meshtap_env"

// with returns a flag's marks and one more.
func with(marks map[string][]string, mark string) map[string][]string {
	out := map[string][]string{mark: nil}
	maps.Copy(out, marks)
	return out
}

// onCommandLine reports whether a flag was given on the command line itself.
func onCommandLine(f *pflag.Flag) bool {
	_, env := f.Annotations[envFlag]
	return f.Changed && !env
}
