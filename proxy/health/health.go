// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Target is the host that is checked.
type Target struct {
	Address mesh.Address
	// Hostname is the endpoint's name, for logs. As in Envoy, it does not become the host header.
	Hostname string
	// CheckPort replaces the port of Address where it is not 0; the check's AltPort does where only that is not 0.
	CheckPort uint16
	// CheckHost is the host header for this host. It comes before that of the check, which comes before ClusterName.
	CheckHost   string
	ClusterName string
	// Healthy is the health to begin with, as an earlier Checker of the same host left it: true means that it takes the
	// check's UnhealthyThreshold to turn it.
	Healthy bool
	// Traffic is the value of SetTraffic to begin with.
	Traffic bool
}

// Deps are what checks need of the process.
type Deps struct {
	Log *zap.Logger
	// Stats are the numbers of the cluster. The gauges are not moved here: they belong to whoever knows the hosts.
	Stats *metrics.HealthCheck
	// Random returns a random number. It is called from many goroutines.
	Random func() uint64
	// Runtime bounds the waits and says whether service names count; nil says nothing.
	Runtime mesh.RuntimeValues
	// Source is the local address of TCP connections; the zero value leaves it to the system.
	Source netip.AddrPort
	// Dial connects, in place of a dialer with Source, where it is not nil. It must return when ctx ends.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Secure makes a connection secure where it is not nil. It must return when ctx ends.
	Secure func(ctx context.Context, c net.Conn) (net.Conn, error)

	// Checks over HTTP/2, which those over gRPC are, need the following instead of Dial and Secure. Engine has their
	// sockets and must outlive the Checker, HTTP2 bounds what a host may send, and Layer makes connections secure where it
	// is not nil.
	Engine *socket.Engine
	HTTP2  h2.Config
	Layer  socket.Securer
}

// Result is what came of one check.
type Result struct {
	// Healthy is the host's health with this check taken into account, thresholds and all: a check that failed can leave
	// it true. Changed says that Healthy or Degraded is not what it was; First that this is the first check.
	Healthy, Changed, First bool
	// Degraded says that the host asks for less work: its last good answer had x-envoy-degraded.
	Degraded bool
	// Reason says why this check failed, such as "connect: connection refused", "status 503" or "timeout". It is "" where
	// it did not, and never holds an address or bytes of the host.
	Reason string
}

// Checker checks one host with one check, until Stop.
type Checker struct {
	// Immutable.
	deps   Deps
	target Target
	report func(Result)
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine ends

	traffic atomic.Bool

	// The rest belongs to the goroutine.
	asker asker
	state state
}

// asker asks the host, on a connection of its own.
type asker interface {
	// ask makes one check, until ctx ends at most.
	ask(ctx context.Context) answer
	// drop closes the connection that was kept, if there is one. shut does so for good.
	drop()
	shut()
}

// Start begins to check a host; the first check is made at once, or after the initial jitter. cfg must not change.
//
// report is called with each result, on the Checker's goroutine, and holds up the next check. It must not call Stop, nor
// wait for something that a caller of Stop holds. It is not called any more once Stop has returned.
func Start(cfg *mesh.HealthCheck, t Target, d Deps, report func(Result)) *Checker {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Checker{
		deps: d, target: t, report: report, cancel: cancel, done: make(chan struct{}),
		asker: newAsker(ctx, cfg, &t, &d),
		state: state{cfg: cfg, healthy: t.Healthy},
	}
	c.traffic.Store(t.Traffic)
	go c.run(ctx)
	return c
}

// newAsker returns how the host is asked. The end of ctx ends whatever is under way.
func newAsker(ctx context.Context, cfg *mesh.HealthCheck, t *Target, d *Deps) asker {
	switch {
	case cfg.GRPC != nil:
		return grpcAsker(cfg, t, d)
	case cfg.HTTP != nil && cfg.HTTP.HTTP2:
		return httpAsker2(cfg, t, d)
	}
	l := &link{dial: dialer(d, t.Address.Network(), address(cfg, t)), reuse: cfg.ReuseConnection}
	if cfg.HTTP != nil {
		l.exchange = httpExchange(cfg.HTTP, d, buildRequest(cfg.HTTP, t))
	} else {
		l.exchange = tcpExchange(cfg.TCP)
	}
	context.AfterFunc(ctx, l.shut)
	return l
}

// Stop ends the check, in whatever it is, and waits until it has ended. It may be called more than once.
func (c *Checker) Stop() {
	c.cancel()
	<-c.done
}

// SetTraffic says whether the cluster was ever used: until then the check's NoTrafficInterval replaces all others. It
// counts from the end of the next check on, as in Envoy: the wait that is under way is not cut short.
func (c *Checker) SetTraffic(on bool) { c.traffic.Store(on) }

// run is the goroutine.
func (c *Checker) run(ctx context.Context) {
	defer close(c.done)
	defer c.asker.shut()
	random := c.deps.Random
	wait := firstWait(c.state.cfg, random())
	if wait > 0 {
		wait = c.deps.bounded(wait)
	}
	for sleep(ctx, wait) {
		c.deps.Stats.Inc(0, metrics.HealthCheckAttempt)
		a := c.check(ctx)
		if ctx.Err() != nil {
			return // it failed because it was stopped
		}
		c.count(&a)
		changed, first := c.state.take(a.verdict)
		c.report(Result{
			Healthy: c.state.healthy, Changed: changed, First: first, Degraded: c.state.degraded, Reason: a.reason,
		})
		wait = c.deps.bounded(c.state.wait(c.traffic.Load(), [2]uint64{random(), random()}))
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func (c *Checker) count(a *answer) {
	if a.named {
		c.deps.Stats.Inc(0, metrics.HealthCheckVerifyCluster)
	}
	if a.verdict.ok() {
		c.deps.Stats.Inc(0, metrics.HealthCheckSuccess)
		return
	}
	c.deps.Stats.Inc(0, metrics.HealthCheckFailure)
	if a.verdict == unreachable {
		c.deps.Stats.Inc(0, metrics.HealthCheckNetworkFailure)
	}
}

// check makes one check.
func (c *Checker) check(ctx context.Context) (a answer) {
	defer func() {
		// What hosts send is parsed here.
		if p := recover(); p != nil {
			c.deps.Log.Error("a health check panicked; it counts as failed", zap.Any("panic", p), zap.Stack("stack"),
				zap.String("cluster", c.target.ClusterName), zap.String("host", c.target.Hostname),
				zap.Stringer("address", c.target.Address))
			c.asker.drop()
			a = answer{verdict: unreachable, reason: "internal error"}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, c.state.cfg.Timeout)
	defer cancel()
	return c.asker.ask(ctx)
}
