// SPDX-License-Identifier: Apache-2.0

// Package app puts the proxy together: it reads the bootstrap, gives each room what it needs of the others, runs them and
// ends them in order. It is the only package that knows xds, proxy and eventtap at once.
//
//	bootstrap -> tap -> server (proxy) -> manager (xds) -> admin -> signals
//
// Nothing here is on the path of a request.
package app

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/discovery/dns"
	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/hub"
	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/internal/sys"
	"github.com/meshtap/meshtap/internal/version"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy"
	"github.com/meshtap/meshtap/proxy/accelerate"
	"github.com/meshtap/meshtap/proxy/accesslog"
	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/listener"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/dump"
	"github.com/meshtap/meshtap/xds/resource"
)

// Options are what the command line says.
type Options struct {
	Bootstrap bootstrap.Options
	// Admin is where the administration interface listens where the bootstrap names no address; the zero value leaves it out.
	Admin mesh.Address
	// Profiles lets the administration interface give profiles.
	Profiles bool
	// AdminAddressPath is a file to write the address of the administration interface to; "" writes none.
	AdminAddressPath string
	// DrainTime is how long connections may go on after the first SIGTERM, and those of a removed listener.
	DrainTime time.Duration
	// Quiet is how long there must be no connection before a drain ends early.
	Quiet time.Duration
	// KeepOnEmpty keeps the last configuration when one response would remove all of a type.
	KeepOnEmpty bool
	// Cache is the directory where the last good configuration is kept to start from, "" for none, and CacheAge how old it may
	// be; 0 is the default.
	Cache    string
	CacheAge time.Duration
	// CSDS is where the client status discovery service is served, unix:/path or a loopback address; "" leaves it out.
	CSDS string
	// NoTap leaves the event tap out where the bootstrap does not configure one.
	NoTap bool
	// Info is what /server_info says of the command line.
	Info admin.CommandLineOptions
	// LogForm takes the form of the log that the bootstrap gives; nil where there is nowhere to take it.
	LogForm *LogForm
	// RestartEpoch is what --restart-epoch says.
	RestartEpoch int
	// Accelerate says which local connections the kernel is to splice; nil leaves all to TCP.
	Accelerate *accelerate.Config
}

// App is a running proxy.
type App struct {
	opt   Options
	cfg   *bootstrap.Config
	ext   *Extensions
	log   *zap.Logger
	level *zap.AtomicLevel

	stats   *stats.Registry
	numbers *metrics.Server
	idle    *metrics.Config
	files   *accesslog.Files
	logs    *als.Clients // of access log services
	hub     *hub.Hub
	tap     *eventtap.Tap // nil where there is none
	// tapKey is the key of the tap's configuration where that comes from a control plane, and taps the last that came.
	tapKey  string
	taps    chan eventtap.Config // one place
	server  *proxy.Server
	manager *xds.Manager
	admin   *admin.Server // nil where there is none
	secret  *dump.Redactor
	sockmap *accelerate.Sockmap // nil where nothing is spliced

	started  time.Time
	unwell   atomic.Bool // /healthcheck/fail
	draining atomic.Bool
	quit     chan string   // one place: the reason to end
	ending   chan struct{} // closed when Run ends
	wg       sync.WaitGroup
}

// ConfigError is an error of the bootstrap: what is wrong is in its text, line by line.
type ConfigError struct{ error }

// Unwrap returns the cause.
func (e ConfigError) Unwrap() error { return e.error }

// New reads the bootstrap and puts the proxy together, without serving anything yet. log writes at level, which can be
// changed while it runs.
func New(opt Options, log *zap.Logger, level *zap.AtomicLevel) (*App, error) {
	a := &App{opt: opt, log: log, level: level, started: time.Now(), quit: make(chan string, 1), ending: make(chan struct{}), taps: make(chan eventtap.Config, 1)}
	a.ext = NewExtensions(os.Stdout)
	opt.Bootstrap.Parsers, opt.Bootstrap.Runtime = a.ext.Parsers(), a.ext.Runtime
	var err error
	if a.cfg, err = bootstrap.Load(opt.Bootstrap); err != nil {
		return nil, ConfigError{err}
	}
	if a.cfg.LogForm != nil && opt.LogForm != nil {
		opt.LogForm.Set(a.cfg.LogForm)
	}
	for _, w := range a.cfg.Warnings {
		log.Warn("bootstrap", zap.String("file", w.File), zap.Int("line", w.Line), zap.String("path", w.Path), zap.String("what", w.Message))
	}
	a.stats = stats.NewRegistry(stats.Options{Naming: a.cfg.Stats})
	a.idle = metrics.NewConfig(a.stats)
	a.numbers = metrics.NewServer(a.stats, func() time.Duration { return time.Since(a.started) })
	a.numbers.Set(metrics.ServerConcurrency, int64(runtime.GOMAXPROCS(0)))
	a.numbers.Set(metrics.ServerHotRestartEpoch, int64(opt.RestartEpoch))
	a.numbers.Set(metrics.ServerVersion, revisionNumber(version.Get().Revision))
	for _, list := range [][]bootstrap.Static{a.cfg.Clusters, a.cfg.Listeners} {
		for _, r := range list {
			a.numbers.Add(0, metrics.ServerStaticUnknownFields, int64(r.Unknown))
			a.idle.Add(0, metrics.ConfigStaticIdleFields, int64(len(r.NoEffect)))
		}
	}
	a.cfg.Runtime.Publish(a.stats)
	a.setState(admin.PreInitializing)
	a.files = accesslog.NewFiles(accesslog.Options{Logger: log, Stats: a.stats})
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	a.secret = dump.NewRedactor(key)
	if err := a.make(); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// make makes what runs, in the order in which one needs the other.
func (a *App) make() error {
	if err := a.makeTap(); err != nil {
		return ConfigError{err}
	}
	if err := a.makeServices(); err != nil {
		return err
	}
	if a.opt.Accelerate != nil {
		a.accelerate() // before the first listener
	}
	if err := a.makeServer(); err != nil {
		return err
	}
	if err := a.makeManager(); err != nil {
		return ConfigError{err}
	}
	a.makeAdmin()
	return nil
}

// makeTap makes the event tap of the bootstrap's extension, or one with nothing but the hub.
func (a *App) makeTap() error {
	cfg := eventtap.Config{Memory: eventtap.DefaultMemory}
	found := false
	for _, e := range a.cfg.Extensions {
		config := e.Config
		if e.Discovery != nil {
			config = e.Discovery.Default.Config
		}
		if c, ok := config.(eventtap.Config); ok {
			if e.Discovery != nil {
				a.tapKey = e.Discovery.Key
			}
			if found {
				return errors.New("bootstrap_extensions: there may be one event tap, with several sinks")
			}
			cfg, found = c, true
		}
	}
	if !found && a.opt.NoTap {
		return nil
	}
	a.hub = hub.New(cfg.HubBytes())
	var err error
	a.tap, err = eventtap.New(cfg, eventtap.Deps{
		Log: a.log.Named("tap"), Stats: a.stats, Node: a.cfg.Node, Random: rand.Reader,
		Builders: registry.Builders(a.ext.Sinks), Local: []eventtap.LocalSink{{Name: "hub", Sink: a.hub}},
	})
	return err
}

// Notify implements mesh.Notifier: what the rooms have to tell goes to the log and to the tap.
func (a *App) Notify(n *mesh.Notice) {
	logNotice(a.log, n)
	if a.tap != nil {
		a.tap.Notify(n)
	}
}

// accelerate lets the kernel splice local connections, or says in one line why it does not: then they are plain TCP.
func (a *App) accelerate() {
	s, err := accelerate.Start(*a.opt.Accelerate)
	var why *accelerate.UnavailableError
	switch {
	case errors.As(err, &why):
		a.log.Warn("--accelerate has no effect; local connections use plain TCP",
			zap.String("missing", why.Missing), zap.String("do", why.Do), zap.NamedError("cause", why.Err))
	case err != nil:
		a.log.Warn("--accelerate has no effect; local connections use plain TCP", zap.Error(err))
	default:
		a.log.Info("local connections are spliced in the kernel", zap.String("cgroup", s.Cgroup()))
		a.sockmap = s
	}
	accelerate.Publish(a.stats, a.sockmap)
}

func (a *App) makeServer() error {
	host, err := os.Hostname()
	if err != nil {
		host = "" // %HOSTNAME% is unset then
	}
	env := &format.Env{Hostname: host}
	loggers := registry.Builders(a.ext.AccessLogs)
	deps := proxy.Deps{
		Log: a.log.Named("proxy"), Stats: a.stats, Notifier: a,
		ListenerFilters: registry.Builders(a.ext.ListenerFilters),
		HTTPFilters:     registry.Builders(a.ext.HTTPFilters),
		Policies:        registry.Builders(a.ext.Policies),
		Runtime:         a.cfg.Runtime,
		Demand:          func(hostSet, host string) bool { return a.manager.Demand(hostSet, host) }, // requests come after it is made
		Logs: func(l []mesh.AccessLog) (proxy.Logs, error) {
			return accesslog.New(l, loggers, accesslog.Deps{Files: a.files, Services: a.logs, Env: env})
		},
	}
	if a.tap != nil {
		deps.Observers = append(deps.Observers, a.tap)
	}
	a.server, err = proxy.New(proxy.Config{
		MaxConnections: a.cfg.Connections, MaxConnectionsRuntime: a.cfg.ConnectionsRuntime, DrainTime: a.opt.DrainTime, Hostname: host,
	}, deps)
	if err != nil {
		return err
	}
	a.cfg.Runtime.Told(a.server.RuntimeChanged)
	a.cfg.Runtime.SetClusters(a.server.HasCluster)
	a.numbers.SetFunc(metrics.ServerTotalConnections, a.server.Connections)
	return nil
}

func (a *App) makeManager() error {
	cfg := xds.FromBootstrap(a.cfg)
	cfg.KeepOnEmpty = a.opt.KeepOnEmpty
	cfg.Cache = xds.Cache{Dir: a.opt.Cache, MaxAge: a.opt.CacheAge, Node: a.cfg.Node.ID}
	log := a.log.Named("xds")
	deps := xds.Deps{
		Log: log, Decoder: resource.New(a.cfg.Resource), DNS: dns.New(dns.Config{}, log.Named("dns")),
		Apply: a.server.Apply, SetEndpoints: a.server.SetEndpoints, Answered: a.server.Answered, SetSecret: a.server.SetSecret, SetExtension: a.setExtension, Notifier: a, Stats: a.stats, Runtime: a.cfg.Runtime,
		Unknown:  func(n int) { a.numbers.Add(0, metrics.ServerDynamicUnknownFields, int64(n)) },
		NoEffect: func(n int) { a.idle.Add(0, metrics.ConfigDynamicIdleFields, int64(n)) },
	}
	streams := xds.NewStreams(a.cfg, log)
	var err error
	if deps.Stream, err = streams.Aggregated(); err != nil {
		return err
	}
	deps.Open = streams.Open
	a.manager = xds.New(cfg, deps)
	metrics.NewClusterManager(a.stats).SetFunc(metrics.WarmingClusters, func() int64 { return a.warming(mesh.KindCluster) })
	metrics.NewListenerManager(a.stats).SetFunc(metrics.TotalListenersWarming, func() int64 { return a.warming(mesh.KindListener) })
	return nil
}

// warming counts the resources that were accepted and wait for something.
func (a *App) warming(kind mesh.ResourceKind) (n int64) {
	s, err := a.status()
	if err != nil {
		return 0
	}
	for _, w := range s.Warming {
		if w.Kind == kind {
			n++
		}
	}
	return n
}

// revisionNumber is the first 24 bits of a commit, as Envoy's server.version has it.
func revisionNumber(commit string) int64 {
	n, err := strconv.ParseInt(commit[:min(6, len(commit))], 16, 64)
	if err != nil {
		return 0
	}
	return n
}

// Run serves until ctx ends, a signal asks for the end, or something cannot go on. It returns nil after an orderly end.
func (a *App) Run(ctx context.Context) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		close(a.ending)
		cancel()
		if a.admin != nil {
			a.admin.Close() // before the wait: it may start what is waited for
		}
		a.wg.Wait()
		a.close()
	}()
	if a.admin != nil {
		if err := a.startAdmin(ctx); err != nil {
			return err
		}
	}
	if a.opt.CSDS != "" {
		serve, err := a.manager.ServeStatus(ctx, xds.StatusConfig{
			Address: a.opt.CSDS, Node: a.cfg.NodeProto, Started: a.started, Redactor: a.secret, Log: a.log.Named("csds"),
		})
		if err != nil {
			return err
		}
		a.wg.Go(serve)
	}
	a.setState(admin.Initializing)
	ended := make(chan error, 1)
	a.wg.Go(func() { ended <- a.manager.Run(ctx) })
	a.wg.Go(func() { a.watchCertificates(ctx) })
	a.wg.Go(func() { a.reconfigureTap(ctx) })
	return a.wait(ctx, signals, ended)
}

// wait is the life of the process between its start and its end.
func (a *App) wait(ctx context.Context, signals <-chan os.Signal, ended <-chan error) error {
	ready := a.manager.Ready()
	for {
		select {
		case <-ready:
			ready = nil
			a.live()
		case err := <-ended:
			if err == nil && ctx.Err() != nil {
				ended = nil // it has ended with ctx, which comes next
				continue
			}
			if err == nil {
				err = errors.New("the configuration manager has stopped")
			}
			return err
		case s := <-signals:
			switch s {
			case syscall.SIGUSR1:
				a.reopen()
			case syscall.SIGHUP:
				a.log.Warn("SIGHUP is ignored: the bootstrap is read at the start only")
			default:
				a.drain(ctx, signals, s.String())
				return nil
			}
		case reason := <-a.quit:
			a.log.Info("ending", zap.String("reason", reason))
			return nil
		case <-ctx.Done():
			a.drain(context.WithoutCancel(ctx), signals, "cancelled")
			return nil
		}
	}
}

// live is called once everything that the start waits for is in force.
func (a *App) live() {
	sys.DropText() // what only the start needed
	a.setState(admin.Live)
	metrics.NewListenerManager(a.stats).Set(metrics.WorkersStarted, 1)
	a.numbers.Observe(0, metrics.ServerInitializationTime, int64(time.Since(a.started)))
	a.Notify(&mesh.Notice{Kind: mesh.NoticeStart, Time: time.Now().UnixNano(), Lifecycle: &mesh.LifecycleNotice{
		Version: version.Get().String(), Reason: "initialized",
	}})
}

// drain lets clients leave while it goes on accepting, and returns when none is left, the drain time is over, or another
// signal comes.
func (a *App) drain(ctx context.Context, signals <-chan os.Signal, why string) {
	a.draining.Store(true)
	a.setState(admin.Draining)
	a.Notify(&mesh.Notice{Kind: mesh.NoticeDrain, Time: time.Now().UnixNano(), Lifecycle: &mesh.LifecycleNotice{
		Version: version.Get().String(), Reason: why, Connections: a.server.Connections(),
	}})
	ctx, cancel := context.WithTimeout(ctx, a.opt.DrainTime)
	defer cancel()
	done := make(chan int64, 1)
	a.wg.Go(func() { done <- a.server.Drain(ctx, listener.All, a.opt.Quiet) })
	for {
		select {
		case left := <-done:
			a.log.Info("drained", zap.Int64("connections_left", left))
			a.Notify(&mesh.Notice{Kind: mesh.NoticeDrained, Time: time.Now().UnixNano(), Lifecycle: &mesh.LifecycleNotice{
				Version: version.Get().String(), Connections: left,
			}})
			return
		case s := <-signals:
			if s == syscall.SIGTERM || s == syscall.SIGINT {
				a.log.Warn("a second signal: ending at once")
				return
			}
		case reason := <-a.quit:
			a.log.Info("ending", zap.String("reason", reason))
			return
		}
	}
}

// flushTime bounds the end of the tap: what its sinks have not taken by then is counted as dropped.
const flushTime = 5 * time.Second

// close ends what there is, the sources of events before the tap.
func (a *App) close() {
	if a.sockmap != nil {
		if err := a.sockmap.Close(); err != nil {
			a.log.Warn("splicing did not end in order", zap.Error(err))
		}
	}
	if a.server != nil {
		a.server.Close()
		a.Notify(&mesh.Notice{Kind: mesh.NoticeStop, Time: time.Now().UnixNano(), Lifecycle: &mesh.LifecycleNotice{
			Version: version.Get().String(),
		}})
	}
	if a.tap != nil {
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		if err := a.tap.Close(ctx); err != nil {
			a.log.Warn("the event tap did not deliver everything", zap.Error(err))
		}
	}
	if a.logs != nil {
		a.logs.Close()
	}
	a.files.Close()
}

func (a *App) reopen() {
	if err := a.files.Reopen(); err != nil {
		a.log.Warn("an access log could not be reopened; the old file is used on", zap.Error(err))
	}
}

func (a *App) setState(s admin.State) {
	a.numbers.Set(metrics.ServerState, int64(s))
	live := int64(1)
	if s == admin.Draining {
		live = 0
	}
	a.numbers.Set(metrics.ServerLive, live)
}

// endWith asks Run to end.
func (a *App) endWith(reason string) {
	select {
	case a.quit <- reason:
	default:
	}
}

func logNotice(log *zap.Logger, n *mesh.Notice) {
	f := []zap.Field{zap.String("cluster", n.Cluster)}
	if n.Host != (mesh.Address{}) {
		f = append(f, zap.Stringer("host", n.Host))
	}
	switch {
	case n.Circuit != nil:
		log.Warn("circuit", append(f, zap.Stringer("from", n.Circuit.From), zap.Stringer("to", n.Circuit.To), zap.String("reason", n.Circuit.Reason))...)
	case n.Ejection != nil:
		log.Info("outlier", append(f, zap.Bool("ejected", n.Ejection.Ejected), zap.String("reason", n.Ejection.Reason), zap.Bool("enforced", n.Ejection.Enforced))...)
	case n.Health != nil:
		log.Info("health", append(f, zap.String("source", n.Health.Source), zap.String("to", healthNames[n.Health.To]), zap.String("reason", n.Health.Reason))...)
	case n.Kind == mesh.NoticeDrained: // drain has logged it
	case n.Lifecycle != nil:
		log.Info([...]string{mesh.NoticeStart: "started", mesh.NoticeDrain: "draining", mesh.NoticeStop: "stopped"}[n.Kind],
			zap.String("reason", n.Lifecycle.Reason), zap.Int64("connections", n.Lifecycle.Connections))
	}
	// What became of configuration, and of secrets, is logged by xds itself.
	if n.Kind == mesh.NoticeCertificateExpiring {
		c := n.Certificate
		log.Warn("the time of a certificate is nearly over", zap.String("secret", c.Secret), zap.String("resource", c.Resource),
			zap.String("subject", c.Subject), zap.String("serial", c.Serial), zap.Time("not_after", time.Unix(0, c.NotAfter).UTC()))
	}
}

var healthNames = [...]string{"unknown", "healthy", "unhealthy", "draining", "timeout", "degraded"}
