// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/discovery"
	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/graph"
	"github.com/meshtap/meshtap/xds/layered"
	"github.com/meshtap/meshtap/xds/resource"
)

// Static is one resource of the bootstrap, with the bytes it was decoded from.
type Static struct {
	resource.Decoded
	Raw []byte
}

// Config says what the Manager starts with and what it asks for.
type Config struct {
	// Static are the listeners and clusters of the bootstrap. A control plane cannot change them.
	Static []Static
	// Parts are the configurations of extensions of the bootstrap, that are asked for from the start to the end.
	Parts []resource.Refs
	// Listeners and Clusters say whether all listeners (LDS) and all clusters (CDS) are asked for.
	Listeners, Clusters bool
	// Sources are where they come from, and how long they are waited for. A kind that is not there comes over the aggregated
	// stream and is waited for as long as anything else.
	Sources map[mesh.ResourceKind]resource.Source
	// ADS says how the aggregated stream is configured, to be shown.
	ADS resource.Source
	// FetchTimeout is how long a resource waits for what it depends on, Envoy's initial_fetch_timeout; 0 waits for ever.
	FetchTimeout time.Duration
	// Runtime are the layers of the runtime that are resources. All else is asked for once they came, or are not waited for.
	Runtime []Layer
	// Cache says where the last good configuration is kept on disk.
	Cache Cache
	// KeepOnEmpty keeps what is there when one response would remove every listener or every cluster.
	KeepOnEmpty bool
}

// Deps are what a Manager works with. All but Stats, Unknown and NoEffect are required; Stream and Open only where something comes
// that way.
type Deps struct {
	Log     *zap.Logger
	Decoder Decoder
	// Stream is the aggregated stream. Open opens another source; it is called in the loop and must not block.
	Stream Stream
	Open   func(resource.Source) (Stream, error)
	// Runtime takes the layers of Config.Runtime; its layers on disk are followed. It may be nil where there are none.
	Runtime *layered.Runtime
	// DNS looks up the endpoints of StrictDNS clusters.
	DNS discovery.Source
	// Apply puts a snapshot into force and says which resources it could not; those that were in force before stay.
	// SetEndpoints puts endpoints into force, of a cluster that is there or that the next Apply brings. Both are called in
	// order, from one goroutine.
	Apply        func(*mesh.Snapshot) []mesh.Rejection
	SetEndpoints func(cluster string, set *mesh.EndpointSet)
	// SetSecret puts a secret into force for all that name its key, or takes it away where it is nil: nothing does any more.
	// It is called like SetEndpoints. SetExtension does the same with the configuration of a filter.
	SetSecret    func(key string, secret *mesh.Secret)
	SetExtension func(key string, config *mesh.Extension)
	// Answered is told that a Demand is over: what has come of it is in force. nil where there are none.
	Answered func(hostSet, host string)
	Notifier mesh.Notifier
	// Stats takes the numbers; nil keeps them to the Manager.
	Stats *stats.Registry
	// Unknown is told of fields that an accepted resource had and no version of its message here knows; nil is not told.
	Unknown func(fields int)
	// NoEffect is told of fields that an accepted resource had and that change nothing here; nil is not told.
	NoEffect func(fields int)
}

// Decoder reads resources; see resource.Decoder.
type Decoder interface {
	Decode(typeURL string, b []byte, version string) (resource.Decoded, error)
}

// Stream is where resources come from, whatever the variant of the protocol; see ads.Client. All but Run are called from
// one goroutine and do not block.
type Stream interface {
	Run(ctx context.Context, out chan<- ads.Event) error
	Subscribe(typeURL string, add, remove []string)
	Refresh(typeURL string)
	Ack(typeURL, nonce, version string)
	Nack(typeURL, nonce, version, detail string, names []string)
	Counts() ads.Counts
}

// Types are the type URLs that a Stream has to know, in the order in which they are asked for.
func Types() []string {
	return []string{resource.RuntimeType, resource.ClusterType, resource.EndpointsType, resource.ListenerType, resource.ScopeType, resource.RouteType,
		resource.HostType, resource.SecretType, resource.ExtensionType}
}

// Manager keeps the proxy's configuration up to date.
type Manager struct {
	// Immutable.
	cfg   Config
	deps  Deps
	log   *zap.Logger
	ready chan struct{} // closed when start-up is over
	ended chan struct{} // closed when Run returns
	// The channels into the loop are unbuffered: see the package comment.
	events chan fed
	found  chan found
	asks   chan func()
	// demands has room for as many as can be waited for: whoever has one is on the path of a request.
	demands chan graph.Demand
	// changed are the keys of secrets whose files have changed.
	changed chan string

	// Owned by the goroutine in Run.
	graph   *graph.Machine
	timers  timers
	layers  layers
	watches map[graph.WatchID]context.CancelFunc
	known   known
	numbers numbers
	// setNumbers are those of scopes and virtual hosts.
	setNumbers setNumbers
	// feeds are the sources that run, by ID; sources are those, but for the aggregated stream, that resources name.
	feeds   map[string]*feed
	sources map[string]resource.Source
	cache   *cache // nil where nothing is kept on disk
	history history
	// secrets are those in force, by key. parked are the parts that only the history names.
	secrets map[string]inForce
	parked  map[part]struct{}
	// sent are the keys of the last response of secrets, or of configurations of filters.
	sent   []string
	closed ads.Counts // of feeds that have ended
	fatal  error
	wg     sync.WaitGroup
}

// found is what a watch found.
type found struct {
	watch  graph.WatchID
	update discovery.Update
}

// New returns a Manager that does nothing until Run.
func New(cfg Config, deps Deps) *Manager {
	if deps.Stats == nil {
		deps.Stats = stats.NewRegistry(stats.Options{Shards: 1})
	}
	return &Manager{
		cfg: cfg, deps: deps, log: deps.Log,
		ready:   make(chan struct{}),
		ended:   make(chan struct{}),
		events:  make(chan fed),
		found:   make(chan found),
		asks:    make(chan func()),
		demands: make(chan graph.Demand, graph.MaxDemands),
		changed: make(chan string),
		secrets: map[string]inForce{},
		parked:  map[part]struct{}{},
		graph:   graph.New(graph.Options{FetchTimeout: cfg.FetchTimeout, KeepOnEmpty: cfg.KeepOnEmpty}),
		watches: map[graph.WatchID]context.CancelFunc{},
		known:   newKnown(),
		numbers: newNumbers(deps.Stats, len(cfg.Runtime) > 0), setNumbers: newSetNumbers(deps.Stats),
		feeds:   map[string]*feed{},
		history: history{sets: map[string]*mesh.EndpointSet{}, filters: map[string]*mesh.Extension{}},
		sources: map[string]resource.Source{},
	}
}

// Ready is closed when start-up is over: the static configuration is in force, LDS and CDS were answered where they are
// asked for, and what they brought first is in force. What did not come within FetchTimeout is not waited for.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// Run keeps the configuration up to date until ctx ends, and returns nil then. It returns an error where the static
// configuration cannot be put into force. What is in force in the proxy stays as it is.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.ended)
	overADS := func(kind mesh.ResourceKind) bool { return m.cfg.Sources[kind].ID == "" }
	if m.deps.Stream == nil && (m.cfg.Listeners && overADS(mesh.KindListener) || m.cfg.Clusters && overADS(mesh.KindCluster)) {
		return errors.New("xds: listeners or clusters are to come from a control plane, and there is none")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer m.wg.Wait()
	defer cancel()
	m.openCache()
	defer m.closeCache()
	if m.deps.Stream != nil {
		m.start(ctx, m.cfg.aggregated(), m.deps.Stream)
	}
	m.numbers.lost(m.lostSince())
	if m.deps.Runtime != nil {
		m.startLayers(ctx)
	}
	m.begin(ctx)
	for m.fatal == nil {
		m.numbers.observe(m.graph, m.counts())
		fire, stop := m.timers.next(time.Now())
		late, stopLate := m.layers.next(time.Now())
		select {
		case <-ctx.Done():
			stop()
			stopLate()
			m.save(time.Now())
			return nil
		case now := <-m.cache.ticks():
			m.save(now)
		case <-late:
			m.giveUp(ctx, time.Now())
		case <-fire:
			for _, id := range m.timers.expired(time.Now()) {
				m.step(ctx, graph.Fired{Timer: id})
			}
		case e := <-m.events:
			m.onFeed(ctx, e.feed, e.ev)
		case f := <-m.found:
			m.step(ctx, endpointsEvent(f))
		case key := <-m.changed:
			m.reload(ctx, key)
		case d := <-m.demands:
			m.step(ctx, d)
		case ask := <-m.asks:
			ask()
		}
		stop()
		stopLate()
	}
	return m.fatal
}

func (m *Manager) startEvent() graph.Start {
	s := graph.Start{
		Listeners: m.cfg.Listeners, Clusters: m.cfg.Clusters,
		Sources: map[mesh.ResourceKind]string{}, Timeouts: map[mesh.ResourceKind]time.Duration{},
	}
	for kind, src := range m.cfg.Sources {
		s.Sources[kind], s.Timeouts[kind] = src.ID, src.FetchTimeout
		m.note(src)
	}
	for _, refs := range m.cfg.Parts {
		m.note(refs.Sources...)
		s.Parts = append(s.Parts, &graph.Resource{Parts: refs.Parts, Timeouts: refs.Timeouts})
	}
	now := time.Now()
	for _, d := range m.cfg.Static {
		m.note(d.Refs.Sources...)
		s.Static = append(s.Static, newResource(d.Decoded, d.Raw, "", now))
	}
	return s
}

func endpointsEvent(f found) graph.Endpoints {
	ev := graph.Endpoints{Watch: f.watch, Set: f.update.Set}
	if f.update.Err != nil {
		ev.Err = f.update.Err.Error()
	}
	return ev
}

// step feeds the graph and does what it says.
func (m *Manager) step(ctx context.Context, ev graph.Event) {
	for _, a := range m.graph.Step(ev) {
		m.do(ctx, a)
	}
}

func (m *Manager) do(ctx context.Context, a graph.Action) {
	switch a := a.(type) {
	case graph.Subscribe:
		m.known.follow(a)
		m.numbers.follow(a, m.graph.TypesFor)
		m.subscribe(ctx, a)
	case graph.Refresh:
		if f := m.feeds[a.Source]; f != nil {
			f.stream.Refresh(typeURL(a.Kind))
		}
	case graph.Ack:
		m.unsaved()
		m.numbers.accepted(a.Kind, a.Version, time.Now())
		m.setNumbers.answered(a.Kind, a.Source, a.Version, true)
		if graph.IsPart(a.Kind) {
			m.numbers.acceptedParts(a.Kind, m.sent, a.Version, time.Now())
		}
		if f := m.feeds[a.Source]; f != nil && a.Nonce != cacheNonce {
			f.stream.Ack(typeURL(a.Kind), a.Nonce, a.Version)
		}
	case graph.Nack:
		m.numbers.rejected(a.Kind)
		m.setNumbers.answered(a.Kind, a.Source, "", false)
		if graph.IsPart(a.Kind) {
			m.numbers.rejectedParts(a.Kind, m.sent, a.Names)
		}
		if f := m.feeds[a.Source]; f != nil && a.Nonce != cacheNonce {
			f.stream.Nack(typeURL(a.Kind), a.Nonce, f.received[a.Kind], a.Detail, a.Names)
		}
	case graph.Watch:
		m.watch(ctx, a)
	case graph.Unwatch:
		m.watches[a.Watch]()
		delete(m.watches, a.Watch)
	case graph.Answered:
		if m.deps.Answered != nil {
			m.deps.Answered(a.Set, a.Host)
		}
	case graph.SetEndpoints:
		m.setEndpoints(a.Cluster, a.Set)
	case graph.SetPart:
		m.setPart(ctx, a)
	case graph.Apply:
		m.unsaved()
		m.apply(ctx, a.Snapshot)
	case graph.StartTimer:
		m.timers.start(a.Timer, time.Now().Add(a.After))
	case graph.StopTimer:
		m.timers.stop(a.Timer)
	case graph.Notify:
		m.notify(a)
	case graph.Ready:
		if m.fatal == nil { // what cannot run has not started
			close(m.ready)
		}
	}
}

func isStatic(s *mesh.Snapshot, r mesh.Rejection) bool {
	switch r.Kind {
	case mesh.KindListener:
		l := s.Listeners[r.Name]
		return l != nil && l.Static
	case mesh.KindCluster:
		c := s.Clusters[r.Name]
		return c != nil && c.Static
	default:
		return false
	}
}

// watch starts to look up the endpoints of a cluster.
func (m *Manager) watch(ctx context.Context, a graph.Watch) {
	ctx, cancel := context.WithCancel(ctx)
	m.watches[a.Watch] = cancel
	tell := func(u discovery.Update) {
		select {
		case m.found <- found{a.Watch, u}:
		case <-ctx.Done():
		}
	}
	m.wg.Go(func() {
		defer cancel()
		if err := m.deps.DNS.Watch(ctx, a.Cluster, tell); err != nil {
			tell(discovery.Update{Err: err})
		}
	})
}

// note keeps what is known of sources until they are opened.
func (m *Manager) note(list ...resource.Source) {
	for _, src := range list {
		if src.ID != "" && m.feeds[src.ID] == nil {
			m.sources[src.ID] = src
		}
	}
}

// aggregated is the source that the aggregated stream is.
func (c *Config) aggregated() resource.Source {
	src := c.ADS
	src.ID, src.Variant = "", resource.ADS
	return src
}

// notify tells observers and the log.
func (m *Manager) notify(a graph.Notify) {
	a.Config.Errors = slices.Clone(a.Config.Errors)
	for i := range a.Config.Errors {
		a.Config.Errors[i].Name = sourcekey.Name(a.Config.Errors[i].Name)
	}
	m.deps.Notifier.Notify(&mesh.Notice{Kind: a.Kind, Time: time.Now().UnixNano(), Config: &a.Config})
	c := a.Config
	switch a.Kind {
	case mesh.NoticeConfigAccepted:
		m.log.Info("configuration accepted", zap.Stringer("type", c.Kind), zap.String("version", c.Version),
			zap.Int("resources", c.Accepted), zap.Strings("notes", reasons(c.Errors)))
	case mesh.NoticeConfigRejected:
		m.log.Warn("configuration refused; what was in force before stays", zap.Stringer("type", c.Kind),
			zap.String("version", c.Version), zap.Int("accepted", c.Accepted), zap.Int("rejected", c.Rejected),
			zap.Strings("reasons", reasons(c.Errors)))
	case mesh.NoticeConfigTimeout:
		m.numbers.timedOut(c)
		m.log.Warn("configuration did not come in time", zap.Stringer("type", c.Kind),
			zap.Strings("reasons", reasons(c.Errors)))
	}
}

// maxReasons bounds the reasons of one line in the log.
const maxReasons = 20

func reasons(list []mesh.Rejection) []string {
	var out []string
	for i, r := range list {
		if i == maxReasons {
			return append(out, fmt.Sprintf("and %d more", len(list)-i))
		}
		out = append(out, fmt.Sprintf("%v %q: %s", r.Kind, r.Name, r.Reason))
	}
	return out
}
