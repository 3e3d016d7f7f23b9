// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// stage is a proxy whose listeners a test changes, and the addresses at which its clients look for it.
type stage struct {
	t       *testing.T
	r       *examples.Rig
	w       *world
	version int
	known   atomic.Pointer[[]string]
	turn    atomic.Int64
}

func newStage(t *testing.T) *stage {
	r, w := controlled(t)
	s := &stage{t: t, r: r, w: w}
	s.known.Store(&[]string{r.Addr("main")})
	return s
}

// addr returns an address that is known, in turn.
func (s *stage) addr() string {
	known := *s.known.Load()
	return known[int(s.turn.Add(1))%len(known)]
}

// send sends listeners by name, each on its port, 0 for a free one, and waits until there are just these.
func (s *stage) send(at map[string]uint16) {
	s.t.Helper()
	var list []types.Resource
	for name, port := range at {
		list = append(list, fakexds.Listener(name, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), "routes"))
	}
	s.version++
	s.r.ControlPlane.Set(fakexds.ListenerType, fmt.Sprint("listeners-", s.version), list...)
	s.r.Admin.Until("/ready", func(int, string) bool {
		now := s.r.Admin.Listeners()
		for name, port := range at {
			got, err := netip.ParseAddrPort(now[name])
			if err != nil || port != 0 && got.Port() != port {
				return false
			}
		}
		return len(now) == len(at)
	})
	s.r.Relisten()
}

// A listener is added, removed and moved to another port while requests are made on it: what is under way ends well, and
// nobody who looks for the service anew fails (F11).
func TestListenersComeAndGoUnderLoad(t *testing.T) {
	t.Parallel()
	rounds := 10
	if soak() {
		rounds = 200
	}
	s := newStage(t)
	mainPort := netip.MustParseAddrPort(s.r.Addr("main")).Port()
	l := load.Start(t, load.Options{Workers: 16, Rate: 1000, Addr: s.addr, LookAgain: true, Check: oneTruth})
	var moves []string
	port := mainPort
	for i := range rounds {
		// Another listener comes, clients find it, and it goes while they use it.
		extra := fmt.Sprint("extra-", i)
		s.send(map[string]uint16{"main": port, extra: 0})
		s.known.Store(&[]string{s.r.Addr("main"), s.r.Addr(extra)})
		l.After(100)
		s.send(map[string]uint16{"main": port})
		s.known.Store(&[]string{s.r.Addr("main")})
		l.After(50)
		// The same one moves, where its clients do not follow at once.
		next := nobodyAt(t)
		s.send(map[string]uint16{"main": next})
		moves = append(moves, s.r.Addr("main"))
		s.known.Store(&[]string{s.r.Addr("main")})
		l.After(50)
		port = next
	}
	res := l.Stop()
	t.Logf("figure: %d listeners added and removed, %d moved: %v", rounds, len(moves), res)
	if res.Failed > 0 {
		t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
	}
	if got := s.r.A.Requests.Load(); got != res.Requests {
		t.Errorf("%d requests were made and %d came to the origin", res.Requests, got)
	}
	s.r.Admin.UntilStats(func(st sidecar.Stats) bool {
		return st["listener_manager.total_listeners_draining"] == 0 && st["listener_manager.total_listeners_active"] == 1
	})
}

// nobodyAt returns a port that is free at the moment.
func nobodyAt(t *testing.T) uint16 {
	t.Helper()
	o := fakexds.Start(t)
	port := netip.MustParseAddrPort(o.Addr()).Port()
	o.Kill()
	return port
}

// A request that is under way on a listener that is removed gets its answer.
func TestRequestOutlivesItsListener(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.send(map[string]uint16{"main": 0, "other": 0})
	answer := held(t, s.r, "other")
	s.send(map[string]uint16{"main": 0})
	s.r.A.Release()
	if a := answer(); a.Status != 200 {
		t.Errorf("the request that was under way: %d %s", a.Status, a.Body)
	}
}
