// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	fallbackv1 "github.com/meshtap/meshtap/api/meshtap/fallback/v1"
)

const (
	// fallbackKey is where Meshtap's fallback stands among the filters' configurations of a route.
	fallbackKey   = "io.meshtap.fallback"
	previousHosts = "envoy.retry_host_predicates.previous_hosts"
	// defaultBackOff is Envoy's back-off before the first retry.
	defaultBackOff = Duration(25 * time.Millisecond)
	// statusWord is the condition that goes with retry.statuses.
	statusWord = "retriable-status-codes"
)

// backOff is the time before the first retry.
func (r *Retry) backOff() Duration { return cmp.Or(r.BackOff, defaultBackOff) }

// table makes a route configuration of virtual hosts. The port of the authority does not count: clients write it or not.
func table(name string, hosts ...*routev3.VirtualHost) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: hosts, IgnorePortInHostMatching: true}
}

// host makes the virtual host of a service: its rules, or all to itself where it has none.
func host(name string, s *Service, domains []string) *routev3.VirtualHost {
	v := &routev3.VirtualHost{Name: name, Domains: domains}
	rules := s.Routes
	if len(rules) == 0 {
		rules = []Route{{}}
	}
	for i := range rules {
		v.Routes = append(v.Routes, route(name, &rules[i]))
	}
	return v
}

func route(own string, r *Route) *routev3.Route {
	a := &routev3.RouteAction{}
	if len(r.Split) == 0 {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: r.target(own)}
	} else {
		w := &routev3.WeightedCluster{}
		for _, s := range r.Split {
			w.Clusters = append(w.Clusters, &routev3.WeightedCluster_ClusterWeight{
				Name: versionCluster(r.target(own), s.Version), Weight: number(s.Weight),
			})
		}
		a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: w}
	}
	if r.Timeout != nil {
		a.Timeout = duration(*r.Timeout)
	}
	if r.Retry != nil {
		a.RetryPolicy = retry(r.Retry)
	}
	out := &routev3.Route{Match: match(&r.Match), Action: &routev3.Route_Route{Route: a}}
	if r.Fallback != nil {
		out.TypedPerFilterConfig = map[string]*anypb.Any{fallbackKey: pack(fallback(r.Fallback))}
	}
	return out
}

func match(m *Match) *routev3.RouteMatch {
	out := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	switch {
	case m.Path != "":
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Path}
	case m.Regex != "":
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: m.Regex}}
	case strings.HasSuffix(m.Prefix, "/"):
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: m.Prefix}
	case m.Prefix != "": // /orders means /orders and /orders/7, not /ordersets
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: m.Prefix}
	}
	if len(m.Methods) > 0 {
		out.Headers = append(out.Headers, headerMatch(&HeaderMatch{Name: ":method", Regex: strings.Join(m.Methods, "|")}))
	}
	for i := range m.Headers {
		out.Headers = append(out.Headers, headerMatch(&m.Headers[i]))
	}
	return out
}

func headerMatch(h *HeaderMatch) *routev3.HeaderMatcher {
	out := &routev3.HeaderMatcher{Name: strings.ToLower(h.Name)}
	text := &matcherv3.StringMatcher{}
	out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: text}
	switch {
	case h.Exact != "":
		text.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: h.Exact}
	case h.Prefix != "":
		text.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: h.Prefix}
	case h.Regex != "":
		text.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: h.Regex}}
	default:
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: *h.Present}
	}
	return out
}

// retry repeats on another endpoint where there is one.
func retry(r *Retry) *routev3.RetryPolicy {
	on := slices.Clone(r.On)
	if len(r.Statuses) > 0 {
		on = append(on, statusWord)
	}
	out := &routev3.RetryPolicy{
		RetryOn: strings.Join(on, ","), NumRetries: number(r.Retries), PerTryTimeout: durationOr(r.PerTryTimeout, 0),
		RetriableStatusCodes: r.Statuses,
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       previousHosts,
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&previoushostsv3.PreviousHostsPredicate{})},
		}},
		HostSelectionRetryMaxAttempts: 3,
	}
	if r.BackOff != 0 || r.MaxBackOff != 0 {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: duration(r.backOff()), MaxInterval: durationOr(r.MaxBackOff, 0),
		}
	}
	return out
}

func fallback(f *Fallback) *fallbackv1.Fallback {
	out := &fallbackv1.Fallback{}
	on := f.On
	if len(on) == 0 {
		on = fallbackWords
	}
	for _, word := range on {
		out.On = append(out.On, fallbackv1.Fallback_Reason(enum(fallbackv1.Fallback_Reason_value, word)))
	}
	if f.To != "" {
		out.Action = &fallbackv1.Fallback_Cluster{Cluster: f.To}
		return out
	}
	answer := &fallbackv1.Response{Status: f.Status, Body: f.Body}
	for _, name := range slices.Sorted(maps.Keys(f.Headers)) {
		answer.Headers = append(answer.Headers, &fallbackv1.Header{Name: strings.ToLower(name), Value: f.Headers[name]})
	}
	out.Action = &fallbackv1.Fallback_Response{Response: answer}
	return out
}

// appRoutes send everything to the proxy's own application. The caller's proxy bounds the time.
func appRoutes(cluster string) *routev3.RouteConfiguration {
	return table("inbound", &routev3.VirtualHost{Name: cluster, Domains: []string{"*"}, Routes: []*routev3.Route{{
		Match: match(&Match{}),
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}, Timeout: &durationpb.Duration{},
		}},
	}}})
}
