// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/upstream"
)

var (
	chaosSeed     = flag.Uint64("chaos.seed", 0, "the seed of TestChaos; 0 takes a new one")
	chaosSessions = flag.Int("chaos.sessions", 600, "the client connections of TestChaos")
	chaosHTTP2    = flag.Bool("chaos.http2", false, "HTTP/2 among the clients and upstreams of TestChaos, as in make soak")
)

// The parts of TestChaos that run at a time.
const (
	chaosClients   = 12
	chaosUpstreams = 4
)

// dice are random numbers for several goroutines.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newDice(seed, stream uint64) *dice { return &dice{r: rand.New(rand.NewPCG(seed, stream))} }

// n returns a number from 0 to below max.
func (d *dice) n(max int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(max)
}

// chaos is one run: what was asked, what the upstreams saw and what was answered.
type chaos struct {
	t    testing.TB
	rig  *rig
	dice *dice

	ids      atomic.Int64
	sessions atomic.Int64 // that have ended
	second   []string     // the upstreams that speak HTTP/2

	mu       sync.Mutex
	seen     map[string]bool // ids that came to an upstream
	answered map[string]bool // ids whose answer came whole
	clusters []*upstream.Cluster
	hangs    []string // ids of requests that hung
}

// TestChaos: upstreams that reset, stall, half-close, talk nonsense, come and go; clients that reset at any byte, read
// slowly and pipeline; and a configuration that changes all the time. Each request ends in one Outcome, no answer is that
// of another request or a part taken for the whole, and in the end nothing is left: no goroutine, no descriptor, and
// nothing that is counted as in use.
func TestChaos(t *testing.T) { // not parallel: it counts the goroutines and descriptors of the process
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for _, procs := range []int{1, max(4, 2*runtime.NumCPU())} {
		t.Run(fmt.Sprintf("%d processors", procs), func(t *testing.T) {
			t.Logf("-chaos.seed %d", seed)
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			runChaos(t, seed)
			eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
			eventually(t, "all descriptors are closed", func() bool { return openFiles(t) <= files })
		})
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func runChaos(t *testing.T, seed uint64) {
	c := &chaos{t: t, rig: newRig(t), dice: newDice(seed, 0), seen: map[string]bool{}, answered: map[string]bool{}}
	var addrs []string
	var upstreams sync.WaitGroup
	var listeners []net.Listener
	for i := range chaosUpstreams {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		addrs = append(addrs, l.Addr().String())
		upstreams.Go(func() { c.upstream(l, newDice(seed, uint64(i)+1)) })
	}
	for i := range chaosUpstreams / 2 {
		addr, end := c.upstream2(newDice(seed, uint64(i)+50))
		defer end()
		c.second = append(c.second, addr)
	}
	c.configure(addrs, 0)
	stop := make(chan struct{})
	var changes sync.WaitGroup
	changes.Go(func() { c.change(addrs, stop) })
	var clients sync.WaitGroup
	for i := range chaosClients {
		clients.Go(func() {
			d := newDice(seed, uint64(i)+100)
			for range *chaosSessions / chaosClients {
				if d.n(3) == 0 && *chaosHTTP2 {
					c.session2(d)
				} else {
					c.session(d)
				}
				c.sessions.Add(1)
			}
		})
	}
	clients.Wait()
	close(stop)
	changes.Wait()
	c.settle()
	c.rig.Close()
	for _, l := range listeners {
		l.Close()
	}
	upstreams.Wait()
	c.check()
}

// configure applies a configuration: the n-th one.
func (c *chaos) configure(addrs []string, n int) {
	r, d := c.rig, c.dice
	some := func() (out []string) {
		for _, a := range addrs {
			if d.n(3) > 0 {
				out = append(out, a)
			}
		}
		if d.n(4) == 0 {
			out = append(out, "127.0.0.1:1") // where nobody is
		}
		return out
	}
	name := fmt.Sprintf("v%d", n%7)
	one, two := cluster(name, some()...), cluster("steady", addrs...)
	if d.n(3) == 0 && *chaosHTTP2 {
		one = cluster2(name, c.second[d.n(len(c.second)):]...)
	}
	for _, x := range []*mesh.Cluster{one, two} {
		x.HTTP.MaxRequestsPerConnection = d.n(5)
		x.HTTP.IdleTimeout = time.Duration(5+d.n(50)) * time.Millisecond
		if d.n(3) == 0 {
			x.Breaker = &mesh.Breaker{ConsecutiveFailures: 5, OpenFor: 5 * time.Millisecond, Probes: 2, ProbeSuccesses: 2, PerHost: d.n(2) == 0}
		}
		if d.n(3) == 0 {
			x.Outlier = &mesh.Outlier{
				Consecutive5xx: 3, Enforcing5xx: 100, Interval: 5 * time.Millisecond, BaseEjection: 5 * time.Millisecond,
				MaxEjection: time.Second, MaxEjectionPercent: 50,
			}
		}
		if d.n(2) == 0 {
			x.Limits[0] = mesh.Limits{Connections: uint32(1 + d.n(8)), Pending: uint32(1 + d.n(8)), Requests: uint32(1 + d.n(12)), Retries: uint32(d.n(4))}
		}
	}
	a, b := to(name), to("steady")
	for _, x := range []*mesh.RouteAction{a, b} {
		x.Timeout = 200 * time.Millisecond
		x.Retry = &mesh.RetryPolicy{
			On: mesh.RetryOn5xx | mesh.RetryOnReset | mesh.RetryOnConnectFailure, Retries: d.n(3), PerTryTimeout: 60 * time.Millisecond,
			BackOffBase: time.Millisecond, BackOffMax: 2 * time.Millisecond,
		}
	}
	first, second := prefix("/a", a), prefix("/", b)
	first.Fallback = &mesh.Fallback{On: mesh.FallbackOnOpenCircuit | mesh.FallbackOnConnectFailure, Cluster: "steady"}
	if n == 0 {
		r.serve(manager(), []*mesh.Route{first, second}, one, two)
	} else {
		snap := *r.snap
		snap.ID++
		snap.Clusters = map[string]*mesh.Cluster{one.Name: one, two.Name: two}
		snap.RouteTables = map[string]*mesh.RouteTable{}
		r.snap = &snap
		r.route(first, second)
		r.apply()
	}
	c.mu.Lock()
	c.clusters = append(c.clusters, r.Clusters()...)
	c.mu.Unlock()
}

// change applies a new configuration, or new endpoints, each time some sessions have ended.
func (c *chaos) change(addrs []string, stop chan struct{}) {
	next := c.sessions.Load()
	for n := 1; ; {
		select {
		case <-stop:
			return
		default:
		}
		if c.sessions.Load() < next {
			time.Sleep(time.Millisecond)
			continue
		}
		next += 3
		if c.dice.n(2) == 0 {
			set := cluster("", addrs[c.dice.n(len(addrs)):]...).Endpoints
			c.rig.SetEndpoints("steady", set)
			continue
		}
		c.configure(addrs, n)
		n++
	}
}

// upstream serves with whatever behaviour comes up.
func (c *chaos) upstream(l net.Listener, d *dice) {
	var wg sync.WaitGroup
	var conns sync.Map
	for {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		conns.Store(conn, true)
		wg.Go(func() {
			defer conns.Delete(conn)
			defer conn.Close()
			for r := bufio.NewReader(conn); c.serve(conn.(*net.TCPConn), r, d); {
			}
		})
	}
	conns.Range(func(conn, _ any) bool { conn.(net.Conn).Close(); return true })
	wg.Wait()
}

// serve answers one request, and reports whether the connection goes on. What is said after a whole answer, and not
// asked for, leaves with the answer's last byte: later it could not be told from the answer to the next request.
func (c *chaos) serve(conn *net.TCPConn, r *bufio.Reader, d *dice) (more bool) {
	if d.n(40) == 0 {
		return false // it hangs up while it is idle, or just when it is used
	}
	q, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	id := q.Header.Get("X-Id")
	c.mu.Lock()
	c.seen[id] = true
	c.mu.Unlock()
	early := d.n(8) == 0
	if !early {
		if _, err := io.Copy(io.Discard, q.Body); err != nil {
			return false
		}
	}
	size := []int{0, 1, 10, 1000, 20_000}[d.n(5)]
	body := strings.Repeat(id+" ", size)
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nx-id: %s\r\nx-size: %d\r\n", id, size)
	whole := head + fmt.Sprintf("content-length: %d\r\n\r\n%s", len(body), body)
	switch d.n(16) {
	case 0:
		conn.SetLinger(0)
		return false
	case 1: // it breaks off
		io.WriteString(conn, whole[:d.n(len(whole))])
		if d.n(2) == 0 {
			conn.SetLinger(0)
		}
		return false
	case 2: // it stalls, perhaps in the middle
		io.WriteString(conn, whole[:d.n(len(whole))])
		conn.SetReadDeadline(time.Now().Add(hang))
		r.ReadByte()
		return false
	case 3:
		io.WriteString(conn, "HTTP/9.9 what\x00\r\n\r\n")
		return false
	case 4: // it ends its side and waits for the other
		io.WriteString(conn, whole)
		conn.CloseWrite()
		io.Copy(io.Discard, r)
		return false
	case 5: // the end of the connection is that of the answer
		io.WriteString(conn, head+"connection: close\r\n\r\n"+body)
		return false
	case 6: // and where that is a reset, it is none
		io.WriteString(conn, head+"connection: close\r\n\r\n"+body[:len(body)/2])
		conn.SetLinger(0)
		return false
	case 7:
		io.WriteString(conn, whole+"HTTP/1.1 200 OK\r\nx-id: evil\r\nx-size: 0\r\ncontent-length: 0\r\n\r\n")
	case 8: // in pieces
		for len(whole) > 0 {
			n := 1 + d.n(len(whole))
			if _, err := io.WriteString(conn, whole[:n]); err != nil {
				return false
			}
			whole = whole[n:]
			runtime.Gosched()
		}
	case 9:
		io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"+whole)
	case 10:
		io.WriteString(conn, "HTTP/1.1 503 No\r\nx-id: "+id+"\r\nx-size: 0\r\ncontent-length: 0\r\n\r\n")
	default:
		var b bytes.Buffer
		b.WriteString(head + "transfer-encoding: chunked\r\n\r\n")
		for rest := body; rest != ""; {
			n := 1 + d.n(len(rest))
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		b.WriteString("0\r\n\r\n")
		conn.Write(b.Bytes())
	}
	return !early
}

// request returns the bytes of a request with a new id.
func (c *chaos) request(d *dice) (id string, out []byte) {
	id = strconv.FormatInt(c.ids.Add(1), 10)
	path := []string{"/a/", "/b/"}[d.n(2)] + id
	body := strings.Repeat("b", []int{1, 100, 5000, 100_000}[d.n(4)])
	switch d.n(3) {
	case 0:
		return id, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\n\r\n", path, id)
	case 1:
		return id, fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\nContent-Length: %d\r\n\r\n%s", path, id, len(body), body)
	}
	return id, fmt.Appendf(nil, "PUT %s HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", path, id, len(body), body)
}

// session is one client connection: some requests, all sent at once, and what the client makes of the answers.
func (c *chaos) session(d *dice) {
	conn, err := net.Dial("tcp", c.rig.addr)
	if err != nil {
		c.t.Error(err)
		return
	}
	tcp := conn.(*net.TCPConn)
	defer tcp.Close()
	tcp.SetDeadline(time.Now().Add(hang))
	var ids []string
	var out []byte
	for range 1 + d.n(4) {
		id, b := c.request(d)
		ids, out = append(ids, id), append(out, b...)
	}
	var reader io.Reader = tcp
	switch d.n(6) {
	case 0: // it resets at any byte
		tcp.Write(out[:d.n(len(out)+1)])
		if d.n(2) == 0 {
			tcp.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // there may be nothing to wait for
			tcp.Read(make([]byte, 1+d.n(1000)))
		}
		tcp.SetLinger(0)
		return
	case 1: // it leaves at any byte
		tcp.Write(out[:d.n(len(out)+1)])
		return
	case 2: // it ends its side, and reads on
		defer func() { c.read(bufio.NewReader(tcp), ids) }()
		tcp.Write(out)
		tcp.CloseWrite()
		return
	case 3:
		reader = &slow{tcp, d}
	}
	var wg sync.WaitGroup
	wg.Go(func() { tcp.Write(out) })
	c.read(bufio.NewReader(reader), ids)
	tcp.Close()
	wg.Wait()
}

// slow reads little at a time.
type slow struct {
	c net.Conn
	d *dice
}

// Read implements io.Reader.
func (s *slow) Read(p []byte) (int, error) {
	if s.d.n(4) == 0 {
		time.Sleep(time.Millisecond)
	}
	return s.c.Read(p[:min(len(p), 1+s.d.n(16<<10))])
}

// read reads the answers to requests, in their order, until one breaks off.
func (c *chaos) read(r *bufio.Reader, ids []string) {
	for _, id := range ids {
		resp, err := http.ReadResponse(r, nil)
		for err == nil && resp.StatusCode < 200 {
			resp, err = http.ReadResponse(r, nil)
		}
		if err != nil {
			c.hung(id, err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		if got := resp.Header.Get("X-Id"); got != "" && got != id {
			c.t.Errorf("request %s got the answer to %q", id, got)
		}
		if err != nil {
			c.hung(id, err)
			return
		}
		if resp.Header.Get("X-Id") == "" && resp.StatusCode < 400 {
			c.t.Errorf("request %s: %d with an answer that nobody gave", id, resp.StatusCode)
		}
		if resp.StatusCode == 200 {
			size, _ := strconv.Atoi(resp.Header.Get("X-Size"))
			if want := strings.Repeat(id+" ", size); string(body) != want {
				c.t.Errorf("request %s: %d bytes that are not its own %d", id, len(body), len(want))
			}
		}
		c.mu.Lock()
		c.answered[id] = true
		c.mu.Unlock()
		if resp.Close {
			return
		}
	}
}

// hung complains about a client that waited in vain.
func (c *chaos) hung(id string, err error) {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Errorf("request %s hangs: %v", id, err)
	}
}

// settle waits until nothing is in flight. A stream of HTTP/2 may end a moment after its connection.
func (c *chaos) settle() {
	r := c.rig
	eventually(c.t, "all clients have gone", func() bool { return r.Connections() == 0 })
	for _, cl := range c.clusters {
		for i, name := range map[int]string{metrics.UpstreamRqActive: "upstream_rq_active", metrics.UpstreamRqPendingActive: "upstream_rq_pending_active"} {
			eventually(c.t, cl.Config.Name+"'s "+name+" is 0", func() bool { return cl.Stats.Value(i) == 0 })
		}
		for p := range cl.Config.Limits {
			for _, k := range []circuit.Resource{circuit.Pending, circuit.Requests, circuit.Retries} {
				eventually(c.t, fmt.Sprintf("none of %s is in use", k), func() bool { return cl.Resources(mesh.Priority(p)).InUse(k) == 0 })
			}
		}
		for _, h := range cl.Hosts() {
			eventually(c.t, fmt.Sprintf("no request is in flight to %s", h.Address), func() bool { return h.Active() == 0 })
		}
	}
}

// check is for what must hold once all has ended. A server of HTTP/2 may still be about to look at a request that was
// given up.
func (c *chaos) check() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cl := range c.clusters {
		if n := cl.Stats.Value(metrics.UpstreamCxActive); n != 0 {
			c.t.Errorf("%s has %d connections at the end", cl.Config.Name, n)
		}
		if n := cl.Resources(0).InUse(circuit.Connections); n != 0 {
			c.t.Errorf("%s counts %d connections at the end", cl.Config.Name, n)
		}
	}
	told := map[string]int{}
	for _, o := range c.rig.rec.outcomes {
		if _, id, ok := strings.Cut(strings.TrimPrefix(string(o.Path), "/"), "/"); ok {
			told[id]++
		}
		if slices.ContainsFunc(c.hangs, func(id string) bool { return strings.HasSuffix(string(o.Path), "/"+id) }) {
			c.t.Logf("what hung: %+v", o)
		}
		if o.Status == 0 && o.Failure == mesh.NoFailure {
			c.t.Errorf("an outcome with neither an answer nor a failure: %+v", o)
		}
	}
	for id := range c.seen {
		if told[id] != 1 {
			c.t.Errorf("request %s, which an upstream saw, had %d outcomes", id, told[id])
		}
	}
	for id := range c.answered {
		if told[id] != 1 {
			c.t.Errorf("request %s, which was answered, had %d outcomes", id, told[id])
		}
	}
	for id, n := range told {
		if n != 1 {
			c.t.Errorf("request %s had %d outcomes", id, n)
		}
	}
	c.t.Logf("%d requests, %d came to an upstream, %d were answered", c.ids.Load(), len(c.seen), len(c.answered))
	if len(c.answered) < int(c.ids.Load())/10 {
		c.t.Error("hardly any request was answered: this run proves little")
	}
}
