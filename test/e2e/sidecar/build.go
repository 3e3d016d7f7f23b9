// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BinaryVariable names the environment variable with the path of the meshtap binary to test. Main sets it where it is not
// set.
const BinaryVariable = "MESHTAP_BINARY"

// Main runs the tests of a package that runs Meshtap, and returns their exit code. It builds the binary first, with the
// race detector where the tests have it too, and takes it away afterwards. It is for TestMain.
func Main(m *testing.M) int {
	if os.Getenv(BinaryVariable) != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "meshtap-e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(dir string) error {
	// Some tests run the binary as a user who may not look into what MkdirTemp makes.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, "meshtap")
	args := []string{"build", "-tags", "grpcnotrace", "-o", path} // as the Makefile does
	if RaceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/meshtap/meshtap/cmd/meshtap")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("sidecar: go build: %w\n%s", err, out)
	}
	return os.Setenv(BinaryVariable, path)
}

// Meshtap returns the path of the binary to test.
func Meshtap(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv(BinaryVariable)
	if path == "" {
		tb.Fatal("sidecar: there is no binary: the package needs a TestMain with sidecar.Main")
	}
	return path
}
