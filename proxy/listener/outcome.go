// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"runtime/debug"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// circles reports whether a redirected connection would come back to us if it were passed on, or has done so already.
func (x *conn) circles() bool {
	s := x.listener.set
	if s.routes.Load().ours(x.info.Local, s.cfg.LocalAddrs) {
		return true
	}
	p := pair{x.info.DirectRemote(), x.info.Local}
	x.guarded = s.guard.enter(p, s.guard.accepted, s.guard.dialed)
	return !x.guarded
}

// toItself reports whether the destination of a connection is the listener itself.
func (x *conn) toItself() bool { return !x.info.Redirected() && x.info.Local.IsValid() }

// loops ends a connection that goes in a circle.
func (x *conn) loops() state {
	x.listener.set.numbers.Inc(x.shard, metrics.ListenerLoops)
	return x.failed(mesh.NoRoute, "redirect_loop")
}

// refuse counts a connection that ends before a chain took it.
func (x *conn) refuse(counter int, kind mesh.FailureKind, details string) state {
	x.count(counter)
	return x.failed(kind, details)
}

func (x *conn) failed(kind mesh.FailureKind, details string) state {
	x.fail(kind, details)
	return over
}

func (x *conn) count(counter int) { x.cfg.metrics.Inc(x.shard, counter) }

// setLooking counts the connection as one that m's listener filters look at; nil for none.
func (x *conn) setLooking(m *metrics.Listener) {
	if x.looking != nil {
		x.looking.Dec(x.shard, metrics.ListenerDownstreamPreCxActive)
	}
	if x.looking = m; m != nil {
		m.Inc(x.shard, metrics.ListenerDownstreamPreCxActive)
	}
}

// panicked counts and logs a panic. Where no handler has the connection yet, its Outcome is ours to give.
func (x *conn) panicked(r any) {
	s := x.listener.set
	s.numbers.Inc(x.shard, metrics.ListenerPanics)
	if x.h == nil {
		x.fail(mesh.InternalError, "panic")
	}
	s.cfg.Log.Error("a connection's handler panicked", zap.String("listener", x.listener.name), zap.Any("panic", r),
		zap.ByteString("stack", debug.Stack()))
}

// fail tells of a connection that ends before a chain took it: its one Outcome.
func (x *conn) fail(kind mesh.FailureKind, details string) {
	now := mono.Now()
	info := kind.Info()
	side, reason := mesh.SideDownstream, ""
	if x.secure != nil {
		reason = x.secure.failure
	}
	if kind == mesh.Overloaded || kind == mesh.NoRoute || kind == mesh.InternalError {
		side = mesh.SideInternal
	}
	x.cfg.observer.Observe(&mesh.Outcome{
		Kind:                       mesh.OutcomeTCP,
		Shard:                      x.shard,
		Start:                      mono.Wall(x.info.Accepted),
		Duration:                   now - x.info.Accepted,
		RequestEnd:                 -1,
		UpstreamStart:              -1,
		UpstreamFirst:              -1,
		UpstreamEnd:                -1,
		UpstreamTook:               -1,
		Listener:                   x.cfg.Name,
		Direction:                  x.cfg.Direction,
		Remote:                     x.info.Remote,
		Local:                      x.info.Local,
		DirectRemote:               x.info.DirectRemote(),
		ServerName:                 x.info.ServerName(),
		ConnectionID:               x.info.ID,
		Flags:                      info.Flag,
		Failure:                    kind,
		Side:                       side,
		Details:                    details,
		DownstreamTransportFailure: reason,
		Versions:                   *x.listener.set.versions.Load(),
	})
}

// notWatched ends a connection that the engine could not take.
func (x *conn) notWatched(err error) {
	x.listener.set.cfg.Log.Error("a connection could not be watched", zap.String("listener", x.listener.name), zap.Error(err))
	if x.h == nil {
		x.fail(mesh.InternalError, "connection_not_watched")
	}
}

// left counts a connection out.
func (l *listener) left() {
	if l.open.Add(-1) == 0 && l.drain.Load() {
		l.set.quiet.wake()
	}
}
