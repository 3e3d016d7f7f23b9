// SPDX-License-Identifier: Apache-2.0

// Package tcp forwards connections whose bytes are nobody's business: Envoy's tcp_proxy, where the way of a connection
// ends that is not HTTP (step 5). It connects to a host of the cluster at once, since servers may speak first, moves bytes
// in both directions with back-pressure, passes a half-close on, and ends in exactly one Outcome.
//
// A connection takes two workers while it lasts: the one that serves it moves what the upstream says, another what the
// client says. A direction holds a buffer only while it has bytes.
package tcp

import (
	"errors"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/pool"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// Live is the state that a connection is pinned to.
type Live interface {
	// Cluster returns the cluster with this name, nil where there is none.
	Cluster(name string) *upstream.Cluster
	Versions() mesh.Versions
}

// Logs are access logs. Close gives back what they hold.
type Logs interface {
	mesh.Observer
	Close()
}

// Deps are what TCP proxies need of the process.
type Deps struct {
	Log   *zap.Logger
	Stats *stats.Registry
	Live  func() Live
	Logs  func([]mesh.AccessLog) (Logs, error)
	// Observers are told of every outcome, behind the metrics and the access logs.
	Observers []mesh.Observer
}

// Proxy is the runtime of one tcp_proxy filter. It is immutable.
type Proxy struct {
	cfg      *mesh.TCPProxy
	listener *mesh.Listener
	chain    *mesh.FilterChain
	deps     *Deps
	numbers  *metrics.TCP
	logs     Logs
	weight   uint64
}

// New returns the runtime of the TCP proxy of a filter chain.
func New(l *mesh.Listener, fc *mesh.FilterChain, deps *Deps) (*Proxy, error) {
	p := &Proxy{cfg: fc.TCP, listener: l, chain: fc, deps: deps, numbers: metrics.NewTCP(deps.Stats, fc.TCP.StatPrefix)}
	for i := range p.cfg.Clusters {
		p.weight += uint64(p.cfg.Clusters[i].Weight)
	}
	logs, err := deps.Logs(p.cfg.AccessLogs)
	if err != nil {
		return nil, err
	}
	p.logs = logs
	return p, nil
}

// Retire implements the listener's Retirer. A connection has all it needs from its beginning on.
func (p *Proxy) Retire() {}

// Release implements the listener's Retirer.
func (p *Proxy) Release() {
	p.logs.Close()
	p.numbers.Release()
}

// ToOriginalDst reports whether connections may go to where they were going.
func (p *Proxy) ToOriginalDst() bool {
	for i := range p.cfg.Clusters {
		if c := p.deps.Live().Cluster(p.cfg.Clusters[i].Name); c != nil && c.Config.Discovery == mesh.OriginalDestination {
			return true
		}
	}
	return false
}

// Accept implements the listener's chain handler.
func (p *Proxy) Accept(c *socket.Conn, info *inspect.ConnInfo) (h socket.Handler, now bool) {
	return &conn{p: p, c: c, info: info}, true
}

// pick chooses a cluster by weight.
func (p *Proxy) pick(random uint64) string {
	at := random % max(p.weight, 1)
	for i := range p.cfg.Clusters {
		w := uint64(p.cfg.Clusters[i].Weight)
		if at < w {
			return p.cfg.Clusters[i].Name
		}
		at -= w
	}
	return p.cfg.Clusters[0].Name
}

// conn is one connection, on the worker that serves it.
type conn struct {
	p    *Proxy
	c    *socket.Conn
	info *inspect.ConnInfo
	o    mesh.Outcome

	cluster *upstream.Cluster
	ticket  upstream.Ticket
	up      *pool.Conn
	choice  upstream.Choice

	serving atomic.Pointer[socket.Worker]
	active  atomic.Int64 // mono: when bytes last moved
	end     int64        // mono: the longest it may last; 0 for ever
	relayed bool

	// The other direction.
	worker   atomic.Pointer[socket.Worker]
	halt     atomic.Bool
	done     chan struct{}
	received int64 // from the client
	readErr  error
}

// Ready implements socket.Handler: one call serves the connection to its end.
func (t *conn) Ready(w *socket.Worker, _ *socket.Conn) (open bool) {
	previous := w.Own(t)
	defer func() {
		if r := recover(); r != nil {
			t.p.deps.Log.Error("the handling of a connection panicked; it was closed",
				zap.String("listener", t.p.listener.Name), zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
			t.fail(&mesh.Failure{Kind: mesh.InternalError, Side: mesh.SideInternal})
		}
		w.SetDeadline(0)
		w.Own(previous)
		t.finish(w)
	}()
	t.begin(w)
	if f := t.connect(w); f != nil {
		t.fail(f)
		return false
	}
	t.relay(w)
	return false
}

// Closed implements socket.Handler.
func (t *conn) Closed(*socket.Conn) {}

func (t *conn) begin(w *socket.Worker) {
	p, info := t.p, t.info
	p.numbers.Inc(w.Shard, metrics.TCPDownstreamCxTotal)
	live := p.deps.Live()
	t.o = mesh.Outcome{
		Kind: mesh.OutcomeTCP, Shard: w.Shard, Start: mono.Wall(info.Accepted),
		RequestEnd: -1, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1, UpstreamTook: -1,
		Listener: p.listener.Name, FilterChain: p.chain.Name, Direction: p.listener.Direction, StatPrefix: p.cfg.StatPrefix,
		Remote: info.Remote, Local: info.Local, DirectRemote: info.DirectRemote,
		ServerName: info.ServerName, ConnectionID: info.ID, Versions: live.Versions(),
	}
	t.choice.Rand, t.choice.Destination = rand.Uint64(), info.Local
	if d := p.cfg.MaxDownstreamLength; d > 0 {
		t.end = info.Accepted + int64(d)
	}
	t.touch()
	t.cluster = live.Cluster(p.pick(rand.Uint64()))
	t.arm(w)
}

// connect gets a connection to a host, trying as often as the configuration says.
func (t *conn) connect(w *socket.Worker) *mesh.Failure {
	if t.cluster == nil {
		return &mesh.Failure{Kind: mesh.NoCluster, Side: mesh.SideInternal}
	}
	t.o.Cluster = t.cluster.Config.Name
	for n := max(t.p.cfg.MaxConnectAttempts, 1); ; n-- {
		t.o.Attempts++
		fail, again := t.try(w)
		if fail == nil {
			return nil
		}
		if !again {
			return fail
		}
		if n == 1 {
			t.cluster.Stats.Inc(w.Shard, metrics.UpstreamCxConnectAttemptsExceeded)
			t.o.Flags |= mesh.FlagURX
			return fail
		}
	}
}

// try makes one attempt to connect.
func (t *conn) try(w *socket.Worker) (fail *mesh.Failure, again bool) {
	t.ticket, fail = t.cluster.Admit(mesh.PriorityDefault, w.Shard)
	t.o.Circuit = t.ticket.State
	if fail != nil {
		return fail, false
	}
	h, fail := t.ticket.Pick(&t.choice, w.Shard)
	if fail != nil {
		t.ticket.Drop()
		return fail, false
	}
	t.o.Upstream, t.o.UpstreamHostname, t.o.UpstreamLocality = h.Address, h.Endpoint().Hostname, h.Group().Locality
	t.o.EndpointVersion = t.cluster.EndpointVersion()
	up, err := h.TCP().Take(w, t.cluster.Resources(mesh.PriorityDefault), true)
	if err != nil {
		fail = failureOf(err)
		t.ticket.Done(&circuit.Attempt{Failure: *fail}, rand.Uint64())
		return fail, fail.Kind == mesh.ConnectFailure || fail.Kind == mesh.ConnectTimeout
	}
	t.up = up
	t.cluster.Stats.Inc(w.Shard, metrics.UpstreamRqTotal)
	t.cluster.Stats.Inc(w.Shard, metrics.UpstreamRqActive)
	t.o.UpstreamStart = mono.Now() - t.info.Accepted
	t.o.UpstreamLocal = up.Peer.LocalAddr()
	// A connection that was made is all there is to learn of a host.
	t.ticket.Connected()
	return nil, false
}

// relay moves bytes both ways until both have ended, or one breaks.
func (t *conn) relay(w *socket.Worker) {
	t.relayed = true
	t.done = make(chan struct{}, 1)
	up := &upward{t}
	w.Go(up)
	err := t.down(w)
	if err == nil {
		// The upstream has ended its side; the client may go on.
		err = t.await(w)
	}
	t.halt.Store(true)
	if o := t.worker.Load(); o != nil {
		o.Interrupt()
	}
	<-t.done
	if err == nil {
		err = t.readErr
	}
	if err != nil {
		t.fail(failureOf(err))
	}
}

// down moves what the upstream says.
func (t *conn) down(w *socket.Worker) error {
	bufs := t.c.Bufs()
	for {
		b, err := t.up.Peer.Recv(w, nil)
		switch {
		case err == io.EOF:
			t.o.UpstreamEnd = mono.Now() - t.info.Accepted
			return t.c.CloseWrite()
		case err != nil:
			return upstreamError(err)
		}
		t.touch()
		n := int64(b.Len())
		if t.o.UpstreamFirst < 0 {
			t.o.UpstreamFirst = mono.Now() - t.info.Accepted
		}
		t.o.BytesSent += n
		t.p.numbers.Add(w.Shard, metrics.TCPDownstreamCxTxBytesTotal, n)
		t.cluster.Stats.Add(w.Shard, metrics.UpstreamCxRxBytesTotal, n)
		err = t.c.Write(w, b.Bytes())
		bufs.Put(b)
		if err != nil {
			return err
		}
	}
}

// await sleeps until the other direction has ended too.
func (t *conn) await(w *socket.Worker) error {
	for {
		select {
		case <-t.done:
			t.done <- struct{}{}
			return nil
		default:
		}
		if err := w.Sleep(); err != nil {
			return err
		}
	}
}

// upward moves what the client says, on a worker of its own.
type upward struct{ t *conn }

// Run implements socket.Runner.
func (u *upward) Run(w *socket.Worker) {
	t := u.t
	w.Own(u)
	t.worker.Store(w)
	defer func() {
		t.worker.Store(nil)
		t.done <- struct{}{}
		t.wake()
	}()
	t.readErr = u.move(w)
	if t.readErr == errHalted {
		t.readErr = nil
	}
}

var errHalted = errors.New("tcp: the other direction has ended")

// Interrupted implements socket.Owner.
func (u *upward) Interrupted() error {
	if u.t.halt.Load() {
		return errHalted
	}
	return nil
}

func (u *upward) move(w *socket.Worker) error {
	t := u.t
	bufs := t.c.Bufs()
	for !t.halt.Load() {
		if err := t.c.AwaitRead(w); err != nil {
			return err
		}
		b := bufs.Get()
		n, err := t.c.TryRead(b.Free())
		if err == nil {
			t.touch()
			t.received += int64(n)
			t.p.numbers.Add(w.Shard, metrics.TCPDownstreamCxRxBytesTotal, int64(n))
			t.cluster.Stats.Add(w.Shard, metrics.UpstreamCxTxBytesTotal, int64(n))
			err = upstreamError(t.up.Peer.Write(w, b.Free()[:n]))
		}
		bufs.Put(b)
		switch {
		case err == io.EOF:
			return t.up.Peer.CloseWrite()
		case err == socket.ErrWouldBlock:
		case err != nil:
			return err
		}
	}
	return errHalted
}

// errUpstream marks an error of the upstream's side.
type errUpstream struct{ error }

func upstreamError(err error) error {
	var own *mesh.Failure
	if err == nil || errors.As(err, &own) || err == errHalted {
		return err
	}
	return errUpstream{err}
}

// failureOf names why a connection ended before its time.
func failureOf(err error) *mesh.Failure {
	var own *mesh.Failure
	var up errUpstream
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &up):
		return &mesh.Failure{Kind: mesh.UpstreamClosed, Side: mesh.SideUpstream, Detail: "connection reset"}
	}
	return &mesh.Failure{Kind: mesh.DownstreamClosed, Side: mesh.SideDownstream}
}

func (t *conn) touch() { t.active.Store(mono.Now()) }

// arm sets the worker's deadline: the earlier of the idle timeout and the longest that the connection may last.
func (t *conn) arm(w *socket.Worker) {
	next := t.end
	if d := t.p.cfg.IdleTimeout; d > 0 {
		if at := t.active.Load() + int64(d); next == 0 || at < next {
			next = at
		}
	}
	t.o.Shard = w.Shard
	w.SetDeadline(next)
	t.serving.Store(w)
}

// wake lets the serving worker look whether both directions have ended.
func (t *conn) wake() {
	if w := t.serving.Load(); w != nil {
		w.Signal()
	}
}

// Interrupted implements socket.Owner.
func (t *conn) Interrupted() error {
	now := mono.Now()
	if t.end != 0 && now >= t.end {
		return &mesh.Failure{Kind: mesh.MaxDuration, Side: mesh.SideDownstream}
	}
	if d := t.p.cfg.IdleTimeout; d > 0 && now >= t.active.Load()+int64(d) {
		return &mesh.Failure{Kind: mesh.StreamIdleTimeout, Side: mesh.SideDownstream}
	}
	if w := t.serving.Load(); w != nil {
		t.arm(w)
	}
	return nil
}

func (t *conn) fail(f *mesh.Failure) {
	t.o.Failure, t.o.Side = f.Kind, f.Side
	t.o.Flags |= f.Kind.Info().Flag
	t.o.Details = f.Kind.String()
	t.o.TransportFailure = f.Detail
}

// finish closes the upstream connection and tells of the connection's end.
func (t *conn) finish(w *socket.Worker) {
	if t.relayed {
		t.cluster.Stats.Dec(w.Shard, metrics.UpstreamRqActive)
		if t.o.Failure != mesh.NoFailure {
			// What one side does not know of the other's end is said by a reset, as far as there is anything unsaid.
			t.up.Peer.Reset()
		}
		t.up.Close()
		t.ticket.Done(&circuit.Attempt{}, rand.Uint64())
	}
	o := &t.o
	o.Duration = mono.Now() - t.info.Accepted
	o.BytesReceived = t.received
	o.UpstreamBytesSent, o.UpstreamBytesGotten = o.BytesReceived, o.BytesSent
	var numbers *metrics.Cluster
	if t.cluster != nil {
		numbers = t.cluster.Stats
	}
	metrics.ObserveTCP(t.p.numbers, numbers, o)
	t.p.logs.Observe(o)
	for _, l := range t.p.deps.Observers {
		l.Observe(o)
	}
}
