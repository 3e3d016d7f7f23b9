// SPDX-License-Identifier: Apache-2.0

// Package registry holds the shape of Meshtap's extension tables: one row per extension, keyed by type URL, with a side
// that reads configuration (Parse, given to xds) and a side that makes something of it (Build, given to proxy, lb or
// eventtap). cmd/meshtap/app writes the one table; nothing registers itself.
package registry

import (
	"fmt"
	"slices"
	"sort"
)

// Category is a place in the configuration where an extension may stand.
type Category string

// The categories, named as Envoy names its extension categories.
const (
	ListenerFilter  Category = "envoy.filters.listener"
	NetworkFilter   Category = "envoy.filters.network"
	HTTPFilter      Category = "envoy.filters.http"
	AccessLogger    Category = "envoy.access_loggers"
	LogFilter       Category = "envoy.access_loggers.extension_filters"
	LBPolicy        Category = "envoy.load_balancing_policies"
	TransportSocket Category = "envoy.transport_sockets"
	RetryPredicate  Category = "envoy.retry_host_predicates"
	RequestID       Category = "envoy.request_id"
	UpstreamOptions Category = "envoy.upstream_options"
	ClusterMetadata Category = "meshtap.cluster_metadata"
	Bootstrap       Category = "envoy.bootstrap"
	EventSink       Category = "meshtap.event_sinks"
	// RoutePolicy is Meshtap's own among the typed_per_filter_config of a route, a virtual host or a route table.
	RoutePolicy Category = "meshtap.route_policies"
)

// Status says how far an extension is.
type Status string

// The statuses.
const (
	Stable Status = "stable"
	Alpha  Status = "alpha"
	// Inert marks types that are accepted because they change nothing here; using one is reported as without effect.
	Inert Status = "inert"
)

// Info is what documentation and errors say of an extension.
type Info struct {
	Category Category
	// Name is the extension's well-known name, such as "envoy.filters.http.router".
	Name string
	// TypeURLs are the message types it reads, without the "type.googleapis.com/" prefix. The first is the preferred one.
	TypeURLs []string
	Status   Status
	// Posture says which peers it may face: "untrusted" (both sides), "trusted-upstream", "trusted" or "data-plane-agnostic".
	Posture string
	// Example is the file below configs/ that uses it.
	Example string
	// ChainOnly says of an HTTP filter that its configuration may stand in the filter chain only. A route can still turn it
	// off and on.
	ChainOnly bool
	// WrittenOnly says that its configuration has to stand in the listener and cannot come over ECDS.
	WrittenOnly bool
	// RouteTypes are those of TypeURLs that may stand in a typed_per_filter_config only. Where there are any, the others
	// may stand in the filter chain only.
	RouteTypes []string
}

// InChain reports whether a configuration of this type may stand in the filter chain.
func (i *Info) InChain(typeURL string) bool { return !slices.Contains(i.RouteTypes, typeURL) }

// OnRoute reports whether a configuration of this type may stand in a typed_per_filter_config.
func (i *Info) OnRoute(typeURL string) bool {
	return !i.ChainOnly && (len(i.RouteTypes) == 0 || slices.Contains(i.RouteTypes, typeURL))
}

// Parsed is a parsed configuration with what it depends on.
type Parsed struct {
	// Config is immutable and belongs to the extension.
	Config any
	// Clusters are the clusters it names; the configuration graph waits for them.
	Clusters []string
	// NoEffect are paths of fields that are set and change nothing here, relative to the message.
	NoEffect []string
}

// Parse reads the serialized message of the given type URL. Its errors name the field path, relative to the message,
// and what is allowed; see FieldError.
type Parse func(typeURL string, b []byte) (Parsed, error)

// Row is one extension. Build's type is decided by the category's owner.
type Row[B any] struct {
	Info
	Parse Parse
	Build B
}

// FieldError is an error at a field of a message. Path is in snake_case as in Envoy's protos, with list indices, such
// as "filter_chains[0].filters[1].typed_config.stat_prefix".
type FieldError struct {
	Path string
	// Msg says what is wrong, and what is allowed.
	Msg string
}

// Error returns "path: message".
func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Msg
	}
	return e.Path + ": " + e.Msg
}

// Errorf returns a FieldError.
func Errorf(path, format string, args ...any) *FieldError {
	return &FieldError{Path: path, Msg: fmt.Sprintf(format, args...)}
}

// Parsers is the reading side of all tables: what xds knows of extensions.
type Parsers struct {
	rows map[Category]map[string]entry
}

type entry struct {
	info  Info
	parse Parse
}

// NewParsers returns an empty set.
func NewParsers() *Parsers { return &Parsers{rows: map[Category]map[string]entry{}} }

// AddAll adds the reading side of rows. A type URL that is there already is a programming error and panics.
func AddAll[B any](p *Parsers, rows []Row[B]) {
	for _, r := range rows {
		p.Add(r.Info, r.Parse)
	}
}

// Add adds one extension.
func (p *Parsers) Add(info Info, parse Parse) {
	m := p.rows[info.Category]
	if m == nil {
		m = map[string]entry{}
		p.rows[info.Category] = m
	}
	for _, u := range info.TypeURLs {
		if _, dup := m[u]; dup {
			panic("registry: two extensions for " + u)
		}
		m[u] = entry{info, parse}
	}
}

// Parse reads a configuration of the category. typeURL carries no prefix. ok is false where the type is not known.
func (p *Parsers) Parse(c Category, typeURL string, b []byte) (parsed Parsed, info Info, ok bool, err error) {
	e, ok := p.rows[c][typeURL]
	if !ok {
		return Parsed{}, Info{}, false, nil
	}
	parsed, err = e.parse(typeURL, b)
	return parsed, e.info, true, err
}

// Lookup returns what there is to say of the extension that reads a type; ok is false where the type is not known.
func (p *Parsers) Lookup(c Category, typeURL string) (info Info, ok bool) {
	e, ok := p.rows[c][typeURL]
	return e.info, ok
}

// Known returns the type URLs of a category, sorted, for error messages.
func (p *Parsers) Known(c Category) []string {
	var out []string
	for u := range p.rows[c] {
		out = append(out, u)
	}
	sort.Strings(out)
	return out
}

// All returns every extension once, by category and name.
func (p *Parsers) All() []Info {
	var out []Info
	for _, m := range p.rows {
		for u, e := range m {
			if u == e.info.TypeURLs[0] {
				out = append(out, e.info)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Category != out[j].Category {
			return out[i].Category < out[j].Category
		}
		return out[i].Name < out[j].Name
	})
	return out
}

// Builders maps type URLs to the building side of a table.
func Builders[B any](rows []Row[B]) map[string]B {
	m := map[string]B{}
	for _, r := range rows {
		for _, u := range r.TypeURLs {
			m[u] = r.Build
		}
	}
	return m
}
