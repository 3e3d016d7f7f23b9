// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestBothWays: bytes go both ways at the same time, unchanged and counted, and the two ends come one after the other.
func TestBothWays(t *testing.T) {
	t.Parallel()
	addr, conns := serve(t)
	c := cluster("c", addr)
	c.StatName = "alt"
	r := start(t, to("c"), c)
	const up, down = 3<<20 + 7, 5<<20 + 11
	client := r.dial()
	server := accepted(t, conns)
	var wg sync.WaitGroup
	send := func(c *net.TCPConn, n int, b byte) {
		c.Write(bytes.Repeat([]byte{b}, n))
		c.CloseWrite()
	}
	receive := func(who string, c *net.TCPConn, n int, b byte) {
		got, err := io.ReadAll(c)
		if err != nil || len(got) != n || len(bytes.Trim(got, string(b))) != 0 {
			t.Errorf("the %s got %d bytes, want %d; %v", who, len(got), n, err)
		}
	}
	wg.Go(func() { send(client, up, 'u') })
	wg.Go(func() { receive("server", server, up, 'u'); send(server, down, 'd') })
	wg.Go(func() { receive("client", client, down, 'd') })
	wg.Wait()
	o := r.outcome()
	if o.BytesReceived != up || o.BytesSent != down || o.UpstreamBytesSent != up || o.UpstreamBytesGotten != down {
		t.Errorf("counted %d and %d, upstream %d and %d", o.BytesReceived, o.BytesSent, o.UpstreamBytesSent, o.UpstreamBytesGotten)
	}
	if o.Kind != mesh.OutcomeTCP || o.Flags != 0 || o.Failure != mesh.NoFailure || o.Attempts != 1 || o.Cluster != "c" || o.ClusterStat != "alt" ||
		o.Upstream.String() != addr || o.Listener != "l" || o.FilterChain != "f" || o.Duration <= 0 || o.UpstreamStart < 0 || o.UpstreamFirst < o.UpstreamStart || o.UpstreamEnd < o.UpstreamFirst {
		t.Errorf("%+v", o)
	}
	for i, want := range map[int]int64{
		metrics.TCPDownstreamCxTotal: 1, metrics.TCPDownstreamCxRxBytesTotal: up, metrics.TCPDownstreamCxTxBytesTotal: down,
	} {
		if got := r.proxy.numbers.Value(i); got != want {
			t.Errorf("number %d is %d, want %d", i, got, want)
		}
	}
	s := r.clusters["c"].Stats
	if rx, tx := s.Value(metrics.UpstreamCxRxBytesTotal), s.Value(metrics.UpstreamCxTxBytesTotal); rx != down || tx != up {
		t.Errorf("the cluster counted %d and %d", rx, tx)
	}
}

// TestServerSpeaksFirst: the upstream is connected to before the client has said anything.
func TestServerSpeaksFirst(t *testing.T) {
	t.Parallel()
	addr, conns := serve(t)
	r := start(t, to("c"), cluster("c", addr))
	client := r.dial()
	server := accepted(t, conns)
	io.WriteString(server, "220 hello")
	got := make([]byte, 9)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "220 hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestUpstreamEndsFirst: after the upstream has said all, it still hears what the client has to say.
func TestUpstreamEndsFirst(t *testing.T) {
	t.Parallel()
	addr, conns := serve(t)
	r := start(t, to("c"), cluster("c", addr))
	client := r.dial()
	server := accepted(t, conns)
	io.WriteString(server, "bye")
	server.CloseWrite()
	if got, err := io.ReadAll(client); string(got) != "bye" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	io.WriteString(client, "one more thing")
	client.CloseWrite()
	if got, err := io.ReadAll(server); string(got) != "one more thing" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if o := r.outcome(); o.Failure != mesh.NoFailure || o.Flags != 0 || o.BytesReceived != 14 || o.BytesSent != 3 {
		t.Errorf("%+v", o)
	}
}

// reset aborts a connection.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// TestResets: whoever resets, at whatever point, the other side is told and there is one outcome.
func TestResets(t *testing.T) {
	t.Parallel()
	both := func(client, server *net.TCPConn) {
		io.WriteString(client, "ping")
		io.ReadFull(server, make([]byte, 4))
		io.WriteString(server, "pong")
		io.ReadFull(client, make([]byte, 4))
	}
	for _, tc := range []struct {
		name       string
		before     func(client, server *net.TCPConn) // nil does nothing
		byUpstream bool
		// ordered says that the other side had been told of an end before, so that it sees no reset.
		ordered bool
		want    mesh.FailureKind
	}{
		{"client, at once", nil, false, false, mesh.DownstreamClosed},
		{"upstream, at once", nil, true, false, mesh.UpstreamClosed},
		{"client, in the middle", both, false, false, mesh.DownstreamClosed},
		{"upstream, in the middle", both, true, false, mesh.UpstreamClosed},
		{"client, after its end", func(c, s *net.TCPConn) { c.CloseWrite(); io.ReadAll(s) }, false, true, mesh.DownstreamClosed},
		{"upstream, after its end", func(c, s *net.TCPConn) { s.CloseWrite(); io.ReadAll(c) }, true, true, mesh.UpstreamClosed},
		{"client, after the upstream's end", func(c, s *net.TCPConn) { s.CloseWrite(); io.ReadAll(c) }, false, false, mesh.DownstreamClosed},
		{"upstream, after the client's end", func(c, s *net.TCPConn) { c.CloseWrite(); io.ReadAll(s) }, true, false, mesh.UpstreamClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			addr, conns := serve(t)
			r := start(t, to("c"), cluster("c", addr))
			client := r.dial()
			server := accepted(t, conns)
			until(t, "the proxy knows that it is connected", func() bool { return r.clusters["c"].Stats.Value(metrics.UpstreamRqActive) == 1 })
			if tc.before != nil {
				tc.before(client, server)
			}
			from, other := client, server
			if tc.byUpstream {
				from, other = server, client
			}
			reset(from)
			if o := r.outcome(); o.Failure != tc.want || o.Flags != tc.want.Info().Flag {
				t.Errorf("%s %s", o.Failure, o.Flags)
			}
			if _, err := io.ReadAll(other); !tc.ordered && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other side saw %v", err)
			}
		})
	}
}

// TestSlowReader: what the client does not read yet waits in the sockets, and nothing is lost.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	addr, conns := serve(t)
	r := start(t, to("c"), cluster("c", addr))
	client := r.dial()
	server := accepted(t, conns)
	const size = 24 << 20 // more than the sockets on the way hold
	sent := make(chan error, 1)
	go func() {
		_, err := server.Write(make([]byte, size))
		server.Close()
		sent <- err
	}()
	n := 0
	buf := make([]byte, 64<<10)
	for {
		k, err := client.Read(buf)
		n += k
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n%(1<<20) < len(buf) {
			time.Sleep(time.Millisecond) // a client that takes its time
		}
	}
	if err := <-sent; err != nil || n != size {
		t.Errorf("%d of %d bytes, %v", n, size, err)
	}
}

func TestTimesOut(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		cfg    func(*mesh.TCPProxy)
		want   mesh.FailureKind
		flag   mesh.Flags
		number int
	}{
		{"idle", func(c *mesh.TCPProxy) { c.IdleTimeout = 50 * time.Millisecond }, mesh.StreamIdleTimeout, mesh.FlagSI, metrics.TCPIdleTimeout},
		{"too long", func(c *mesh.TCPProxy) { c.MaxDownstreamLength = 50 * time.Millisecond }, mesh.MaxDuration, mesh.FlagDT, metrics.TCPMaxDownstreamConnectionDuration},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			addr, conns := serve(t)
			cfg := to("c")
			tc.cfg(&cfg)
			r := start(t, cfg, cluster("c", addr))
			client := r.dial()
			server := accepted(t, conns)
			for who, c := range map[string]*net.TCPConn{"client": client, "server": server} {
				if got, err := io.ReadAll(c); len(got) != 0 || err != nil {
					t.Errorf("the %s saw %q, %v", who, got, err)
				}
			}
			if o := r.outcome(); o.Failure != tc.want || o.Flags != tc.flag || o.Side != mesh.SideDownstream {
				t.Errorf("%s %s", o.Failure, o.Flags)
			}
			if n := r.proxy.numbers.Value(tc.number); n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// asking runs f on a worker.
type asking struct {
	f    func(w *socket.Worker)
	done chan struct{}
}

// Run implements socket.Runner.
func (a *asking) Run(w *socket.Worker) { defer close(a.done); a.f(w) }

// TestRetire: a connection that begins after its proxy was retired finds the cluster that there was.
func TestRetire(t *testing.T) {
	t.Parallel()
	r := start(t, to("c"), cluster("c"))
	later := &rig{}
	if got := r.proxy.cluster(later, "c"); got != nil {
		t.Errorf("before: %v", got)
	}
	r.proxy.Retire()
	if got := r.proxy.cluster(later, "c"); got == nil || got != r.clusters["c"] {
		t.Errorf("after: %v", got)
	}
}

// TestIdleStartsAnew: bytes of either direction put the idle timeout off.
func TestIdleStartsAnew(t *testing.T) {
	t.Parallel()
	r := start(t, to("c"), cluster("c"))
	a := &asking{done: make(chan struct{}), f: func(w *socket.Worker) {
		x := &conn{p: &Proxy{cfg: &mesh.TCPProxy{IdleTimeout: time.Minute}}, worker: w}
		x.o.UpstreamEnd = -1
		x.active.Store(mono.Now() - int64(time.Hour))
		if err := x.Interrupted(); err == nil {
			t.Error("an idle connection goes on")
		}
		x.touch()
		if err := x.Interrupted(); err != nil {
			t.Errorf("a busy one ends: %v", err)
		}
		x.end = mono.Now() - 1
		if err := x.Interrupted(); err == nil {
			t.Error("one that has lasted too long goes on")
		}
	}}
	r.engine.Go(a)
	<-a.done
}

// TestConnectAttempts: a host that cannot be connected to is followed by another, as often as the configuration says.
func TestConnectAttempts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		most     int
		attempts int
	}{{"one", 0, 1}, {"three", 3, 3}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := to("c")
			cfg.MaxConnectAttempts = tc.most
			r := start(t, cfg, cluster("c", dead(t)))
			client := r.dial()
			if got, err := io.ReadAll(client); len(got) != 0 || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			o := r.outcome()
			if o.Attempts != tc.attempts || o.Failure != mesh.ConnectFailure || o.Flags != mesh.FlagUF|mesh.FlagURX || o.TransportFailure != "connect: connection refused" {
				t.Errorf("%d attempts, %s %s %s", o.Attempts, o.Failure, o.Flags, o.TransportFailure)
			}
			s := r.clusters["c"].Stats
			if n := s.Value(metrics.UpstreamCxConnectAttemptsExceeded); n != 1 {
				t.Errorf("exceeded %d times", n)
			}
			if n := s.Value(metrics.UpstreamCxConnectFail); n != int64(tc.attempts) {
				t.Errorf("%d failed", n)
			}
		})
	}
	t.Run("the second works", func(t *testing.T) {
		t.Parallel()
		addr, conns := serve(t)
		cfg := to("c")
		cfg.MaxConnectAttempts = 2
		r := start(t, cfg, cluster("c", dead(t), addr))
		for range 4 {
			client := r.dial()
			server := accepted(t, conns)
			server.Close()
			client.Close()
			if o := r.outcome(); o.Upstream.String() != addr || o.Flags != 0 || o.Attempts > 2 {
				t.Errorf("%s after %d attempts, %s", o.Upstream, o.Attempts, o.Flags)
			}
		}
	})
}

// TestNowhereToGo: each reason why there is no upstream ends the connection in order, with its own flag.
func TestNowhereToGo(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	full := cluster("c", addr)
	full.Limits[0].Requests = 0
	for _, tc := range []struct {
		name    string
		cluster *mesh.Cluster
		want    mesh.FailureKind
	}{
		{"no cluster", cluster("other"), mesh.NoCluster},
		{"no host", cluster("c"), mesh.NoHealthyHost},
		{"no room", full, mesh.Overflow},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, to("c"), tc.cluster)
			client := r.dial()
			if got, err := io.ReadAll(client); len(got) != 0 || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			if o := r.outcome(); o.Failure != tc.want || o.Flags != tc.want.Info().Flag {
				t.Errorf("%s %s", o.Failure, o.Flags)
			}
		})
	}
}

// TestCircuit: connections that cannot be made open the circuit, which then refuses at once.
func TestCircuit(t *testing.T) {
	t.Parallel()
	c := cluster("c", dead(t))
	c.Breaker = &mesh.Breaker{ConsecutiveFailures: 2, OpenFor: time.Hour}
	r := start(t, to("c"), c)
	for i, want := range []mesh.FailureKind{mesh.ConnectFailure, mesh.ConnectFailure, mesh.CircuitOpen, mesh.CircuitOpen} {
		io.ReadAll(r.dial())
		if o := r.outcome(); o.Failure != want {
			t.Errorf("connection %d: %s", i, o.Failure)
		}
	}
}

// TestClientLeavesWhileConnecting: a client that resets does not hold an attempt for the whole connect timeout.
func TestClientLeavesWhileConnecting(t *testing.T) {
	t.Parallel()
	c := cluster("c", deaf(t))
	c.ConnectTimeout = time.Hour
	r := start(t, to("c"), c)
	client := r.dial()
	until(t, "it connects", func() bool { return r.clusters["c"].Stats.Value(metrics.UpstreamCxActive) == 1 })
	reset(client)
	if o := r.outcome(); o.Failure != mesh.DownstreamClosed || o.Flags != mesh.FlagDC {
		t.Errorf("%s %s", o.Failure, o.Flags)
	}
	r.ups.Dials.Close() // the dial itself goes on, for whoever comes next
}

// TestPick: each cluster is picked by its weight, exactly.
func TestPick(t *testing.T) {
	t.Parallel()
	p := &Proxy{cfg: &mesh.TCPProxy{Clusters: []mesh.WeightedCluster{{Name: "a", Weight: 1}, {Name: "b", Weight: 0}, {Name: "c", Weight: 3}}}, weight: 4}
	seen := map[string]int{}
	for i := range uint64(400) {
		seen[p.pick(i)]++
	}
	if seen["a"] != 100 || seen["b"] != 0 || seen["c"] != 300 {
		t.Errorf("picked %v", seen)
	}
}

func TestWeightedClusters(t *testing.T) {
	t.Parallel()
	one, ones := serve(t)
	two, twos := serve(t)
	r := start(t, to("a", "b"), cluster("a", one), cluster("b", two))
	seen := map[string]int{}
	for range 60 {
		client := r.dial()
		select {
		case s := <-ones:
			s.Close()
		case s := <-twos:
			s.Close()
		case <-time.After(hang):
			t.Fatal("no upstream was connected to")
		}
		client.Close()
		seen[r.outcome().Cluster]++
	}
	if seen["a"] == 0 || seen["b"] == 0 || seen["a"]+seen["b"] != 60 {
		t.Errorf("picked %v", seen)
	}
}

// TestOriginalDestination: the cluster's host is where the connection was going.
func TestOriginalDestination(t *testing.T) {
	t.Parallel()
	addr, conns := serve(t)
	c := cluster("c")
	c.Discovery, c.Endpoints = mesh.OriginalDestination, nil
	c.OriginalDst = &mesh.OriginalDst{IdleHosts: time.Hour, Port: netip.MustParseAddrPort(addr).Port()}
	r := start(t, to("c"), c)
	if !r.proxy.ToOriginalDst() {
		t.Error("the proxy does not know where it may connect to")
	}
	client := r.dial() // to 127.0.0.1 and some port, which the configuration replaces
	accepted(t, conns).Close()
	client.Close()
	if o := r.outcome(); o.Upstream.String() != addr {
		t.Errorf("went to %s", o.Upstream)
	}
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
