// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// The numbers of an HTTP connection manager, http.<stat_prefix>.*. Managers with the same prefix share them.
const (
	// DownstreamRq1xx ... DownstreamRq5xx: a request was answered with a status of this class. By ObserveHTTP.
	DownstreamRq1xx = iota
	DownstreamRq2xx
	DownstreamRq3xx
	DownstreamRq4xx
	DownstreamRq5xx
	// DownstreamRqActive is the requests in flight. By Begin and ObserveHTTP.
	DownstreamRqActive
	// DownstreamRqHTTP1Total and DownstreamRqHTTP2Total: a request began. By Begin.
	DownstreamRqHTTP1Total
	DownstreamRqHTTP2Total
	// RqTotal: a request reached the router. By forward.
	RqTotal
	// DownstreamCxRxBytesTotal and DownstreamCxTxBytesTotal: bytes came from clients, went to them. By downstream.
	DownstreamCxRxBytesTotal
	DownstreamCxTxBytesTotal
	// DownstreamCxTotal: a connection came to this manager. By downstream.
	DownstreamCxTotal
	// DownstreamCxActive is the connections that are open. By downstream.
	DownstreamCxActive
	// DownstreamCxHTTP1Total: a connection turned out to speak HTTP/1. By downstream.
	DownstreamCxHTTP1Total
	// DownstreamCxHTTP1Active is those that are open. By downstream.
	DownstreamCxHTTP1Active
	// DownstreamCxHTTP2Total: a connection turned out to speak HTTP/2. By downstream.
	DownstreamCxHTTP2Total
	// DownstreamCxHTTP2Active is those that are open. By downstream.
	DownstreamCxHTTP2Active
	// DownstreamCxDestroyRemote: the client closed a connection. By downstream.
	DownstreamCxDestroyRemote

	// DownstreamCxUpgradesTotal: a request asked for an upgrade or a tunnel, and was allowed to. By downstream.
	DownstreamCxUpgradesTotal
	// DownstreamCxUpgradesActive is those that have not ended. By downstream.
	DownstreamCxUpgradesActive
	// DownstreamCxDestroyLocal: we closed a connection. By downstream.
	DownstreamCxDestroyLocal
	// DownstreamCxDestroyLocalActiveRq and DownstreamCxDestroyRemoteActiveRq: it had a request in flight. By downstream.
	DownstreamCxDestroyLocalActiveRq
	DownstreamCxDestroyRemoteActiveRq
	// DownstreamCxDrainClose: a connection was closed because of a drain. By downstream.
	DownstreamCxDrainClose
	// DownstreamCxIdleTimeout: a connection was closed because it was idle. By downstream.
	DownstreamCxIdleTimeout
	// DownstreamCxMaxDurationReached: a connection was closed because of its age. By downstream.
	DownstreamCxMaxDurationReached
	// DownstreamCxMaxRequestsReached: a connection was closed after as many requests as it may carry. By downstream.
	DownstreamCxMaxRequestsReached
	// DownstreamCxProtocolError: a client broke its protocol. By downstream.
	DownstreamCxProtocolError
	// DownstreamCxDelayedCloseTimeout: a client did not close in time after we had ended our side. By downstream.
	DownstreamCxDelayedCloseTimeout
	// DownstreamRqTimeout: request_timeout ended a request. By ObserveHTTP.
	DownstreamRqTimeout
	// DownstreamRqHeaderTimeout: request_headers_timeout ended a request. By ObserveHTTP.
	DownstreamRqHeaderTimeout
	// DownstreamRqIdleTimeout: stream_idle_timeout ended a request. By ObserveHTTP.
	DownstreamRqIdleTimeout
	// DownstreamRqMaxDurationReached: the manager's max_stream_duration ended a request. By ObserveHTTP.
	DownstreamRqMaxDurationReached
	// DownstreamRqOverloadClose: a request was refused because the proxy is overloaded. By ObserveHTTP.
	DownstreamRqOverloadClose
	// DownstreamRqRxReset: the client reset a request, or left before its answer was whole. By ObserveHTTP.
	DownstreamRqRxReset
	// DownstreamRqTxReset: we broke an answer off that had begun. By downstream.
	DownstreamRqTxReset
	// DownstreamRqFailedPathNormalization: a request was refused for its path. By downstream.
	DownstreamRqFailedPathNormalization
	// DownstreamRqRedirectedWithNormalizedPath: a request was redirected to its normalized path. By downstream.
	DownstreamRqRedirectedWithNormalizedPath
	// DownstreamRqWsOnNonWsRoute: an upgrade was refused by its route. By downstream.
	DownstreamRqWsOnNonWsRoute
	// NoRoute: no route matched. By ObserveHTTP.
	NoRoute
	// NoCluster: the route's cluster is not there. By ObserveHTTP.
	NoCluster
	// RqDirectResponse and RqRedirect: the route answered itself. By forward.
	RqDirectResponse
	RqRedirect

	// DownstreamRqTotal, DownstreamRqCompleted, DownstreamCxDestroy and DownstreamCxDestroyActiveRq follow from others.
	DownstreamRqTotal
	DownstreamRqCompleted
	DownstreamCxDestroy
	DownstreamCxDestroyActiveRq
)

// The histograms of an HTTP connection manager.
const (
	// DownstreamRqTime is the time from a request's first byte to its end. By ObserveHTTP.
	DownstreamRqTime = iota
	// DownstreamCxLengthMs is the age of a connection at its end. By downstream.
	DownstreamCxLengthMs
)

var httpSchema = &stats.Schema{
	Name: "http",
	Defs: []stats.Def{
		DownstreamRq1xx:                          classDef("1"),
		DownstreamRq2xx:                          classDef("2"),
		DownstreamRq3xx:                          classDef("3"),
		DownstreamRq4xx:                          classDef("4"),
		DownstreamRq5xx:                          classDef("5"),
		DownstreamRqActive:                       {Name: "downstream_rq_active", Kind: stats.Gauge},
		DownstreamRqHTTP1Total:                   {Name: "downstream_rq_http1_total"},
		DownstreamRqHTTP2Total:                   {Name: "downstream_rq_http2_total"},
		RqTotal:                                  {Name: "rq_total"},
		DownstreamCxRxBytesTotal:                 {Name: "downstream_cx_rx_bytes_total"},
		DownstreamCxTxBytesTotal:                 {Name: "downstream_cx_tx_bytes_total"},
		DownstreamCxTotal:                        {Name: "downstream_cx_total"},
		DownstreamCxActive:                       {Name: "downstream_cx_active", Kind: stats.Gauge},
		DownstreamCxHTTP1Total:                   {Name: "downstream_cx_http1_total"},
		DownstreamCxHTTP1Active:                  {Name: "downstream_cx_http1_active", Kind: stats.Gauge},
		DownstreamCxHTTP2Total:                   {Name: "downstream_cx_http2_total"},
		DownstreamCxHTTP2Active:                  {Name: "downstream_cx_http2_active", Kind: stats.Gauge},
		DownstreamCxDestroyRemote:                {Name: "downstream_cx_destroy_remote"},
		DownstreamCxUpgradesTotal:                {Name: "downstream_cx_upgrades_total"},
		DownstreamCxUpgradesActive:               {Name: "downstream_cx_upgrades_active", Kind: stats.Gauge},
		DownstreamCxDestroyLocal:                 {Name: "downstream_cx_destroy_local"},
		DownstreamCxDestroyLocalActiveRq:         {Name: "downstream_cx_destroy_local_active_rq"},
		DownstreamCxDestroyRemoteActiveRq:        {Name: "downstream_cx_destroy_remote_active_rq"},
		DownstreamCxDrainClose:                   {Name: "downstream_cx_drain_close"},
		DownstreamCxIdleTimeout:                  {Name: "downstream_cx_idle_timeout"},
		DownstreamCxMaxDurationReached:           {Name: "downstream_cx_max_duration_reached"},
		DownstreamCxMaxRequestsReached:           {Name: "downstream_cx_max_requests_reached"},
		DownstreamCxProtocolError:                {Name: "downstream_cx_protocol_error"},
		DownstreamCxDelayedCloseTimeout:          {Name: "downstream_cx_delayed_close_timeout"},
		DownstreamRqTimeout:                      {Name: "downstream_rq_timeout"},
		DownstreamRqHeaderTimeout:                {Name: "downstream_rq_header_timeout"},
		DownstreamRqIdleTimeout:                  {Name: "downstream_rq_idle_timeout"},
		DownstreamRqMaxDurationReached:           {Name: "downstream_rq_max_duration_reached"},
		DownstreamRqOverloadClose:                {Name: "downstream_rq_overload_close"},
		DownstreamRqRxReset:                      {Name: "downstream_rq_rx_reset"},
		DownstreamRqTxReset:                      {Name: "downstream_rq_tx_reset"},
		DownstreamRqFailedPathNormalization:      {Name: "downstream_rq_failed_path_normalization"},
		DownstreamRqRedirectedWithNormalizedPath: {Name: "downstream_rq_redirected_with_normalized_path"},
		DownstreamRqWsOnNonWsRoute:               {Name: "downstream_rq_ws_on_non_ws_route"},
		NoRoute:                                  {Name: "no_route"},
		NoCluster:                                {Name: "no_cluster"},
		RqDirectResponse:                         {Name: "rq_direct_response"},
		RqRedirect:                               {Name: "rq_redirect"},
		DownstreamRqTotal: {Name: "downstream_rq_total",
			Sum: []int{DownstreamRqHTTP1Total, DownstreamRqHTTP2Total}},
		DownstreamRqCompleted: {Name: "downstream_rq_completed", Sum: allClasses},
		DownstreamCxDestroy: {Name: "downstream_cx_destroy",
			Sum: []int{DownstreamCxDestroyLocal, DownstreamCxDestroyRemote}},
		DownstreamCxDestroyActiveRq: {Name: "downstream_cx_destroy_active_rq",
			Sum: []int{DownstreamCxDestroyLocalActiveRq, DownstreamCxDestroyRemoteActiveRq}},
	},
	Histograms: []stats.HistDef{
		DownstreamRqTime:     {Name: "downstream_rq_time"},
		DownstreamCxLengthMs: {Name: "downstream_cx_length_ms"},
	},
}

// allClasses are the five classes of answers, which stand first in both schemas.
var allClasses = []int{DownstreamRq1xx, DownstreamRq2xx, DownstreamRq3xx, DownstreamRq4xx, DownstreamRq5xx}

// HTTP is the numbers of one HTTP connection manager on one listener.
type HTTP struct {
	*stats.Group
	perListener *stats.Group
}

// perListenerSchema is listener.<address>.http.<stat_prefix>.*: the answers of a manager on one listener.
var perListenerSchema = &stats.Schema{
	Name: "listener.http",
	Defs: []stats.Def{
		DownstreamRq1xx: classDef("1"),
		DownstreamRq2xx: classDef("2"),
		DownstreamRq3xx: classDef("3"),
		DownstreamRq4xx: classDef("4"),
		DownstreamRq5xx: classDef("5"),
		{Name: "downstream_rq_completed", Sum: allClasses},
	},
}

// NewHTTP returns the numbers of the manager with this stat_prefix on the listener whose stat name this is (see
// ListenerName). Release gives them back.
func NewHTTP(reg *stats.Registry, statPrefix, listener string) *HTTP {
	p, l := StatName(statPrefix), StatName(listener)
	tag := stats.Tag{Name: tagHTTP, Value: p}
	return &HTTP{
		Group:       reg.Group(httpSchema, "http."+p, tag),
		perListener: reg.Group(perListenerSchema, "listener."+l+".http."+p, tag, stats.Tag{Name: tagListener, Value: l}),
	}
}

// Release gives the numbers back.
func (h *HTTP) Release() {
	h.Group.Release()
	h.perListener.Release()
}

// Begin counts a request at its start. Each request that began is passed to ObserveHTTP once.
func (h *HTTP) Begin(shard uint32, p mesh.Protocol) {
	i := DownstreamRqHTTP1Total
	if p == mesh.HTTP2 {
		i = DownstreamRqHTTP2Total
	}
	h.Inc(shard, i)
	h.Inc(shard, DownstreamRqActive)
}

// ObserveHTTP counts a finished request. c is the cluster that forward spoke to, or would have spoken to; nil where the
// request did not come that far.
func ObserveHTTP(h *HTTP, c *Cluster, o *mesh.Outcome) {
	h.Dec(o.Shard, DownstreamRqActive)
	if i := class(o.Status); i >= 0 {
		h.Inc(o.Shard, i)
		h.perListener.Inc(o.Shard, i)
	}
	h.Observe(o.Shard, DownstreamRqTime, o.Duration)
	if o.Failure != mesh.NoFailure {
		h.observeFailure(o)
	}
	if c != nil {
		c.observeHTTP(o)
	}
}

// headerTimeoutDetails is what Envoy's response code details say of request_headers_timeout.
const headerTimeoutDetails = "request_header_timeout"

func (h *HTTP) observeFailure(o *mesh.Outcome) {
	switch o.Failure {
	case mesh.NoRoute:
		h.Inc(o.Shard, NoRoute)
	case mesh.NoCluster:
		h.Inc(o.Shard, NoCluster)
	case mesh.DownstreamClosed:
		h.Inc(o.Shard, DownstreamRqRxReset)
	case mesh.StreamIdleTimeout:
		h.Inc(o.Shard, DownstreamRqIdleTimeout)
	case mesh.Overloaded:
		h.Inc(o.Shard, DownstreamRqOverloadClose)
	case mesh.RequestReadTimeout:
		if o.Details == headerTimeoutDetails {
			h.Inc(o.Shard, DownstreamRqHeaderTimeout)
		} else {
			h.Inc(o.Shard, DownstreamRqTimeout)
		}
	case mesh.MaxDuration:
		if o.Side == mesh.SideDownstream {
			h.Inc(o.Shard, DownstreamRqMaxDurationReached)
		}
	}
}
