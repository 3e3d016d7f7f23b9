// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/cmd/meshtapd/demo"
)

// newToy is the verb that a demo runs its services with. It is not for people.
func newToy() *cobra.Command {
	var t demo.Toy
	cmd := &cobra.Command{Use: "toy", Short: "A service of the demo, on the listener that it inherits", Hidden: true, Args: cli.NoArgs}
	s := cmd.Flags()
	s.StringVar(&t.Name, "name", "", "the service's `name`")
	s.StringVar(&t.Next, "next", "", "the service to call")
	s.StringVar(&t.Outbound, "outbound", "", "the `address` of the sidecar for calls")
	s.DurationVar(&t.Work, "work", 0, "how long an answer takes")
	cmd.RunE = func(*cobra.Command, []string) error {
		const inherited = 3 // the first descriptor after standard error
		f := os.NewFile(inherited, "listener")
		ln, err := net.FileListener(f)
		if err != nil {
			return cli.Usage("meshtapd demo starts it", "toy is not for people")
		}
		f.Close()
		return t.Run(context.Background(), ln, os.Stdin, os.Stdout)
	}
	return cmd
}
