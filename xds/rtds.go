// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/graph"
	"github.com/meshtap/meshtap/xds/layered"
	"github.com/meshtap/meshtap/xds/resource"
)

// Layer is a layer of the runtime that is a resource (RTDS).
type Layer struct {
	// Place is that among all layers, Name that of the resource.
	Place  int
	Name   string
	Source resource.Source
}

// layers are the layers of the runtime. They do not go through the graph: nothing has to be there for them, and all that
// waits for them is the start. As in Envoy, they come before anything else is asked for, so that the first listeners and
// clusters are made with their values. They belong to the loop.
type layers struct {
	list []*layer
	// begun says that the graph was started.
	begun bool
	// nack is the reason of the last NACK, by source.
	nack map[string]string
}

// layer is how one of them stands.
type layer struct {
	Layer
	// due is when it is not waited for any longer, the zero time where it is waited for without an end. done says that it
	// came, or is not waited for.
	due       time.Time
	done      bool
	responded bool
	at        time.Time
	version   string
}

// startLayers asks for the layers.
func (m *Manager) startLayers(ctx context.Context) {
	m.layers.nack = map[string]string{}
	m.wg.Go(func() { m.deps.Runtime.Watch(ctx, m.log) })
	for _, l := range m.cfg.Runtime {
		e := &layer{Layer: l}
		if l.Source.FetchTimeout > 0 {
			e.due = time.Now().Add(l.Source.FetchTimeout)
		}
		m.layers.list = append(m.layers.list, e)
		m.note(l.Source)
		f := m.feed(ctx, l.Source.ID)
		if f == nil {
			e.done = true // feed has told why
			continue
		}
		if !m.askedFor(e) {
			f.asked++
			f.stream.Subscribe(resource.RuntimeType, []string{l.Name}, nil)
		}
	}
}

// askedFor reports whether an earlier layer is the same resource.
func (m *Manager) askedFor(e *layer) bool {
	return slices.ContainsFunc(m.layers.list, func(o *layer) bool {
		return o != e && o.Name == e.Name && o.Source.ID == e.Source.ID
	})
}

// begin starts the graph once no layer is waited for.
func (m *Manager) begin(ctx context.Context) {
	if m.layers.begun || slices.ContainsFunc(m.layers.list, func(l *layer) bool { return !l.done }) {
		return
	}
	m.layers.begun = true
	m.step(ctx, m.startEvent())
	for _, id := range slices.Sorted(maps.Keys(m.feeds)) {
		if f := m.feeds[id]; f != nil && f.link.connected && f.src.Kind != mesh.KindRuntime {
			m.step(ctx, graph.Connected{Source: id})
		}
	}
}

// next returns when the next layer is not waited for any longer; stop frees the timer.
func (l *layers) next(now time.Time) (late <-chan time.Time, stop func() bool) {
	var due time.Time
	for _, e := range l.list {
		if !e.done && !e.due.IsZero() && (due.IsZero() || e.due.Before(due)) {
			due = e.due
		}
	}
	if due.IsZero() {
		return nil, func() bool { return false }
	}
	t := time.NewTimer(due.Sub(now))
	return t.C, t.Stop
}

// giveUp stops to wait for layers that did not come in time.
func (m *Manager) giveUp(ctx context.Context, now time.Time) {
	for _, l := range m.layers.list {
		if l.done || l.due.IsZero() || now.Before(l.due) {
			continue
		}
		l.done = true
		m.notify(graph.Notify{Kind: mesh.NoticeConfigTimeout, Config: mesh.ConfigNotice{
			Kind: mesh.KindRuntime, Errors: []mesh.Rejection{{Kind: mesh.KindRuntime, Reason: fmt.Sprintf(
				"%q did not come within %s; the other layers count until it does", l.Name, l.Source.FetchTimeout)}},
		}})
	}
	m.begin(ctx)
}

// onLayers takes a response with layers. What is good of it is in force at once.
func (m *Manager) onLayers(ctx context.Context, f *feed, r ads.Response) {
	var good int
	var refused []mesh.Rejection
	for i, res := range r.Resources {
		name := cmp.Or(res.Name, resource.Name(res.Bytes))
		d, err := m.decodeOne(r, res, cmp.Or(res.Version, r.Version))
		if err != nil {
			b := bad(i, name, res.Bytes, err, r.Place)
			refused = append(refused, mesh.Rejection{Kind: mesh.KindRuntime, Name: b.Name, Reason: b.Reason})
			continue
		}
		if d.Unknown > 0 && m.deps.Unknown != nil {
			m.deps.Unknown(d.Unknown)
		}
		good++
		m.setLayer(f, name, d.Value.(map[string]layered.Value), r.Version)
	}
	for _, name := range r.Removed {
		m.setLayer(f, name, map[string]layered.Value{}, r.Version)
	}
	m.answerLayers(f, r, good, refused)
	m.begin(ctx)
}

// setLayer puts the values of a resource into force, in each layer that it is.
func (m *Manager) setLayer(f *feed, name string, values map[string]layered.Value, version string) {
	for _, l := range m.layers.list {
		if l.Name == name && l.Source.ID == f.src.ID {
			l.done, l.responded, l.at, l.version = true, true, time.Now(), version
			m.deps.Runtime.Set(l.Place, values)
		}
	}
}

// answerLayers answers a response, and tells what became of it.
func (m *Manager) answerLayers(f *feed, r ads.Response, good int, bad []mesh.Rejection) {
	notice := graph.Notify{Kind: mesh.NoticeConfigAccepted, Config: mesh.ConfigNotice{
		Kind: mesh.KindRuntime, Version: r.Version, Accepted: good, Rejected: len(bad), Errors: bad,
	}}
	f.received[mesh.KindRuntime] = r.Version
	if len(bad) == 0 {
		delete(m.layers.nack, f.src.ID)
		m.numbers.accepted(mesh.KindRuntime, r.Version, time.Now())
		f.stream.Ack(resource.RuntimeType, r.Nonce, r.Version)
		m.notify(notice)
		return
	}
	detail := strings.Join(reasons(bad), "\n")
	m.layers.nack[f.src.ID] = detail
	var names []string
	for _, b := range bad {
		names = append(names, b.Name)
	}
	m.numbers.rejected(mesh.KindRuntime)
	f.stream.Nack(resource.RuntimeType, r.Nonce, r.Version, detail, names)
	notice.Kind = mesh.NoticeConfigRejected
	m.notify(notice)
}

// layerStatus returns how the layers stand, by source.
func (m *Manager) layerStatus() (out []graph.TypeStatus) {
	for _, l := range m.layers.list {
		at := slices.IndexFunc(out, func(t graph.TypeStatus) bool { return t.Source == l.Source.ID })
		if at < 0 {
			at = len(out)
			out = append(out, graph.TypeStatus{
				Kind: mesh.KindRuntime, Source: l.Source.ID, Asked: true, Responded: true, Nack: m.layers.nack[l.Source.ID],
			})
		}
		t := &out[at]
		t.Responded = t.Responded && l.responded
		if l.responded {
			t.Resources++
			t.Version, t.At = l.version, l.at
		}
	}
	return out
}

// expireLayers empties layers whose time to live is over.
func (m *Manager) expireLayers(f *feed, names []string) {
	m.log.Warn("the time to live of runtime layers is over; they are empty until they come again",
		zap.Stringer("source", f.src), zap.Strings("names", names))
	for _, name := range names {
		m.setLayer(f, name, map[string]layered.Value{}, "")
	}
}
