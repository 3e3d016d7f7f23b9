// SPDX-License-Identifier: Apache-2.0

// Package fault is the filter envoy.filters.http.fault: it lets a share of requests wait, answers a share in place of the
// upstream, and slows answers down, so that one can see how clients bear it. What it does may be left to headers of the
// request.
//
// A request that waits holds its goroutine and a timer and nothing else. It stops waiting when its client goes, when a
// deadline of the request is over, and when the proxy ends its connection at the end of a drain.
package fault

import (
	"math"
	"strconv"
	"time"

	"github.com/meshtap/meshtap/internal/ascii"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/route"
)

// Config is what the filter does, and to which requests.
type Config struct {
	// Delay, Abort and Limit are the faults; nil for one that there is not.
	Delay *Delay
	Abort *Abort
	Limit *Limit

	// Cluster is the one that a request must be for, "" for any. Headers must all match. Nodes are the values of
	// x-envoy-downstream-service-node that have faults, empty for all.
	Cluster string
	Headers []mesh.HeaderMatch
	Nodes   map[string]bool
	// MaxActive bounds the requests that have a fault at one time. As in Envoy, it may be passed by a few.
	MaxActive    uint64
	MaxActiveKey mesh.RuntimeKey
	// NoPeers leaves out the counts by x-envoy-downstream-service-cluster.
	NoPeers bool
}

// Share is how many requests have a fault. A header may ask for less.
type Share struct {
	mesh.Fraction
	Header string // "" where none is looked at
}

// Delay lets requests wait for Millis, or as long as the request's own header says.
type Delay struct {
	Share  Share
	Millis uint64
	Header bool
	Key    mesh.RuntimeKey
}

// Abort answers requests, with an HTTP status or a grpc-status, or as the request's own headers say.
type Abort struct {
	Share Share
	// Status is the HTTP status, 0 where GRPC says it.
	Status, GRPC       uint64
	Header             bool
	StatusKey, GRPCKey mesh.RuntimeKey
	Body               string
}

// Limit slows answers down to so many KiB a second, or to what the request's own header says.
type Limit struct {
	Share  Share
	KiB    int64
	Header bool
}

// The headers by which requests ask for faults.
const (
	hdrDelay        = "x-envoy-fault-delay-request"
	hdrDelayPercent = "x-envoy-fault-delay-request-percentage"
	hdrAbort        = "x-envoy-fault-abort-request"
	hdrAbortGRPC    = "x-envoy-fault-abort-grpc-request"
	hdrAbortPercent = "x-envoy-fault-abort-request-percentage"
	hdrLimit        = "x-envoy-fault-throughput-response"
	hdrLimitPercent = "x-envoy-fault-throughput-response-percentage"
)

// What goes into a time.Duration, and into bytes: 34 years, a PiB a second.
const mostMillis, mostKiB = 1 << 40, 1 << 40

// Filter is the filter.
type Filter struct {
	cfg     *Config
	name    string
	place   int
	numbers *metrics.Faults
}

// New returns the filter for a *Config.
func New(config any, deps filter.Deps) (filter.Filter, error) {
	return &Filter{
		cfg: config.(*Config), name: deps.Name, place: deps.Place, numbers: metrics.NewFaults(deps.Stats, deps.StatPrefix),
	}, nil
}

// Close implements filter.Closer.
func (f *Filter) Close() { f.numbers.Release() }

// active is what is kept of a request that has a fault. rate is what its answer is slowed down to, in bytes a second; 0
// leaves it.
type active struct{ rate int64 }

// OnRequest implements filter.Filter.
func (f *Filter) OnRequest(x *exchange.Exchange) (filter.Verdict, []byte) {
	cfg := f.cfg
	if o, ok := filter.Override(x, f.name); ok && o.Config != nil {
		cfg = o.Config.(*Config)
	}
	if !cfg.matches(x) {
		return filter.Continue, nil
	}
	if rate := cfg.Limit.rate(x); rate > 0 {
		if a := f.begin(x, cfg); a != nil {
			f.numbers.Inc(x.Worker.Shard, metrics.FaultLimits)
			a.rate = rate
		}
	}
	if d := cfg.Delay.duration(x); d > 0 && f.begin(x, cfg) != nil {
		f.count(x, cfg, metrics.FaultDelays)
		x.Outcome.Flags |= mesh.FlagDI
		if err := wait(x, d); err != nil {
			x.RequestBody = filter.Broken(err) // the router says to whom it matters why
			return filter.Continue, nil
		}
	}
	if status, grpc := cfg.Abort.status(x); status > 0 && f.begin(x, cfg) != nil {
		return filter.Stop, f.abort(x, cfg, status, grpc)
	}
	return filter.Continue, nil
}

// wait lets a request wait. request_timeout, which is the client's to send its request, does not run meanwhile.
func wait(x *exchange.Exchange, d time.Duration) error {
	if x.Request.Length == 0 {
		x.RequestRead()
	}
	x.ClearDeadline(exchange.ReadDeadline)
	x.WatchClient()
	if err := x.Pause(d); err != nil {
		return err
	}
	if x.Request.Length != 0 {
		x.After(exchange.ReadDeadline, x.Manager.RequestTimeout)
	}
	return nil
}

// begin notes that the request has a fault; it returns nil where there are too many.
func (f *Filter) begin(x *exchange.Exchange, cfg *Config) *active {
	if a, ok := x.Kept(f.place).(*active); ok {
		return a
	}
	if most := integer(cfg.MaxActiveKey, cfg.MaxActive); most < math.MaxUint64 && uint64(f.numbers.Value(metrics.FaultActive)) >= most {
		f.numbers.Inc(x.Worker.Shard, metrics.FaultOverflow)
		return nil
	}
	a := &active{}
	x.Keep(f.place, a)
	f.numbers.Inc(x.Worker.Shard, metrics.FaultActive)
	return a
}

func (f *Filter) count(x *exchange.Exchange, cfg *Config, i int) {
	f.numbers.Inc(x.Worker.Shard, i)
	if !cfg.NoPeers {
		f.numbers.IncPeer(x.Worker.Shard, i, string(x.Request.Header.Get("x-envoy-downstream-service-cluster")))
	}
}

// abort makes the answer. grpc is its grpc-status, negative where status says what there is to say.
func (f *Filter) abort(x *exchange.Exchange, cfg *Config, status int, grpc int64) (body []byte) {
	f.count(x, cfg, metrics.FaultAborts)
	x.Outcome.Flags |= mesh.FlagFI
	body = []byte(cfg.Abort.Body)
	x.Answer(status, "fault_filter_abort", body)
	if grpc >= 0 && x.IsGRPC {
		x.Response.Header.Set("grpc-status", strconv.AppendInt(nil, grpc, 10))
	}
	return body
}

// OnResponse implements filter.Filter. An answer of our own is here whole and is not slowed down.
func (f *Filter) OnResponse(x *exchange.Exchange) {
	if a, _ := x.Kept(f.place).(*active); a != nil && a.rate > 0 && !x.IsLocal && !x.Response.Switched {
		x.ResponseBody = newLimited(x, x.ResponseBody, a.rate)
	}
}

// OnEnd implements filter.Ender.
func (f *Filter) OnEnd(x *exchange.Exchange) {
	if _, ok := x.Kept(f.place).(*active); ok {
		f.numbers.Dec(x.Worker.Shard, metrics.FaultActive)
	}
}

// matches reports whether a request may have faults.
func (c *Config) matches(x *exchange.Exchange) bool {
	q := &x.Request
	if c.Cluster != "" && target(x) != c.Cluster {
		return false
	}
	if len(c.Nodes) > 0 && !c.Nodes[string(q.Header.Get("x-envoy-downstream-service-node"))] {
		return false
	}
	for i := range c.Headers {
		if route.MatchHeader(&c.Headers[i], q) != route.Yes {
			return false
		}
	}
	return true
}

// target is the cluster that the route leads to, "" for none.
func target(x *exchange.Exchange) string {
	r := x.Match.Route
	switch {
	case r == nil || r.Forward == nil:
		return ""
	case r.Forward.ClusterHeader != "":
		return string(x.Request.Header.Get(r.Forward.ClusterHeader))
	}
	return x.Match.WeightedCluster(x.RouteRandom).Name
}

// covers reports whether a request is one of the share.
func (s *Share) covers(x *exchange.Exchange) bool {
	f := s.Fraction
	if s.Header != "" {
		if n, ok := number(x, s.Header); ok && n < int64(f.Numerator) {
			f.Numerator = uint32(n)
		}
	}
	return f.Covers(x.Random())
}

// number reads a header of a request. Of several with the name the first counts.
func number(x *exchange.Exchange, name string) (int64, bool) {
	return ascii.Decimal(x.Request.Header.Get(name), 15)
}

// duration is how long a request waits.
func (d *Delay) duration(x *exchange.Exchange) time.Duration {
	if d == nil || !d.Share.covers(x) {
		return 0
	}
	ms := d.Millis
	if d.Header {
		n, ok := number(x, hdrDelay)
		if !ok {
			return 0
		}
		ms = uint64(n)
	}
	return time.Duration(min(integer(d.Key, ms), mostMillis)) * time.Millisecond
}

// integer is the value that a runtime key has in place of n; nil is no key.
func integer(k mesh.RuntimeKey, n uint64) uint64 {
	if k == nil {
		return n
	}
	return k.Integer(n)
}

// status is what a request is answered, 0 where it goes on. Where grpc is not negative, status is that of an answer of gRPC.
func (a *Abort) status(x *exchange.Exchange) (status int, grpc int64) {
	if a == nil || !a.Share.covers(x) {
		return 0, -1
	}
	http, code := a.Status, a.GRPC
	if a.Header {
		n, ok := number(x, hdrAbort)
		if ok = ok && n >= 200 && n < 600; ok {
			http = uint64(n)
		} else if n, ok = number(x, hdrAbortGRPC); ok {
			http, code = 0, uint64(n)
		}
		if !ok {
			return 0, -1
		}
	}
	if http == 0 {
		return 200, int64(min(integer(a.GRPCKey, code), math.MaxInt32))
	}
	if n := integer(a.StatusKey, http); n >= 200 && n < 600 {
		http = n
	}
	return int(http), -1
}

// rate is what an answer is slowed down to, in bytes a second; 0 leaves it.
func (l *Limit) rate(x *exchange.Exchange) int64 {
	if l == nil || !l.Share.covers(x) {
		return 0
	}
	kib := l.KiB
	if l.Header {
		kib, _ = number(x, hdrLimit)
	}
	return min(kib, mostKiB) << 10
}

var (
	_ filter.Filter = (*Filter)(nil)
	_ filter.Closer = (*Filter)(nil)
	_ filter.Ender  = (*Filter)(nil)
)
