// SPDX-License-Identifier: Apache-2.0

// Package metrics is every metric of the data plane in one place: the schemas with Envoy's names, an index for each
// number, and what a finished request or connection adds to them.
//
// A room gets the group of its cluster, listener or connection manager when it is built (NewCluster, NewHTTP, ...) and
// counts with its worker's shard:
//
//	c.Inc(w.Shard, metrics.UpstreamCxTotal)
//
// The comment of each index says when it moves and who moves it. What the Outcome tells is counted by ObserveHTTP and
// ObserveTCP, once per request or connection, and by nobody else; the rest is counted where it happens. Numbers that
// follow from others are added up when they are read. A number that nobody moves is not in here.
//
// Names are those of Envoy's documentation (cluster_stats, http_conn_man/stats, listeners/stats, tcp_proxy_filter). The
// package is below everything that counts and imports only mesh and internal/stats.
package metrics

import (
	"strings"

	"github.com/meshtap/meshtap/internal/stats"
)

// The tags that Envoy takes out of stat names by default.
const (
	tagCluster  = "envoy.cluster_name"
	tagHTTP     = "envoy.http_conn_manager_prefix"
	tagListener = "envoy.listener_address"
	tagTCP      = "envoy.tcp_prefix"
	tagClass    = "envoy.response_code_class"
)

// StatName returns a name from the configuration as it stands in metric names: Envoy replaces "://", ":/", ":" and NUL by
// "_".
func StatName(name string) string { return statName.Replace(name) }

var statName = strings.NewReplacer("://", "_", ":/", "_", ":", "_", "\x00", "_")

// classDef is the number of the answers of one class.
func classDef(digit string) stats.Def {
	return stats.Def{
		Name: "downstream_rq_" + digit + "xx",
		Prom: "downstream_rq_xx",
		Tags: []stats.Tag{{Name: tagClass, Value: digit}},
	}
}

// class returns the index of a status, DownstreamRq1xx to DownstreamRq5xx, or -1 where it has none.
func class(status int) int {
	if status < 100 || status > 599 {
		return -1
	}
	return DownstreamRq1xx + status/100 - 1
}
