// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/discovery"
	"github.com/meshtap/meshtap/mesh"
)

// book answers look-ups from memory. An address list is "1.1.1.1 1.1.1.2", or "!reason".
type book struct {
	mu    sync.Mutex
	names map[string]string        // guarded by mu
	ttl   map[string]time.Duration // guarded by mu
	asked []string                 // guarded by mu
}

func (b *book) set(host, addresses string, ttl time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names[host], b.ttl[host] = addresses, ttl
}

func (b *book) lookups(host string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, h := range b.asked {
		if h == host {
			n++
		}
	}
	return n
}

func (b *book) lookup(_ context.Context, _ *mesh.DNS, host string) ([]netip.Addr, *time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, host)
	text := b.names[host]
	if reason, failed := strings.CutPrefix(text, "!"); failed {
		return nil, nil, errors.New(reason)
	}
	var out []netip.Addr
	for _, f := range strings.Fields(text) {
		out = append(out, netip.MustParseAddr(f))
	}
	ttl := b.ttl[host]
	return out, &ttl, nil
}

func cluster(d mesh.DNS, hosts ...string) *mesh.Cluster {
	c := &mesh.Cluster{Name: "c", Discovery: mesh.StrictDNS, DNS: &d}
	for _, h := range hosts {
		d.Targets = append(d.Targets, mesh.DNSTarget{Host: h, Port: 80})
	}
	return c
}

// follow runs a watch in a bubble and collects what it tells, as text.
func follow(t *testing.T, b *book, c *mesh.Cluster) (told func() []string) {
	t.Helper()
	s := New(Config{}, zap.NewNop())
	s.lookup = b.lookup
	s.random = func() float64 { return 0.999 }
	var mu sync.Mutex
	var out []string
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- s.Watch(ctx, c, func(u discovery.Update) {
			mu.Lock()
			defer mu.Unlock()
			out = append(out, text(u))
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(out)
	}
}

func text(u discovery.Update) string {
	if u.Err != nil {
		return "error " + u.Err.Error()
	}
	var words []string
	for _, l := range u.Set.Localities {
		for _, e := range l.Endpoints {
			words = append(words, e.Address.String())
		}
	}
	return strings.Join(words, " ")
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func newBook() *book { return &book{names: map[string]string{}, ttl: map[string]time.Duration{}} }

func TestWatchTellsWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("a", "1.1.1.2 1.1.1.1 1.1.1.2", 0)
		told := follow(t, b, cluster(mesh.DNS{}, "a"))
		expect(t, told(), "1.1.1.1:80 1.1.1.2:80")
		b.set("a", "1.1.1.1 1.1.1.2", 0) // another order is the same set
		time.Sleep(time.Minute)
		expect(t, told(), "1.1.1.1:80 1.1.1.2:80")
		if n := b.lookups("a"); n != 13 {
			t.Errorf("%d look-ups in a minute, want one every 5 s", n)
		}
		b.set("a", "1.1.1.3 ::ffff:1.1.1.4 fd00::1", 0)
		time.Sleep(5 * time.Second)
		expect(t, told()[1:], "1.1.1.3:80 1.1.1.4:80 [fd00::1]:80")
	})
}

// TestWatchFirstOnly: one address at a time, the first of an answer, which stays while the name has it.
func TestWatchFirstOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("a", "1.1.1.2 1.1.1.1", 0)
		told := follow(t, b, cluster(mesh.DNS{FirstOnly: true}, "a"))
		expect(t, told(), "1.1.1.2:80")
		b.set("a", "1.1.1.1 1.1.1.2", 0)
		time.Sleep(time.Minute)
		expect(t, told(), "1.1.1.2:80")
		b.set("a", "1.1.1.3 1.1.1.1", 0)
		time.Sleep(5 * time.Second)
		expect(t, told(), "1.1.1.2:80", "1.1.1.3:80")
	})
}

// TestWatchKeepsTheLastGoodAnswer: whatever fails later, the addresses stay (F36).
func TestWatchKeepsTheLastGoodAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("a", "1.1.1.1", 0)
		d := mesh.DNS{Refresh: time.Second, FailureBase: time.Second, FailureMax: 8 * time.Second}
		told := follow(t, b, cluster(d, "a"))
		expect(t, told(), "1.1.1.1:80")
		for _, failure := range []string{"!no such host", "!server misbehaving", "!timeout", ""} {
			b.set("a", failure, 0)
			time.Sleep(time.Minute)
		}
		expect(t, told(), "1.1.1.1:80")
		if n := b.lookups("a"); n > 50 {
			t.Errorf("%d look-ups in 4 minutes of failures: they do not back off", n)
		}
		b.set("a", "1.1.1.1", 0)
		time.Sleep(8 * time.Second)
		expect(t, told(), "1.1.1.1:80")
		before := b.lookups("a")
		time.Sleep(10 * time.Second)
		if n := b.lookups("a") - before; n < 9 {
			t.Errorf("%d look-ups in 10 s: the back-off was not reset", n)
		}
		b.set("a", "1.1.1.2", 0)
		time.Sleep(time.Second)
		expect(t, told(), "1.1.1.1:80", "1.1.1.2:80")
	})
}

func TestWatchTellsTheFirstFailureOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("a", "!no such host", 0)
		told := follow(t, b, cluster(mesh.DNS{}, "a"))
		time.Sleep(time.Minute)
		expect(t, told(), "error a: no such host")
		b.set("a", "1.1.1.1", 0)
		time.Sleep(5 * time.Second)
		expect(t, told(), "error a: no such host", "1.1.1.1:80")
	})
}

func TestWatchWaitsForEachNameOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("a", "1.1.1.1", 0)
		b.set("b", "!no such host", 0)
		told := follow(t, b, cluster(mesh.DNS{}, "a", "b", "10.0.0.9", "a"))
		expect(t, told(), "1.1.1.1:80 10.0.0.9:80 1.1.1.1:80")
		b.set("b", "2.2.2.2", 0)
		time.Sleep(5 * time.Second)
		expect(t, told()[1:], "1.1.1.1:80 2.2.2.2:80 10.0.0.9:80 1.1.1.1:80")
		if n := b.lookups("10.0.0.9"); n != 0 {
			t.Errorf("an address was looked up %d times", n)
		}
		if n := b.lookups("a"); n != 2 {
			t.Errorf("a name that is there twice was looked up %d times in two rounds", n)
		}
	})
}

func TestWatchHonoursTheTimeToLive(t *testing.T) {
	tests := []struct {
		name string
		ttl  time.Duration
		over time.Duration
		want int
	}{
		{"as told", time.Minute, 10 * time.Minute, 11},
		{"floor", 0, 10 * time.Second, 11},
		{"ceiling", 1000 * time.Hour, 3 * time.Hour, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBook()
				b.set("a", "1.1.1.1", tt.ttl)
				told := follow(t, b, cluster(mesh.DNS{RespectTTL: true}, "a"))
				told()
				time.Sleep(tt.over)
				told()
				if n := b.lookups("a"); n != tt.want {
					t.Errorf("%d look-ups, want %d", n, tt.want)
				}
			})
		})
	}
}

// TestWatchFlapping: a name that changes with every answer tells each change, and nothing is left when the watch ends.
func TestWatchFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		b.set("a", "1.1.1.1", 0)
		told := follow(t, b, cluster(mesh.DNS{Refresh: time.Second}, "a"))
		told()
		for i := range 100 {
			b.set("a", fmt.Sprintf("1.1.1.%d", i%2+1), 0)
			time.Sleep(time.Second)
			told()
		}
		if n := len(told()); n != 100 {
			t.Errorf("told %d times, want 100", n)
		}
	})
}

func TestSetFollowsTheTemplate(t *testing.T) {
	t.Parallel()
	near := mesh.LocalityGroup{Locality: mesh.Locality{Zone: "near"}, Weight: 3}
	far := mesh.LocalityGroup{Locality: mesh.Locality{Zone: "far"}, Priority: 1}
	w := watch{
		cluster: &mesh.Cluster{DNS: &mesh.DNS{Overprovisioning: 200, Targets: []mesh.DNSTarget{
			{Host: "a", Port: 1, Locality: 0, Group: near, Endpoint: mesh.Endpoint{Weight: 7, Hostname: "named"}},
			{Host: "b", Port: 2, Locality: 1, Group: far, Endpoint: mesh.Endpoint{Weight: 1}},
			{Host: "b", Port: 3, Locality: 0, Group: near},
		}}},
		known: map[string][]netip.Addr{
			"a": {netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("1.1.1.2")},
			"b": {netip.MustParseAddr("2.2.2.2")},
		},
	}
	got := w.set()
	if got.Overprovisioning != 200 || len(got.Localities) != 2 {
		t.Fatalf("set %+v", got)
	}
	if l := got.Localities[0]; l.LocalityGroup != near || len(l.Endpoints) != 3 || l.Endpoints[1].Weight != 7 ||
		l.Endpoints[1].Hostname != "named" || l.Endpoints[2].Address.String() != "2.2.2.2:3" {
		t.Errorf("first locality %+v", l)
	}
	if l := got.Localities[1]; l.LocalityGroup != far || len(l.Endpoints) != 1 || l.Endpoints[0].Hostname != "b" {
		t.Errorf("second locality %+v", l)
	}
}

func TestWatchBoundsLookupsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Lookups: 3}, zap.NewNop())
		var mu sync.Mutex
		now, most := 0, 0
		s.lookup = func(context.Context, *mesh.DNS, string) ([]netip.Addr, *time.Duration, error) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return []netip.Addr{netip.MustParseAddr("1.1.1.1")}, nil, nil
		}
		var hosts []string
		for i := range 20 {
			hosts = append(hosts, fmt.Sprint("h", i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Watch(ctx, cluster(mesh.DNS{}, hosts...), func(discovery.Update) { cancel() })
		if err != nil || most != 3 {
			t.Errorf("%d look-ups at a time (error %v), want 3", most, err)
		}
	})
}

func TestWatchRefusesOtherClusters(t *testing.T) {
	t.Parallel()
	err := New(Config{}, zap.NewNop()).Watch(t.Context(), &mesh.Cluster{Name: "x"}, nil)
	if err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("error %v", err)
	}
}
