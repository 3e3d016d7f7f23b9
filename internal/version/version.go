// SPDX-License-Identifier: Apache-2.0

// Package version says which build this is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Number is the release. The Makefile sets it with -ldflags at build time; nothing else writes it.
var Number = "0.1.0-dev"

// Revision is the commit, set like Number; where it is not, what the go command recorded is used.
var Revision = ""

// Info is one build.
type Info struct {
	Number, Revision, Status, GoVersion string
}

// Get returns this build.
func Get() Info {
	i := Info{Number: Number, Revision: Revision, Status: "Clean", GoVersion: runtime.Version()}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			switch {
			case s.Key == "vcs.revision" && i.Revision == "":
				i.Revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				i.Status = "Modified"
			}
		}
	}
	if i.Revision == "" {
		i.Revision = "0000000000000000000000000000000000000000"
	}
	return i
}

// String returns the five parts that tools made for Envoy expect: revision, version, status of the tree, type of the build
// and TLS library.
func (i Info) String() string {
	return fmt.Sprintf("%s/%s/%s/RELEASE/Go-%s", i.Revision, i.Number, i.Status, i.GoVersion)
}
