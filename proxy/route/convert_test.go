// SPDX-License-Identifier: Apache-2.0

package route

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

// The types below read as much of Envoy's route configuration, as JSON, as the scripts use: the decoder proper is
// xds/resource, which is a layer above.

type jsonTable struct {
	IgnorePort bool       `json:"ignore_port_in_host_matching"`
	Hosts      []jsonHost `json:"virtual_hosts"`
}

type jsonHost struct {
	Name       string
	Domains    []string
	RequireTLS string `json:"require_tls"`
	Routes     []jsonRoute
}

type jsonRoute struct {
	Match    jsonMatch
	Route    *jsonAction
	Redirect *jsonRedirect
	Direct   *struct {
		Body struct {
			Text string `json:"inline_string"`
		}
	} `json:"direct_response"`
}

type jsonMatch struct {
	Prefix, Path  *string
	Separated     *string    `json:"path_separated_prefix"`
	Regex         *jsonRegex `json:"safe_regex"`
	Connect       *struct{}  `json:"connect_matcher"`
	CaseSensitive *bool      `json:"case_sensitive"`
	Headers       []jsonHeader
	Query         []jsonQuery `json:"query_parameters"`
	GRPC          *struct{}
	Fraction      *mesh.Fraction
}

type jsonRegex struct{ Regex string }

type jsonString struct {
	Exact, Prefix, Suffix, Contains *string
	Regex                           *jsonRegex `json:"safe_regex"`
	IgnoreCase                      bool       `json:"ignore_case"`
}

type jsonHeader struct {
	Name    string
	String  *jsonString `json:"string_match"`
	Present *bool       `json:"present_match"`
	Range   *struct {
		Start int64 `json:",string"`
		End   int64 `json:",string"`
	} `json:"range_match"`
	Invert         bool `json:"invert_match"`
	MissingAsEmpty bool `json:"treat_missing_header_as_empty"`
}

type jsonQuery struct {
	Name    string
	String  *jsonString `json:"string_match"`
	Present *bool       `json:"present_match"`
}

type jsonRewrite struct {
	Pattern      jsonRegex
	Substitution string
}

type jsonAction struct {
	Cluster       string
	PrefixRewrite string       `json:"prefix_rewrite"`
	RegexRewrite  *jsonRewrite `json:"regex_rewrite"`
	Literal       string       `json:"host_rewrite_literal"`
	Header        string       `json:"host_rewrite_header"`
	PathRegex     *jsonRewrite `json:"host_rewrite_path_regex"`
	Auto          bool         `json:"auto_host_rewrite"`
	Weighted      struct {
		Clusters []struct {
			Name   string
			Weight uint32
			Host   string `json:"host_rewrite_literal"`
		}
	} `json:"weighted_clusters"`
}

type jsonRedirect struct {
	HTTPS         bool         `json:"https_redirect"`
	Scheme        string       `json:"scheme_redirect"`
	Host          string       `json:"host_redirect"`
	Port          int          `json:"port_redirect"`
	Path          string       `json:"path_redirect"`
	PrefixRewrite string       `json:"prefix_rewrite"`
	RegexRewrite  *jsonRewrite `json:"regex_rewrite"`
	StripQuery    bool         `json:"strip_query"`
	Code          string       `json:"response_code"`
}

// quoteInts puts the numbers of range_match into quotes, as protobuf's JSON allows both.
var quoteInts = regexp.MustCompile(`"(start|end)":(-?\d+)`)

func parseTable(t testing.TB, text []byte) *mesh.RouteTable {
	t.Helper()
	var in jsonTable
	if err := json.Unmarshal(quoteInts.ReplaceAll(text, []byte(`"$1":"$2"`)), &in); err != nil {
		t.Fatal(err)
	}
	out := &mesh.RouteTable{Name: "test", IgnorePort: in.IgnorePort}
	for _, h := range in.Hosts {
		vh := &mesh.VirtualHost{Name: h.Name, Domains: h.Domains}
		vh.RequireTLS = map[string]mesh.RequireTLS{"": mesh.TLSNotRequired, "ALL": mesh.TLSAll, "EXTERNAL_ONLY": mesh.TLSExternalOnly}[h.RequireTLS]
		for _, r := range h.Routes {
			vh.Routes = append(vh.Routes, r.mesh())
		}
		out.Hosts = append(out.Hosts, vh)
	}
	return out
}

func (r jsonRoute) mesh() *mesh.Route {
	out := &mesh.Route{Match: r.Match.mesh()}
	switch {
	case r.Route != nil:
		out.Forward = r.Route.mesh()
	case r.Redirect != nil:
		d := r.Redirect
		out.Redirect = &mesh.Redirect{
			Status: map[string]int{"": 301, "TEMPORARY_REDIRECT": 307}[d.Code], HTTPS: d.HTTPS, Scheme: d.Scheme, Host: d.Host,
			Port: d.Port, Path: d.Path, PrefixRewrite: d.PrefixRewrite, RegexRewrite: d.RegexRewrite.mesh(), StripQuery: d.StripQuery,
		}
	default:
		out.Direct = &mesh.DirectResponse{Status: 200, Body: []byte(r.Direct.Body.Text)}
	}
	return out
}

func (m jsonMatch) mesh() mesh.RouteMatch {
	out := mesh.RouteMatch{IgnoreCase: m.CaseSensitive != nil && !*m.CaseSensitive, GRPCOnly: m.GRPC != nil, Fraction: m.Fraction}
	switch {
	case m.Prefix != nil:
		out.Kind, out.Path = mesh.PathPrefix, *m.Prefix
	case m.Path != nil:
		out.Kind, out.Path = mesh.PathExact, *m.Path
	case m.Separated != nil:
		out.Kind, out.Path = mesh.PathSeparatedPrefix, *m.Separated
	case m.Regex != nil:
		out.Kind, out.Regex = mesh.PathRegex, m.Regex.anchored()
	default:
		out.Kind = mesh.PathConnect
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, h.mesh())
	}
	for _, q := range m.Query {
		match := mesh.QueryMatch{Name: q.Name, Present: q.Present == nil || *q.Present}
		if q.String != nil {
			s := q.String.mesh()
			match.String = &s
		}
		out.Query = append(out.Query, match)
	}
	return out
}

func (r *jsonRegex) anchored() *regexp.Regexp { return regexp.MustCompile(`\A(?:` + r.Regex + `)\z`) }

func (s *jsonString) mesh() mesh.StringMatch {
	out := mesh.StringMatch{IgnoreCase: s.IgnoreCase}
	for kind, v := range []*string{mesh.MatchExact: s.Exact, mesh.MatchPrefix: s.Prefix, mesh.MatchSuffix: s.Suffix, mesh.MatchContains: s.Contains} {
		if v != nil {
			out.Kind, out.Value = mesh.StringMatchKind(kind), *v
		}
	}
	if s.Regex != nil {
		out.Kind, out.Regex = mesh.MatchRegex, s.Regex.anchored()
	}
	return out
}

func (h jsonHeader) mesh() mesh.HeaderMatch {
	out := mesh.HeaderMatch{Name: strings.ToLower(h.Name), Invert: h.Invert, MissingAsEmpty: h.MissingAsEmpty, Kind: mesh.HeaderPresent}
	switch {
	case h.String != nil:
		out.Kind, out.String = mesh.HeaderString, h.String.mesh()
	case h.Range != nil:
		out.Kind, out.RangeStart, out.RangeEnd = mesh.HeaderRange, h.Range.Start, h.Range.End
	default:
		out.Present = h.Present == nil || *h.Present
	}
	return out
}

func (r *jsonRewrite) mesh() *mesh.RegexRewrite {
	if r == nil {
		return nil
	}
	return &mesh.RegexRewrite{Pattern: regexp.MustCompile(r.Pattern.Regex), Substitution: r.Substitution}
}

func (a *jsonAction) mesh() *mesh.RouteAction {
	out := &mesh.RouteAction{PrefixRewrite: a.PrefixRewrite, RegexRewrite: a.RegexRewrite.mesh()}
	switch {
	case a.Literal != "":
		out.HostRewrite = mesh.HostRewrite{Kind: mesh.HostLiteral, Value: a.Literal}
	case a.Header != "":
		out.HostRewrite = mesh.HostRewrite{Kind: mesh.HostFromHeader, Value: a.Header}
	case a.PathRegex != nil:
		out.HostRewrite = mesh.HostRewrite{Kind: mesh.HostFromPath, Regex: a.PathRegex.mesh()}
	case a.Auto:
		out.HostRewrite.Kind = mesh.HostAuto
	}
	if a.Cluster != "" {
		out.Clusters, out.TotalWeight = []mesh.WeightedCluster{{Name: a.Cluster, Weight: 1}}, 1
	}
	for _, c := range a.Weighted.Clusters {
		out.Clusters = append(out.Clusters, mesh.WeightedCluster{Name: c.Name, Weight: c.Weight, HostRewrite: c.Host})
		out.TotalWeight += c.Weight
	}
	return out
}
