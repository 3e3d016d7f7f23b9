// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the expected configurations anew")

func place(dir string) Place {
	at := func(port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	}
	return Place{Listen: at(21403), Upstreams: [2]netip.AddrPort{at(21400), at(21401)}, Other: at(21402), Dir: dir}
}

// Each peer's configuration and arguments are as the golden files have them.
func TestConfigurations(t *testing.T) {
	t.Parallel()
	type variant struct {
		peer   Peer
		suffix string
		wire   Wire
	}
	var all []variant
	for _, p := range All() {
		both := Wire{Down2: true, Up2: true}
		if all = append(all, variant{p, "", Wire{}}); p.Cannot(both) == "" {
			all = append(all, variant{p, "-h2", both})
		}
	}
	nginx := find(t, "nginx")
	all = append(all, variant{nginx, "-h2-h1", Wire{Down2: true}}, variant{nginx, "-grpc", Wire{Down2: true, Up2: true, GRPC: true}})
	for _, name := range []string{"meshtap", "envoy", "haproxy", "nginx", "net/http"} {
		all = append(all, variant{find(t, name), "-tls", Wire{Down2: true, TLS: true}})
	}
	all = append(all, variant{find(t, "envoy"), "-stream", Wire{Down2: true, Up2: true, GRPC: true, Streaming: true}})
	for _, v := range all {
		p := v.peer
		t.Run(p.Name+v.suffix, func(t *testing.T) {
			t.Parallel()
			at := place("/run/bench")
			at.Wire = v.wire
			text, err := p.Config(at)
			if err != nil {
				t.Fatal(err)
			}
			got := "arguments: " + strings.Join(p.args(at, "/run/bench/"+p.file), " ") + "\n" + text
			golden := filepath.Join("testdata", strings.ReplaceAll(p.Name, "/", "-")+v.suffix+".golden")
			if *rewrite {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("run the test with -rewrite and read the difference:\n%s", got)
			}
			for _, port := range []string{"21400", "21401", "21402", "21403"} {
				if !strings.Contains(got, port) {
					t.Errorf("port %s is not in it", port)
				}
			}
		})
	}
}

// What Envoy and Meshtap are given differs in Meshtap's extensions alone.
func TestEnvoyHasNothingOfMeshtap(t *testing.T) {
	t.Parallel()
	for _, w := range []Wire{{}, {Down2: true, Up2: true}, {Down2: true, TLS: true}} {
		envoyHasNothingOfMeshtap(t, w)
	}
}

func envoyHasNothingOfMeshtap(t *testing.T, w Wire) {
	t.Helper()
	config := map[string]string{}
	for _, p := range All() {
		at := place("/run/bench")
		at.Wire = w
		config[p.Name], _ = p.Config(at)
	}
	if strings.Contains(config["envoy"], "meshtap") {
		t.Error("envoy would refuse it")
	}
	left := strings.Split(config["meshtap"], "\n")
	for _, line := range strings.Split(config["envoy"], "\n") {
		i := slices.Index(left, line)
		if i < 0 {
			t.Errorf("meshtap has no line %q", line)
			continue
		}
		left = left[i+1:]
	}
}

// Who cannot do a row says why, and nobody else is left out.
func TestCannot(t *testing.T) {
	t.Parallel()
	both, call := Wire{Down2: true, Up2: true}, Wire{Down2: true, Up2: true, GRPC: true}
	for _, p := range All() {
		want := map[string][]Wire{"nginx": {{Up2: true}, both}, "mosn": {{Down2: true}, {Up2: true}, both, call}}[p.Name]
		for _, w := range []Wire{{}, {Down2: true}, {Up2: true}, both, call} {
			if why := p.Cannot(w); (why != "") != slices.Contains(want, w) {
				t.Errorf("%s, %+v: %q", p.Name, w, why)
			}
		}
	}
}

func program(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho \"$0 version: 0a1b/1.40.0/Clean\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, name string) Peer {
	t.Helper()
	all := All()
	return all[slices.IndexFunc(all, func(p Peer) bool { return p.Name == name })]
}

func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := Library{Dir: dir, Meshtap: filepath.Join(dir, "meshtap")}
	for _, tt := range []struct{ name, path string }{
		{"meshtap", "meshtap"},
		{"envoy", "venv/lib/python3.11/site-packages/envoy/_bin/envoy"},
		{"mosn", "mosn"},
		{"net/http", "reverseproxy"},
	} {
		p := find(t, tt.name)
		_, err := p.Find(l)
		if absent := AbsentError(""); !errors.As(err, &absent) || !strings.Contains(string(absent), "make ") {
			t.Errorf("%s: found, or absent without a way out: %v", tt.name, err)
		}
		program(t, filepath.Join(dir, tt.path))
		found, err := p.Find(l)
		if err != nil || found.Path != filepath.Join(dir, tt.path) {
			t.Errorf("%s: %+v, %v", tt.name, found, err)
		}
	}
	sockmap := find(t, "meshtap-sockmap")
	if _, err := sockmap.Find(l); err == nil || !strings.Contains(err.Error(), "--accelerate") {
		t.Errorf("a meshtap that cannot accelerate: %v", err)
	}
	envoy := find(t, "envoy")
	found, err := envoy.Find(l)
	if err != nil {
		t.Fatal(err)
	}
	if v := envoy.Version(found); v != "1.40.0" {
		t.Errorf("the version is %q, which is that of its path", v)
	}
}

// A package that was unpacked runs with the libraries that were unpacked beside it.
func TestFindUnpacked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program(t, filepath.Join(dir, "debian/usr/sbin/no-such-proxy"))
	libs := filepath.Join(dir, "debian/usr/lib/x86_64-linux-gnu")
	if err := os.MkdirAll(libs, 0o755); err != nil {
		t.Fatal(err)
	}
	found, err := debian("no-such-proxy")(Library{Dir: dir})
	if err != nil || !strings.HasPrefix(found.Path, dir) || !slices.Equal(found.Env, []string{"LD_LIBRARY_PATH=" + libs}) {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestMissingPackages(t *testing.T) {
	t.Parallel()
	got := missing("NOTE: This is only a simulation!\nReading package lists...\n" +
		"Inst liblua5.3-0 (5.3.6-2 Debian:12.15/oldstable [amd64])\n" +
		"Inst libssl3 [3.0.1] (3.0.2-1 Debian:12 [amd64]) []\n" +
		"Conf liblua5.3-0 (5.3.6-2 Debian:12.15/oldstable [amd64])\n")
	if want := []string{"liblua5.3-0=5.3.6-2", "libssl3=3.0.2-1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
