// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	natsclient "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/sink/nats"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// cluster is a bus of three servers, of which one leads what a sink writes to.
type cluster struct {
	*broker
	nodes []*server
	// asked returns which it is, or why that is not known: all others must live and have all of it.
	asked func(name string) (int, error)
}

// TestNATSCluster has a cluster of real servers lose the one that leads the stream, over and over (F84): it is killed, or
// stopped. What it takes down with it is sent again, and stands behind what was in flight then.
func TestNATSCluster(t *testing.T) {
	if long(1, 0) == 0 {
		t.Skip("it runs with SOAK=1: an election takes seconds")
	}
	loseLeaders(t, natsCluster(t), 10)
}

// loseLeaders kills the server that leads, or stops it, in turn, so many times in all.
func loseLeaders(t *testing.T, c *cluster, times int) {
	f := begin(t, c.broker, onDisk(t), usual)
	f.working()
	var killed, stopped int
	for n := range times {
		s := c.nodes[c.leader(t, f.name)]
		if n%2 == 0 {
			s.kill(t)
			f.working() // the others go on without it
			s.revive(t)
			killed++
			continue
		}
		s.pause(t)
		time.Sleep(15 * time.Second) // the fault lasts so long
		s.resume(t)
		f.working()
		stopped++
	}
	took := f.caughtUp()
	t.Logf("figure: the leader was killed %d times and stopped %d times; caught up %v after the last", killed, stopped, took.Round(time.Millisecond))
	c.leader(t, f.name) // all have everything
	f.end(false)
}

// leader waits until one server leads and the others have everything, and returns which it is.
func (c *cluster) leader(t *testing.T, name string) int {
	t.Helper()
	limit := time.After(2 * time.Minute)
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for {
		n, err := c.asked(name)
		if err == nil {
			return n
		}
		select {
		case <-pace.C:
		case <-limit:
			t.Fatal(err)
		}
	}
}

// listens is for servers that are asked later whether they work.
func listens(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// inFlight is how many batches are in flight in a cluster.
const inFlight = 4

// nearly puts events in order, none of which may stand behind others of its key by more than what is in flight.
func nearly(t *testing.T, bodies [][]byte) [][]byte {
	t.Helper()
	type numbered struct {
		n    uint64
		body []byte
	}
	var all []numbered
	last := map[string]uint64{}
	late, most := 0, uint64(0)
	for _, b := range bodies {
		e := sink.Decode(t, b)
		key := string(e.PartitionKey)
		if e.Kind != event.Lost && e.StreamSeq < last[key] {
			late, most = late+1, max(most, last[key]-e.StreamSeq)
		}
		last[key] = max(last[key], e.StreamSeq)
		all = append(all, numbered{e.StreamSeq, b})
	}
	t.Logf("figure: %d events stand behind later ones of their key, the farthest by %d numbers", late, most)
	if most > inFlight*eventtap.MaxBatch {
		t.Errorf("an event stands %d numbers behind a later one of its key, at most %d are in flight", most, inFlight*eventtap.MaxBatch)
	}
	slices.SortStableFunc(all, func(a, b numbered) int { return cmp.Compare(a.n, b.n) })
	for i, x := range all {
		bodies[i] = x.body
	}
	return bodies
}

func natsCluster(t *testing.T) *cluster {
	p := freePorts(t, 6)
	var urls, routes []string
	for n := range 3 {
		urls, routes = append(urls, "nats://127.0.0.1:"+p[n]), append(routes, "nats://127.0.0.1:"+p[3+n])
	}
	c := &cluster{}
	for n := range 3 {
		c.nodes = append(c.nodes, start(t, &server{
			addr: "127.0.0.1:" + p[n], ready: listens,
			args: []string{installed(t, "nats-server"), "-a", "127.0.0.1", "-p", p[n], "-n", fmt.Sprint("n", n), "-js", "-sd", t.TempDir(),
				"--cluster", routes[n], "--cluster_name", "three", "--routes", strings.Join(routes, ",")},
		}))
	}
	all := strings.Join(urls, ",")
	conn, err := natsclient.Connect(all, natsclient.MaxReconnects(-1), natsclient.ReconnectWait(50*time.Millisecond),
		natsclient.PingInterval(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	c.asked = func(stream string) (int, error) { return leaderOf(js, stream) }
	c.broker = &broker{
		dedupe: true,
		sink: func(t *testing.T, name string) eventtap.Sink {
			return nats.New(nats.Config{URLs: urls, Stream: name, Prefix: name, InFlight: inFlight, AckTimeout: 5 * time.Second,
				Create: &nats.Create{MaxBytes: 1 << 29, Replicas: 3, Duplicates: time.Hour}}, deps(t))
		},
		events: func(t *testing.T, name string) [][]byte {
			return nearly(t, stored(t, c.nodes[c.leader(t, name)].addr, name))
		},
	}
	return c
}

func leaderOf(js jetstream.JetStream, stream string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	in := s.CachedInfo().Cluster
	var n int
	if _, err := fmt.Sscanf(in.Leader, "n%d", &n); err != nil {
		return 0, fmt.Errorf("%+v has no leader", in)
	}
	for _, r := range in.Replicas {
		if !r.Current || r.Offline {
			return 0, fmt.Errorf("the replica %+v is behind", *r)
		}
	}
	return n, nil
}
