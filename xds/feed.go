// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/graph"
	"github.com/meshtap/meshtap/xds/resource"
)

// feed is a source that runs: the aggregated stream, a stream or a poll for one type, a file. It belongs to the loop.
type feed struct {
	src    resource.Source
	stream Stream
	cancel context.CancelFunc
	link   link
	plane  plane
	// asked counts the names that are asked for; a feed of its own ends with the last one.
	asked int
	// received are the versions of the last responses by kind, for the answers.
	received map[mesh.ResourceKind]string
}

// fed is an event of a feed.
type fed struct {
	feed *feed
	ev   ads.Event
}

// start runs a stream as a feed until ctx ends or the feed is closed.
func (m *Manager) start(ctx context.Context, src resource.Source, s Stream) *feed {
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{src: src, stream: s, cancel: cancel, received: map[mesh.ResourceKind]string{}}
	f.plane = m.numbers.openPlane(planeName(src))
	f.link.down(time.Now(), nil)
	m.feeds[src.ID] = f
	m.waitForAnswer(ctx, f)
	out := make(chan ads.Event)
	m.wg.Go(func() {
		defer close(out)
		// A stream ends by itself only when it cannot go on at all; what is in force stays then.
		if err := s.Run(ctx, out); err != nil {
			m.log.Error("a source of configuration has given up", zap.Stringer("source", src), zap.Error(err))
		}
	})
	m.wg.Go(func() {
		for ev := range out {
			select {
			case m.events <- fed{f, ev}:
			case <-ctx.Done():
			}
		}
	})
	return f
}

// planeName is what Envoy calls the numbers of a stream's control plane.
func planeName(src resource.Source) string {
	switch {
	case src.Variant == resource.ADS:
		return "control_plane"
	case src.Kind == mesh.KindCluster:
		return "cluster_manager.cds.control_plane"
	case src.Kind == mesh.KindListener:
		return "listener_manager.lds.control_plane"
	default:
		return src.Stats + ".control_plane"
	}
}

// close ends a feed. Its goroutines are joined at the end of Run.
func (m *Manager) close(f *feed) {
	f.cancel()
	f.plane.group.Release()
	m.closed.Add(f.stream.Counts())
	delete(m.feeds, f.src.ID)
	m.sources[f.src.ID] = f.src // prune forgets it where nothing can come of it
	m.numbers.lost(m.lostSince())
}

// lostSince is since when one of the sources has been away, the zero time where all are there.
func (m *Manager) lostSince() (at time.Time) {
	for _, f := range m.feeds {
		if !f.link.connected && (at.IsZero() || f.link.since.Before(at)) {
			at = f.link.since
		}
	}
	return at
}

// sourceOf returns where resources of a kind come from by their key.
func (m *Manager) sourceOf(kind mesh.ResourceKind, key string) string {
	if kind == mesh.KindListener || kind == mesh.KindCluster {
		return m.cfg.Sources[kind].ID
	}
	return sourcekey.Source(key)
}

// subscribe asks the sources. Where there is none, nothing answers and the wait for it runs out.
func (m *Manager) subscribe(ctx context.Context, a graph.Subscribe) {
	type names struct{ add, remove []string }
	bySource := map[string]*names{}
	of := func(key string) *names {
		id := m.sourceOf(a.Kind, key)
		if bySource[id] == nil {
			bySource[id] = &names{}
		}
		return bySource[id]
	}
	for _, key := range a.Add {
		n := of(key)
		n.add = append(n.add, sourcekey.Name(key))
	}
	for _, key := range a.Remove {
		n := of(key)
		n.remove = append(n.remove, sourcekey.Name(key))
	}
	for _, id := range slices.Sorted(maps.Keys(bySource)) {
		n := bySource[id]
		f := m.feed(ctx, id)
		if f == nil {
			continue
		}
		f.asked += len(n.add) - len(n.remove)
		f.stream.Subscribe(typeURL(a.Kind), n.add, n.remove)
		if id != "" && f.asked == 0 {
			m.close(f)
		}
	}
}

// feed returns the feed of a source, and opens it where it does not run yet; nil where it cannot be opened.
func (m *Manager) feed(ctx context.Context, id string) *feed {
	if f := m.feeds[id]; f != nil || id == "" {
		return f
	}
	src, known := m.sources[id]
	if !known || m.deps.Open == nil {
		m.log.Error("a source of configuration is not known; what is to come from it will not", zap.String("source", id))
		return nil
	}
	s, err := m.deps.Open(src)
	if err != nil {
		m.log.Error("a source of configuration cannot be used; what is to come from it will not", zap.Stringer("source", src), zap.Error(err))
		return nil
	}
	return m.start(ctx, src, s)
}

// prune forgets the sources that were named by resources that nobody wants. Scopes may yet name tables of theirs.
func (m *Manager) prune() {
	for id := range m.sources {
		if m.feeds[id] == nil && !m.graph.MayAsk(id) {
			delete(m.sources, id)
		}
	}
}

// onFeed takes an event of a feed that still runs.
func (m *Manager) onFeed(ctx context.Context, f *feed, ev ads.Event) {
	if m.feeds[f.src.ID] != f {
		return
	}
	switch ev := ev.(type) {
	case ads.Connected:
		f.link.up(time.Now(), ev.Target.String())
		f.plane.connected(true)
		m.numbers.lost(m.lostSince())
		if m.layers.begun && f.src.Kind != mesh.KindRuntime {
			m.step(ctx, graph.Connected{Source: f.src.ID})
		}
	case ads.Disconnected:
		f.link.down(time.Now(), ev.Err)
		f.plane.connected(false)
		m.numbers.lost(m.lostSince())
		if !ev.Responded {
			m.failed(f)
			m.restore(ctx, f)
		}
		if m.layers.begun && f.src.Kind != mesh.KindRuntime {
			m.step(ctx, graph.Disconnected{Source: f.src.ID})
		}
	case ads.Failed:
		f.link.err = ev.Err
		m.failed(f)
	case ads.Expired:
		if ev.TypeURL == resource.RuntimeType {
			m.expireLayers(f, ev.Names)
			return
		}
		m.expire(ctx, f, ev)
	case ads.Response:
		f.link.controlPlane, f.link.err = ev.ControlPlane, nil
		f.plane.identifier(ev.ControlPlane)
		if ev.TypeURL == resource.RuntimeType {
			m.onLayers(ctx, f, ev)
			return
		}
		r, ok := m.decode(f, ev)
		if !ok {
			return
		}
		f.received[r.Kind] = r.Version
		m.answered(f, r.Kind)
		if graph.IsPart(r.Kind) {
			m.sent = keysOf(r)
		}
		m.step(ctx, r)
	}
	m.prune()
}

// failed counts an attempt to get configuration that failed.
func (m *Manager) failed(f *feed) {
	for _, kind := range []mesh.ResourceKind{mesh.KindCluster, mesh.KindListener} {
		if m.cfg.Sources[kind].ID == f.src.ID {
			m.numbers.failed(kind)
		}
	}
	m.numbers.failedParts(f.src.ID)
	if slices.ContainsFunc(m.layers.list, func(l *layer) bool { return l.Source.ID == f.src.ID }) {
		m.numbers.failed(mesh.KindRuntime)
	}
}

func (m *Manager) expire(ctx context.Context, f *feed, ev ads.Expired) {
	kind, ok := resource.KindOf(ev.TypeURL)
	if !ok {
		return
	}
	e := graph.Expired{Kind: kind, Source: f.src.ID}
	for _, n := range ev.Names {
		e.Names = append(e.Names, f.key(kind, n))
		if kind == mesh.KindListener || kind == mesh.KindCluster {
			delete(m.known[kind], n)
		}
	}
	m.log.Warn("the time to live of resources is over; they are removed", zap.Stringer("type", kind),
		zap.Stringer("source", f.src), zap.Strings("names", ev.Names))
	m.step(ctx, e)
}

// key returns the key of a resource that comes from the feed.
func (f *feed) key(kind mesh.ResourceKind, name string) string {
	if kind == mesh.KindListener || kind == mesh.KindCluster {
		return name
	}
	return sourcekey.Join(name, f.src.ID)
}

// counts adds up what all streams have ignored and tried, also those that have ended.
func (m *Manager) counts() ads.Counts {
	sum := m.closed
	for _, f := range m.feeds {
		sum.Add(f.stream.Counts())
	}
	return sum
}
