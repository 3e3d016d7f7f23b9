// SPDX-License-Identifier: Apache-2.0

// Package peer knows the proxies that are compared: where each is found and how it is installed, the configuration that
// gives all of them the same job, how one is started on a core of its own, and whether it does the job.
//
// The job: route by host and prefix to one of two clusters, the first with two hosts in turn; keep connections on both
// sides; add x-request-id to the request and x-envoy-upstream-service-time to the answer; retry once where nothing could be
// sent; no access log. Check holds a running peer against it.
package peer

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

//go:embed templates
var templates embed.FS

// Wire is what is spoken on both sides of a peer: HTTP/2, without TLS by prior knowledge, or HTTP/1.1.
type Wire struct {
	Down2, Up2 bool
	// GRPC says that the requests are calls; both sides speak HTTP/2 then. Streaming says that the calls are streams that
	// stand.
	GRPC, Streaming bool
	// TLS says that clients speak TLS 1.3, and choose HTTP/2 by ALPN.
	TLS bool
}

// Place is where a peer listens and whom it calls.
type Place struct {
	Wire

	Listen    netip.AddrPort
	Upstreams [2]netip.AddrPort
	Other     netip.AddrPort
	// Dir is where its files go, an absolute path.
	Dir string
	// Cgroup is that of a cgroup2 in which the peer begins; nil leaves it where its caller is.
	Cgroup *os.File
}

// Identity is the file with the peer's key and certificate, where the wire wants one.
func (p Place) Identity() string { return filepath.Join(p.Dir, "identity.pem") }

// Peer is one of the proxies.
type Peer struct {
	// Name is what it is called in tables.
	Name string
	// Lacks says, for a person, where its configuration falls short of the job or differs from it.
	Lacks []string
	// Cgroup says that the peer wants to be in one cgroup2 with its clients and its upstreams.
	Cgroup bool

	refused        string // where its log says this, it does not do what it is measured for
	file, template string // its configuration
	find           func(Library) (Program, error)
	args           func(p Place, file string) []string
	cannot         func(Wire) string // why it cannot do the job over a wire; nil and "" say that it can
	version        []string          // the arguments that make it tell
}

// Program is a peer that has been found.
type Program struct {
	Path string
	Env  []string // beyond the usual
}

// Library is where peers are looked for.
type Library struct {
	// Dir is where Install puts them, an absolute path.
	Dir string
	// Meshtap is the binary to measure, an absolute path.
	Meshtap string
}

// All returns the peers in the order of the tables.
func All() []Peer {
	envoyArgs := func(_ Place, file string) []string {
		return []string{"-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"}
	}
	meshtapArgs := func(extra ...string) func(Place, string) []string {
		return func(_ Place, file string) []string {
			return append([]string{"serve", "-c", file, "--concurrency", "1", "--log-level", "error"}, extra...)
		}
	}
	return []Peer{
		{
			Name: "meshtap", file: "meshtap.yaml", template: "envoy.yaml.tmpl",
			find: findMeshtap, args: meshtapArgs(), version: []string{"version"},
			Lacks: []string{"does more: its circuit breaker and the event tap to memory are on"},
		},
		{
			Name: "meshtap-sockmap", file: "meshtap.yaml", template: "envoy.yaml.tmpl",
			find: findSockmap, args: meshtapArgs("--accelerate=sockmap", "--log-level", "warning"), version: []string{"version"},
			Cgroup: true, refused: "--accelerate has no effect",
			Lacks: []string{"as meshtap, with local sockets spliced in the kernel"},
		},
		{
			Name: "envoy", file: "envoy.yaml", template: "envoy.yaml.tmpl",
			find: findEnvoy, args: envoyArgs, version: []string{"--version"},
		},
		{
			Name: "haproxy", file: "haproxy.cfg", template: "haproxy.cfg.tmpl", find: debian("haproxy"), version: []string{"-v"},
			args: func(_ Place, file string) []string { return []string{"-db", "-f", file} },
			Lacks: []string{
				"retries where no connection could be made, not where one broke without an answer",
				"no outlier ejection, retry budget or limits per cluster",
			},
		},
		{
			Name: "nginx", file: "nginx.conf", template: "nginx.conf.tmpl", find: debian("nginx"), version: []string{"-v"},
			args: func(p Place, file string) []string { return []string{"-e", "stderr", "-p", p.Dir, "-c", file} },
			Lacks: []string{
				"x-request-id is 32 hexadecimal digits instead of a UUID",
				"x-envoy-upstream-service-time is in seconds with three decimals instead of whole milliseconds",
				"passive failure counting instead of outlier ejection; no retry budget or limits per cluster; no metrics per cluster",
				"gRPC goes through grpc_pass, with a connection per call in flight",
			},
			cannot: func(w Wire) string {
				if w.Up2 && !w.GRPC {
					return "it speaks HTTP/2 to an upstream for gRPC alone"
				}
				return ""
			},
		},
		{
			Name: "mosn", file: "mosn.json", template: "mosn.json.tmpl", find: installed("mosn", "it could not be built"),
			args: func(_ Place, file string) []string { return []string{"start", "-c", file} }, version: []string{"--version"},
			Lacks: []string{
				"x-request-id and x-envoy-upstream-service-time are constants",
				"no outlier ejection or retry budget",
			},
			cannot: func(w Wire) string {
				if w != (Wire{}) {
					return "its configuration is for HTTP/1.1 alone"
				}
				return ""
			},
		},
		{
			Name: "net/http", find: installed("reverseproxy", "it has not been built"),
			args: func(p Place, _ string) []string {
				args := []string{
					"-listen", p.Listen.String(), "-v1", p.Upstreams[0].String() + "," + p.Upstreams[1].String(),
					"-v2", p.Other.String(),
				}
				if p.Down2 {
					args = append(args, "-down2")
				}
				if p.Up2 {
					args = append(args, "-up2")
				}
				if p.TLS {
					args = append(args, "-identity", p.Identity())
				}
				return args
			},
			Lacks: []string{
				"x-request-id is 26 letters and digits instead of a UUID",
				"retries requests without a body alone, and to the same host; no outlier ejection, limits or metrics",
			},
		},
	}
}

// AbsentError is what Find returns where a peer is not installed: why, and what to do about it.
type AbsentError string

func (e AbsentError) Error() string { return string(e) }

func absent(format string, args ...any) error { return AbsentError(fmt.Sprintf(format, args...)) }

// Cannot says why the peer cannot do the job over a wire; it is empty where it can.
func (p *Peer) Cannot(w Wire) string {
	if p.cannot == nil {
		return ""
	}
	return p.cannot(w)
}

// Find looks for the peer's program.
func (p *Peer) Find(l Library) (Program, error) { return p.find(l) }

func findMeshtap(l Library) (Program, error) {
	if _, err := os.Stat(l.Meshtap); err != nil {
		return Program{}, absent("%s is not there; run `make build`", l.Meshtap)
	}
	return Program{Path: l.Meshtap}, nil
}

func findSockmap(l Library) (Program, error) {
	found, err := findMeshtap(l)
	if err != nil {
		return found, err
	}
	help, _ := exec.Command(l.Meshtap, "serve", "--help").CombinedOutput()
	if !bytes.Contains(help, []byte("--accelerate")) {
		return Program{}, absent("this meshtap has no --accelerate")
	}
	return found, nil
}

// findEnvoy looks into the virtual environment that Install makes.
func findEnvoy(l Library) (Program, error) {
	found, _ := filepath.Glob(filepath.Join(l.Dir, "venv", "lib", "python*", "site-packages", "envoy", "_bin", "envoy"))
	if len(found) == 0 {
		return Program{}, absent("run `make bench-peers`, which needs python3")
	}
	return Program{Path: found[0]}, nil
}

// debian looks for a program of the system, and then for one that Install unpacked, with the libraries beside it.
func debian(name string) func(Library) (Program, error) {
	return func(l Library) (Program, error) {
		for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"} {
			if path := filepath.Join(dir, name); executable(path) {
				return Program{Path: path}, nil
			}
		}
		root := filepath.Join(l.Dir, "debian")
		path := filepath.Join(root, "usr", "sbin", name)
		if !executable(path) {
			return Program{}, absent("install the package %s, or run `make bench-peers` on Debian", name)
		}
		libs, _ := filepath.Glob(filepath.Join(root, "usr", "lib", "*-linux-gnu*"))
		return Program{Path: path, Env: []string{"LD_LIBRARY_PATH=" + strings.Join(libs, ":")}}, nil
	}
}

// installed looks for a program that Install built.
func installed(name, why string) func(Library) (Program, error) {
	return func(l Library) (Program, error) {
		path := filepath.Join(l.Dir, name)
		if !executable(path) {
			return Program{}, absent("%s; run `make bench-peers`", why)
		}
		return Program{Path: path}, nil
	}
}

func executable(path string) bool {
	s, err := os.Stat(path)
	return err == nil && s.Mode().IsRegular() && s.Mode()&0o111 != 0
}

var number = regexp.MustCompile(`\d+\.\d+(\.\d+)?[-+~.\w]*`)

// Version asks the program for its version; a peer that cannot tell has the version of Go it was built with.
func (p *Peer) Version(found Program) string {
	if p.version == nil {
		out, _ := exec.Command("go", "version", found.Path).Output()
		return strings.TrimSpace(strings.TrimPrefix(string(out), found.Path+":"))
	}
	cmd := exec.Command(found.Path, p.version...)
	cmd.Env = append(os.Environ(), found.Env...)
	out, err := cmd.CombinedOutput()
	// Envoy's path has the version of Python in it.
	text := strings.ReplaceAll(string(out), found.Path, "")
	if v := number.FindString(text); v != "" {
		return v
	}
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(text)
}

// cluster is what the template of Envoy's clusters takes.
type cluster struct {
	Name    string
	Hosts   []netip.AddrPort
	Breaker bool
	HTTP2   bool
}

// input is what the templates take.
type input struct {
	Place
	Meshtap bool
}

// Limit is how long a request may take: streams that stand are not limited, where the limit is one for the whole.
func (in input) Limit() string {
	if in.Streaming {
		return "0s"
	}
	return "15s"
}

// Cluster returns one of the two clusters.
func (in input) Cluster(name string) cluster {
	if name == "v1" {
		return cluster{name, in.Upstreams[:], in.Meshtap, in.Up2}
	}
	return cluster{name, []netip.AddrPort{in.Other}, in.Meshtap, in.Up2}
}

// Config returns the peer's configuration; it is empty where the peer takes everything from its arguments.
func (p *Peer) Config(at Place) (string, error) {
	if p.template == "" {
		return "", nil
	}
	t, err := template.ParseFS(templates, "templates/"+p.template)
	if err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, input{at, strings.HasPrefix(p.Name, "meshtap")}); err != nil {
		return "", fmt.Errorf("peer: the configuration of %s: %w", p.Name, err)
	}
	return b.String(), nil
}
