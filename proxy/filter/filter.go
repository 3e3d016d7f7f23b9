// SPDX-License-Identifier: Apache-2.0

// Package filter holds the shape of HTTP filters and their chain. A filter sees a request on its way to the router and
// the answer on its way back, in straight-line code that may wait. Each filter is a package below this one, built once
// per connection manager and shared by all its requests; what it needs to know of one request it keeps in the exchange.
//
// Bodies stay with the router, which reads them; a filter that wants to see one, or to change it, wraps what it is read
// from: Exchange.RequestBody in OnRequest, Exchange.ResponseBody in OnResponse. Trailers come with the body, by its
// method Trailers after the end. Where no filter wraps a body, nothing is between the router and the codec.
//
// A request's body is read by the router's other worker while the answer is on its way, so that what a wrapped request
// body and the filter's OnResponse share has to be atomic.
package filter

import (
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
)

// Filter is one HTTP filter of a connection manager.
type Filter interface {
	// OnRequest sees the request before the router. With Stop it has put its own answer into x.Response, with the body
	// it returns; the filters behind it and the router are left out.
	OnRequest(x *exchange.Exchange) (v Verdict, body []byte)
	// OnResponse sees the head of the final answer, whoever made it, before it goes downstream. It may read the answer's
	// body first (see Collect). A request that was answered before the filters has not been through OnRequest; and where
	// an answer breaks off before it went downstream, the one in its place is seen as well.
	OnResponse(x *exchange.Exchange)
}

// Closer is a Filter that holds something: Close gives it back, once its last request has ended.
type Closer interface {
	Close()
}

// Ender is a Filter that is told of the end of each request, also of those that it has not seen.
type Ender interface {
	OnEnd(x *exchange.Exchange)
}

// Verdict says whether a request goes on.
type Verdict uint8

// The verdicts.
const (
	Continue Verdict = iota
	Stop
)

// Deps are what a filter is given beside its configuration.
type Deps struct {
	// Name is the filter's in the configuration, under which a route may have another configuration for it (Override).
	Name string
	// Place is the filter's own for Exchange.Keep.
	Place int
	Stats *stats.Registry
	// StatPrefix is the connection manager's.
	StatPrefix string
}

// Builder makes a filter of its parsed configuration.
type Builder func(config any, deps Deps) (Filter, error)

// Chain is the filters of a connection manager, in order.
type Chain []Entry

// Entry is a filter in its chain.
type Entry struct {
	Name   string
	Filter Filter
	// Disabled says that the filter is off where no route turns it on.
	Disabled bool
}

// Request runs the filters in order. stopped is the index of the one that stopped, len(c) where none did.
func (c Chain) Request(x *exchange.Exchange) (stopped int, body []byte) {
	for i := range c {
		if !c[i].on(x) {
			continue
		}
		if v, b := c[i].Filter.OnRequest(x); v == Stop {
			return i, b
		}
	}
	return len(c), nil
}

// Response runs the filters over the answer, backwards from the one that stopped the request.
func (c Chain) Response(x *exchange.Exchange, stopped int) {
	for i := min(stopped, len(c)-1); i >= 0; i-- {
		if c[i].on(x) {
			c[i].Filter.OnResponse(x)
		}
	}
}

// End tells the filters that a request has ended.
func (c Chain) End(x *exchange.Exchange) {
	for i := range c {
		if f, ok := c[i].Filter.(Ender); ok {
			f.OnEnd(x)
		}
	}
}

// Close gives back what the filters hold.
func (c Chain) Close() {
	for i := range c {
		if f, ok := c[i].Filter.(Closer); ok {
			f.Close()
		}
	}
}

func (e *Entry) on(x *exchange.Exchange) bool {
	if o, ok := Override(x, e.Name); ok {
		return !o.Disabled
	}
	return !e.Disabled
}

// Override returns what the route says of the filter with this name (typed_per_filter_config), from the most specific
// place that says anything: the weighted cluster, the route, the virtual host, the table. Its Config is nil where it only
// turns the filter on or off.
func Override(x *exchange.Exchange, name string) (o mesh.Extension, ok bool) {
	for _, at := range Places(x) {
		if o, ok = at[name]; ok {
			return o, true
		}
	}
	return o, false
}

// Places returns what the places of a route say to filters, by their names, the most specific place first; nil for one
// that says nothing.
func Places(x *exchange.Exchange) (at [4]map[string]mesh.Extension) {
	if r := x.Match.Route; r != nil {
		if r.Forward != nil && r.Forward.ClusterHeader == "" {
			at[0] = x.Match.WeightedCluster(x.RouteRandom).PerFilter
		}
		at[1] = r.PerFilter
	}
	if h := x.Match.Host; h != nil {
		at[2] = h.PerFilter
	}
	if t := x.Table; t != nil {
		at[3] = t.PerFilter
	}
	return at
}
