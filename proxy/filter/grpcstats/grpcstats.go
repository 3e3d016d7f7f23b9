// SPDX-License-Identifier: Apache-2.0

// Package grpcstats is the filter envoy.filters.http.grpc_stats: it counts gRPC calls and their messages by cluster,
// service and method. It changes nothing.
//
// Its place in the flow is that of every HTTP filter; what it counts is in proxy/metrics. Messages are counted as they
// pass, so that a stream that lasts for hours is seen while it lasts.
package grpcstats

import (
	"cmp"
	"strings"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/route"
)

// Config is what the filter counts.
type Config struct {
	// All counts each method apart; Methods are those that are counted apart where not all are, by service.
	All     bool
	Methods map[string]map[string]bool
	// UpstreamTime measures how long upstreams take.
	UpstreamTime bool
	// ReplaceDots writes the dots in the name of a service as underscores.
	ReplaceDots bool
	// KeepMessages lets access logs tell the messages of a call, with %FILTER_STATE(envoy.filters.http.grpc_stats)%.
	KeepMessages bool
}

// Filter is the filter.
type Filter struct {
	cfg   Config
	place int
	calls *metrics.GRPCCalls
}

// New returns the filter for a Config.
func New(config any, deps filter.Deps) (filter.Filter, error) {
	return &Filter{cfg: config.(Config), place: deps.Place, calls: metrics.NewGRPCCalls(deps.Stats, metrics.GRPC)}, nil
}

// Close implements filter.Closer.
func (f *Filter) Close() { f.calls.Release() }

// OnRequest implements filter.Filter.
func (f *Filter) OnRequest(x *exchange.Exchange) (filter.Verdict, []byte) {
	if !route.IsGRPC(&x.Request) {
		return filter.Continue, nil
	}
	x.Outcome.KeepsMessages = f.cfg.KeepMessages
	service, method, ok := grpcwire.Names(x.Request.Path)
	if !ok {
		return filter.Continue, nil
	}
	c := &call{f: f, x: x}
	c.request.call, c.answer.call = c, c
	c.name(service, method)
	x.Keep(f.place, c)
	x.RequestBody = filter.Wrap(x.Body(), &c.request)
	return filter.Continue, nil
}

// OnResponse implements filter.Filter.
func (f *Filter) OnResponse(x *exchange.Exchange) {
	c, _ := x.Kept(f.place).(*call)
	if c == nil || !c.known() {
		return
	}
	l := &x.Response.Header
	if v := l.Get("grpc-status"); v != nil {
		c.ended(v)
	}
	if x.Response.Length == 0 {
		c.tookTime()
		return
	}
	c.answer.counts = x.Response.Status == 200 && grpcwire.IsContentType(l.GetID(header.ContentType))
	x.ResponseBody = filter.Wrap(x.ResponseBody, &c.answer)
}

// call is what is kept of a request.
type call struct {
	f *Filter
	x *exchange.Exchange
	// service and method are "" where they are not counted apart; listed says that the configuration names them.
	service, method string
	listed          bool
	// numbers is nil as long as no cluster is chosen; pending are messages of the request from before.
	numbers atomic.Pointer[metrics.GRPCCall]
	pending atomic.Int64

	request requestStage
	answer  answerStage
}

// name decides under which names the call counts.
func (c *call) name(service, method []byte) {
	cfg := &c.f.cfg
	if c.listed = cfg.Methods[string(service)][string(method)]; !cfg.All && !c.listed {
		return
	}
	c.service, c.method = string(service), string(method)
	if cfg.ReplaceDots {
		c.service = strings.ReplaceAll(c.service, ".", "_")
	}
}

// known reports whether the call has a cluster to count for, and counts what was waiting for one.
func (c *call) known() bool {
	n := c.numbers.Load()
	if n == nil {
		o := &c.x.Outcome
		if o.Cluster == "" {
			return false
		}
		n = c.f.calls.Of(cmp.Or(o.ClusterStat, o.Cluster), c.service, c.method, c.listed)
		c.numbers.Store(n)
	}
	if k := c.pending.Swap(0); k > 0 {
		n.Add(c.x.Worker.Shard, metrics.GRPCRequestMessages, k)
	}
	return true
}

func (c *call) ended(status []byte) { c.numbers.Load().Ended(c.x.Worker.Shard, status) }

// tookTime measures the upstream's time, from the request's last byte until now.
func (c *call) tookTime() {
	x := c.x
	if !c.f.cfg.UpstreamTime || x.IsLocal {
		return
	}
	x.Settle()
	if sent := x.Outcome.RequestEnd; sent >= 0 {
		c.numbers.Load().Observe(x.Worker.Shard, metrics.GRPCUpstreamTime, x.Since()-max(sent, x.Outcome.UpstreamStart))
	}
}

// requestStage counts the request's messages.
type requestStage struct {
	*call
	frames grpcwire.Counter
}

// Piece implements filter.Stage.
func (s *requestStage) Piece(p bytebuf.Piece, _ bool, _ *header.List) (bytebuf.Piece, error) {
	before := s.frames.Messages
	s.frames.Write(p.Bytes())
	if n := s.frames.Messages - before; n > 0 {
		s.pending.Add(n)
		s.known()
	}
	return p, nil
}

// Trailers implements filter.Stage.
func (s *requestStage) Trailers(t *header.List) *header.List { return t }

// answerStage counts the answer's messages, and the call at its end.
type answerStage struct {
	*call
	frames grpcwire.Counter
	counts bool
}

// Piece implements filter.Stage.
func (s *answerStage) Piece(p bytebuf.Piece, _ bool, trailers *header.List) (bytebuf.Piece, error) {
	if s.counts {
		before := s.frames.Messages
		s.frames.Write(p.Bytes())
		if n := s.frames.Messages - before; n > 0 {
			s.numbers.Load().Add(s.x.Worker.Shard, metrics.GRPCResponseMessages, n)
		}
	}
	if trailers != nil {
		if v := trailers.Get("grpc-status"); v != nil {
			s.ended(v)
		}
		s.tookTime()
	}
	return p, nil
}

// Trailers implements filter.Stage.
func (s *answerStage) Trailers(t *header.List) *header.List { return t }

var (
	_ filter.Filter = (*Filter)(nil)
	_ filter.Closer = (*Filter)(nil)
)
