// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// Scope selects listeners.
type Scope func(*mesh.Listener) bool

// All selects every listener.
func All(*mesh.Listener) bool { return true }

// InboundOnly selects the listeners for traffic to the application.
func InboundOnly(l *mesh.Listener) bool { return l.Direction == mesh.Inbound }

// Named selects one listener.
func Named(name string) Scope { return func(l *mesh.Listener) bool { return l.Name == name } }

// StartDrain tells the connections of the selected listeners to end when they can. The listeners go on accepting, and
// tell new connections the same: their clients may not have heard yet that this proxy leaves. They drain for good.
func (s *Set) StartDrain(scope Scope) { s.startDrain(scope) }

// Drain is StartDrain, and waits until no connection is left or ctx is over; it returns how many are left.
func (s *Set) Drain(ctx context.Context, scope Scope) (left int64) {
	ls := s.startDrain(scope)
	s.await(func() bool {
		left = 0
		for _, l := range ls {
			left += l.open.Load()
		}
		return left == 0
	}, ctx.Done(), nil)
	return left
}

func (s *Set) startDrain(scope Scope) (ls []*listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.live {
		if scope(l.cfg.Load().Listener) {
			l.drain.Store(true)
			l.kick()
			ls = append(ls, l)
		}
	}
	return ls
}

// StopAccepting closes the sockets of the selected listeners for good, after what is in their queues was taken. Their
// connections go on. Listeners of a later Apply that the scope selects listen nowhere either.
func (s *Set) StopAccepting(scope Scope) {
	s.mu.Lock()
	s.stopped = append(s.stopped, scope)
	var closing []*boundSocket
	for k, b := range s.sockets {
		if scope(b.owner.Load().cfg.Load().Listener) {
			delete(s.sockets, k)
			b.stop()
			closing = append(closing, b)
			s.manager.Inc(0, metrics.ListenerStopped)
		}
	}
	s.mu.Unlock()
	for _, b := range closing {
		<-b.done
	}
}

func (s *Set) isStopped(l *mesh.Listener) bool {
	for _, scope := range s.stopped {
		if scope(l) {
			return true
		}
	}
	return false
}

// Close stops accepting, ends all connections and waits until they are closed. Connections are shut down, so handlers find
// their clients gone; Close waits for handlers to notice. The set is of no use afterwards.
func (s *Set) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.wg.Wait()
		return
	}
	s.closed = true
	close(s.closing)
	s.commit(&plan{set: s})
	s.mu.Unlock()
	s.wg.Wait()
}

// kick makes all connections look at Draining.
func (l *listener) kick() {
	for _, ch := range l.cfg.Load().chains {
		ch.conns.kick()
	}
	for ch := range l.draining {
		ch.conns.kick()
	}
}

// drainChain ends a chain that its listener no longer has: it takes no more connections, and those it has may go on for
// the drain time. s.mu is held.
func (s *Set) drainChain(ch *chain) {
	ch.retire()
	ch.drain.Store(true)
	ch.conns.retire()
	if ch.conns.isEmpty() {
		ch.release()
		return
	}
	l := ch.listener
	l.draining[ch] = struct{}{}
	s.countDraining()
	ch.conns.kick()
	s.wg.Go(func() {
		s.outlive(ch.conns.isEmpty)
		ch.conns.hangUp()
		s.await(ch.conns.isEmpty, nil, nil)
		ch.release()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(l.draining, ch)
		s.countDraining()
	})
}

// end ends a listener that was removed and has no socket any more. s.mu is held.
func (s *Set) end(l *listener) {
	for _, ch := range l.cfg.Load().chains {
		ch.retire()
	}
	l.drain.Store(true)
	l.kick()
	s.ending[l] = struct{}{}
	s.countDraining()
	s.wg.Go(func() {
		none := func() bool { return l.open.Load() == 0 }
		s.outlive(none)
		l.hangUp()
		s.await(none, nil, nil)
		for _, ch := range l.cfg.Load().chains {
			ch.release()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		l.cfg.Load().metrics.Release()
		delete(s.ending, l)
		s.countDraining()
	})
}

// hangUp lets no more connections in and shuts down those that are there. A chain that is draining already has its own
// end.
func (l *listener) hangUp() {
	l.looking.retire()
	l.looking.hangUp()
	for _, ch := range l.cfg.Load().chains {
		ch.conns.retire()
		ch.conns.hangUp()
	}
}

// countDraining keeps the gauges of what is draining. s.mu is held.
func (s *Set) countDraining() {
	chains := 0
	for _, l := range s.live {
		chains += len(l.draining)
	}
	for l := range s.ending {
		chains += len(l.draining)
	}
	s.manager.Set(metrics.TotalListenersDraining, int64(len(s.ending)))
	s.manager.Set(metrics.TotalFilterChainsDraining, int64(chains))
}

// outlive waits until done, or the drain time is over, or the set closes.
func (s *Set) outlive(done func() bool) {
	t := time.NewTimer(s.cfg.DrainTime)
	defer t.Stop()
	s.await(done, s.closing, t.C)
}

// await waits until done, or until stop or limit speaks; nil never does. done is asked again whenever a listener or chain
// that drains has no more connections.
func (s *Set) await(done func() bool, stop <-chan struct{}, limit <-chan time.Time) {
	for {
		again := s.quiet.wait()
		if done() {
			return
		}
		select {
		case <-again:
		case <-stop:
			return
		case <-limit:
			return
		}
	}
}
