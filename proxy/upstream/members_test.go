// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
)

const a, b, d = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"

// TestMembership: hosts that stay are the same ones, whatever else of them changed; who holds one that left keeps it.
func TestMembership(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config(), a, b, b) // twice is once
	first := c.Hosts()
	if len(first) != 2 || c.EndpointVersion() != "1" || r.number("membership_total") != 2 {
		t.Fatalf("%d hosts at version %q", len(first), c.EndpointVersion())
	}
	k, held, fail := pick(t, c)
	if fail != nil {
		t.Fatal(fail)
	}
	other := first[0]
	if other == held {
		other = first[1]
	}
	next := set("2", other.Address.String(), d)
	next.Localities[0].Endpoints[0].Weight = 7
	c.SetEndpoints(next)
	if h := c.Hosts(); len(h) != 2 || h[0] != other || h[1].Address != address(d) || h[0].Endpoint().Weight != 7 {
		t.Error("the host that stayed is not the same, or has not changed")
	}
	if held.Active() != 1 {
		t.Errorf("the host that left has %d in flight", held.Active())
	}
	k.Done(&circuit.Attempt{Status: 200}, 0)
	if held.Active() != 0 {
		t.Errorf("%d in flight at the end", held.Active())
	}
	if seen := spread(t, c, 40); seen[held.Address.String()] != 0 || seen[d] == 0 {
		t.Errorf("picked %v", seen)
	}
	c.SetEndpoints(next)
	c.SetEndpoints(&mesh.EndpointSet{Version: "3"})
	if _, _, fail := pick(t, c); fail == nil || fail.Kind != mesh.NoHealthyHost {
		t.Errorf("an empty cluster gave %v", fail)
	}
	for name, want := range map[string]int64{
		"update_success": 4, "update_empty": 1, "update_no_rebuild": 1, "membership_change": 3, "membership_total": 0,
	} {
		if got := r.number(name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

// TestHealthIsCombined: discovery, active checks and outlier detection each have their say.
func TestHealthIsCombined(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name      string
		discovery mesh.HealthStatus
		check     uint32
		ejected   bool
		want      lb.Health
	}{
		{"nobody says anything", mesh.HealthUnknown, unchecked, false, lb.Healthy},
		{"discovery: healthy", mesh.HealthHealthy, unchecked, false, lb.Healthy},
		{"discovery: unhealthy", mesh.HealthUnhealthy, unchecked, false, lb.Unhealthy},
		{"discovery: draining", mesh.HealthDraining, unchecked, false, lb.Unhealthy},
		{"discovery: timeout", mesh.HealthTimeout, unchecked, false, lb.Unhealthy},
		{"discovery: degraded", mesh.HealthDegraded, unchecked, false, lb.Degraded},
		{"not checked yet", mesh.HealthHealthy, checkPending, false, lb.Unhealthy},
		{"check passed", mesh.HealthHealthy, checkPassed, false, lb.Healthy},
		{"check passed, discovery: unhealthy", mesh.HealthUnhealthy, checkPassed, false, lb.Unhealthy},
		{"check passed, discovery: degraded", mesh.HealthDegraded, checkPassed, false, lb.Degraded},
		{"check: degraded", mesh.HealthHealthy, checkDegraded, false, lb.Degraded},
		{"check: degraded, discovery: unhealthy", mesh.HealthUnhealthy, checkDegraded, false, lb.Unhealthy},
		{"check failed", mesh.HealthHealthy, checkFailed, false, lb.Unhealthy},
		{"ejected", mesh.HealthHealthy, checkPassed, true, lb.Unhealthy},
		{"ejected and degraded", mesh.HealthDegraded, checkDegraded, true, lb.Unhealthy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := &Host{outlier: &circuit.HostState{}}
			h.info.Store(&info{endpoint: &mesh.Endpoint{Health: tc.discovery}, group: &mesh.LocalityGroup{}})
			h.checked.Store(tc.check)
			if tc.ejected {
				o := circuit.NewOutlier(mesh.Outlier{Consecutive5xx: 1, Enforcing5xx: 100, MaxEjectionPercent: 100, BaseEjection: time.Hour, MaxEjection: time.Hour})
				o.Add(h.outlier)
				o.Report(0, h.outlier, &circuit.Attempt{Status: 500}, 0)
			}
			if got := h.Health(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestDiscoveredHealthIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config(), a, b)
	c.SetEndpoints(set("2", a, b+"/unhealthy"))
	r.wantTold(b + " 0>2 discovery")
	if seen := spread(t, c, 10); seen[a] != 10 {
		t.Errorf("picked %v", seen)
	}
	if total, healthy := r.number("membership_total"), r.number("membership_healthy"); total != 2 || healthy != 1 {
		t.Errorf("%d of %d are healthy", healthy, total)
	}
}

// TestPanic: with too few healthy hosts, health is ignored; with a threshold of 0 it never is.
func TestPanic(t *testing.T) {
	t.Parallel()
	hosts := []string{a, b + "/unhealthy", d + "/unhealthy"}
	for _, tc := range []struct {
		name      string
		threshold float64
		hosts     []string
		want      map[string]int
		panics    int64
	}{
		{"below the threshold", 50, hosts, map[string]int{a: 10, b: 10, d: 10}, 30},
		{"no threshold", 0, hosts, map[string]int{a: 30}, 0},
		{"above the threshold", 50, []string{a, b, d + "/unhealthy"}, map[string]int{a: 15, b: 15}, 0},
		{"nobody is healthy", 50, []string{a + "/unhealthy"}, map[string]int{a: 30}, 30},
		{"nobody is healthy and no threshold", 0, []string{a + "/unhealthy"}, map[string]int{"no_healthy_host": 30}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			c := r.cluster(config(func(c *mesh.Cluster) { c.PanicThreshold = tc.threshold }), tc.hosts...)
			if got := spread(t, c, 30); !maps.Equal(got, tc.want) {
				t.Errorf("picked %v, want %v", got, tc.want)
			}
			if n := r.number("lb_healthy_panic"); n != tc.panics {
				t.Errorf("%d in a panic", n)
			}
		})
	}
}

// TestPriorities: the second priority takes over when nobody of the first is healthy.
func TestPriorities(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config())
	s := set("1", a)
	s.Localities = append(s.Localities, set("", b).Localities...)
	s.Localities[1].Priority = 1
	c.SetEndpoints(s)
	if seen := spread(t, c, 20); seen[a] != 20 {
		t.Errorf("picked %v", seen)
	}
	down := set("2", a+"/unhealthy")
	down.Localities = append(down.Localities, s.Localities[1])
	c.SetEndpoints(down)
	if seen := spread(t, c, 20); seen[b] != 20 {
		t.Errorf("picked %v", seen)
	}
}

// TestAvoid: a retry goes elsewhere as long as there is an elsewhere.
func TestAvoid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(config(), a, b)
	for range 20 {
		k, h, _ := pick(t, c)
		k.Drop()
		k2, other, fail := pick(t, c, &Choice{Tried: []*Host{h}, Avoid: 5})
		if fail != nil || other == h {
			t.Fatalf("the same host again, or %v", fail)
		}
		k2.Drop()
	}
	c.SetEndpoints(set("2", a))
	k, h, _ := pick(t, c)
	k.Drop()
	if k, again, fail := pick(t, c, &Choice{Tried: []*Host{h}, Avoid: 5}); fail != nil || again != h {
		t.Errorf("the only host is refused: %v", fail)
	} else {
		k.Drop()
	}
}

func original(change ...func(*mesh.Cluster)) *mesh.Cluster {
	return config(append([]func(*mesh.Cluster){func(c *mesh.Cluster) {
		c.Discovery, c.OriginalDst = mesh.OriginalDestination, &mesh.OriginalDst{IdleHosts: 5 * time.Second}
	}}, change...)...)
}

func toward(dst string) *Choice { return &Choice{Destination: netip.MustParseAddrPort(dst)} }

func TestOriginalDestination(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deps.Own = func(at netip.AddrPort) bool { return at.Port() == 15001 }
	c := r.cluster(original())
	for _, refused := range []*Choice{{}, toward("10.0.0.1:0"), toward("0.0.0.0:80"), toward("[::]:80"), toward("10.0.0.1:15001")} {
		if _, _, fail := pick(t, c, refused); fail == nil || fail.Kind != mesh.NoHealthyHost {
			t.Errorf("%v: %v", refused.Destination, fail)
		}
	}
	k, h, fail := pick(t, c, toward(a))
	if fail != nil || h.Address != address(a) {
		t.Fatalf("%v, %v", h, fail)
	}
	k2, again, _ := pick(t, c, toward(a))
	if again != h || len(c.Hosts()) != 1 || r.number("membership_total") != 1 {
		t.Error("one destination has two hosts")
	}
	c.Tick(mono.Now() + int64(time.Hour))
	if len(c.Hosts()) != 1 {
		t.Error("a host in use was forgotten")
	}
	k.Drop()
	k2.Drop()
	c.Tick(mono.Now() + int64(4*time.Second))
	if len(c.Hosts()) != 1 {
		t.Error("a host was forgotten before its time")
	}
	c.Tick(mono.Now() + int64(6*time.Second))
	if len(c.Hosts()) != 0 || r.number("membership_total") != 0 {
		t.Error("an idle host was not forgotten")
	}
	k, later, _ := pick(t, c, toward(a))
	if later == h {
		t.Error("a host came back from the dead")
	}
	k.Drop()
}

func TestOriginalDestinationPort(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(original(func(c *mesh.Cluster) { c.OriginalDst.Port = 8080 }))
	k, h, fail := pick(t, c, toward(a))
	if fail != nil || h.Address != address("10.0.0.1:8080") {
		t.Errorf("%v, %v", h, fail)
	}
	k.Drop()
}

// TestOriginalDestinationsAreBounded: a scan of ports does not fill the memory. What is idle makes room; where nothing is,
// the next destination is refused.
func TestOriginalDestinationsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.cluster(original())
	ip := netip.MustParseAddr("10.0.0.1")
	var busy Ticket
	for i := range maxOriginal + 10 {
		k, _, fail := pick(t, c, &Choice{Destination: netip.AddrPortFrom(ip, uint16(i+1))})
		if fail != nil {
			t.Fatal(fail)
		}
		if i == 0 {
			busy = k
		} else {
			k.Drop()
		}
	}
	if n := len(c.Hosts()); n != maxOriginal {
		t.Errorf("%d hosts", n)
	}
	if _, there := c.originals.Load(netip.AddrPortFrom(ip, 1)); !there {
		t.Error("the busy host made room")
	}
	for _, h := range c.Hosts() {
		h.lbHost.Active.Add(1)
	}
	if _, _, fail := pick(t, c, toward("10.0.0.2:1")); fail == nil || fail.Kind != mesh.NoHealthyHost {
		t.Errorf("with all busy: %v", fail)
	}
	busy.Drop()
}

// TestOriginalDestinationOnAnOldCluster: a request that is still on a cluster that has gone, or is just being replaced, is
// served, and leaves no connection behind, which nobody would close.
func TestOriginalDestinationOnAnOldCluster(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(r *rig, c *Cluster){
		"closed":   func(_ *rig, c *Cluster) { c.Close() },
		"replaced": func(r *rig, c *Cluster) { r.t.Cleanup(New(original(), &r.deps, c).Close) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			server := listen(t)
			c := r.cluster(original())
			end(r, c)
			k, h, fail := pick(t, c, toward(server.Addr().String()))
			if fail != nil {
				t.Fatal(fail)
			}
			r.exchange(h)
			k.Done(&circuit.Attempt{Status: 200}, 0)
			if n := h.HTTP(mesh.HTTP11).Open(); n != 0 {
				t.Errorf("%d connections are kept", n)
			}
		})
	}
}

// TestSuccessor: a changed configuration takes over what is not its own: connections, what is in use, what was learnt.
func TestSuccessor(t *testing.T) {
	t.Parallel()
	outlier := &mesh.Outlier{Consecutive5xx: 1, Enforcing5xx: 100, Interval: time.Second, BaseEjection: time.Hour, MaxEjection: time.Hour, MaxEjectionPercent: 50}
	base := func(c *mesh.Cluster) {
		c.Breaker = &mesh.Breaker{ConsecutiveFailures: 5}
		c.Outlier = outlier
	}
	for _, tc := range []struct {
		name                    string
		change                  func(*mesh.Cluster)
		pools, breaker, outlier bool
	}{
		{"a limit", func(c *mesh.Cluster) { c.Limits[0].Requests = 9 }, true, true, true},
		{"the connect timeout", func(c *mesh.Cluster) { c.ConnectTimeout = time.Second }, false, true, true},
		{"the breaker", func(c *mesh.Cluster) { c.Breaker = &mesh.Breaker{ConsecutiveFailures: 6} }, true, false, true},
		{"outlier detection", func(c *mesh.Cluster) { o := *outlier; o.Consecutive5xx = 2; c.Outlier = &o }, true, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			old := r.cluster(config(base), a, b)
			if got := attempt(t, old, 500); got != a && got != b {
				t.Fatal(got)
			}
			old.Resources(0).Acquire(circuit.Requests)
			held, heldHost, _ := pick(t, old)
			next := New(config(base, tc.change), &r.deps, old)
			t.Cleanup(next.Close)
			next.SetEndpoints(set("2", a, b))
			old.Close()
			if next.Resources(0) != old.Resources(0) || next.Resources(0).InUse(circuit.Requests) != 1 {
				t.Error("what is in use was forgotten")
			}
			next.Resources(0).Release(circuit.Requests)
			if got := next.Resources(0).Max(circuit.Requests); got != uint64(next.Config.Limits[0].Requests) {
				t.Errorf("the limit is %d", got)
			}
			for i, h := range next.Hosts() {
				if was := old.Hosts()[i]; (h.pools == was.pools) != tc.pools {
					t.Errorf("%s has its pool: %v", h.Address, h.pools == was.pools)
				}
			}
			if (next.Breaker() == old.Breaker()) != tc.breaker {
				t.Error("the circuit is another, or should be")
			}
			ejected := 0
			for _, h := range next.Hosts() {
				if h.View(0).Ejected {
					ejected++
				}
			}
			if (ejected == 1) != tc.outlier {
				t.Errorf("%d are ejected", ejected)
			}
			held.Done(&circuit.Attempt{Status: 200}, 0)
			if heldHost.Active() != 0 {
				t.Error("the request on the old one has not ended")
			}
		})
	}
}

// TestLateNewsReachTheSuccessor: a request that is still on the old cluster gets its host ejected: the new one goes by it.
func TestLateNewsReachTheSuccessor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := func(c *mesh.Cluster) {
		c.Outlier = &mesh.Outlier{Consecutive5xx: 1, Enforcing5xx: 100, Interval: time.Second, BaseEjection: time.Hour, MaxEjection: time.Hour, MaxEjectionPercent: 50}
	}
	old := r.cluster(config(cfg), a, b)
	k, h, fail := pick(t, old)
	if fail != nil {
		t.Fatal(fail)
	}
	next := New(config(cfg), &r.deps, old)
	t.Cleanup(next.Close)
	next.SetEndpoints(set("1", a, b))
	old.Close()
	k.Done(&circuit.Attempt{Status: 500}, 0)
	if seen := spread(t, next, 20); seen[h.Address.String()] != 0 {
		t.Errorf("the ejected host is picked: %v", seen)
	}
}
