// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/pool"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// conn is one connection, on the worker that serves it.
type conn struct {
	p    *Proxy
	c    *socket.Conn
	info *inspect.ConnInfo
	o    mesh.Outcome

	cluster *upstream.Cluster
	ticket  upstream.Ticket
	up      *pool.Conn // nil until there is one
	choice  upstream.Choice

	worker *socket.Worker
	// unread says that nobody reads what the client says, so that its reset is for Interrupted to find.
	unread atomic.Bool
	active atomic.Int64 // mono: when bytes last moved
	end    int64        // mono: the longest it may last; 0 for ever
	upward upward       // the other direction
}

// Ready implements socket.Handler: one call serves the connection to its end.
func (t *conn) Ready(w *socket.Worker, _ *socket.Conn) (open bool) {
	t.worker = w
	previous := w.Own(t)
	defer func() {
		if r := recover(); r != nil {
			t.panicked(r)
			t.fail(internalError())
		}
		t.upward.join()
		w.SetDeadline(0)
		w.Own(previous)
		t.finish()
	}()
	t.begin()
	t.awaitReset()
	f := t.connect()
	if f == nil {
		t.unread.Store(false)
		f = t.relay()
	}
	if f != nil {
		t.fail(f)
	}
	return false
}

// Closed implements socket.Handler.
func (t *conn) Closed(*socket.Conn) {}

func (t *conn) panicked(r any) {
	t.p.deps.Log.Error("the handling of a connection panicked; it was closed",
		zap.String("listener", t.p.listener.Name), zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
}

func internalError() *mesh.Failure {
	return &mesh.Failure{Kind: mesh.InternalError, Side: mesh.SideInternal}
}

func (t *conn) begin() {
	p, info := t.p, t.info
	shard := t.worker.Shard
	p.numbers.Inc(shard, metrics.TCPDownstreamCxTotal)
	live := p.deps.Live()
	t.o = mesh.Outcome{
		Kind: mesh.OutcomeTCP, Shard: shard, Start: mono.Wall(info.Accepted),
		RequestEnd: -1, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1, UpstreamTook: -1,
		Listener: p.listener.Name, FilterChain: p.chain.Name, Direction: p.listener.Direction, StatPrefix: p.cfg.StatPrefix,
		Remote: info.Remote, Local: info.Local, DirectRemote: info.DirectRemote(),
		ServerName: info.ServerName(), TLS: info.TLS(), ConnectionID: info.ID, Versions: live.Versions(),
	}
	t.choice.Rand, t.choice.Destination = rand.Uint64(), info.Local
	if d := p.cfg.MaxDownstreamLength; d > 0 {
		t.end = info.Accepted + int64(d)
	}
	t.touch()
	t.cluster = p.cluster(live, p.pick(rand.Uint64()))
	t.arm()
}

// connect gets a connection to a host, trying as often as the configuration says.
func (t *conn) connect() *mesh.Failure {
	if t.cluster == nil {
		return &mesh.Failure{Kind: mesh.NoCluster, Side: mesh.SideInternal}
	}
	t.o.Cluster, t.o.ClusterStat = t.cluster.Config.Name, t.cluster.Config.StatName
	for n := max(t.p.cfg.MaxConnectAttempts, 1); ; n-- {
		t.o.Attempts++
		fail, again := t.try()
		if fail == nil {
			return nil
		}
		if !again {
			return fail
		}
		if n == 1 {
			t.cluster.Stats.Inc(t.worker.Shard, metrics.UpstreamCxConnectAttemptsExceeded)
			t.o.Flags |= mesh.FlagURX
			return fail
		}
	}
}

// try makes one attempt to connect.
func (t *conn) try() (fail *mesh.Failure, again bool) {
	w := t.worker
	t.ticket, fail = t.cluster.Admit(w.Shard, mono.Now())
	t.o.Circuit = t.ticket.State
	if fail != nil {
		return fail, false
	}
	h, fail := t.ticket.Pick(&t.choice, w.Shard)
	t.o.Circuit = t.ticket.State
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
	t.ticket.Connected(rand.Uint64())
	return nil, false
}

// awaitReset makes a reset by the client, whom nobody reads, end the connection.
func (t *conn) awaitReset() {
	t.unread.Store(true)
	t.c.WatchHangUp(t.worker)
}

func (t *conn) touch() { t.active.Store(mono.Now()) }

// arm sets the worker's deadline: the earlier of the idle timeout and the longest that the connection may last.
func (t *conn) arm() {
	next := t.end
	if d := t.p.cfg.IdleTimeout; d > 0 {
		if at := t.active.Load() + int64(d); next == 0 || at < next {
			next = at
		}
	}
	t.worker.SetDeadline(next)
}

// Interrupted implements socket.Owner.
func (t *conn) Interrupted() error {
	if f := t.upward.failure.Load(); f != nil {
		return f
	}
	switch {
	case t.unread.Load() && t.c.Broken():
		return &mesh.Failure{Kind: mesh.DownstreamClosed, Side: mesh.SideDownstream}
	case t.o.UpstreamEnd >= 0 && t.up.Peer.Broken():
		return upstreamClosed()
	}
	now := mono.Now()
	if t.end != 0 && now >= t.end {
		return &mesh.Failure{Kind: mesh.MaxDuration, Side: mesh.SideDownstream}
	}
	if d := t.p.cfg.IdleTimeout; d > 0 && now >= t.active.Load()+int64(d) {
		return &mesh.Failure{Kind: mesh.StreamIdleTimeout, Side: mesh.SideDownstream}
	}
	t.arm()
	return nil
}

func (t *conn) fail(f *mesh.Failure) {
	t.o.Failure, t.o.Side = f.Kind, f.Side
	t.o.Flags |= flag(f)
	t.o.Details = f.Kind.String()
	t.o.TransportFailure = f.Detail
}

// flag returns the response flag of a failure; a connection that lasted as long as it may has another than a stream.
func flag(f *mesh.Failure) mesh.Flags {
	if f.Kind == mesh.MaxDuration {
		return mesh.FlagDT
	}
	return f.Kind.Info().Flag
}

// finish closes the upstream connection and tells of the connection's end. Where one side was reset, so is the other:
// an end in order would say that all had been said.
func (t *conn) finish() {
	o := &t.o
	t.c.WatchHangUp(nil)
	if t.up != nil {
		o.UpstreamBytesSent = t.up.Peer.Wrote()
		t.cluster.Stats.Dec(t.worker.Shard, metrics.UpstreamRqActive)
		switch {
		case o.Failure == mesh.DownstreamClosed:
			t.up.Peer.Reset()
		case o.Failure == mesh.UpstreamClosed && o.UpstreamEnd < 0:
			t.c.Reset()
		}
		t.up.Close()
	}
	t.ticket.Drop()
	o.Duration = mono.Now() - t.info.Accepted
	o.BytesReceived = t.upward.received
	o.UpstreamBytesGotten = o.BytesSent
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
