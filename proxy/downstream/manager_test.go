// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// TestNew: what a manager cannot be made of is named.
func TestNew(t *testing.T) {
	t.Parallel()
	fails := func(any, filter.Deps) (filter.Filter, error) { return nil, errors.New("no good") }
	for _, c := range []struct {
		name string
		cfg  mesh.HTTPManager
		logs error
		want string
	}{
		{"unknown filter", mesh.HTTPManager{Filters: []mesh.Extension{{Name: "f", TypeURL: "other"}}}, nil, `HTTP filter "f": no filter for other`},
		{"filter that cannot be built", mesh.HTTPManager{Filters: []mesh.Extension{{Name: "f", TypeURL: "fails"}}}, nil, `HTTP filter "f": no good`},
		{"routes", mesh.HTTPManager{Routes: &mesh.RouteTable{Hosts: []*mesh.VirtualHost{{Domains: []string{"a"}}, {Domains: []string{"a"}}}}}, nil, "domain"},
		{"logs", mesh.HTTPManager{}, errors.New("no such file"), "no such file"},
		{"nothing", mesh.HTTPManager{}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := stats.NewRegistry(stats.Options{})
			m, err := New(&mesh.Listener{}, &mesh.FilterChain{HTTP: &c.cfg}, &Deps{
				Log: zap.NewNop(), Stats: reg, Filters: map[string]filter.Builder{"fails": fails}, Env: &format.Env{},
				Logs: func([]mesh.AccessLog) (Logs, error) { return nopLogs{}, c.logs },
			})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				m.Release()
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestRetire: a manager with routes of its own keeps the clusters that they name when it is retired, one with a named
// table goes on to follow the configuration.
func TestRetire(t *testing.T) {
	t.Parallel()
	for _, inline := range []bool{false, true} {
		t.Run(fmt.Sprint("inline ", inline), func(t *testing.T) {
			t.Parallel()
			s := setup{routes: []*mesh.Route{forwarded()}, backend: always(ok)}
			if inline {
				s.manager.Routes = &mesh.RouteTable{Name: "own", Hosts: []*mesh.VirtualHost{{Domains: []string{"*"}, Routes: s.routes}}}
			}
			r := start(t, s)
			if got := r.ask(last); statusOf(got) != "200" {
				t.Fatalf("got %q", got)
			}
			r.Retire()
			r.now.Store(&pin{&still{r, nil}}) // the cluster has gone
			want := map[bool]string{false: "503", true: "200"}[inline]
			if got := r.ask(last); statusOf(got) != want {
				t.Errorf("got %q", got)
			}
			if o := r.wait(2); inline && o[0].RouteTable != "own" {
				t.Errorf("route table %q", o[0].RouteTable)
			}
		})
	}
}

// TestRetireWithoutTable: a manager whose named table has gone since it was retired serves from what there was.
func TestRetireWithoutTable(t *testing.T) {
	t.Parallel()
	r := start(t, setup{routes: []*mesh.Route{forwarded()}, backend: always(ok)})
	r.Retire()
	r.now.Store(&pin{nothing{}})
	if got := r.ask(last); statusOf(got) != "200" {
		t.Errorf("got %q", got)
	}
	if o := r.wait(1); o[0].RouteTable != "routes" || o[0].Versions.Routes != "later" {
		t.Errorf("route table %q, versions %+v", o[0].RouteTable, o[0].Versions)
	}
}

// nothing is a state in which all has gone.
type nothing struct{}

func (nothing) Cluster(string) *upstream.Cluster { return nil }
func (nothing) Table(string) *Table              { return nil }
func (nothing) Scopes(string) *Scopes            { return nil }
func (nothing) Versions() mesh.Versions          { return mesh.Versions{Routes: "later"} }

// still is a state with one cluster, or none.
type still struct {
	*rig
	c *upstream.Cluster
}

func (s *still) Cluster(string) *upstream.Cluster { return s.c }

// TestUpgradesByRoute: a route may allow what the manager does not, and forbid what it does.
func TestUpgradesByRoute(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		manager   []mesh.Upgrade
		route     []mesh.Upgrade
		ask       string
		want      string
		wsOnNonWS int64
	}{
		{"allowed by the manager", []mesh.Upgrade{{Type: "websocket", Enabled: true}}, nil, "WebSocket", "101", 0},
		{"forbidden by the route", []mesh.Upgrade{{Type: "websocket", Enabled: true}}, []mesh.Upgrade{{Type: "websocket"}}, "websocket", "403", 1},
		{"allowed by the route", []mesh.Upgrade{{Type: "websocket"}}, []mesh.Upgrade{{Type: "websocket", Enabled: true}}, "websocket", "101", 0},
		{"unknown", nil, nil, "websocket", "403", 0},
		{"of absurd length", nil, nil, strings.Repeat("w", 100), "403", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rt := forwarded()
			rt.Forward.Upgrades = c.route
			r := start(t, setup{manager: mesh.HTTPManager{Upgrades: c.manager}, routes: []*mesh.Route{rt}, backend: echo101})
			conn := r.dial()
			conn.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: " + c.ask + "\r\n\r\n")
			if h := conn.head(); statusOf(h) != c.want {
				t.Errorf("got %q", h)
			}
			conn.Close()
			r.waitConns(0)
			if n := r.count(metrics.DownstreamRqWsOnNonWsRoute); n != c.wsOnNonWS {
				t.Errorf("%d counted", n)
			}
		})
	}
}

// TestOnePath: the canonical path is the one that is routed by, sent, and told.
func TestOnePath(t *testing.T) {
	t.Parallel()
	secret := forwarded()
	secret.Name, secret.Match.Path = "secret", "/secret"
	public := forwarded()
	public.Name, public.Match.Path = "public", "/public"
	r := start(t, setup{
		manager: mesh.HTTPManager{NormalizePath: true, MergeSlashes: true, EscapedSlashes: mesh.SlashesReject},
		routes:  []*mesh.Route{secret, public}, backend: echoHead,
	})
	for i, p := range []string{"/public/../secret", "/public/..//secret", "/public/%2e%2e/secret", "/public/..;x=y/secret", `/public\..\secret`, "//secret", "/%73ecret"} {
		got := r.ask("GET " + p + "?q=%2f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if !strings.Contains(got, "GET /secret?q=%2f HTTP/1.1\r\n") {
			t.Errorf("%s: %q", p, got)
		}
		if o := r.wait(i + 1)[i]; o.RouteName != "secret" || string(o.Path) != "/secret?q=%2f" || string(o.UpstreamPath) != "/secret?q=%2f" {
			t.Errorf("%s: route %q, path %q, sent %q", p, o.RouteName, o.Path, o.UpstreamPath)
		}
	}
}

// TestOneAuthority: the same for the authority, and for a target in absolute form.
func TestOneAuthority(t *testing.T) {
	t.Parallel()
	other := &mesh.VirtualHost{Name: "other", Domains: []string{"other.test"}, Routes: []*mesh.Route{forwarded()}}
	r := start(t, setup{
		manager: mesh.HTTPManager{StripAnyPort: true, StripTrailingDot: true}, table: mesh.RouteTable{Hosts: []*mesh.VirtualHost{other}}, backend: echoHead,
	})
	for i, in := range []string{"GET / HTTP/1.1\r\nHost: other.test:8080\r\n", "GET / HTTP/1.1\r\nHost: other.test.:1\r\n", "GET http://other.test:99/ HTTP/1.1\r\nHost: lies.test\r\n"} {
		got := r.ask(in + "Connection: close\r\n\r\n")
		if _, up, _ := strings.Cut(got, "\r\n\r\n"); strings.Count(strings.ToLower(up), "host: ") != 1 || !strings.Contains(strings.ToLower(up), "host: other.test\r\n") {
			t.Errorf("%q: %q", in, got)
		}
		if o := r.wait(i + 1)[i]; o.VirtualHost != "other" || string(o.Authority) != "other.test" {
			t.Errorf("%q: host %q, authority %q", in, o.VirtualHost, o.Authority)
		}
	}
}

// TestLingerEnds: a client that goes on to send after it was refused is read for so much and no longer.
func TestLingerEnds(t *testing.T) {
	t.Parallel()
	r := start(t, setup{manager: mesh.HTTPManager{DelayedCloseTimeout: hang}, routes: []*mesh.Route{direct("/", 200, "")}})
	c := r.dial()
	c.send("nonsense\r\n\r\n")
	block := strings.Repeat("x", 1<<16)
	sent := 0
	for ; sent < 1<<30; sent += len(block) {
		if _, err := io.WriteString(c.TCPConn, block); err != nil {
			break
		}
	}
	if sent >= 1<<30 {
		t.Error("the connection is read for ever")
	}
	r.waitConns(0)
	if o := r.wait(1); len(o) != 1 || o[0].Status != 400 {
		t.Errorf("%+v", o)
	}
}

// TestLingerTimesOut: nor is one that neither sends nor closes kept for long.
func TestLingerTimesOut(t *testing.T) {
	t.Parallel()
	r := start(t, setup{manager: mesh.HTTPManager{DelayedCloseTimeout: 50e6}, routes: []*mesh.Route{direct("/", 200, "")}})
	c := r.dial()
	c.send("nonsense\r\n\r\n")
	if got := c.rest(); statusOf(got) != "400" {
		t.Errorf("got %q", got)
	}
	r.waitConns(0)
	if n := r.count(metrics.DownstreamCxDelayedCloseTimeout); n != 1 {
		t.Errorf("%d counted", n)
	}
}
