// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/pool"
	"github.com/meshtap/meshtap/proxy/socket"
)

// hang is how long a test waits for what must happen; it is never a measurement.
const hang = 20 * time.Second

// rig is what clusters need, and the notices that they gave.
type rig struct {
	t    testing.TB
	deps Deps
	reg  *stats.Registry

	mu      sync.Mutex
	notices []string
}

func newRig(t testing.TB) *rig {
	t.Helper()
	e, err := socket.NewEngine(socket.Options{Sets: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, reg: stats.NewRegistry(stats.Options{})}
	r.deps = Deps{
		Log: zap.NewNop(), Engine: e, Stats: r.reg, Notifier: r, Policies: registry.Builders(lb.Rows()), Dials: pool.NewDials(),
	}
	t.Cleanup(func() {
		r.deps.Dials.Close()
		e.Close()
	})
	return r
}

// Notify implements mesh.Notifier.
func (r *rig) Notify(n *mesh.Notice) {
	host := n.Host.String()
	if n.Host == (mesh.Address{}) {
		host = "cluster"
	}
	var text string
	switch {
	case n.Circuit != nil:
		text = fmt.Sprintf("%s %s>%s %s", host, n.Circuit.From, n.Circuit.To, n.Circuit.Reason)
	case n.Ejection != nil:
		text = fmt.Sprintf("%s ejected=%v %s times=%d for=%s", host, n.Ejection.Ejected, n.Ejection.Reason, n.Ejection.Times, time.Duration(n.Ejection.For).Truncate(time.Second))
	case n.Health != nil:
		text = fmt.Sprintf("%s %d>%d %s", host, n.Health.From, n.Health.To, n.Health.Source)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notices = append(r.notices, text)
}

// told returns the notices since the last call.
func (r *rig) told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.notices
	r.notices = nil
	return n
}

func (r *rig) wantTold(want ...string) {
	r.t.Helper()
	if got := r.told(); !slices.Equal(got, want) {
		r.t.Errorf("told\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// number returns a number of the cluster c.
func (r *rig) number(name string) (value int64) {
	r.t.Helper()
	found := false
	r.reg.Each(func(k stats.Kind) bool { return k != stats.Histogram }, func(m *stats.Metric) bool {
		if string(m.AppendName(nil)) == "cluster.c."+name {
			value, found = m.Value, true
		}
		return !found
	})
	if !found {
		r.t.Fatalf("no number %q", name)
	}
	return value
}

// config is a static cluster named c; change it before make.
func config(change ...func(*mesh.Cluster)) *mesh.Cluster {
	lim := mesh.Limits{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3}
	c := &mesh.Cluster{
		Name: "c", Discovery: mesh.EDS, ConnectTimeout: hang, Limits: [2]mesh.Limits{lim, lim},
		Policy: mesh.Extension{TypeURL: lb.RoundRobinType, Config: lb.DefaultRoundRobin()},
		HTTP:   mesh.UpstreamHTTP{IdleTimeout: time.Hour},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// cluster makes the runtime, over hosts where there are any.
func (r *rig) cluster(cfg *mesh.Cluster, hosts ...string) *Cluster {
	r.t.Helper()
	c := New(cfg, &r.deps, nil)
	r.t.Cleanup(c.Close)
	if len(hosts) > 0 {
		c.SetEndpoints(set("1", hosts...))
	}
	return c
}

func address(a string) mesh.Address { return mesh.Address{IP: netip.MustParseAddrPort(a)} }

// set returns endpoints of one locality. An address may be followed by "/" and a health status.
func set(version string, hosts ...string) *mesh.EndpointSet {
	s := &mesh.EndpointSet{Version: version, Localities: []mesh.LocalityEndpoints{{}}}
	for _, text := range hosts {
		a, health, _ := strings.Cut(text, "/")
		e := mesh.Endpoint{Address: address(a), Weight: 1}
		e.Health = map[string]mesh.HealthStatus{
			"": mesh.HealthUnknown, "healthy": mesh.HealthHealthy, "unhealthy": mesh.HealthUnhealthy,
			"draining": mesh.HealthDraining, "timeout": mesh.HealthTimeout, "degraded": mesh.HealthDegraded,
		}[health]
		s.Localities[0].Endpoints = append(s.Localities[0].Endpoints, e)
	}
	return s
}

// pick makes an attempt as far as a host.
func pick(t testing.TB, c *Cluster, choice ...*Choice) (Ticket, *Host, *mesh.Failure) {
	t.Helper()
	ch := &Choice{}
	if len(choice) > 0 {
		ch = choice[0]
	}
	k, fail := c.Admit(0, mono.Now())
	if fail != nil {
		return k, nil, fail
	}
	h, fail := k.Pick(ch, 0)
	if fail != nil {
		k.Drop()
		return k, nil, fail
	}
	return k, h, nil
}

// attempt makes an attempt that ends with a status.
func attempt(t testing.TB, c *Cluster, status int) string {
	t.Helper()
	k, h, fail := pick(t, c)
	if fail != nil {
		return fail.Kind.String()
	}
	k.Done(&circuit.Attempt{Status: status}, 0)
	return h.Address.String()
}

// spread makes attempts that end well, and returns who served how many.
func spread(t testing.TB, c *Cluster, n int) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for range n {
		seen[attempt(t, c, 200)]++
	}
	return seen
}

// until waits for what happens without telling the test.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(hang); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}
