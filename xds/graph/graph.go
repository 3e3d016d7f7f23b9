// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"maps"
	"slices"
	"time"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// Options are the settings of a Machine.
type Options struct {
	// FetchTimeout is how long something waits for what it depends on, Envoy's initial_fetch_timeout. 0 waits for ever.
	FetchTimeout time.Duration
	// KeepOnEmpty keeps what is there when one state-of-the-world response would remove every resource of its type.
	KeepOnEmpty bool
}

// Machine is the state of the configuration. Its methods must not be called concurrently.
type Machine struct {
	opt Options
	out []Action

	// The entries by name. Entries without a resource stand for names that others mention.
	clusters, listeners, tables map[string]*entry
	// sources are the EDS resources by name, watches the look-ups.
	sources map[string]*source
	watches map[WatchID]*source
	parts   map[partKey]*part
	// heldParts are those of which another version is wanted than is in force.
	heldParts map[*part]struct{}
	// unneeded are the parts that nothing names any more, to be taken away.
	unneeded  []partKey
	lastWatch WatchID
	kinds     [numKinds]kindState

	// scopes and hosts are the entries of the members of sets; see set.go.
	scopes, hosts map[string]*entry
	collections   map[string]*collection
	sets          map[string]*set
	// demands are the virtual hosts that requests have asked for, by key; pendingDemands counts those without an answer, and
	// untold are those with one of which nobody was told.
	demands        map[string]*demand
	untold         map[string]*demand
	pendingDemands int

	// touched are clusters whose completeness may have changed; gone are those in force that nobody wants any more;
	// pending are, by kind, the entries whose want is not what is in force.
	touched []*entry
	gone    map[*entry]struct{}
	pending [numKinds]map[*entry]struct{}
	// undo holds what the last Apply replaced, until the verdict.
	undo []undo
	// open is the response that waits for its answer.
	open *answer

	waiting   map[*wait]struct{}
	timers    map[TimerID]*wait
	lastTimer TimerID

	// unwanted and unchosen are what has lost its mention in this step: see release.
	unwanted []*Resource
	unchosen []choice

	current *mesh.Snapshot
	initial map[*entry]*Resource
	// connected are the sources that can answer now.
	connected map[string]bool
	dirty     bool
	applying  bool
	started   bool
	ready     bool
	counts    Counts
}

const numKinds = int(mesh.NumResourceKinds)

// kindState is what is known of a type as a whole.
type kindState struct {
	// dynamic says that all resources of the type are asked for, of source.
	dynamic bool
	source  string
	// responded says that a response came; gaveUp that the wait for the first one ran out.
	responded, gaveUp bool
	wait              *wait
	// version is the last accepted version_info, of whatever source.
	version string
	// feeds are the sources that something of the type is asked of.
	feeds map[string]*feed
	// change collects the changes of the subscriptions in this step, true for a new name.
	change map[string]bool
}

// feed is what is known of a source of one type.
type feed struct {
	// version is the last accepted version_info, at its time. nonce is that of the last response on this stream.
	version, nonce string
	at             time.Time
	// nack is the detail of the NACK that answered the last response, "" where it was an ACK.
	nack      string
	responded bool
	// asked counts the names that are asked for. A feed without any is forgotten at the end of the step.
	asked int
}

// Counts are the things that were ignored, since the start.
type Counts struct {
	// Unrequested are resources nobody asked for, Static those of a name that the bootstrap defines, Unknown responses of
	// types that the machine does not know, Removals those of types that cannot be removed (RDS and EDS).
	Unrequested, Static, Unknown, Removals uint64
}

// New returns a Machine that waits for Start.
func New(opt Options) *Machine {
	m := &Machine{
		opt:      opt,
		clusters: map[string]*entry{}, listeners: map[string]*entry{}, tables: map[string]*entry{},
		sources: map[string]*source{}, watches: map[WatchID]*source{}, parts: map[partKey]*part{}, heldParts: map[*part]struct{}{},
		scopes: map[string]*entry{}, hosts: map[string]*entry{}, collections: map[string]*collection{}, sets: map[string]*set{},
		demands: map[string]*demand{}, untold: map[string]*demand{},
		gone:    map[*entry]struct{}{},
		waiting: map[*wait]struct{}{}, timers: map[TimerID]*wait{},
		current: &mesh.Snapshot{}, connected: map[string]bool{},
	}
	for i := range m.pending {
		m.pending[i] = map[*entry]struct{}{}
		m.kinds[i].change, m.kinds[i].feeds = map[string]bool{}, map[string]*feed{}
	}
	return m
}

// Step takes an event and returns what is to be done. The result is the caller's.
func (m *Machine) Step(ev Event) []Action {
	_, verdict := ev.(Applied)
	invariant.Check(verdict == m.applying, "graph: %T while applying is %v", ev, m.applying)
	m.out = nil
	switch ev := ev.(type) {
	case Start:
		m.start(ev)
	case Response:
		m.onResponse(ev)
	case Endpoints:
		m.onEndpoints(ev)
	case Reload:
		m.onReload(ev)
	case Demand:
		m.onDemand(ev)
	case Expired:
		m.onExpired(ev)
	case Connected:
		m.connect(ev.Source, true)
	case Disconnected:
		m.connect(ev.Source, false)
	case Fired:
		m.fire(ev.Timer)
	case Applied:
		m.onApplied(ev.Rejected)
	}
	m.release()
	snapshot := m.settle()
	m.flush()
	if snapshot != nil {
		m.applying = true
		m.do(Apply{snapshot})
		return m.out
	}
	m.dropUnneeded()
	m.answer(nil)
	m.checkReady()
	m.tellDemands()
	return m.out
}

// Counts returns what was ignored so far.
func (m *Machine) Counts() Counts { return m.counts }

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

func (m *Machine) start(s Start) {
	m.started, m.dirty = true, true
	m.kinds[mesh.KindCluster].dynamic = s.Clusters
	m.kinds[mesh.KindListener].dynamic = s.Listeners
	for _, kind := range []mesh.ResourceKind{mesh.KindCluster, mesh.KindListener} {
		if k := &m.kinds[kind]; k.dynamic {
			k.source = s.Sources[kind]
			m.ask(kind, Wildcard)
			k.wait = m.startWait(&wait{reason: waitFirst, kind: kind, after: patience(s.Timeouts, kind, m.opt.FetchTimeout)})
		}
	}
	for _, r := range s.Parts {
		m.needParts(r)
	}
	for _, r := range s.Static {
		if _, ok := r.Value.(*mesh.Secret); ok {
			m.startSecret(r)
			continue
		}
		kind := mesh.KindListener
		if _, ok := r.Value.(*mesh.Cluster); ok {
			kind = mesh.KindCluster
		}
		e := m.entry(kind, r.Name)
		e.static = true
		m.setWant(e, r)
	}
}

// connect starts the waits anew when a source is back, and halts them while it is away: its silence says nothing then.
// Before start-up is over they run on, so that start-up ends (gRFC A57 has no such phase).
func (m *Machine) connect(source string, up bool) {
	if up {
		m.connected[source] = true
	} else {
		delete(m.connected, source)
		for i := range m.kinds {
			if f := m.kinds[i].feeds[source]; f != nil {
				f.nonce = ""
			}
		}
	}
	m.rearm()
}

// source returns where a resource comes from: as its key says, or from the one source that its type has.
func (m *Machine) source(kind mesh.ResourceKind, key string) string {
	if kind == mesh.KindListener || kind == mesh.KindCluster {
		return m.kinds[kind].source
	}
	return sourcekey.Source(key)
}

// feed returns the feed of a source, and makes it where there is none.
func (k *kindState) feed(source string) *feed {
	f := k.feeds[source]
	if f == nil {
		f = &feed{}
		k.feeds[source] = f
	}
	return f
}

// rearm lets the waits run that are to run now, and halts the others.
func (m *Machine) rearm() {
	for _, w := range slices.SortedFunc(maps.Keys(m.waiting), compareWaits) {
		if m.runs(w) {
			m.startTimer(w)
		} else {
			m.stopTimer(w)
		}
	}
}

// ask and unask change the subscription of a kind.
func (m *Machine) ask(kind mesh.ResourceKind, name string) {
	k := &m.kinds[kind]
	k.feed(m.source(kind, name)).asked++
	if add, changed := k.change[name]; changed && !add {
		delete(k.change, name)
		return
	}
	k.change[name] = true
}

func (m *Machine) unask(kind mesh.ResourceKind, name string) {
	k := &m.kinds[kind]
	k.feed(m.source(kind, name)).asked--
	if add, changed := k.change[name]; changed && add {
		delete(k.change, name)
		return
	}
	k.change[name] = false
}

// flush sends the subscription changes of this step, one action for each kind.
func (m *Machine) flush() {
	m.unaskCollections()
	for i := range m.kinds {
		change := m.kinds[i].change
		if len(change) == 0 {
			continue
		}
		s := Subscribe{Kind: mesh.ResourceKind(i)}
		for _, name := range slices.Sorted(maps.Keys(change)) {
			if change[name] {
				s.Add = append(s.Add, name)
			} else {
				s.Remove = append(s.Remove, name)
			}
		}
		clear(change)
		m.do(s)
		m.forget(&m.kinds[i])
	}
}

// forget drops the feeds of sources of their own that nothing is asked of any more.
func (m *Machine) forget(k *kindState) {
	for source, f := range k.feeds {
		if f.asked == 0 && source != "" {
			delete(k.feeds, source)
			delete(m.connected, source)
		}
	}
}

// checkReady ends start-up when the first answers are there and everything they brought is in force.
func (m *Machine) checkReady() {
	if m.ready || !m.started {
		return
	}
	for _, kind := range []mesh.ResourceKind{mesh.KindCluster, mesh.KindListener} {
		if k := &m.kinds[kind]; k.dynamic && !k.responded && !k.gaveUp {
			return
		}
	}
	if m.initial == nil {
		m.initial = map[*entry]*Resource{}
		for _, pending := range m.pending {
			for e := range pending {
				m.initial[e] = e.want
			}
		}
	}
	for e, r := range m.initial {
		if !e.held() || e.want != r {
			delete(m.initial, e)
		}
	}
	if len(m.initial) == 0 {
		m.ready = true
		m.do(Ready{})
		m.rearm()
	}
}
