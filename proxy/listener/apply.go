// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// Apply puts these listeners into service, and no others. A listener whose pointer is the one in force is left alone. It
// returns the listeners that could not be put into service, in order of their names; what was in force of them before
// stays. It may be called from any goroutine, one call at a time.
func (s *Set) Apply(ls []*mesh.Listener, v mesh.Versions) []mesh.Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	p := s.plan(ls)
	p.settle()
	s.commit(p)
	s.versions.Store(&v)
	return p.rejections()
}

// plan is what is to be in force.
type plan struct {
	set     *Set
	entries []*entry // by name, those of the bootstrap first
	// opened are sockets that were not there before; sockets are all that are wanted.
	opened, sockets map[socketKey]*boundSocket
}

// entry is one listener of a plan.
type entry struct {
	want *mesh.Listener
	// l is the listener in force under this name, or a new one; nil where neither can be.
	l    *listener
	old  *config // in force; nil where l is new
	next *config // built for want; nil where old stays as it is
	err  error   // why want is not put into service
}

// now returns what is in force when the plan is carried out, nil for nothing.
func (e *entry) now() *mesh.Listener {
	switch {
	case e.next != nil:
		return e.want
	case e.old != nil:
		return e.old.Listener
	}
	return nil
}

// reject falls back to what is in force, or, where that is what cannot be, to nothing.
func (e *entry) reject(err error) {
	if e.err == nil {
		e.err = err
	}
	if e.next == nil {
		e.old = nil
		return
	}
	if e.old == nil || e.old.metrics != e.next.metrics {
		e.next.metrics.Release()
	}
	e.next = nil
}

// plan builds what changed.
func (s *Set) plan(ls []*mesh.Listener) *plan {
	p := &plan{set: s, opened: map[socketKey]*boundSocket{}}
	names := map[string]bool{}
	for _, m := range ls {
		e := &entry{want: m}
		p.entries = append(p.entries, e)
		if names[m.Name] {
			e.err = errors.New("the name is taken by another listener")
			continue
		}
		names[m.Name] = true
		if e.l = s.live[m.Name]; e.l == nil {
			e.l = &listener{set: s, name: m.Name, draining: map[*chain]struct{}{}}
		} else if e.old = e.l.cfg.Load(); e.old.Listener == m {
			continue
		}
		e.next, e.err = e.l.build(m, e.old)
	}
	slices.SortStableFunc(p.entries, func(a, b *entry) int {
		if a.want.Static != b.want.Static {
			if a.want.Static {
				return -1
			}
			return 1
		}
		return strings.Compare(a.want.Name, b.want.Name)
	})
	return p
}

// settle finds for every listener its socket. A listener that cannot have its address is rejected; what it had before
// then needs its own address again, so the others are looked at once more.
func (p *plan) settle() {
	for !p.assign() {
	}
}

// assign reports false where it rejected a listener.
func (p *plan) assign() bool {
	p.sockets = map[socketKey]*boundSocket{}
	taken := map[mesh.Address]*entry{}
	// Those that stay as they are come first: they cannot lose their address to a newcomer.
	for _, stays := range []bool{true, false} {
		for _, e := range p.entries {
			m := e.now()
			if m == nil || (e.next == nil) != stays {
				continue
			}
			if k := keyOf(m); k.name == "" {
				if other := taken[m.Address]; other != nil {
					e.reject(fmt.Errorf("%s: the address is taken by listener %q", m.Address, other.want.Name))
					return false
				}
				taken[m.Address] = e
			}
			if err := p.need(m); err != nil {
				e.reject(err)
				return false
			}
		}
	}
	return true
}

// need finds or opens the socket of a listener.
func (p *plan) need(m *mesh.Listener) error {
	if !m.BindToPort {
		if m.Address.Pipe != "" {
			return fmt.Errorf("%s: a listener with bind_to_port false is found by original destination, which is never a unix socket", m.Address)
		}
		return nil
	}
	if p.set.isStopped(m) {
		return nil
	}
	k := keyOf(m)
	b := p.set.sockets[k]
	if b == nil {
		b = p.opened[k]
	}
	if b == nil {
		var err error
		if b, err = p.set.bind(m); err != nil {
			return err
		}
		p.opened[k] = b
	}
	p.sockets[k] = b
	return nil
}

func (p *plan) rejections() []mesh.Rejection {
	var out []mesh.Rejection
	for _, e := range p.entries {
		if e.err != nil {
			out = append(out, mesh.Rejection{Kind: mesh.KindListener, Name: e.want.Name, Reason: e.err.Error()})
		}
	}
	slices.SortStableFunc(out, func(a, b mesh.Rejection) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// commit carries the plan out. Nothing can fail from here on.
func (s *Set) commit(p *plan) {
	gone := s.live
	s.live = map[string]*listener{}
	var late []*chain // of listeners that stay
	for _, e := range p.entries {
		if e.err != nil {
			s.manager.Inc(0, metrics.ListenerCreateFailure)
		}
		if e.now() == nil {
			continue
		}
		if e.next != nil {
			late = append(late, s.swap(e.l, e.next)...)
		}
		s.live[e.l.name] = e.l
		delete(gone, e.l.name)
	}
	s.own(p.sockets)
	old := s.sockets
	s.sockets = p.sockets
	s.publish()
	s.switchSockets(p.opened, old)
	for _, ch := range late {
		s.drainChain(ch)
	}
	for _, l := range gone {
		s.manager.Inc(0, metrics.ListenerRemoved)
		s.end(l)
	}
	s.manager.Set(metrics.TotalListenersActive, int64(len(s.live)))
}

// swap puts a configuration into force and returns the chains that it no longer has.
func (s *Set) swap(l *listener, next *config) []*chain {
	old := l.cfg.Swap(next)
	if old == nil {
		s.manager.Inc(0, metrics.ListenerAdded)
		s.manager.Inc(0, metrics.ListenerCreateSuccess)
		return nil
	}
	s.manager.Inc(0, metrics.ListenerModified)
	if old.Address == next.Address && old.ReusePort == next.ReusePort {
		s.manager.Inc(0, metrics.ListenerInPlaceUpdated)
	}
	if old.metrics != next.metrics {
		old.metrics.Release()
	}
	return old.gone(next)
}

// own gives each wanted socket to its listener.
func (s *Set) own(sockets map[socketKey]*boundSocket) {
	for _, l := range s.live {
		c := l.cfg.Load()
		b := sockets[keyOf(c.Listener)]
		if b == nil || !c.BindToPort {
			continue
		}
		b.owner.Store(l)
		if b.backlog != c.Backlog {
			b.backlog = c.Backlog
			_ = b.sock.SetBacklog(c.Backlog)
		}
	}
}

// switchSockets starts the new sockets and stops those that nobody wants any more. It waits until these are closed, after
// what is in their queues was taken, so that their addresses are free when Apply returns.
func (s *Set) switchSockets(opened, old map[socketKey]*boundSocket) {
	for k, b := range opened {
		if s.sockets[k] == nil { // its listener was rejected for another reason
			b.sock.Close()
			continue
		}
		s.wg.Go(b.run)
	}
	var closing []*boundSocket
	for k, b := range old {
		if s.sockets[k] == nil {
			b.stop()
			closing = append(closing, b)
		}
	}
	for _, b := range closing {
		<-b.done
	}
}

// publish makes the present listeners known to those that hand connections off.
func (s *Set) publish() {
	r := newRoutes()
	for _, l := range s.live {
		if c := l.cfg.Load(); !c.BindToPort {
			r.addTarget(c.Address, l)
		}
	}
	for _, b := range s.sockets {
		if at, ok := b.tcp(); ok && b.owner.Load().cfg.Load().intercepts {
			r.addOwn(at)
		}
	}
	s.routes.Store(r)
}
