// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var rewrite = flag.Bool("rewrite", false, "write expected outputs and docs/cli.md anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"meshtap": main, "envoy": main})
}

// TestScripts runs the program as a process, as a person does: what it prints, where, and how it ends. The commands that
// scripts have besides those of testscript are in script_test.go.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *rewrite,
		Setup:               setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": exitsWith, "tty": onTerminal, "proxy": recordedProxy, "bus": embeddedBus, "start": startServer, "interrupt": interruptServer, "interrupted": interrupted,
		},
	})
}

// execute runs a command line in this process.
func execute(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	var out, errOut bytes.Buffer
	code = run(ctx, append([]string{"meshtap"}, args...), &out, &errOut)
	return out.String(), errOut.String(), code
}

// golden compares with a file below testdata, or writes it.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code does; run go test with -rewrite and read the difference\n--- got\n%s\n--- want\n%s", path, got, want)
	}
}
