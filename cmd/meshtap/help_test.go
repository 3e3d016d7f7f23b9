// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// eachCommand calls f for each command below a root, and for the root.
func eachCommand(root *cobra.Command, f func(*cobra.Command)) {
	f(root)
	for _, c := range root.Commands() {
		eachCommand(c, f)
	}
}

// TestHelp: the help of each command fits on a terminal of 24 lines and 80 columns, and has an example.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, root := range []*cobra.Command{newRoot(), newEnvoy()} {
		eachCommand(root, func(c *cobra.Command) {
			var out strings.Builder
			c.SetOut(&out)
			if err := c.Help(); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if len(lines) > 24 {
				t.Errorf("%s: %d lines", c.CommandPath(), len(lines))
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l); n > 80 {
					t.Errorf("%s: %d columns: %s", c.CommandPath(), n, l)
				}
			}
			if c.Example == "" {
				t.Errorf("%s: there is no example", c.CommandPath())
			}
		})
	}
}

// TestExamples: each example is a command line that can be read.
func TestExamples(t *testing.T) {
	t.Parallel()
	n := 0
	eachCommand(newRoot(), func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " > ")
			line, _, _ = strings.Cut(line, "   (")
			line = strings.TrimSuffix(strings.TrimPrefix(line, "source <("), ")")
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "meshtap" {
				t.Errorf("%s: the example %q does not begin with meshtap", c.CommandPath(), line)
				continue
			}
			n++
			cmd, rest, err := newRoot().Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil && cmd.Args != nil {
				err = cmd.Args(cmd, cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: %s: %v", c.CommandPath(), line, err)
			}
		}
	})
	if n < 20 {
		t.Errorf("only %d examples were found", n)
	}
}

// TestUnderstandsEnvoy: every flag of Envoy 1.40 is taken, with and without a verb and under the name of envoy. One that
// does nothing says so in its usage.
func TestUnderstandsEnvoy(t *testing.T) {
	t.Parallel()
	help, err := os.ReadFile("testdata/envoy-flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`(?m)^   (?:-([a-z]) <string>,  )?--([a-z0-9-]+)(?: <(string|uint32_t)>)?`).FindAllStringSubmatch(string(help), -1)
	if len(flags) < 40 {
		t.Fatalf("only %d flags were found", len(flags))
	}
	serve, _, err := newRoot().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []*pflag.FlagSet{newRoot().Flags(), serve.Flags(), newEnvoy().Flags()} {
		for _, m := range flags {
			short, name, takes := m[1], m[2], m[3]
			f := set.Lookup(name)
			if name == "version" || name == "help" {
				continue
			}
			if f == nil {
				t.Errorf("there is no --%s", name)
				continue
			}
			kind := map[string]string{"": "bool", "string": "string", "uint32_t": "uint32"}[takes]
			if name == "stats-tag" { // accepted multiple times
				kind = "stringArray"
			}
			if f.Value.Type() != kind || f.Shorthand != short {
				t.Errorf("--%s: takes a %s and is -%s; Envoy's takes a %s and is -%s", name, f.Value.Type(), f.Shorthand, kind, short)
			}
		}
	}
	for _, v := range ignored {
		if f := serve.Flags().Lookup(v.name); f == nil || !f.Hidden || f.Usage != "no effect: "+v.why {
			t.Errorf("--%s does not say that it has no effect", v.name)
		}
	}
}

// TestEnv: every flag that has a variable has one that no other flag of the same verb has, and FromEnv takes it.
func TestEnv(t *testing.T) {
	t.Parallel()
	eachCommand(newRoot(), func(c *cobra.Command) {
		names := map[string]string{}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if other, ok := names[cli.EnvName(f.Name)]; ok {
				t.Errorf("%s: --%s and --%s have one variable", c.CommandPath(), f.Name, other)
			}
			names[cli.EnvName(f.Name)] = f.Name
		})
	})
	tap := newTap()
	err := cli.FromEnv(tap, func(name string) (string, bool) {
		v, ok := map[string]string{"MESHTAP_OUTPUT": "jsonl", "MESHTAP_COUNT": "", "MESHTAP_NOT": "true"}[name]
		return v, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"output": "jsonl", "count": "0", "not": "false"} {
		if got := tap.Flags().Lookup(name).Value.String(); got != want {
			t.Errorf("--%s is %s, want %s", name, got, want)
		}
	}
}
