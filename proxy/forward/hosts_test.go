// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"net/netip"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
)

// TestHangingHostIsEjected: a host that accepts and never answers costs a few requests their timeout, and then none; the
// others are served all the while (F29).
func TestHangingHostIsEjected(t *testing.T) {
	t.Parallel()
	r := newRig(t, mesh.Router{})
	stuck, good := play(t, hanging), play(t, ok)
	r.add("c", func(c *mesh.Cluster) {
		c.Outlier = &mesh.Outlier{
			Consecutive5xx: 3, Enforcing5xx: 100, Interval: time.Hour, BaseEjection: time.Hour, MaxEjection: time.Hour, MaxEjectionPercent: 100,
		}
	}, stuck.addr, good.addr)
	rt := to("c", func(a *mesh.RouteAction) { a.Timeout = 300 * time.Millisecond })
	lost := 0
	for i := range 40 {
		switch p := r.do(get(rt)); {
		case p.Status == 200:
		case p.Status == 504 && p.Upstream.IP.String() == stuck.addr:
			lost++
		default:
			t.Errorf("request %d: %d from %s", i, p.Status, p.Upstream)
		}
	}
	if heads, _ := stuck.got(); lost != 3 || len(heads) != 3 {
		t.Errorf("%d requests were lost, %d reached the host", lost, len(heads))
	}
}

// TestAllUnhealthy: with no healthy host a request is refused at once, or sent all the same where the cluster says so
// (F31).
func TestAllUnhealthy(t *testing.T) {
	t.Parallel()
	for _, panics := range []bool{false, true} {
		r := newRig(t, mesh.Router{})
		s := play(t, ok)
		r.add("c", func(c *mesh.Cluster) {
			c.Endpoints.Localities[0].Endpoints[0].Health = mesh.HealthUnhealthy
			if panics {
				c.PanicThreshold = 50
			}
		}, s.addr)
		p := r.do(get(to("c", withRetry(on(mesh.RetryOn5xx, 3)))))
		switch {
		case panics && p.Status != 200:
			t.Errorf("in panic: %d %s", p.Status, p.Failure)
		case !panics && (p.Status != 503 || p.Flags != mesh.FlagUH || p.body != "no healthy upstream" || p.Attempts != 1 || s.conns.Load() != 0):
			t.Errorf("%d %q %s, %d attempts, %d connections", p.Status, p.body, p.Flags, p.Attempts, s.conns.Load())
		}
	}
}

// TestOriginalDestination: a request goes where its connection was going, or where a header says; never where there is
// neither, which would be in a circle.
func TestOriginalDestination(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		header     string // of the cluster
		redirected bool
		value      string
		want       int
	}{
		{"redirected", "", true, "", 200},
		{"not redirected", "", false, "", 503},
		{"by the header", "x-dst", false, "{addr}", 200},
		{"the header comes first", "x-dst", true, "127.0.0.1:1", 503},
		{"a header that is no address", "x-dst", true, "elsewhere", 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mesh.Router{})
			s := play(t, ok)
			r.add("c", func(cl *mesh.Cluster) {
				cl.Discovery, cl.OriginalDst = mesh.OriginalDestination, &mesh.OriginalDst{HTTPHeader: c.header, IdleHosts: time.Hour}
			})
			q := get(to("c"))
			if c.value == "{addr}" {
				c.value = s.addr
			}
			if c.value != "" {
				q.fields = [][2]string{{"x-dst", c.value}}
			}
			q.prepare = func(x *exchange.Exchange) {
				if to := netip.MustParseAddrPort(s.addr); c.redirected {
					x.Info.Redirect(to)
				} else {
					x.Info.Local = to
				}
			}
			if p := r.do(q); p.Status != c.want {
				t.Errorf("%d %s", p.Status, p.Failure)
			}
		})
	}
}

// TestGoneBefore: a stream of HTTP/2 that was reset before its turn came costs the upstream nothing. In HTTP/1.1 a client
// that has closed its side may wait for its answer.
func TestGoneBefore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		protocol mesh.Protocol
		status   int
		flags    mesh.Flags
		conns    int64
	}{{mesh.HTTP2, 0, mesh.FlagDC, 0}, {mesh.HTTP11, 200, 0, 1}} {
		r := newRig(t, mesh.Router{})
		s := play(t, ok)
		r.add("c", nil, s.addr)
		q := get(to("c"))
		q.client = &client{}
		q.client.leave()
		q.prepare = func(x *exchange.Exchange) { x.Request.Protocol = c.protocol }
		if p := r.do(q); p.Status != c.status || p.Flags != c.flags || int64(s.conns.Load()) != c.conns {
			t.Errorf("%v: %d, %s, %d connections", c.protocol, p.Status, p.Flags, s.conns.Load())
		}
	}
}
