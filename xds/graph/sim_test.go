// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// world is what a control plane would like the proxy to serve: tokens as in the scripts, by name.
type world struct {
	clusters, listeners, tables, endpoints, secrets map[string]string
	scopes, hosts, filters                          map[string]string
}

func newWorld() *world {
	return &world{
		clusters: map[string]string{}, listeners: map[string]string{}, tables: map[string]string{}, endpoints: map[string]string{},
		secrets: map[string]string{}, scopes: map[string]string{}, hosts: map[string]string{}, filters: map[string]string{},
	}
}

// sim is a control plane and a proxy around a machine. It checks what must hold whenever a snapshot is applied.
type sim struct {
	t         *testing.T
	m         *Machine
	w         *world
	connected bool
	nonce     int
	subs      [numKinds]map[string]bool
	// sent is the world as the machine was last told, by kind.
	sent [numKinds]map[string]string
	// answered are the subscribed names that were answered on this stream.
	answered [numKinds]map[string]bool
	// holds is what the control plane takes the machine to hold of what is asked for by name. A thrifty one does not send that
	// again on the same stream.
	holds   [numKinds]map[string]string
	thrifty bool
	timers  map[TimerID]string
	// gaveUp holds the waits that ran out, by their text.
	gaveUp map[string]bool
	// over are those that did not begin anew since.
	over map[string]bool
	// demands are the virtual hosts that requests wait for.
	demands map[Demand]bool
	watches map[WatchID]string
	// origin finds the resource that a pointer of a snapshot was made from.
	origin    map[any]*Resource
	last      *mesh.Snapshot
	endpoints map[string]*mesh.EndpointSet
	offered   map[string]bool
	secrets   map[string]*mesh.Secret
	filters   map[string]*Resource
	reject    func(*mesh.Snapshot) []mesh.Rejection
	refused   map[string]bool
	bad       map[string]bool
	ready     bool
	log       []string
}

func newSim(t *testing.T, w *world) *sim {
	s := &sim{
		t: t, w: w, m: New(Options{FetchTimeout: 15 * time.Second}),
		timers: map[TimerID]string{}, gaveUp: map[string]bool{}, over: map[string]bool{}, demands: map[Demand]bool{}, watches: map[WatchID]string{}, origin: map[any]*Resource{},
		last: &mesh.Snapshot{}, endpoints: map[string]*mesh.EndpointSet{}, secrets: map[string]*mesh.Secret{}, filters: map[string]*Resource{}, refused: map[string]bool{}, bad: map[string]bool{},
	}
	for i := range s.subs {
		s.subs[i], s.sent[i], s.answered[i], s.holds[i] = map[string]bool{}, map[string]string{}, map[string]bool{}, map[string]string{}
	}
	s.step(Start{Listeners: true, Clusters: true})
	return s
}

func (s *sim) failf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(s.log, "\n"))
}

func (s *sim) step(ev Event) {
	actions := s.m.Step(ev)
	s.offered = map[string]bool{}
	for i, a := range actions {
		switch a := a.(type) {
		case Subscribe:
			for _, n := range a.Add {
				s.subs[a.Kind][n] = true
			}
			for _, n := range a.Remove {
				delete(s.subs[a.Kind], n)
				delete(s.answered[a.Kind], n)
				delete(s.holds[a.Kind], n)
			}
		case StartTimer:
			if w := s.m.timers[a.Timer]; w != nil {
				s.timers[a.Timer] = waitText(w)
				delete(s.over, waitText(w))
			}
		case StopTimer:
			delete(s.timers, a.Timer)
		case Watch:
			s.watches[a.Watch] = a.Cluster.Name
		case Unwatch:
			delete(s.watches, a.Watch)
		case SetEndpoints:
			if s.last.Clusters[a.Cluster] == nil {
				s.offered[a.Cluster] = true
			}
			s.endpoints[a.Cluster] = a.Set
		case SetPart:
			s.setPart(a)
		case Answered:
			s.answeredDemand(a)
		case Ready:
			if s.ready {
				s.failf("ready twice")
			}
			s.ready = true
		case Apply:
			if i != len(actions)-1 {
				s.failf("Apply is not the last action")
			}
			s.apply(a.Snapshot)
			return
		}
	}
	s.checkWaits()
	if len(s.offered) > 0 {
		s.failf("endpoints for clusters that are not there: %v", s.offered)
	}
}

// checkWaits: each wait belongs to something that is still there, and every timer outside to a wait.
func (s *sim) checkWaits() {
	for w := range s.m.waiting {
		switch {
		case w.entry != nil && (w.entry.wait != w && w.entry.keep != w || s.m.entries(w.entry.kind)[w.name] != w.entry):
		case w.part != nil && (w.part.wait != w || s.m.parts[partKey{w.kind, w.name}] != w.part):
		case w.source != nil && (w.source.wait != w || len(w.source.clusters) == 0):
		case (w.timer != 0) != (s.connected || !s.ready || w.reason == waitFirst || w.reason == waitLookup || w.reason == waitDemand || w.reason == waitKeep):
		default:
			continue
		}
		s.failf("wait %q is left over, or does not run", waitText(w))
	}
	if len(s.timers) != len(s.m.timers) {
		s.failf("timers %v, want %d", s.timers, len(s.m.timers))
	}
}

func (s *sim) apply(next *mesh.Snapshot) {
	for c := range s.offered {
		if next.Clusters[c] == nil {
			s.failf("endpoints for cluster %q, which the snapshot does not bring", c)
		}
	}
	s.checkPointers(next)
	s.checkRoutes(next)
	s.checkSets(next)
	s.checkSecrets(next)
	s.checkFilters(next)
	for c := range s.endpoints {
		if next.Clusters[c] == nil {
			delete(s.endpoints, c)
		}
	}
	var rejected []mesh.Rejection
	if s.reject != nil {
		rejected = s.reject(next)
	}
	s.last = s.afterVerdict(next, rejected)
	s.log = append(s.log, fmt.Sprintf("  apply %s, rejected %v", s.text(next), rejected))
	s.step(Applied{rejected})
}

// afterVerdict is the snapshot in force in a proxy that kept what was there before for each rejected listener.
func (s *sim) afterVerdict(next *mesh.Snapshot, rejected []mesh.Rejection) *mesh.Snapshot {
	if len(rejected) == 0 {
		return next
	}
	out := *next
	out.Listeners = maps.Clone(next.Listeners)
	for _, r := range rejected {
		s.refused[r.Name] = true
		if old := s.last.Listeners[r.Name]; old != nil {
			out.Listeners[r.Name] = old
		} else {
			delete(out.Listeners, r.Name)
		}
	}
	return &out
}

// checkPointers: equal bytes are the same pointer from one snapshot to the next.
func (s *sim) checkPointers(next *mesh.Snapshot) {
	for name, c := range next.Clusters {
		if old := s.last.Clusters[name]; old != nil && old != c && s.raw(old) == s.raw(c) {
			s.failf("cluster %q was rebuilt", name)
		}
	}
	for name, r := range next.RouteTables {
		if old := s.last.RouteTables[name]; old != nil && old != r && s.raw(old) == s.raw(r) {
			s.failf("table %q was rebuilt", name)
		}
	}
	for name, l := range next.Listeners {
		if old := s.last.Listeners[name]; old != nil && old != l && s.raw(old) == s.raw(l) {
			s.failf("listener %q was rebuilt", name)
		}
	}
}

func (s *sim) raw(v any) string { return string(s.origin[v].Raw) }

// checkRoutes: what a snapshot routes to is there.
func (s *sim) checkRoutes(next *mesh.Snapshot) {
	var inForce []*Resource
	for _, l := range next.Listeners {
		r := s.origin[l]
		inForce = append(inForce, r)
		for _, t := range r.RouteTables {
			if next.RouteTables[t] == nil && !s.gaveUp["table "+t] {
				s.failf("listener %q without its table %q", r.Name, t)
			}
		}
	}
	for _, t := range next.RouteTables {
		inForce = append(inForce, s.origin[t])
	}
	for _, r := range inForce {
		isNew := s.isNew(r, next)
		for _, c := range r.Clusters {
			_, known := s.sent[mesh.KindCluster][c]
			switch {
			case next.Clusters[c] != nil:
				s.checkEndpoints(next.Clusters[c])
			case s.last.Clusters[c] != nil && !s.gaveUp["release "+c]:
				s.failf("%q routes to cluster %q, which was served before and is gone", r.Name, c)
			case isNew && known && !s.bad[c] && !s.gaveUp["missing "+c]:
				s.failf("%q routes to cluster %q, which warms", r.Name, c)
			}
		}
	}
}

func (s *sim) isNew(r *Resource, next *mesh.Snapshot) bool {
	if l, ok := r.Value.(*mesh.Listener); ok {
		return s.last.Listeners[r.Name] != l && next.Listeners[r.Name] == l
	}
	return s.last.RouteTables[r.Name] != r.Value.(*mesh.RouteTable)
}

func (s *sim) checkEndpoints(c *mesh.Cluster) {
	if c.Discovery == mesh.Static || s.endpoints[c.Name] != nil {
		return
	}
	if s.gaveUp["endpoints "+edsName(c)] || s.gaveUp["look-up "+c.Name] {
		return
	}
	s.failf("cluster %q serves without endpoints", c.Name)
}

func edsName(c *mesh.Cluster) string {
	if c.EDSName != "" {
		return c.EDSName
	}
	return c.Name
}

func (s *sim) text(n *mesh.Snapshot) string {
	var words []string
	for _, v := range n.Clusters {
		words = append(words, "c/"+s.raw(v))
	}
	for _, v := range n.RouteTables {
		words = append(words, "r/"+s.raw(v))
	}
	for _, v := range n.Listeners {
		words = append(words, "l/"+s.raw(v))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func (s *sim) part(kind mesh.ResourceKind) (string, map[string]string) {
	switch kind {
	case mesh.KindCluster:
		return "cds", s.w.clusters
	case mesh.KindEndpoints:
		return "eds", s.w.endpoints
	case mesh.KindListener:
		return "lds", s.w.listeners
	case mesh.KindScope:
		return "srds", s.w.scopes
	case mesh.KindVirtualHost:
		return "vhds", s.w.hosts
	case mesh.KindSecret:
		return "sds", s.w.secrets
	case mesh.KindExtension:
		return "ecds", s.w.filters
	default:
		return "rds", s.w.tables
	}
}

// send delivers what the world has of a kind. badName, where it is in the world, does not decode.
func (s *sim) send(kind mesh.ResourceKind, badName string) {
	word, all := s.part(kind)
	s.nonce++
	r := Response{Kind: kind, Version: fmt.Sprint("v", s.nonce), Nonce: fmt.Sprint("n", s.nonce)}
	r.Full = kind == mesh.KindCluster || kind == mesh.KindListener || kind == mesh.KindScope
	told := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !r.Full && !s.subs[kind][name] && (kind != mesh.KindVirtualHost || !s.subs[kind][Wildcard]) {
			continue
		}
		token := name + ":" + all[name]
		s.answered[kind][name] = true
		if s.thrifty && kind != mesh.KindVirtualHost && s.holds[kind][name] == token {
			continue
		}
		if name == badName {
			r.Bad = append(r.Bad, Bad{Name: name, Reason: "is bad"})
			if kind == mesh.KindCluster {
				s.bad[name] = true
			}
			if old, ok := s.sent[kind][name]; ok {
				told[name] = old
			}
			continue
		}
		if kind == mesh.KindCluster {
			delete(s.bad, name)
		}
		if kind == mesh.KindListener {
			delete(s.refused, name)
		}
		if !r.Full {
			s.holds[kind][name] = token
		}
		res := parseResource(word, r.Version, token)
		s.origin[res.Value] = res
		r.Resources = append(r.Resources, res)
		told[name] = token
		if kind == mesh.KindCluster {
			delete(s.gaveUp, "missing "+name)
			delete(s.gaveUp, "release "+name)
		}
	}
	if r.Full {
		s.sent[kind] = told
	}
	if kind == mesh.KindVirtualHost {
		s.forgetHosts(&r)
		s.nameHosts(&r)
	}
	s.log = append(s.log, fmt.Sprintf("%s %v bad=%q", word, told, badName))
	s.step(r)
}

func (s *sim) connect(up bool) {
	if s.connected == up {
		return
	}
	s.connected = up
	s.log = append(s.log, fmt.Sprint("connected=", up))
	if up {
		for i := range s.answered {
			clear(s.answered[i])
			clear(s.holds[i])
		}
		s.step(Connected{})
		return
	}
	s.step(Disconnected{})
}

// fire lets a running wait run out.
func (s *sim) fire(id TimerID) {
	text := s.timers[id]
	delete(s.timers, id)
	s.gaveUp[text], s.over[text] = true, true
	s.log = append(s.log, "fire "+text)
	s.step(Fired{id})
}

func (s *sim) lookup(id WatchID, fail bool) {
	cluster := s.watches[id]
	ev := Endpoints{Watch: id, Set: endpointSet("", []string{"9.9.9.9"})}
	if fail {
		ev = Endpoints{Watch: id, Err: "no such host"}
		s.gaveUp["look-up "+cluster] = true
	}
	s.log = append(s.log, fmt.Sprintf("look-up %d of %s, failed=%v", id, cluster, fail))
	s.step(ev)
}

// deliver gives the machine everything it asks for, and lets the waits run out that are for what does not exist.
func (s *sim) deliver() {
	s.connect(true)
	s.reject = nil
	for range 6 {
		for _, kind := range simKinds {
			s.send(kind, "")
		}
		for _, id := range slices.Sorted(maps.Keys(s.watches)) {
			s.lookup(id, false)
		}
	}
	for range 4 { // what one of them lets go of, others may have to wait for
		for _, id := range slices.Sorted(maps.Keys(s.timers)) {
			if text, ok := s.timers[id]; ok && !strings.HasPrefix(text, "first") {
				s.fire(id)
			}
		}
	}
}

// checkFinal compares what is in force with what a machine that knows the whole world at once would make of it.
func (s *sim) checkFinal() {
	s.t.Helper()
	if held := s.m.Held(); len(held) > 0 {
		s.failf("stuck: %+v", held)
	}
	if !s.ready {
		s.failf("never ready")
	}
	var words []string
	for n, v := range s.w.clusters {
		words = append(words, "c/"+n+":"+v)
	}
	named := map[string]bool{}
	for n, v := range s.w.listeners {
		words = append(words, "l/"+n+":"+v)
		for _, t := range s.tablesOf(parseResource("lds", "", n+":"+v)) {
			named[t] = true
		}
	}
	for n := range named {
		if v, ok := s.w.tables[n]; ok {
			words = append(words, "r/"+n+":"+v)
		}
	}
	slices.Sort(words)
	if got, want := s.text(s.last), strings.Join(words, " "); got != want {
		s.failf("in force:\n%s\nwant:\n%s", got, want)
	}
	s.checkFinalEndpoints()
	s.checkFinalSecrets()
	s.checkFinalFilters()
	s.checkFinalSets()
}

func (s *sim) checkFinalEndpoints() {
	for name, c := range s.last.Clusters {
		if c.Discovery != mesh.EDS {
			continue
		}
		token, exists := s.w.endpoints[edsName(c)]
		if !exists {
			continue
		}
		want := setText(parseResource("eds", "", edsName(c)+":"+token).Value.(*mesh.EndpointSet))
		if got := s.endpoints[name]; got == nil || setText(got) != want {
			s.failf("cluster %q has endpoints %v, want %s", name, got, want)
		}
	}
}

// change makes one random change to the world.
func (w *world) change(r *rand.Rand) string {
	clusters := []string{"a", "b", "c", "d", "e"}
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	refs := func() string {
		var out []string
		for _, c := range clusters {
			if r.IntN(3) == 0 {
				out = append(out, c)
			}
		}
		return strings.Join(out, ",")
	}
	switch r.IntN(12) {
	case 11:
		return w.changeFilters(r)
	case 9:
		return w.changeScopes(r)
	case 10:
		return w.changeHosts(r)
	case 8:
		n := pick([]string{"k", "k", "roots"})
		w.secrets[n] = map[string]string{"k": "tls", "roots": "ca"}[n] + fmt.Sprintf("#%d", r.IntN(4))
		return "secret " + n
	case 0, 1:
		n := pick(clusters)
		w.clusters[n] = pick([]string{"eds", "eds", "eds(x)", "keep", "keep(x)", "static", "dns(one)", "dns(two)"}) +
			pick([]string{"", "", ";ca(roots)", ";tls(k),ca(roots)"}) + fmt.Sprintf("#%d", r.IntN(3))
		return "cluster " + n
	case 2:
		n := pick(clusters)
		delete(w.clusters, n)
		return "no cluster " + n
	case 3:
		n := pick([]string{"r", "s"})
		w.tables[n] = pick([]string{"", "", "vhds,"}) + refs() + fmt.Sprintf("#%d", r.IntN(2))
		return "table " + n
	case 4:
		n := pick([]string{"L", "M"})
		w.listeners[n] = pick([]string{"rds(r)", "rds(s)", "rds(r),rds(s)", "srds", "srds", refs()}) +
			pick([]string{"", "", ",filter(f)", ",filter(f)", ",filter(g)"}) + pick([]string{"", "", ";tls(k)", ";tls(other)"}) + fmt.Sprintf("#%d", r.IntN(2))
		return "listener " + n
	case 5:
		n := pick([]string{"L", "M"})
		delete(w.listeners, n)
		return "no listener " + n
	default:
		n := pick(append(clusters, "x"))
		w.endpoints[n] = pick([]string{"1.1.1.1", "1.1.1.2", "1.1.1.1,1.1.1.2", ""})
		return "endpoints " + n
	}
}

// act does one random thing.
func (s *sim) act(r *rand.Rand) {
	kinds := simKinds
	switch n := r.IntN(20); {
	case n < 7:
		s.log = append(s.log, "world: "+s.w.change(r))
	case n < 15:
		bad := ""
		if r.IntN(6) == 0 {
			bad = []string{"a", "b", "L", "r", "k", "A", "r/one", "f"}[r.IntN(8)]
		}
		if s.connected {
			s.send(kinds[r.IntN(len(kinds))], bad)
		}
	case n < 16:
		s.connect(r.IntN(3) > 0)
	case n < 17:
		s.demand(r)
	case n < 18:
		if ids := slices.Sorted(maps.Keys(s.timers)); len(ids) > 0 {
			s.fire(ids[r.IntN(len(ids))])
		}
	default:
		if ids := slices.Sorted(maps.Keys(s.watches)); len(ids) > 0 {
			s.lookup(ids[r.IntN(len(ids))], r.IntN(3) == 0)
		}
	}
}

// TestRandomSequences drives random sequences of events and checks, with every snapshot, that it breaks nothing (see
// checkRoutes and checkPointers), and in the end that nothing is stuck and that only the world decides what is in force.
func TestRandomSequences(t *testing.T) {
	t.Parallel()
	runs := 3000
	if testing.Short() {
		runs = 300
	}
	for seed := range uint64(runs) {
		r := rand.New(rand.NewPCG(seed, 7))
		s := newSim(t, newWorld())
		s.log = append(s.log, fmt.Sprint("seed ", seed))
		s.thrifty = seed%2 == 0
		s.reject = func(n *mesh.Snapshot) []mesh.Rejection {
			var out []mesh.Rejection
			for _, name := range slices.Sorted(maps.Keys(n.Listeners)) {
				if n.Listeners[name] != s.last.Listeners[name] && r.IntN(5) == 0 {
					out = append(out, mesh.Rejection{Kind: mesh.KindListener, Name: name, Reason: "cannot bind"})
				}
			}
			return out
		}
		for range 20 + r.IntN(80) {
			s.act(r)
		}
		s.deliver()
		s.checkFinal()
		s.checkEmpty()
	}
}

// checkEmpty removes the whole world and checks that the machine forgets everything.
func (s *sim) checkEmpty() {
	clear(s.w.clusters)
	clear(s.w.listeners)
	clear(s.w.tables)
	clear(s.w.scopes)
	clear(s.w.hosts)
	s.deliver()
	s.checkFinal()
	m := s.m
	if n := len(m.clusters) + len(m.listeners) + len(m.tables) + len(m.sources) + len(m.watches) + len(m.gone) + len(m.parts) + len(m.heldParts) + len(s.secrets) + len(s.filters); n > 0 {
		s.failf("%d things are left: %v %v %v %v %v", n, m.clusters, m.listeners, m.tables, m.sources, m.watches)
	}
	if n := len(m.scopes) + len(m.hosts) + len(m.sets) + len(m.demands) + len(m.untold) + m.pendingDemands; n > 0 || len(s.last.ScopeSets)+len(s.last.HostSets) > 0 {
		s.failf("%d things are left of sets: %v %v %v %v", n, m.scopes, m.hosts, m.sets, m.collections)
	}
	for i := range m.pending {
		if len(m.pending[i]) > 0 {
			s.failf("pending entries are left: %v", m.pending[i])
		}
	}
	if len(m.waiting) > 0 || len(m.timers) > 0 || len(s.timers) > 0 {
		s.failf("waits are left: %v %v", m.waiting, s.timers)
	}
	if len(s.subs[mesh.KindEndpoints])+len(s.subs[mesh.KindRouteTable])+len(s.subs[mesh.KindSecret])+len(s.subs[mesh.KindExtension]) > 0 {
		s.failf("subscriptions are left: %v", s.subs)
	}
}

// TestAllOrders pushes five types in each of their 120 orders, first from nothing and then as a rename of everything, and
// wants the same result (F06). What a push brings too early is asked for and sent again.
func TestAllOrders(t *testing.T) {
	t.Parallel()
	before := &world{
		clusters:  map[string]string{"a": "eds", "b": "eds(bb)", "c": "static;ca(roots)"},
		endpoints: map[string]string{"a": "1.1.1.1", "bb": "2.2.2.2"},
		listeners: map[string]string{"L": "rds(r);tls(k)", "M": "a,c"},
		secrets:   map[string]string{"k": "tls", "roots": "ca"},
		tables:    map[string]string{"r": "a,b"},
	}
	after := &world{
		clusters:  map[string]string{"a2": "eds", "b": "eds(bb2)", "d": "static;ca(roots)"},
		endpoints: map[string]string{"a2": "1.1.1.3", "bb2": "2.2.2.4"},
		listeners: map[string]string{"L": "rds(r2);tls(k2)", "N": "a2,d"},
		secrets:   map[string]string{"k2": "tls", "roots": "ca#2"},
		tables:    map[string]string{"r2": "a2,b,d"},
	}
	var results []string
	permute([]mesh.ResourceKind{mesh.KindCluster, mesh.KindEndpoints, mesh.KindListener, mesh.KindRouteTable, mesh.KindSecret}, func(order []mesh.ResourceKind) {
		s := newSim(t, before)
		s.connect(true)
		for _, w := range []*world{before, after} {
			s.w = w
			for _, kind := range order {
				s.send(kind, "")
			}
			s.answerRest()
			s.checkFinal()
		}
		results = append(results, s.text(s.last))
	})
	if len(results) != 120 || len(slices.Compact(results)) != 1 {
		t.Errorf("%d orders, results:\n%s", len(results), strings.Join(results, "\n"))
	}
}

// answerRest sends what is subscribed to and was not answered, as a control plane does when it gets a request.
func (s *sim) answerRest() {
	for range 4 {
		for _, kind := range []mesh.ResourceKind{mesh.KindEndpoints, mesh.KindRouteTable, mesh.KindSecret} {
			for name := range s.subs[kind] {
				if !s.answered[kind][name] {
					s.send(kind, "")
					break
				}
			}
		}
	}
}

func permute(kinds []mesh.ResourceKind, f func([]mesh.ResourceKind)) {
	var walk func(int)
	walk = func(i int) {
		if i == len(kinds) {
			f(slices.Clone(kinds))
			return
		}
		for j := i; j < len(kinds); j++ {
			kinds[i], kinds[j] = kinds[j], kinds[i]
			walk(i + 1)
			kinds[i], kinds[j] = kinds[j], kinds[i]
		}
	}
	walk(0)
}
