// SPDX-License-Identifier: Apache-2.0

// Package ondemand is the filter that lets a request wait for its virtual host: envoy.filters.http.on_demand. Where it is in
// the chain and the route table takes virtual hosts by VHDS, a request for a host that the table does not have is held while
// the host is asked for. The holding is done where the route is found (proxy/downstream), before the first filter; here is
// only the sign that it is wanted.
package ondemand

import (
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
)

const typeURL = "envoy.extensions.filters.http.on_demand.v3.OnDemand"

// Rows returns the filter for the table of extensions.
func Rows() []registry.Row[filter.Builder] {
	return []registry.Row[filter.Builder]{{
		Info: registry.Info{
			Category: registry.HTTPFilter, Name: "envoy.filters.http.on_demand", TypeURLs: []string{typeURL},
			Status: registry.Alpha, Posture: "untrusted", Example: "vhds.yaml", ChainOnly: true, WrittenOnly: true,
		},
		Parse: parse,
		Build: func(any, filter.Deps) (filter.Filter, error) { return sign{}, nil },
	}}
}

// sign is a filter that does nothing by itself.
type sign struct{}

// HoldsRequests implements filter.Holder.
func (sign) HoldsRequests() {}

// OnRequest implements filter.Filter.
func (sign) OnRequest(*exchange.Exchange) (filter.Verdict, []byte) { return filter.Continue, nil }

// OnResponse implements filter.Filter.
func (sign) OnResponse(*exchange.Exchange) {}

var _ filter.Holder = sign{}
