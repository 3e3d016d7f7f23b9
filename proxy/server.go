// SPDX-License-Identifier: Apache-2.0

// Package proxy is the data plane as a whole: a Server takes snapshots of configuration, keeps listeners, clusters and
// route tables in line with them, and serves traffic until it is drained and closed.
//
// What a request sees is one live state, swapped as a whole by Apply. A change is made in two steps, so that nothing is
// missing in between: first the new clusters and tables join the old ones, then the listeners change, then what the
// snapshot leaves out goes. What has gone still serves who holds it: requests in flight, and connections of a filter
// chain that drains.
package proxy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/downstream"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/listener"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/pool"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/tcp"
	"github.com/meshtap/meshtap/proxy/transport"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// Config is what a server is told once, at its start.
type Config struct {
	// MaxConnections bounds the connections of the process; 0 leaves it to the listeners' default.
	MaxConnections int
	// MaxConnectionsRuntime, where it is not nil, replaces MaxConnections by the value that a key of the runtime has.
	MaxConnectionsRuntime mesh.RuntimeKey
	// DrainTime is how long the connections of a removed listener or chain may go on; 0 means 30 s.
	DrainTime time.Duration
	// Hostname is what %HOSTNAME% stands for.
	Hostname string
}

// Logs are access logs. Close gives back what they hold.
type Logs interface {
	mesh.Observer
	Close()
}

// Deps are what a server needs of the process.
type Deps struct {
	Log      *zap.Logger
	Stats    *stats.Registry
	Notifier mesh.Notifier
	// Observers are told of every outcome, behind the metrics and the access logs.
	Observers []mesh.Observer
	// The building sides of the extension tables, by type URL.
	ListenerFilters map[string]inspect.Build
	HTTPFilters     map[string]filter.Builder
	Policies        map[string]lb.Builder
	// Runtime holds Envoy's own keys; Server.RuntimeChanged is to tell of changes. nil is a runtime without values.
	Runtime mesh.RuntimeValues
	// Demand asks for a virtual host among those that come to a table, and does not block; Server.Answered is to tell the end.
	// nil where nothing can be asked for.
	Demand func(hostSet, host string) bool
	// Logs builds access logs.
	Logs func([]mesh.AccessLog) (Logs, error)
}

// Server is the data plane.
type Server struct {
	deps      Deps
	engine    *socket.Engine
	listeners *listener.Set
	clusters  upstream.Deps
	manager   *metrics.ClusterManager
	secrets   *transport.Secrets
	configs   *filter.Configs

	demands *downstream.Demands // nil where nothing is asked for on demand

	live atomic.Pointer[live]

	mu        sync.Mutex                   // held by Apply and SetEndpoints
	endpoints map[string]*mesh.EndpointSet // guarded by mu: what discovery said, by cluster
	snapshot  *mesh.Snapshot               // guarded by mu
	closed    bool                         // guarded by mu

	wake chan struct{} // one place: the clusters have changed
	done chan struct{}
	wg   sync.WaitGroup
	busy sync.WaitGroup // see downstream.Deps
}

// live is the state that requests are pinned to. It is immutable, though its clusters' endpoints are not.
type live struct {
	clusters map[string]*upstream.Cluster
	tables   map[string]*table
	scopes   map[string]*downstream.Scopes
	versions mesh.Versions
}

// Cluster implements downstream.Live.
func (l *live) Cluster(name string) *upstream.Cluster { return l.clusters[name] }

// Table implements downstream.Live.
func (l *live) Table(name string) *downstream.Table {
	if t := l.tables[name]; t != nil {
		return &t.Table
	}
	return nil
}

// Scopes implements downstream.Live.
func (l *live) Scopes(key string) *downstream.Scopes { return l.scopes[key] }

// Versions implements downstream.Live.
func (l *live) Versions() mesh.Versions { return l.versions }

// New starts a server without listeners. Close ends it.
func New(cfg Config, deps Deps) (*Server, error) {
	engine, err := socket.NewEngine(socket.Options{})
	if err != nil {
		return nil, err
	}
	s := &Server{
		deps: deps, engine: engine, manager: metrics.NewClusterManager(deps.Stats), secrets: transport.NewSecrets(),
		configs:   filter.NewConfigs(),
		endpoints: map[string]*mesh.EndpointSet{}, snapshot: &mesh.Snapshot{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	s.live.Store(&live{})
	http := &downstream.Deps{
		Log: deps.Log, Stats: deps.Stats, Live: func() downstream.Live { return s.live.Load() },
		Filters: deps.HTTPFilters, Configs: s.configs, Observers: deps.Observers, Env: &format.Env{Hostname: cfg.Hostname},
		Busy: &s.busy, Together: h2.NewTogether(),
	}
	l4 := &tcp.Deps{
		Log: deps.Log, Stats: deps.Stats, Live: func() tcp.Live { return s.live.Load() },
		Observers: deps.Observers,
	}
	if deps.Demand != nil {
		s.demands = downstream.NewDemands(deps.Demand)
		http.Demands = s.demands
	}
	http.Logs = func(l []mesh.AccessLog) (downstream.Logs, error) { return deps.Logs(l) }
	l4.Logs = func(l []mesh.AccessLog) (tcp.Logs, error) { return deps.Logs(l) }
	s.listeners, err = listener.New(listener.Config{
		Engine: engine, Filters: deps.ListenerFilters, Configs: s.configs.Place, Stats: deps.Stats, Log: deps.Log,
		MaxConnections: cfg.MaxConnections, MaxConnectionsRuntime: cfg.MaxConnectionsRuntime, DrainTime: cfg.DrainTime,
		Secrets: s.secrets,
		Build: func(l *mesh.Listener, fc *mesh.FilterChain) (listener.ChainHandler, error) {
			switch {
			case fc.HTTP != nil:
				return downstream.New(l, fc, http)
			case fc.TCP != nil:
				return tcp.New(l, fc, l4)
			}
			return nil, fmt.Errorf("it ends in neither an HTTP connection manager nor a TCP proxy")
		},
		Observer: s.listenerObserver,
	})
	if err != nil {
		engine.Close()
		return nil, err
	}
	s.clusters = upstream.Deps{
		Log: deps.Log, Engine: engine, Stats: deps.Stats, Notifier: deps.Notifier, Policies: deps.Policies,
		Runtime: deps.Runtime, Own: s.listeners.Ours, Guard: s.listeners.Guard(), Dials: pool.NewDials(), Secrets: s.secrets,
	}
	s.wg.Go(s.tick)
	return s, nil
}

// listenerObserver makes what is told of connections that no filter chain took.
func (s *Server) listenerObserver(l *mesh.Listener) (mesh.Observer, error) {
	logs, err := s.deps.Logs(l.AccessLogs)
	if err != nil {
		return nil, err
	}
	return append(observers{logs}, s.deps.Observers...), nil
}

type observers []mesh.Observer

func (all observers) Observe(o *mesh.Outcome) {
	for _, x := range all {
		x.Observe(o)
	}
}

// Apply puts a snapshot into force. It returns the resources that could not be; what was in force of them before stays.
// The endpoints of new clusters should have been set before.
func (s *Server) Apply(snap *mesh.Snapshot) []mesh.Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	old := s.live.Load()
	next := &live{clusters: map[string]*upstream.Cluster{}, versions: snap.Versions}
	var retired []*upstream.Cluster
	for name, cfg := range snap.Clusters {
		prev := old.clusters[name]
		if prev != nil && prev.Config == cfg {
			next.clusters[name] = prev
			continue
		}
		next.clusters[name] = s.newCluster(cfg, prev)
		if prev != nil {
			retired = append(retired, prev)
			s.manager.Inc(0, metrics.ClusterModified)
		} else {
			s.manager.Inc(0, metrics.ClusterAdded)
		}
	}
	for name, c := range old.clusters {
		if next.clusters[name] == nil {
			retired = append(retired, c)
			s.manager.Inc(0, metrics.ClusterRemoved)
		}
	}
	var rejected, unscoped []mesh.Rejection
	next.tables, rejected = compileTables(snap, old.tables)
	next.scopes, unscoped = compileScopes(snap.ScopeSets, old.scopes)
	rejected = append(rejected, unscoped...)

	s.live.Store(join(old, next))
	rejected = append(rejected, s.listeners.Apply(slices.SortedFunc(maps(snap.Listeners), byName), snap.Versions)...)
	s.live.Store(next)

	s.snapshot = snap
	for name := range s.endpoints {
		if next.clusters[name] == nil {
			delete(s.endpoints, name)
		}
	}
	s.manager.Set(metrics.ActiveClusters, int64(len(next.clusters)))
	for _, c := range retired {
		c.Close()
	}
	s.changed()
	return rejected
}

func byName(a, b *mesh.Listener) int { return cmp.Compare(a.Name, b.Name) }

// maps yields the values of a map.
func maps[K comparable, V any](m map[K]V) func(func(V) bool) {
	return func(yield func(V) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func (s *Server) newCluster(cfg *mesh.Cluster, prev *upstream.Cluster) *upstream.Cluster {
	c := upstream.New(cfg, &s.clusters, prev)
	if set := s.endpoints[cfg.Name]; set != nil {
		c.SetEndpoints(set)
	}
	return c
}

// join returns a state that has everything of both, of next where both have it.
func join(old, next *live) *live {
	both := &live{
		clusters: map[string]*upstream.Cluster{}, tables: map[string]*table{}, scopes: map[string]*downstream.Scopes{}, versions: next.versions,
	}
	for _, l := range []*live{old, next} {
		for name, c := range l.clusters {
			both.clusters[name] = c
		}
		for name, t := range l.tables {
			both.tables[name] = t
		}
		for key, s := range l.scopes {
			both.scopes[key] = s
		}
	}
	return both
}

// SetEndpoints puts the endpoints of a cluster into force. It may come before the snapshot that brings the cluster.
func (s *Server) SetEndpoints(cluster string, set *mesh.EndpointSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.endpoints[cluster] = set
	if c := s.live.Load().clusters[cluster]; c != nil {
		c.SetEndpoints(set)
		s.manager.Inc(0, metrics.ClusterUpdated)
	}
}

// SetSecret puts a secret into force for the next handshakes of all that name its key; nil takes it away, once nothing does.
// Connections stay as they are. It may come before the snapshot that brings what names it.
func (s *Server) SetSecret(key string, secret *mesh.Secret) { s.secrets.Set(key, secret) }

// SetExtension puts the configuration of a filter into force for the next requests, or the next connections, of all that name
// its key; nil takes it away, once nothing does. It may come before the snapshot that brings what names it.
func (s *Server) SetExtension(key string, config *mesh.Extension) {
	s.configs.Set(key, config)
	if config == nil {
		return
	}
	switch config.Config.(type) {
	case *mesh.HTTPManager, *mesh.TCPProxy:
		s.listeners.Renew()
	}
}

// Secrets returns the secrets in force, by name.
func (s *Server) Secrets() []*mesh.Secret { return s.secrets.InForce() }

// RuntimeChanged has the clusters look at Deps.Runtime again, soon. It does not block.
func (s *Server) RuntimeChanged() { s.changed() }

func (s *Server) changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tick lets clusters do what is due, as rarely as they ask for it.
func (s *Server) tick() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := mono.Now()
		next := now + int64(time.Minute)
		for _, c := range s.live.Load().clusters {
			c.Tune()
			if c.Ticks() {
				next = min(next, c.Tick(now))
			}
		}
		timer.Reset(time.Duration(max(next-mono.Now(), int64(time.Millisecond))))
		select {
		case <-s.done:
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// StartDrain asks the clients of the selected listeners to leave, and does not wait for that.
func (s *Server) StartDrain(scope listener.Scope) { s.listeners.StartDrain(scope) }

// Drain asks the clients of the selected listeners to leave, while it goes on accepting: answers close their
// connections. It returns when there has been no connection for the time quiet, or when ctx is over, with the number of
// connections that are left then.
func (s *Server) Drain(ctx context.Context, scope listener.Scope, quiet time.Duration) (left int64) {
	for ctx.Err() == nil {
		left = s.listeners.Drain(ctx, scope)
		seen := s.listeners.Accepted()
		select {
		case <-ctx.Done():
		case <-time.After(quiet):
			if left == 0 && s.listeners.Accepted() == seen {
				return 0
			}
		}
	}
	return left
}

// StopAccepting closes the sockets of the selected listeners; their connections go on.
func (s *Server) StopAccepting(scope listener.Scope) { s.listeners.StopAccepting(scope) }

// Close ends everything at once and waits for it.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	s.mu.Unlock()
	close(s.done)
	s.wg.Wait()
	s.listeners.Close()
	s.busy.Wait()
	for _, c := range s.live.Load().clusters {
		c.Close()
	}
	s.clusters.Dials.Close()
	s.engine.Close()
}

// Answered says that what has come of a virtual host that was asked for is in force.
func (s *Server) Answered(hostSet, host string) {
	if s.demands != nil {
		s.demands.Answered(hostSet, host)
	}
}

// Listeners returns the listeners in force.
func (s *Server) Listeners() []listener.Status { return s.listeners.Status() }

// Clusters returns the clusters in force, by name.
func (s *Server) Clusters() []*upstream.Cluster {
	return slices.SortedFunc(maps(s.live.Load().clusters), func(a, b *upstream.Cluster) int {
		return cmp.Compare(a.Config.Name, b.Config.Name)
	})
}

// HasCluster reports whether there is a cluster of this name in force.
func (s *Server) HasCluster(name string) bool { return s.live.Load().clusters[name] != nil }

// Snapshot returns the snapshot in force.
func (s *Server) Snapshot() *mesh.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

// Connections returns the number of client connections.
func (s *Server) Connections() int64 { return s.listeners.Connections() }
