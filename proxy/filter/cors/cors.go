// SPDX-License-Identifier: Apache-2.0

// Package cors is the filter envoy.filters.http.cors: it tells browsers which pages of other origins may read an answer
// (Fetch, section 3.3, CORS protocol). A preflight is answered here; an answer to a request of an allowed origin says so.
// A request of another origin goes on, as in Envoy: it is the browser that keeps the answer from the page.
//
// What is allowed is said by the route. Each part of a policy that a place leaves open is taken from the next one: weighted
// cluster, route, virtual host, table.
package cors

import (
	"bytes"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/route"
)

// Policy is what one place says. An empty part says nothing.
type Policy struct {
	// Origins are those that are allowed.
	Origins []mesh.StringMatch
	// AllowMethods, AllowHeaders, ExposeHeaders and MaxAge are the values of the headers with these names. "*" for the
	// first two allows what was asked for.
	AllowMethods, AllowHeaders, ExposeHeaders, MaxAge string
	// Credentials and PrivateNetwork allow requests with credentials, and from less private networks. ForwardPreflights
	// passes preflights of other origins on, which is the default.
	Credentials, PrivateNetwork, ForwardPreflights *bool
	// Enabled is the share of requests for which the filter is on, nil for all; Shadow is that for which origins are counted
	// where it is off, nil for none. Those of the most specific policy count.
	Enabled, Shadow *mesh.Fraction
}

// Filter is the filter.
type Filter struct {
	name    string
	place   int
	numbers *metrics.CORS
}

// New returns the filter. It has no configuration but that of routes.
func New(_ any, deps filter.Deps) (filter.Filter, error) {
	return &Filter{name: deps.Name, place: deps.Place, numbers: metrics.NewCORS(deps.Stats, deps.StatPrefix)}, nil
}

// Close implements filter.Closer.
func (f *Filter) Close() { f.numbers.Release() }

// call is what is kept of a request whose origin is allowed.
type call struct {
	origin []byte
	ps     policies
}

// OnRequest implements filter.Filter.
func (f *Filter) OnRequest(x *exchange.Exchange) (filter.Verdict, []byte) {
	l := &x.Request.Header
	origin := l.Joined("origin")
	if len(origin) == 0 || x.Match.Route == nil || x.Match.Route.Forward == nil {
		return filter.Continue, nil
	}
	ps := f.policies(x)
	if ps[0] == nil {
		return filter.Continue, nil
	}
	enabled := ps[0].Enabled == nil || ps[0].Enabled.Covers(x.Random())
	if !enabled && (ps[0].Shadow == nil || !ps[0].Shadow.Covers(x.Random())) {
		return filter.Continue, nil
	}
	allowed := ps.allows(origin)
	if allowed {
		f.numbers.Inc(x.Worker.Shard, metrics.CORSOriginValid)
	} else {
		f.numbers.Inc(x.Worker.Shard, metrics.CORSOriginInvalid)
	}
	if !enabled {
		return filter.Continue, nil
	}
	if allowed {
		x.Keep(f.place, &call{bytes.Clone(origin), ps})
	}
	method := l.Get("access-control-request-method")
	if string(x.Request.Method) != "OPTIONS" || len(method) == 0 || !allowed && ps.flag(forwardPreflights, true) {
		return filter.Continue, nil
	}
	x.Answer(200, "cors_response", nil)
	ps.answer(x, method, l.Joined("access-control-request-headers"))
	return filter.Stop, nil
}

// OnResponse implements filter.Filter.
func (f *Filter) OnResponse(x *exchange.Exchange) {
	c, _ := x.Kept(f.place).(*call)
	if c == nil {
		return
	}
	l := &x.Response.Header
	l.Set("access-control-allow-origin", c.origin)
	if c.ps.flag(credentials, false) {
		l.SetString("access-control-allow-credentials", "true")
	}
	if v := c.ps.text(exposeHeaders); v != "" {
		l.SetString("access-control-expose-headers", v)
	}
}

// policies are those of the places of a route, the most specific one first, and nil behind the last.
type policies [4]*Policy

// policies returns what the places of the route say. The older fields count where none says anything.
func (f *Filter) policies(x *exchange.Exchange) (ps policies) {
	places := filter.Places(x)
	for _, name := range [...]string{f.name, mesh.CORSKey} {
		n := 0
		for _, at := range places {
			if p, ok := at[name].Config.(*Policy); ok {
				ps[n] = p
				n++
			}
		}
		if n > 0 {
			break
		}
	}
	return ps
}

func (ps *policies) allows(origin []byte) bool {
	for _, p := range ps {
		if p == nil {
			break
		}
		if len(p.Origins) == 0 {
			continue
		}
		for i := range p.Origins {
			m := &p.Origins[i]
			// What matches a star stands for all, as in Envoy.
			if route.MatchString(m, star) == route.Yes || route.MatchString(m, origin) == route.Yes {
				return true
			}
		}
		return false
	}
	return false
}

var star = []byte("*")

// text returns the first text that says something.
func (ps *policies) text(of func(*Policy) string) string {
	for _, p := range ps {
		if p == nil {
			break
		}
		if v := of(p); v != "" {
			return v
		}
	}
	return ""
}

// flag returns the first flag that is set.
func (ps *policies) flag(of func(*Policy) *bool, def bool) bool {
	for _, p := range ps {
		if p == nil {
			break
		}
		if v := of(p); v != nil {
			return *v
		}
	}
	return def
}

func allowMethods(p *Policy) string     { return p.AllowMethods }
func allowHeaders(p *Policy) string     { return p.AllowHeaders }
func exposeHeaders(p *Policy) string    { return p.ExposeHeaders }
func maxAge(p *Policy) string           { return p.MaxAge }
func credentials(p *Policy) *bool       { return p.Credentials }
func privateNetwork(p *Policy) *bool    { return p.PrivateNetwork }
func forwardPreflights(p *Policy) *bool { return p.ForwardPreflights }

// answer fills the answer to a preflight. What is said of the origin, OnResponse adds.
func (ps *policies) answer(x *exchange.Exchange, method, headers []byte) {
	l := &x.Response.Header
	if ps.flag(credentials, false) {
		l.AddString("access-control-allow-credentials", "true")
	}
	for _, h := range [...]struct {
		name  string
		asked []byte
		of    func(*Policy) string
	}{{"access-control-allow-methods", method, allowMethods}, {"access-control-allow-headers", headers, allowHeaders}} {
		switch v := ps.text(h.of); v {
		case "":
		case "*":
			l.Add(h.name, h.asked)
		default:
			l.AddString(h.name, v)
		}
	}
	if v := ps.text(maxAge); v != "" {
		l.AddString("access-control-max-age", v)
	}
	if ps.flag(privateNetwork, false) && string(x.Request.Header.Get("access-control-request-private-network")) == "true" {
		l.AddString("access-control-allow-private-network", "true")
	}
}

var (
	_ filter.Filter = (*Filter)(nil)
	_ filter.Closer = (*Filter)(nil)
)
