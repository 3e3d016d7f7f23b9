// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// The numbers of a cluster, cluster.<name>.*. They count for the whole cluster, over all hosts and both priorities.
const (
	// UpstreamRqTotal: a stream was opened for an attempt, or, for TCP, a connection was made. By pool and tcp.
	UpstreamRqTotal = iota
	// UpstreamRqActive is the streams that are open. By pool and tcp.
	UpstreamRqActive
	// UpstreamCxRxBytesTotal: bytes were received from the upstream. By pool and tcp.
	UpstreamCxRxBytesTotal
	// UpstreamCxTxBytesTotal: bytes were sent to the upstream. By pool and tcp.
	UpstreamCxTxBytesTotal
	// UpstreamRqPendingTotal: an attempt had to wait for a connection. By pool.
	UpstreamRqPendingTotal
	// UpstreamRqPendingActive is the attempts that wait for a connection. By pool.
	UpstreamRqPendingActive
	// UpstreamCxTotal: a connection was begun. By pool and tcp.
	UpstreamCxTotal
	// UpstreamCxActive is the connections that are open or being made. By pool and tcp.
	UpstreamCxActive
	// UpstreamCxHTTP1Total: an HTTP/1.1 connection was begun. By pool.
	UpstreamCxHTTP1Total
	// UpstreamCxHTTP2Total: an HTTP/2 connection was begun. By pool.
	UpstreamCxHTTP2Total
	// UpstreamCxDestroyLocal: a connection was closed by us. By pool and tcp.
	UpstreamCxDestroyLocal
	// UpstreamCxDestroyRemote: a connection was closed by the upstream, or could not be made. By pool and tcp.
	UpstreamCxDestroyRemote
	// UpstreamCxConnectFail: a connection could not be made, timeouts included. By pool and tcp.
	UpstreamCxConnectFail
	// UpstreamRqRetry: an attempt was repeated. By ObserveHTTP.
	UpstreamRqRetry
	// UpstreamRqTimeout: the route's timeout ended a request. By ObserveHTTP.
	UpstreamRqTimeout
	// UpstreamRqPendingOverflow: a limit refused an attempt. By ObserveHTTP.
	UpstreamRqPendingOverflow

	// UpstreamCxConnectTimeout: a connection was not made in time; UpstreamCxConnectFail moves as well. By pool and tcp.
	UpstreamCxConnectTimeout
	// UpstreamCxConnectAttemptsExceeded: a TCP connection was given up after max_connect_attempts. By tcp.
	UpstreamCxConnectAttemptsExceeded
	// UpstreamCxIdleTimeout: a pooled connection was closed because it was idle. By pool.
	UpstreamCxIdleTimeout
	// UpstreamCxMaxDurationReached: a connection was closed because of its age. By pool.
	UpstreamCxMaxDurationReached
	// UpstreamCxMaxRequests: a connection was closed after as many requests as it may serve. By pool.
	UpstreamCxMaxRequests
	// UpstreamCxOverflow: the limit of connections refused one. By pool and tcp.
	UpstreamCxOverflow
	// UpstreamCxProtocolError: the upstream broke its protocol. By pool.
	UpstreamCxProtocolError
	// UpstreamCxCloseNotify: the upstream announced the end of a connection, with "connection: close" or GOAWAY. By pool.
	UpstreamCxCloseNotify
	// UpstreamCxNoneHealthy: no host could be picked for an attempt. By ObserveHTTP and ObserveTCP.
	UpstreamCxNoneHealthy
	// UpstreamCxDestroyLocalWithActiveRq: we closed a connection that had an open stream. By pool and tcp.
	UpstreamCxDestroyLocalWithActiveRq
	// UpstreamCxDestroyRemoteWithActiveRq: the upstream closed a connection that had an open stream. By pool and tcp.
	UpstreamCxDestroyRemoteWithActiveRq
	// UpstreamRqPendingFailureEject: a waiting attempt failed because its connection could not be made. By pool.
	UpstreamRqPendingFailureEject
	// UpstreamRqCancelled: an attempt was given up while it waited for a connection. By pool.
	UpstreamRqCancelled
	// UpstreamRqPerTryTimeout: an attempt took longer than the timeout per try. By ObserveHTTP.
	UpstreamRqPerTryTimeout
	// UpstreamRqMaxDurationReached: a stream was ended because of its age. By ObserveHTTP.
	UpstreamRqMaxDurationReached
	// UpstreamRqRxReset: the upstream reset a stream. By ObserveHTTP.
	UpstreamRqRxReset
	// UpstreamRqTxReset: we reset a stream before its answer was whole. By pool.
	UpstreamRqTxReset
	// UpstreamRqRetrySuccess: a request that was repeated got an answer that needed no further try. By ObserveHTTP.
	UpstreamRqRetrySuccess
	// UpstreamRqRetryOverflow: the limit or the budget of retries refused one. By forward.
	UpstreamRqRetryOverflow
	// UpstreamRqRetryLimitExceeded: a request was not repeated once more because it had been often enough. By ObserveHTTP.
	UpstreamRqRetryLimitExceeded
	// UpstreamRqMaintenanceMode: a request was refused because the cluster is in maintenance. By ObserveHTTP.
	UpstreamRqMaintenanceMode
	// MembershipTotal, MembershipHealthy and MembershipDegraded are the hosts there are, those that health checks and
	// outlier detection leave, and the degraded ones. By upstream.
	MembershipTotal
	MembershipHealthy
	MembershipDegraded
	// MembershipChange: hosts came or went. By upstream.
	MembershipChange
	// LBHealthyPanic: a pick ignored health because too few hosts are healthy. By upstream.
	LBHealthyPanic
	// UpdateSuccess: discovery, over xDS or DNS, gave endpoints. By upstream.
	UpdateSuccess
	// UpdateEmpty: they were none. By upstream.
	UpdateEmpty
	// UpdateNoRebuild: they were the same as before. By upstream.
	UpdateNoRebuild

	// UpstreamCxDestroy, UpstreamCxDestroyWithActiveRq and UpstreamRqRetryBackoffExponential follow from others.
	UpstreamCxDestroy
	UpstreamCxDestroyWithActiveRq
	UpstreamRqRetryBackoffExponential
)

// The families of status codes of a cluster. All requests are external, because no address is internal here; so that
// family follows from the first.
const (
	// UpstreamRqCode: a request got its final status, from the upstream or from us in its place. By ObserveHTTP.
	UpstreamRqCode = iota
	upstreamRqExternal
	// UpstreamRqRetryCode: an answer was not passed on because the request was repeated. By ObserveHTTP.
	UpstreamRqRetryCode
)

// The histograms of a cluster.
const (
	// UpstreamRqTime is the time from the request's end to the answer's end, as x-envoy-upstream-service-time has it. By
	// ObserveHTTP.
	UpstreamRqTime = iota
	// UpstreamCxConnectMs is the time that a connection took to be made. By pool and tcp.
	UpstreamCxConnectMs
	// UpstreamCxLengthMs is the age of a connection at its end. By pool and tcp.
	UpstreamCxLengthMs
	// UpstreamRqPerCx is the number of requests that a connection served (ObserveCount). By pool.
	UpstreamRqPerCx
)

var clusterSchema = &stats.Schema{
	Name: "cluster",
	Defs: []stats.Def{
		UpstreamRqTotal:                     {Name: "upstream_rq_total"},
		UpstreamRqActive:                    {Name: "upstream_rq_active", Kind: stats.Gauge},
		UpstreamCxRxBytesTotal:              {Name: "upstream_cx_rx_bytes_total"},
		UpstreamCxTxBytesTotal:              {Name: "upstream_cx_tx_bytes_total"},
		UpstreamRqPendingTotal:              {Name: "upstream_rq_pending_total"},
		UpstreamRqPendingActive:             {Name: "upstream_rq_pending_active", Kind: stats.Gauge},
		UpstreamCxTotal:                     {Name: "upstream_cx_total"},
		UpstreamCxActive:                    {Name: "upstream_cx_active", Kind: stats.Gauge},
		UpstreamCxHTTP1Total:                {Name: "upstream_cx_http1_total"},
		UpstreamCxHTTP2Total:                {Name: "upstream_cx_http2_total"},
		UpstreamCxDestroyLocal:              {Name: "upstream_cx_destroy_local"},
		UpstreamCxDestroyRemote:             {Name: "upstream_cx_destroy_remote"},
		UpstreamCxConnectFail:               {Name: "upstream_cx_connect_fail"},
		UpstreamRqRetry:                     {Name: "upstream_rq_retry"},
		UpstreamRqTimeout:                   {Name: "upstream_rq_timeout"},
		UpstreamRqPendingOverflow:           {Name: "upstream_rq_pending_overflow"},
		UpstreamCxConnectTimeout:            {Name: "upstream_cx_connect_timeout"},
		UpstreamCxConnectAttemptsExceeded:   {Name: "upstream_cx_connect_attempts_exceeded"},
		UpstreamCxIdleTimeout:               {Name: "upstream_cx_idle_timeout"},
		UpstreamCxMaxDurationReached:        {Name: "upstream_cx_max_duration_reached"},
		UpstreamCxMaxRequests:               {Name: "upstream_cx_max_requests"},
		UpstreamCxOverflow:                  {Name: "upstream_cx_overflow"},
		UpstreamCxProtocolError:             {Name: "upstream_cx_protocol_error"},
		UpstreamCxCloseNotify:               {Name: "upstream_cx_close_notify"},
		UpstreamCxNoneHealthy:               {Name: "upstream_cx_none_healthy"},
		UpstreamCxDestroyLocalWithActiveRq:  {Name: "upstream_cx_destroy_local_with_active_rq"},
		UpstreamCxDestroyRemoteWithActiveRq: {Name: "upstream_cx_destroy_remote_with_active_rq"},
		UpstreamRqPendingFailureEject:       {Name: "upstream_rq_pending_failure_eject"},
		UpstreamRqCancelled:                 {Name: "upstream_rq_cancelled"},
		UpstreamRqPerTryTimeout:             {Name: "upstream_rq_per_try_timeout"},
		UpstreamRqMaxDurationReached:        {Name: "upstream_rq_max_duration_reached"},
		UpstreamRqRxReset:                   {Name: "upstream_rq_rx_reset"},
		UpstreamRqTxReset:                   {Name: "upstream_rq_tx_reset"},
		UpstreamRqRetrySuccess:              {Name: "upstream_rq_retry_success"},
		UpstreamRqRetryOverflow:             {Name: "upstream_rq_retry_overflow"},
		UpstreamRqMaintenanceMode:           {Name: "upstream_rq_maintenance_mode"},
		UpstreamRqRetryLimitExceeded:        {Name: "upstream_rq_retry_limit_exceeded"},
		MembershipTotal:                     {Name: "membership_total", Kind: stats.Gauge},
		MembershipHealthy:                   {Name: "membership_healthy", Kind: stats.Gauge},
		MembershipDegraded:                  {Name: "membership_degraded", Kind: stats.Gauge},
		MembershipChange:                    {Name: "membership_change"},
		LBHealthyPanic:                      {Name: "lb_healthy_panic"},
		UpdateSuccess:                       {Name: "update_success"},
		UpdateEmpty:                         {Name: "update_empty"},
		UpdateNoRebuild:                     {Name: "update_no_rebuild"},
		UpstreamCxDestroy: {Name: "upstream_cx_destroy",
			Sum: []int{UpstreamCxDestroyLocal, UpstreamCxDestroyRemote}},
		UpstreamCxDestroyWithActiveRq: {Name: "upstream_cx_destroy_with_active_rq",
			Sum: []int{UpstreamCxDestroyLocalWithActiveRq, UpstreamCxDestroyRemoteWithActiveRq}},
		UpstreamRqRetryBackoffExponential: {Name: "upstream_rq_retry_backoff_exponential", Sum: []int{UpstreamRqRetry}},
	},
	Codes: []stats.CodeFamily{
		UpstreamRqCode:      {Prefix: "upstream_rq_"},
		upstreamRqExternal:  {Prefix: "external.upstream_rq_", Sum: []int{UpstreamRqCode}},
		UpstreamRqRetryCode: {Prefix: "retry.upstream_rq_"},
	},
	Histograms: []stats.HistDef{
		UpstreamRqTime:      {Name: "upstream_rq_time"},
		UpstreamCxConnectMs: {Name: "upstream_cx_connect_ms"},
		UpstreamCxLengthMs:  {Name: "upstream_cx_length_ms"},
		UpstreamRqPerCx:     {Name: "upstream_rq_per_cx"},
	},
}

// Cluster is the numbers of one cluster.
type Cluster struct{ *stats.Group }

// NewCluster returns the numbers of the cluster whose stat name this is (mesh.Cluster.StatName, or its Name). Release gives
// them back.
func NewCluster(reg *stats.Registry, name string) *Cluster {
	name = StatName(name)
	return &Cluster{reg.Group(clusterSchema, "cluster."+name, stats.Tag{Name: tagCluster, Value: name})}
}

// observeHTTP counts what an outcome says of its cluster.
func (c *Cluster) observeHTTP(o *mesh.Outcome) {
	if o.Status != 0 {
		c.Code(o.Shard, UpstreamRqCode, cmp.Or(o.ClusterStatus, o.Status))
	}
	if o.UpstreamTook >= 0 {
		c.Observe(o.Shard, UpstreamRqTime, o.UpstreamTook)
	}
	if o.Failure != mesh.NoFailure {
		c.observeFailure(o.Shard, o.Failure, o.Side)
	}
	if len(o.Tries) > 0 {
		c.observeTries(o)
	}
	if o.Flags&mesh.FlagURX != 0 {
		c.Inc(o.Shard, UpstreamRqRetryLimitExceeded)
	}
}

// observeTries counts the attempts that were repeated.
func (c *Cluster) observeTries(o *mesh.Outcome) {
	c.Add(o.Shard, UpstreamRqRetry, int64(len(o.Tries)))
	for i := range o.Tries {
		t := &o.Tries[i]
		if t.Status != 0 {
			c.Code(o.Shard, UpstreamRqRetryCode, t.Status)
		}
		c.observeFailure(o.Shard, t.Failure, mesh.SideUpstream)
	}
	if o.Failure == mesh.NoFailure && o.Status != 0 && o.Flags&mesh.FlagURX == 0 {
		c.Inc(o.Shard, UpstreamRqRetrySuccess)
	}
}

// observeFailure counts how an attempt failed. Failures that are missing here are counted where they happen, or have no
// number in Envoy.
func (c *Cluster) observeFailure(shard uint32, k mesh.FailureKind, side mesh.Side) {
	switch k {
	case mesh.NoHealthyHost:
		c.Inc(shard, UpstreamCxNoneHealthy)
	case mesh.Overflow:
		c.Inc(shard, UpstreamRqPendingOverflow)
	case mesh.Maintenance:
		c.Inc(shard, UpstreamRqMaintenanceMode)
	case mesh.RequestTimeout:
		c.Inc(shard, UpstreamRqTimeout)
	case mesh.PerTryTimeout:
		c.Inc(shard, UpstreamRqPerTryTimeout)
	case mesh.UpstreamReset:
		c.Inc(shard, UpstreamRqRxReset)
	case mesh.MaxDuration:
		if side != mesh.SideDownstream {
			c.Inc(shard, UpstreamRqMaxDurationReached)
		}
	}
}
