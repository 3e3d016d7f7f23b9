// SPDX-License-Identifier: Apache-2.0

package cli

import (
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
		_, never := f.Annotations[noEnvFlag]
		if f.Changed || !ok || v == "" || err != nil || never || f.Name == "help" {
			return
		}
		if e := cmd.Flags().Set(f.Name, v); e != nil {
			err = Usage("", "%s: %v", EnvName(f.Name), e)
			return
		}
		f.Annotations = withEnv(f.Annotations)
	})
	return err
}

// NoEnv marks flags that only mean something on a command line.
func NoEnv(cmd *cobra.Command, names ...string) { mark(cmd, noEnvFlag, names) }

// noEnvFlag marks a flag that has no variable.
const noEnvFlag = "meshtap_no_env"

// envFlag marks a flag whose value came from the environment.
const envFlag = "meshtap_env"

func withEnv(a map[string][]string) map[string][]string {
	out := map[string][]string{envFlag: nil}
	for k, v := range a {
		out[k] = v
	}
	return out
}

// onCommandLine reports whether a flag was given on the command line itself.
func onCommandLine(f *pflag.Flag) bool {
	_, env := f.Annotations[envFlag]
	return f.Changed && !env
}
