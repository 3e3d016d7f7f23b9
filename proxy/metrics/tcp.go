// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// The numbers of a TCP proxy filter, tcp.<stat_prefix>.*.
const (
	// TCPDownstreamCxTotal: a connection came to this filter. By tcp.
	TCPDownstreamCxTotal = iota
	// TCPDownstreamCxRxBytesTotal and TCPDownstreamCxTxBytesTotal: bytes came from clients, went to them. By tcp, while
	// the connection lasts.
	TCPDownstreamCxRxBytesTotal
	TCPDownstreamCxTxBytesTotal
	// TCPDownstreamCxNoRoute: there was no cluster for a connection. By ObserveTCP.
	TCPDownstreamCxNoRoute
	// TCPIdleTimeout: a connection was closed because it was idle. By ObserveTCP.
	TCPIdleTimeout
	// TCPMaxDownstreamConnectionDuration: a connection was closed because of its age. By ObserveTCP.
	TCPMaxDownstreamConnectionDuration
)

var tcpSchema = &stats.Schema{
	Name: "tcp",
	Defs: []stats.Def{
		TCPDownstreamCxTotal:               {Name: "downstream_cx_total"},
		TCPDownstreamCxRxBytesTotal:        {Name: "downstream_cx_rx_bytes_total"},
		TCPDownstreamCxTxBytesTotal:        {Name: "downstream_cx_tx_bytes_total"},
		TCPDownstreamCxNoRoute:             {Name: "downstream_cx_no_route"},
		TCPIdleTimeout:                     {Name: "idle_timeout"},
		TCPMaxDownstreamConnectionDuration: {Name: "max_downstream_connection_duration"},
	},
}

// TCP is the numbers of one TCP proxy filter.
type TCP struct{ *stats.Group }

// NewTCP returns the numbers of the filter with this stat_prefix. Release gives them back.
func NewTCP(reg *stats.Registry, statPrefix string) *TCP {
	p := StatName(statPrefix)
	return &TCP{reg.Group(tcpSchema, "tcp."+p, stats.Tag{Name: tagTCP, Value: p})}
}

// ObserveTCP counts a finished connection. c is its cluster, nil where it has none.
func ObserveTCP(t *TCP, c *Cluster, o *mesh.Outcome) {
	switch o.Failure {
	case mesh.NoRoute, mesh.NoCluster:
		t.Inc(o.Shard, TCPDownstreamCxNoRoute)
	case mesh.StreamIdleTimeout:
		t.Inc(o.Shard, TCPIdleTimeout)
	case mesh.MaxDuration:
		t.Inc(o.Shard, TCPMaxDownstreamConnectionDuration)
	case mesh.NoHealthyHost:
		if c != nil {
			c.Inc(o.Shard, UpstreamCxNoneHealthy)
		}
	}
}
