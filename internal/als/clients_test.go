// SPDX-License-Identifier: Apache-2.0

package als_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/test/e2e/origin"
)

// counts counts fates.
type counts struct {
	n    [4]atomic.Int64
	more chan struct{} // one place
}

func (c *counts) count(f als.Fate, n int64) {
	c.n[f].Add(n)
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// until waits until the counts are right.
func (c *counts) until(t *testing.T, what string, right func() bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	for !right() {
		select {
		case <-c.more:
		case <-late:
			t.Fatalf("%s: written %d, dropped %d, flushed %d, failed %d", what, c.n[0].Load(), c.n[1].Load(), c.n[2].Load(), c.n[3].Load())
		}
	}
}

func (c *counts) of(f als.Fate) int64 { return c.n[f].Load() }

// clients are clients that find the service as the cluster "c".
func clients(t *testing.T, s *origin.Collector, max int) (*als.Clients, *counts) {
	node, err := proto.Marshal(&corepb.Node{Id: "me"})
	if err != nil {
		t.Fatal(err)
	}
	n := &counts{more: make(chan struct{}, 1)}
	return als.NewClients(als.Deps{
		Dial: func(ctx context.Context, cluster string) (net.Conn, error) {
			if cluster != "c" {
				return nil, fmt.Errorf("no cluster %s", cluster)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
		},
		Node: node, Count: n.count, Log: zap.NewNop(), Random: func() float64 { return 0 }, MaxBytes: max,
	}), n
}

func config() als.Config {
	return als.Config{Kind: als.HTTP, LogName: "log", Cluster: "c", FlushInterval: 10 * time.Millisecond, BufferBytes: 1 << 10}
}

// outcome is one of a request that is found again by its number.
func outcome(n int) *mesh.Outcome {
	return &mesh.Outcome{Start: 1, Path: fmt.Appendf(nil, "/%d", n), RequestEnd: -1, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1}
}

// paths are the paths of the entries that came.
func paths(messages []origin.Message) (out []string) {
	for _, m := range messages {
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			out = append(out, e.GetRequest().GetPath())
		}
	}
	return out
}

func came(n int) func([]origin.Message) bool {
	return func(m []origin.Message) bool { return len(paths(m)) >= n }
}

// TestClient: entries come in order, over one stream that says who we are first, however many loggers share it; what waits
// at the end is sent.
func TestClient(t *testing.T) {
	t.Parallel()
	s := origin.StartCollector(t)
	all, n := clients(t, s, 0)
	cfg := config()
	cfg.Metadata, cfg.Authority = "x-a\n1\nx-a\n2\n", "als.example"
	a, b := all.Share(cfg), all.Share(cfg)
	if a != b {
		t.Error("there are two clients")
	}
	const many = 500
	for i := range many {
		a.Log(outcome(i), &als.Extra{})
	}
	a.Release()
	s.Until(came(many))
	b.Log(outcome(many), &als.Extra{})
	b.Release()
	all.Close()
	got := s.Until(came(many + 1))
	for i, p := range paths(got) {
		if p != fmt.Sprintf("/%d", i) {
			t.Fatalf("entry %d is %s", i, p)
		}
	}
	for i, m := range got {
		if (i == 0) != (m.GetIdentifier() != nil) {
			t.Errorf("message %d has %v", i, m.GetIdentifier())
		}
	}
	id := got[0].GetIdentifier()
	if id.GetNode().GetId() != "me" || id.GetLogName() != "log" || len(got[0].Header.Get("x-a")) != 2 || got[0].Header.Get(":authority")[0] != "als.example" {
		t.Errorf("%v, %v", id, got[0].Header)
	}
	if n.of(als.Written) != many+1 || n.of(als.Flushed) != many+1 || n.of(als.Dropped)+n.of(als.Failed) != 0 {
		t.Errorf("%d written, %d flushed, %d dropped, %d failed", n.of(als.Written), n.of(als.Flushed), n.of(als.Dropped), n.of(als.Failed))
	}
}

// TestOutage: while the service is gone, entries wait until there is no room, and the rest is counted; when it is back, it
// is told who we are again, and gets those that waited.
func TestOutage(t *testing.T) {
	t.Parallel()
	s := origin.StartCollector(t)
	all, n := clients(t, s, 4<<10)
	c := all.Share(config())
	c.Log(outcome(0), &als.Extra{})
	s.Until(came(1))
	for round := range 3 {
		s.Kill()
		dropped := n.of(als.Dropped)
		for i := 1; n.of(als.Dropped) == dropped; i++ {
			c.Log(outcome(i), &als.Extra{})
		}
		before := len(s.Until(func([]origin.Message) bool { return true }))
		s.Revive()
		// What was on its way when the service died is lost and counts as flushed: that is the protocol. Sooner or later
		// the client finds out.
		for late := time.Now().Add(30 * time.Second); ; {
			c.Log(outcome(-1), &als.Extra{})
			n.until(t, fmt.Sprintf("round %d", round), func() bool { return n.of(als.Flushed) == n.of(als.Written) })
			got := s.Until(func([]origin.Message) bool { return true })[before:]
			if len(got) > 0 {
				if !got[0].First || got[0].GetIdentifier().GetNode().GetId() != "me" {
					t.Errorf("round %d: the first message after the outage is %v", round, got[0])
				}
				break
			}
			if time.Now().After(late) {
				t.Fatalf("round %d: nothing comes", round)
			}
		}
	}
	c.Release()
	all.Close()
	if n.of(als.Failed) != 0 {
		t.Errorf("%d were given up", n.of(als.Failed))
	}
}

// TestSlow: a service that reads nothing holds nobody up; what there is no room for is dropped and counted, and each entry
// has one fate.
func TestSlow(t *testing.T) {
	t.Parallel()
	s := origin.StartCollector(t)
	all, n := clients(t, s, 64<<10)
	c := all.Share(config())
	s.Block(true)
	var logged atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n.of(als.Dropped) < 1000 {
				c.Log(outcome(0), &als.Extra{Tags: []als.Tag{{Name: "long", Value: string(make([]byte, 1000))}}})
				logged.Add(1)
			}
		})
	}
	wg.Wait()
	s.Block(false)
	c.Release()
	all.Close()
	if n.of(als.Written)+n.of(als.Dropped) != logged.Load() || n.of(als.Flushed) != n.of(als.Written) || n.of(als.Failed) != 0 {
		t.Errorf("%d logged, %d written, %d dropped, %d flushed, %d failed", logged.Load(), n.of(als.Written), n.of(als.Dropped), n.of(als.Flushed), n.of(als.Failed))
	}
	s.Until(came(int(n.of(als.Flushed))))
}

// TestNobody: entries for a service that is not there are given up at the end, and counted.
func TestNobody(t *testing.T) {
	t.Parallel()
	s := origin.StartCollector(t)
	for _, cfg := range []als.Config{
		{Kind: als.TCP, Cluster: "nobody", FlushInterval: time.Hour, BufferBytes: 1 << 20},
		{Kind: als.TCP, Address: "unix:/nowhere/at/all", FlushInterval: time.Hour},
	} {
		all, n := clients(t, s, 0)
		c := all.Share(cfg)
		for i := range 10 {
			c.Log(outcome(i), &als.Extra{})
		}
		c.Release()
		all.Close()
		if n.of(als.Written) != 10 || n.of(als.Failed) != 10 {
			t.Errorf("%d written, %d failed", n.of(als.Written), n.of(als.Failed))
		}
	}
}

// TestTarget: gRPC finds an address by its own rules.
func TestTarget(t *testing.T) {
	t.Parallel()
	s := origin.StartCollector(t)
	all, _ := clients(t, s, 0)
	c := all.Share(als.Config{Kind: als.HTTP, Address: "dns:///" + s.Addr(), FlushInterval: time.Hour})
	c.Log(outcome(1), &als.Extra{})
	s.Until(came(1))
	c.Release()
	all.Close()
}
