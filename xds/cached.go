// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/graph"
	"github.com/meshtap/meshtap/xds/saved"
)

// Cache says where the last good configuration is kept on disk, so that the proxy starts from it where a source does not
// answer.
type Cache struct {
	// Dir is the directory; "" keeps nothing.
	Dir string
	// MaxAge is how old it may be to be used; 0 means DefaultCacheAge.
	MaxAge time.Duration
	// Node is the ID of the node. What was saved for another one is not used.
	Node string
}

// DefaultCacheAge is how old a saved configuration may be where Cache does not say.
const DefaultCacheAge = 24 * time.Hour

const (
	// cachePatience is how long a source may take to answer before what is saved of it is used. A try that fails ends it.
	cachePatience = 250 * time.Millisecond
	// savePause is the least time between two writes.
	savePause = 5 * time.Second
	// cacheNonce is that of the responses that come from the disk, which are answered to nobody.
	cacheNonce = "\x00saved"
)

// savedKinds are the kinds that are kept, in the order in which they are put into force. Secrets are not: keys are never
// on disk.
var savedKinds = [...]mesh.ResourceKind{
	mesh.KindCluster, mesh.KindEndpoints, mesh.KindListener, mesh.KindExtension, mesh.KindScope, mesh.KindRouteTable,
	mesh.KindVirtualHost,
}

// cache is what is kept on disk, and what came from there. It belongs to the loop, but for the writer's goroutine.
type cache struct {
	cfg Cache
	// stale is what was read at the start of sources that have not answered yet, by their ID; at is when it was saved.
	stale map[string][]saved.Group
	at    time.Time
	// used are the sources that have not answered and whose stale configuration is in force, with the kinds that they
	// still have to answer.
	used map[string]map[mesh.ResourceKind]bool
	// unsaved says that something has changed since the last write, which was at last.
	unsaved bool
	last    time.Time
	tick    *time.Ticker
	// jobs has one place: a write that is to come.
	jobs chan *job
}

// job is a configuration on its way to the disk.
type job struct {
	state saved.State
	kinds [len(savedKinds)][]kept
}

// kept is a resource in force, with the source that it came from.
type kept struct {
	source, name string
	res          *graph.Resource
}

// openCache reads what was saved, and starts to save, where that is asked for.
func (m *Manager) openCache() {
	cfg := m.cfg.Cache
	if cfg.Dir == "" {
		return
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = DefaultCacheAge
	}
	c := &cache{
		cfg: cfg, stale: map[string][]saved.Group{}, used: map[string]map[mesh.ResourceKind]bool{},
		tick: time.NewTicker(savePause), jobs: make(chan *job, 1),
	}
	if s, err := readCache(cfg, time.Now()); err == nil {
		c.at = s.Saved
		for _, g := range s.Groups {
			c.stale[g.Source] = append(c.stale[g.Source], g)
		}
	} else if !errors.Is(err, saved.ErrNone) {
		m.log.Warn("the saved configuration is not used; the start waits for its sources", zap.String("file", saved.Path(cfg.Dir)), zap.Error(err))
	}
	m.cache = c
	m.wg.Go(func() { m.write(c) })
}

// closeCache ends the writer, which writes what it was handed. It is joined at the end of Run.
func (m *Manager) closeCache() {
	if m.cache != nil {
		m.cache.tick.Stop()
		close(m.cache.jobs)
	}
}

// unsaved notes that something has changed.
func (m *Manager) unsaved() {
	if m.cache != nil {
		m.cache.unsaved = true
	}
}

func readCache(cfg Cache, now time.Time) (*saved.State, error) {
	s, err := saved.Read(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if age := now.Sub(s.Saved); age > cfg.MaxAge {
		return nil, fmt.Errorf("it is %s old, and %s is allowed", age.Round(time.Second), cfg.MaxAge)
	}
	if s.Node != cfg.Node {
		return nil, fmt.Errorf("it is of the node %q, and this one is %q", s.Node, cfg.Node)
	}
	return s, nil
}

// waitForAnswer lets what is saved of a source come into force when it does not answer soon.
func (m *Manager) waitForAnswer(ctx context.Context, f *feed) {
	if m.cache == nil || m.cache.stale[f.src.ID] == nil {
		return
	}
	m.wg.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(cachePatience):
		}
		select {
		case m.asks <- func() { m.restore(ctx, f) }:
		case <-ctx.Done():
		}
	})
}

// restore puts into force what is saved of a source, which has not answered.
func (m *Manager) restore(ctx context.Context, f *feed) {
	if m.cache == nil || m.feeds[f.src.ID] != f {
		return
	}
	groups := m.cache.stale[f.src.ID]
	if groups == nil {
		return
	}
	delete(m.cache.stale, f.src.ID)
	m.beginWithout(ctx)
	m.cache.used[f.src.ID] = m.wildcards(f.src.ID)
	m.log.Warn("a source of configuration does not answer; what was saved of it is used until it does",
		zap.Stringer("source", f.src), zap.Time("saved", m.cache.at))
	note := "from the disk, saved at " + m.cache.at.UTC().Format(time.RFC3339) + ": its source has not answered since the start"
	for _, kind := range savedKinds {
		for _, g := range groups {
			if g.TypeURL == typeURL(kind) {
				m.restoreGroup(ctx, f, g, note)
			}
		}
	}
	m.prune()
}

func (m *Manager) restoreGroup(ctx context.Context, f *feed, g saved.Group, note string) {
	in := ads.Response{TypeURL: g.TypeURL, Version: g.Version, Nonce: cacheNonce}
	names := make([]string, 0, len(g.Resources))
	for _, r := range g.Resources {
		in.Resources = append(in.Resources, ads.Resource{TypeURL: g.TypeURL, Bytes: r.Raw, Version: r.Version})
		names = append(names, r.Name)
	}
	r, ok := m.decode(f, in)
	if !ok {
		return
	}
	for _, res := range r.Resources {
		res.At = m.cache.at // nobody else has it yet
	}
	r.Note = note
	if h, ok := f.stream.(holder); ok {
		h.Hold(g.TypeURL, names)
	}
	if r.Kind == mesh.KindExtension {
		m.sent = keysOf(r)
	}
	m.step(ctx, r)
}

// holder is a Stream that tells its control plane what the proxy has already.
type holder interface {
	Hold(typeURL string, names []string)
}

// wildcards are the kinds of which all resources come from a source.
func (m *Manager) wildcards(source string) map[mesh.ResourceKind]bool {
	out := map[mesh.ResourceKind]bool{}
	if m.cfg.Listeners && m.cfg.Sources[mesh.KindListener].ID == source {
		out[mesh.KindListener] = true
	}
	if m.cfg.Clusters && m.cfg.Sources[mesh.KindCluster].ID == source {
		out[mesh.KindCluster] = true
	}
	return out
}

// answered notes that a source has answered: what is saved of it is not needed any more.
func (m *Manager) answered(f *feed, kind mesh.ResourceKind) {
	if m.cache == nil {
		return
	}
	delete(m.cache.stale, f.src.ID)
	left, used := m.cache.used[f.src.ID]
	if !used {
		return
	}
	delete(left, kind)
	if len(left) == 0 {
		delete(m.cache.used, f.src.ID)
		m.log.Info("a source of configuration has answered; what was saved of it is replaced", zap.Stringer("source", f.src))
	}
}

// beginWithout starts the graph where it still waits for layers of the runtime.
func (m *Manager) beginWithout(ctx context.Context) {
	now := time.Now()
	for _, l := range m.layers.list {
		if !l.done {
			l.due = now
		}
	}
	m.giveUp(ctx, now)
}

// save hands what is in force to the writer: when it has changed, and in any case before it would be too old. Nothing is
// saved while some of it comes from the disk itself, or before the start is over.
func (m *Manager) save(now time.Time) {
	c := m.cache
	if c == nil {
		return
	}
	due := c.unsaved || !c.last.IsZero() && now.Sub(c.last) > c.cfg.MaxAge/4 && m.lostSince().IsZero()
	select {
	case <-m.ready:
	default:
		return
	}
	if !due || len(c.used) > 0 || len(m.feeds) == 0 {
		return
	}
	j := &job{state: saved.State{Saved: now, Node: c.cfg.Node}}
	for i, kind := range savedKinds {
		j.kinds[i] = m.keptOf(kind)
	}
	select {
	case c.jobs <- j:
		c.unsaved, c.last = false, now
	default: // the disk is slow; the next tick tries again
	}
}

// keptOf returns what is in force of a kind, or what was accepted last where it is not for the proxy to refuse.
func (m *Manager) keptOf(kind mesh.ResourceKind) (out []kept) {
	switch kind {
	case mesh.KindCluster, mesh.KindListener, mesh.KindRouteTable:
		for _, v := range m.graph.Views(kind) {
			if v.Live != nil && !v.Static {
				out = append(out, kept{v.Source, v.Name, v.Live})
			}
		}
	default:
		for _, key := range slices.Sorted(maps.Keys(m.known[kind])) {
			if res := m.known[kind][key]; res != nil {
				out = append(out, kept{sourcekey.Source(key), sourcekey.Name(key), res})
			}
		}
	}
	return out
}

// write writes what it is handed. It remembers which resources hold secrets.
func (m *Manager) write(c *cache) {
	verdicts := map[*graph.Resource]bool{}
	for j := range c.jobs {
		verdicts = m.writeJob(c, j, verdicts)
	}
}

func (m *Manager) writeJob(c *cache, j *job, verdicts map[*graph.Resource]bool) map[*graph.Resource]bool {
	next := make(map[*graph.Resource]bool, len(verdicts))
	for i, kind := range savedKinds {
		groups := map[string]*saved.Group{}
		for _, k := range j.kinds[i] {
			secret, known := verdicts[k.res]
			if !known {
				secret = saved.Secret(typeURL(kind), k.res.Raw)
			}
			next[k.res] = secret
			if secret {
				j.state.LeftOut = append(j.state.LeftOut, kind.String()+" "+strconv.Quote(k.name))
				continue
			}
			g := groups[k.source]
			if g == nil {
				g = &saved.Group{TypeURL: typeURL(kind), Source: k.source}
				groups[k.source] = g
			}
			g.Version = k.res.Version
			g.Resources = append(g.Resources, saved.Resource{Name: k.name, Version: k.res.Version, Raw: k.res.Raw})
		}
		for _, source := range slices.Sorted(maps.Keys(groups)) {
			j.state.Groups = append(j.state.Groups, *groups[source])
		}
	}
	if err := saved.Write(c.cfg.Dir, &j.state); err != nil {
		m.log.Warn("the configuration cannot be saved; a start without its sources will use what was saved before, or wait",
			zap.String("file", saved.Path(c.cfg.Dir)), zap.Error(err))
	} else if len(j.state.LeftOut) > 0 {
		m.log.Info("resources with secrets in them are not saved", zap.Strings("resources", j.state.LeftOut[:min(len(j.state.LeftOut), maxReasons)]),
			zap.Int("all", len(j.state.LeftOut)))
	}
	return next
}

// savedAt is when what is in force of a source was saved, the zero time where it has answered.
func (m *Manager) savedAt(source string) time.Time {
	if m.cache == nil || m.cache.used[source] == nil {
		return time.Time{}
	}
	return m.cache.at
}

// ticks are the times at which to look whether there is something to save; nil is never.
func (c *cache) ticks() <-chan time.Time {
	if c == nil {
		return nil
	}
	return c.tick.C
}
