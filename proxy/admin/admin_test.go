// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/certs"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// fake is what the views of the tests show, and what was done through them.
type fake struct {
	mu      sync.Mutex
	state   admin.State
	waiting []string
	loggers []admin.Logger
	done    []string

	clusters []*admin.Cluster
	// dump writes the body of /config_dump.
	dump func(io.Writer) error
	// follow writes the events.
	follow func(context.Context, io.Writer) error
}

func (f *fake) did(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, what)
}

// changes returns what was done, and forgets it.
func (f *fake) changes() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.done, " ")
	f.done = nil
	return s
}

func (f *fake) views() admin.Views {
	return admin.Views{
		Ready: func() (admin.State, []string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.state, f.waiting
		},
		ServerInfo: serverInfo,
		Clusters: func() iter.Seq[*admin.Cluster] {
			return func(yield func(*admin.Cluster) bool) {
				for _, c := range f.clusters {
					if !yield(c) {
						return
					}
				}
			}
		},
		Listeners: func() []admin.Listener {
			return []admin.Listener{{Name: "web", Addresses: []mesh.Address{ip("[::1]:29080"), ip("127.0.0.1:29080")}},
				{Name: "v6", Addresses: []mesh.Address{ip("[::1]:29081")}},
				{Name: "uds", Addresses: []mesh.Address{{Pipe: "/run/l.sock"}}}}
		},
		ConfigDump:   f.configDump,
		Certificates: func() []certs.Use { return nil },
		ModifyRuntime: func(values map[string]string) error {
			if values["full"] != "" {
				return &admin.Error{Status: 503, Msg: "too many"}
			}
			f.did(fmt.Sprint("runtime ", values))
			return nil
		},
		History: func() ([]admin.Past, error) { return nil, nil },
		Rollback: func(version string) error {
			f.did("rollback " + version)
			return nil
		},
		Release: func() error {
			f.did("release")
			return nil
		},
		InitDump: func() []admin.Unready {
			return []admin.Unready{{Name: "clusters", Targets: []string{"echo: endpoints"}}}
		},
		Runtime: func() *admin.Runtime {
			return &admin.Runtime{Layers: []string{"static"},
				Entries: map[string]admin.RuntimeEntry{"a.b": {Layers: []string{"1"}, Final: "1"}}}
		},
		Loggers: func() []admin.Logger {
			f.mu.Lock()
			defer f.mu.Unlock()
			return append([]admin.Logger(nil), f.loggers...)
		},
		SetLogger: func(name, level string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for i := range f.loggers {
				if f.loggers[i].Name == name {
					f.loggers[i].Level = level
				}
			}
		},
		DrainListeners: func(o admin.DrainOptions) error {
			what := "drain"
			for _, x := range []struct {
				on   bool
				name string
			}{{o.InboundOnly, "+inbound"}, {o.Graceful, "+graceful"}, {o.SkipExit, "+skip_exit"}} {
				if x.on {
					what += x.name
				}
			}
			f.did(what)
			return nil
		},
		HealthCheck: func(fail bool) {
			f.did(map[bool]string{true: "fail", false: "ok"}[fail])
		},
		ReopenLogs: func() error { f.did("reopen"); return errors.New("/var/log/a: disk full") },
		Quit:       func() { f.did("quit") },
		Events: func(q url.Values) (func(context.Context, io.Writer) error, error) {
			if q.Has("bad") {
				return nil, &admin.Error{Status: 400, Msg: "bad is not a filter\n"}
			}
			return f.follow, nil
		},
		Circuits: func() []admin.Circuit {
			return []admin.Circuit{{Cluster: "echo", State: "open", Reason: "error_rate", Since: time.Unix(1e9, 0).UTC(),
				Requests: 20, Failures: 11}}
		},
		Coverage: func() (*admin.Coverage, error) {
			return &admin.Coverage{
				Bootstrap: []admin.BootstrapNote{{File: "envoy.yaml", Line: 7, Path: "tracing", What: "has no effect: there is no tracing"}},
				Resources: []admin.CoveredResource{{Type: "cluster", Name: "pay", Version: "v42",
					Fields: []admin.CoveredField{{Path: "dns_jitter", Why: "names are looked up when their time is over"}}}},
			}, nil
		},
		XDS: func() *admin.XDS {
			return &admin.XDS{ControlPlane: "cp-1", Connected: true, Types: []admin.XDSType{
				{Type: "cluster", State: "rejected", Version: "v42", Seen: "v43", Resources: 3,
					Rejected: []admin.Rejection{{Name: "pay", Reason: "lb_policy MAGLEVV is unknown"}}}}}
		},
	}
}

func (f *fake) configDump(q admin.DumpQuery) (func(io.Writer) error, error) {
	if q.Mask != "" {
		return nil, &admin.Error{Status: 400, Msg: "mask is not supported; use resource and name_regex\n"}
	}
	if q.Resource == "nosuch" {
		return nil, &admin.Error{Status: 404, Msg: "nosuch not found in config dump"}
	}
	if q.Resource == "broken" {
		return nil, errors.New("a secret reason")
	}
	if f.dump != nil {
		return f.dump, nil
	}
	return func(w io.Writer) error {
		name := ""
		if q.Name != nil {
			name = q.Name.String()
		}
		_, err := io.WriteString(w, `{"configs": [], "resource": "`+q.Resource+`", "name": "`+name+`", "eds": `+map[bool]string{true: "1", false: "0"}[q.EDS]+"}\n")
		return err
	}, nil
}

func serverInfo() *admin.ServerInfo {
	i := &admin.ServerInfo{Version: "0a1b2c/0.1.0/Clean/RELEASE/Go", State: admin.Live, Uptime: 39*time.Second + 7,
		Options: admin.CommandLineOptions{Concurrency: 2, ConfigPath: "e.yaml", LocalAddressIPVersion: "v4", LogLevel: "info",
			DrainStrategy: "Gradual", Mode: "Serve", DrainTime: admin.Duration(600 * time.Second),
			ParentShutdownTime: admin.Duration(900 * time.Second), FileFlushInterval: admin.Duration(1500 * time.Millisecond), DisableHotRestart: true},
		Node: admin.Node{ID: "n1", Cluster: "c1", UserAgent: "meshtap", Metadata: map[string]any{"k": "v"},
			Extensions: []admin.Extension{{Name: "envoy.filters.http.router", Category: "envoy.filters.http", TypeURLs: []string{"x.Router"}}}}}
	i.Node.Build.Version.Minor = 1
	i.Node.Build.Metadata = map[string]string{"build.type": "RELEASE"}
	return i
}

func ip(s string) mesh.Address { return mesh.Address{IP: netip.MustParseAddrPort(s)} }

// registry has one of each sort of metric.
func registry() *stats.Registry {
	reg := stats.NewRegistry(stats.Options{Shards: 2})
	h, c := metrics.NewHTTP(reg, "in", "127.0.0.1:80"), metrics.NewCluster(reg, "echo")
	for _, status := range []int{200, 200, 503} {
		h.Begin(1, mesh.HTTP11)
		metrics.ObserveHTTP(h, c, &mesh.Outcome{Shard: 1, Status: status, Duration: 7e6, UpstreamTook: 3e6})
	}
	reg.Cut()
	h.Begin(0, mesh.HTTP2)
	metrics.ObserveHTTP(h, c, &mesh.Outcome{Status: 200, Duration: 70e6, UpstreamTook: 30e6})
	setText(reg, "control_plane", "identifier", "cp-1")
	return reg
}

// setText adds a text, as xds has them.
func setText(reg *stats.Registry, prefix, name, value string) {
	s := &stats.Schema{Name: prefix, Defs: []stats.Def{{Name: name, Kind: stats.Text}}}
	reg.Group(s, prefix).SetText(0, value)
}

// start starts a server with these views and stats and returns it with a client whose base URL it answers.
func start(t *testing.T, c admin.Config, v admin.Views, reg *stats.Registry) (*admin.Server, *client) {
	t.Helper()
	if c.Address == (mesh.Address{}) {
		c.Address = ip("127.0.0.1:0")
	}
	if c.FlushInterval == 0 {
		c.FlushInterval = time.Hour
	}
	s := admin.New(c, v, admin.Deps{Stats: reg, Log: zap.NewNop()})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, newClient(t, s.Addr())
}

type client struct {
	http.Client
	base string
	addr net.Addr
}

func newClient(t *testing.T, addr net.Addr) *client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
	}}
	t.Cleanup(tr.CloseIdleConnections)
	c := &client{Client: http.Client{Transport: tr}, base: "http://localhost", addr: addr}
	return c
}

// do sends a request and returns the answer with its body.
func (c *client) do(t *testing.T, method, path string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else {
			req.Header[header[i]] = []string{header[i+1]}
		}
	}
	return c.send(t, req)
}

func (c *client) send(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// raw writes bytes on a connection of its own and returns all that comes back until the server closes it.
func (c *client) raw(t *testing.T, bytes string) string {
	t.Helper()
	conn, err := net.Dial(c.addr.Network(), c.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, bytes); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(conn)
	return string(b)
}

func socketPath(t *testing.T) mesh.Address {
	return mesh.Address{Pipe: filepath.Join(t.TempDir(), "a.sock")}
}

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		// Every test has closed its servers: nothing of this package may run any more.
		b := make([]byte, 1<<20)
		b = b[:runtime.Stack(b, true)]
		for _, g := range strings.Split(string(b), "\n\n")[1:] {
			if strings.Contains(g, "proxy/admin.") {
				println("a goroutine is left:\n" + g)
				code = 1
			}
		}
	}
	os.Exit(code)
}
