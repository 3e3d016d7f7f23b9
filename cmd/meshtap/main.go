// SPDX-License-Identifier: Apache-2.0

// Command meshtap is the sidecar proxy and the command line that looks into it. With the flags of Envoy and no verb it is
// the proxy, so that it can stand where an envoy binary stood.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/app"
	"github.com/meshtap/meshtap/internal/version"
)

// Exit codes, as docs/cli.md lists them.
const (
	exitFailure = 1
	exitUsage   = 2
	exitConfig  = 3
)

// exitError is an error with the code to end with.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func main() {
	os.Exit(run(os.Args))
}

// run executes a command line and returns the exit code.
func run(args []string) int {
	root := newRoot()
	root.SetArgs(args[1:])
	err := root.Execute()
	if err == nil {
		return 0
	}
	var exit *exitError
	var config app.ConfigError
	switch {
	case errors.As(err, &exit):
	case errors.As(err, &config):
		exit = &exitError{exitConfig, err}
	default:
		exit = &exitError{exitFailure, err}
	}
	if msg := exit.Error(); msg != "" {
		fmt.Fprintf(os.Stderr, "meshtap: %s\n", msg)
	}
	return exit.code
}

func newRoot() *cobra.Command {
	serve := &serveFlags{}
	root := &cobra.Command{
		Use:   "meshtap",
		Short: "A service-mesh sidecar that Envoy's control planes drive, and whose traffic is a stream of events",
		Example: `  meshtap serve -c bootstrap.yaml
  meshtap -c bootstrap.yaml --service-node web-1     (as one would start envoy)
  meshtap serve -c bootstrap.yaml --mode validate`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !serve.given() {
				return cmd.Help()
			}
			return serve.run(cmd)
		},
	}
	serve.add(root.Flags())
	root.Version = version.Get().String()
	// Envoy's line, which kuma-dp and others take apart.
	root.SetVersionTemplate("\nmeshtap  version: {{.Version}}\n\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	root.AddCommand(newServe())
	return root
}
