// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/codec/h1"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// hang is how long a test waits for what must happen; it is never a measurement.
const hang = 20 * time.Second

// rig is an engine, the numbers and the limits of a cluster, and the owner of dials. Its end checks that nothing is left.
type rig struct {
	t      testing.TB
	engine *socket.Engine
	stats  *metrics.Cluster
	dials  *Dials
	res    *circuit.Resources
	pools  []Streams
}

func newRig(t testing.TB, limits mesh.Limits) *rig {
	t.Helper()
	e, err := socket.NewEngine(socket.Options{Sets: 2})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, engine: e, stats: metrics.NewCluster(stats.NewRegistry(stats.Options{}), "c"), dials: NewDials(),
		res: circuit.NewResources(&limits),
	}
	t.Cleanup(r.end)
	return r
}

// end takes everything down, and checks that all that is counted was given back.
func (r *rig) end() {
	for _, p := range r.pools {
		p.Drain()
	}
	r.dials.Close()
	for _, p := range r.pools {
		p.CloseIdle()                                                                  // what was dialled for nobody
		until(r.t, "all connections are closed", func() bool { return p.Open() == 0 }) // the backend may have hung up just now
		left := true
		var b *base
		switch p := p.(type) {
		case *Pool:
			b, left = &p.base, p.idle.newest != nil || p.idle.oldest != nil
		case *Mux:
			b, left = &p.base, len(p.all) != 0 || len(p.conns) != 0
		}
		if n := p.Open(); n != 0 || b.dialing != 0 || len(b.waiting) != 0 || left {
			r.t.Errorf("left: %d open, %d dialling, %d waiting", n, b.dialing, len(b.waiting))
		}
	}
	r.engine.Close()
	for _, k := range []circuit.Resource{circuit.Connections, circuit.Pending, circuit.Requests} {
		if n := r.res.InUse(k); n != 0 {
			r.t.Errorf("%d of %s are still in use", n, k)
		}
	}
	for name, i := range map[string]int{
		"cx_active": metrics.UpstreamCxActive, "rq_active": metrics.UpstreamRqActive, "pending_active": metrics.UpstreamRqPendingActive,
	} {
		if n := r.stats.Value(i); n != 0 {
			r.t.Errorf("%s is %d at the end", name, n)
		}
	}
	made, gone := r.stats.Value(metrics.UpstreamCxTotal), r.stats.Value(metrics.UpstreamCxDestroyLocal)+r.stats.Value(metrics.UpstreamCxDestroyRemote)
	if made != gone {
		r.t.Errorf("%d connections were made, %d ended", made, gone)
	}
}

var unlimited = mesh.Limits{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3}

func limits(connections, pending, requests uint32) mesh.Limits {
	return mesh.Limits{Connections: connections, Pending: pending, Requests: requests}
}

func config() *Config {
	c := &Config{H1: h1.Defaults(), IdleTimeout: time.Hour}
	c.Dialer.Timeout = hang
	return c
}

func (r *rig) pool(c *Config, addr mesh.Address) *Pool {
	p := New(c, addr, r.engine, r.stats, r.dials)
	r.pools = append(r.pools, p)
	return p
}

// task is a function on a worker, which cancel interrupts.
type task struct {
	f      func(w *socket.Worker)
	worker atomic.Pointer[socket.Worker]
	stop   atomic.Bool
	done   chan struct{}
}

var errCancelled = errors.New("cancelled")

// start runs f on a worker.
func (r *rig) start(f func(w *socket.Worker)) *task {
	k := &task{f: f, done: make(chan struct{})}
	r.engine.Go(k)
	return k
}

// Run implements socket.Runner.
func (k *task) Run(w *socket.Worker) {
	defer close(k.done)
	w.Own(k)
	k.worker.Store(w)
	k.f(w)
	k.worker.Store(nil)
}

// Interrupted implements socket.Owner.
func (k *task) Interrupted() error {
	if k.stop.Load() {
		return errCancelled
	}
	return nil
}

func (k *task) cancel() {
	k.stop.Store(true)
	if w := k.worker.Load(); w != nil {
		w.Interrupt()
	}
}

func (k *task) wait(t testing.TB) {
	t.Helper()
	select {
	case <-k.done:
	case <-time.After(hang):
		t.Fatal("a worker hangs")
	}
}

// on runs f on a worker and waits for it.
func (r *rig) on(f func(w *socket.Worker)) {
	r.t.Helper()
	r.start(f).wait(r.t)
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

// open is a stream whose answer is in: the number of its connection at the backend.
type open struct {
	conn   *Conn
	stream Stream
	id     int
}

// ask makes an exchange up to the end of the answer.
func ask(w *socket.Worker, p Streams, res *circuit.Resources, fresh bool) (open, error) {
	s, err := p.Stream(w, res, fresh)
	if err != nil {
		return open{}, err
	}
	var q codec.Request
	var a codec.Response
	q.Method, q.Path, q.Authority = []byte("GET"), []byte("/"), []byte("host")
	text := ""
	if err = s.Call(w, &q, nil, &a); err == nil {
		for end := false; !end && err == nil; {
			var piece bytebuf.Piece
			piece, end, err = s.Body().Next(w)
			text += string(piece.Bytes())
		}
	}
	if err != nil {
		s.Failed(mesh.UpstreamClosed)
		s.Abort()
		return open{}, err
	}
	id, err := strconv.Atoi(text)
	o := open{stream: s, id: id}
	if e, ok := s.(*exclusive); ok {
		o.conn = e.Conn
	}
	return o, err
}

// get makes a whole exchange and returns the number of its connection at the backend.
func (r *rig) get(p Streams, fresh bool) (id int) {
	r.t.Helper()
	r.on(func(w *socket.Worker) {
		o, err := ask(w, p, r.res, fresh)
		if err != nil {
			r.t.Error(err)
			return
		}
		o.stream.Release()
		id = o.id
	})
	return id
}

// queue returns how many wait.
func (b *base) queue() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

// backend answers each request with the number of its connection, from 1.
type backend struct {
	net.Listener
	wg sync.WaitGroup
	// hold is called before each answer; nil does nothing.
	hold func(id int, c net.Conn)

	mu                  sync.Mutex
	conns               map[int]net.Conn // guarded by mu: those that are open
	closed              bool             // guarded by mu
	total, peak         int              // guarded by mu
	requests, mostAtOne int              // guarded by mu
}

func newBackend(t testing.TB, hold func(id int, c net.Conn)) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{Listener: l, hold: hold, conns: map[int]net.Conn{}}
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.total++
			id := b.total
			b.conns[id] = c
			if b.closed {
				c.Close()
			}
			b.peak = max(b.peak, len(b.conns))
			b.mu.Unlock()
			b.wg.Go(func() { b.serve(id, c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		b.mu.Lock()
		b.closed = true
		for _, c := range b.conns {
			c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

func (b *backend) address() mesh.Address {
	return mesh.Address{IP: b.Addr().(*net.TCPAddr).AddrPort()}
}

func (b *backend) serve(id int, c net.Conn) {
	defer func() {
		b.mu.Lock()
		delete(b.conns, id)
		b.mu.Unlock()
		c.Close()
	}()
	for r := bufio.NewReader(c); ; {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		b.mu.Lock()
		b.requests++
		b.mostAtOne = max(b.mostAtOne, b.requests)
		b.mu.Unlock()
		if b.hold != nil {
			b.hold(id, c)
		}
		b.mu.Lock()
		b.requests--
		b.mu.Unlock()
		text := strconv.Itoa(id)
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(text), text); err != nil {
			return
		}
	}
}

// conn returns a connection that is open.
func (b *backend) conn(id int) net.Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conns[id]
}

// seen returns the requests that are being served, and the connections that there were.
func (b *backend) seen() (requests, total int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests, b.total
}

// deaf returns an address that does not answer to connections: its queue is full.
func deaf(t testing.TB) mesh.Address {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*syscall.SockaddrInet4).Port))
	for {
		c, err := net.DialTimeout("tcp", at.String(), 200*time.Millisecond)
		if err != nil {
			return mesh.Address{IP: at}
		}
		t.Cleanup(func() { c.Close() })
	}
}

// dead returns an address that refuses connections.
func dead(t testing.TB) mesh.Address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return mesh.Address{IP: l.Addr().(*net.TCPAddr).AddrPort()}
}

// failure returns the kind of an error, NoFailure where it is none.
func failure(err error) mesh.FailureKind {
	var f *mesh.Failure
	if errors.As(err, &f) {
		return f.Kind
	}
	return mesh.NoFailure
}
