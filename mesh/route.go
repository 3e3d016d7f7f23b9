// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"regexp"
	"time"
)

// RouteTable is a route configuration: virtual hosts by domain, each with routes in order.
type RouteTable struct {
	Name    string
	Version string
	Hosts   []*VirtualHost
	// HostSet is the key of more virtual hosts, in the snapshot (VHDS); "" for none.
	HostSet string
	Headers HeaderOps
	// MostSpecificWins applies header operations from the table down to the route, so that the route's come last.
	MostSpecificWins    bool
	InternalOnlyHeaders []string
	// MaxDirectBody bounds the body of direct responses, in bytes. The default is 4,096.
	MaxDirectBody int
	// IgnorePort leaves the port of the authority out when domains are compared.
	IgnorePort bool
	PerFilter  map[string]Extension
	Static     bool
}

// VirtualHost is a set of routes for some domains.
type VirtualHost struct {
	Name string
	// Domains are exact names, "*.suffix", "prefix.*" or "*", in lower case.
	Domains []string
	Routes  []*Route
	Headers HeaderOps
	Retry   *RetryPolicy
	// RequireTLS answers plain requests with a redirect to https.
	RequireTLS RequireTLS
	// AttemptCountInRequest and AttemptCountInResponse add x-envoy-attempt-count.
	AttemptCountInRequest, AttemptCountInResponse bool
	PerFilter                                     map[string]Extension
}

// RequireTLS says which plain requests are redirected to https.
type RequireTLS uint8

// The TLS requirements.
const (
	TLSNotRequired RequireTLS = iota
	TLSExternalOnly
	TLSAll
)

// Route is a match and what to do. Exactly one of Forward, Redirect and Direct is set.
type Route struct {
	Name      string
	Match     RouteMatch
	Forward   *RouteAction
	Redirect  *Redirect
	Direct    *DirectResponse
	Headers   HeaderOps
	PerFilter map[string]Extension
	// Fallback answers when the action cannot; nil where the route has none.
	Fallback *Fallback
}

// CORSKey is the name in PerFilter of the older cors field of a route or a virtual host. It counts where no place has a
// configuration for the filter by name.
const CORSKey = "envoy.config.route.v3.CorsPolicy"

// TapPolicyKey is the name in PerFilter of what the event tap is told about a route.
const TapPolicyKey = "io.meshtap.tap"

// TapPolicy returns what the event tap is told about a route, a virtual host or a table, whichever says something first;
// nil where none does. It is what an Outcome carries as Policy.
func TapPolicy(t *RouteTable, h *VirtualHost, r *Route) any {
	if r != nil && r.PerFilter != nil {
		if e, ok := r.PerFilter[TapPolicyKey]; ok {
			return e.Config
		}
	}
	if h != nil && h.PerFilter != nil {
		if e, ok := h.PerFilter[TapPolicyKey]; ok {
			return e.Config
		}
	}
	if t != nil && t.PerFilter != nil {
		if e, ok := t.PerFilter[TapPolicyKey]; ok {
			return e.Config
		}
	}
	return nil
}

// RouteMatch is a test of a request. The path is matched without query and fragment. All parts must hold.
type RouteMatch struct {
	Kind PathMatchKind
	// Path is the prefix, path, or separated prefix; Regex is for PathRegex, anchored at both ends.
	Path       string
	Regex      *regexp.Regexp
	IgnoreCase bool
	Headers    []HeaderMatch
	Query      []QueryMatch
	// Fraction lets only a share of requests match; nil matches all.
	Fraction *Fraction
	// GRPCOnly matches requests whose content-type is application/grpc or application/grpc+...
	GRPCOnly bool
}

// PathMatchKind selects the comparison of a path.
type PathMatchKind uint8

// The path matches.
const (
	PathPrefix PathMatchKind = iota
	PathExact
	PathSeparatedPrefix
	PathRegex
	PathConnect
)

// RouteAction forwards to a cluster.
type RouteAction struct {
	// Clusters holds one cluster, or several with weights; ClusterHeader names the request header that holds the
	// cluster's name instead.
	Clusters      []WeightedCluster
	TotalWeight   uint32
	ClusterHeader string
	// NotFoundStatus is answered where the cluster does not exist. The default is 503.
	NotFoundStatus int

	// At most one of these is set. PrefixRewrite replaces the matched prefix or path.
	PrefixRewrite string
	RegexRewrite  *RegexRewrite
	HostRewrite   HostRewrite
	// AppendXForwardedHost keeps the old authority in x-forwarded-host.
	AppendXForwardedHost bool

	// Timeout bounds request and answer, from the end of the request; 0 means no limit. The default is 15 s.
	Timeout time.Duration
	// IdleTimeout and MaxStreamDuration replace the connection manager's where they are not nil.
	IdleTimeout       *time.Duration
	MaxStreamDuration *time.Duration
	// GRPC says what is made of the grpc-timeout header.
	GRPC     GRPCTimeouts
	Retry    *RetryPolicy
	Priority Priority
	Upgrades []Upgrade
}

// GRPCTimeouts say what is made of the grpc-timeout header. There are Envoy's two ways to say that, of which a route has
// one at most in force.
type GRPCTimeouts struct {
	// Durations says that the route has a max_stream_duration, whatever is in it. Timeout does not count then, and the
	// upstream of a gRPC request is told the stream's longest duration. HeaderMax and HeaderOffset are of that message.
	Durations bool
	// HeaderMax, where it is not nil, makes the header the stream's longest duration, up to HeaderMax, which 0 makes no
	// limit. HeaderOffset is taken from it.
	HeaderMax    *time.Duration
	HeaderOffset time.Duration
	// Max, where it is not nil, makes the header of a gRPC request its timeout, up to Max, which 0 makes no limit. Offset is
	// taken from it where that leaves something.
	Max    *time.Duration
	Offset time.Duration
}

// WeightedCluster is one target of a split. Weight is relative to the sum of all.
type WeightedCluster struct {
	Name   string
	Weight uint32
	// Runtime, where it is not nil, replaces Weight by the value that a key has. All clusters of a split have one, or none.
	Runtime   RuntimeKey
	Headers   HeaderOps
	PerFilter map[string]Extension
	// HostRewrite replaces the authority where it is not "".
	HostRewrite string
}

// RegexRewrite replaces all matches of Pattern in the path with Substitution, in which \1 ... \9 are groups, \0 is all.
type RegexRewrite struct {
	Pattern      *regexp.Regexp
	Substitution string
}

// HostRewrite says how the authority is rewritten.
type HostRewrite struct {
	Kind HostRewriteKind
	// Value is the literal, or the header's name.
	Value string
	// Regex is used by HostFromPath.
	Regex *RegexRewrite
}

// HostRewriteKind selects a host rewrite.
type HostRewriteKind uint8

// The host rewrites.
const (
	HostKeep HostRewriteKind = iota
	HostLiteral
	HostAuto
	HostFromHeader
	HostFromPath
)

// Priority selects the thresholds that admit a request.
type Priority uint8

// The routing priorities.
const (
	PriorityDefault Priority = iota
	PriorityHigh
)

// Redirect answers with a Location.
type Redirect struct {
	Status int
	// Scheme and Host replace those of the request where they are not ""; HTTPS switches the scheme to https.
	Scheme string
	Host   string
	HTTPS  bool
	// Port replaces the port where it is not 0.
	Port int
	// At most one of Path, PrefixRewrite and RegexRewrite is set.
	Path          string
	PrefixRewrite string
	RegexRewrite  *RegexRewrite
	StripQuery    bool
}

// DirectResponse answers without an upstream.
type DirectResponse struct {
	Status int
	Body   []byte
	// Format, where set, makes the body from the request.
	Format Format
}

// HeaderOps are additions to and removals from request and response headers. Removals come first.
type HeaderOps struct {
	RequestAdd     []HeaderAdd
	RequestRemove  []string
	ResponseAdd    []HeaderAdd
	ResponseRemove []string
}

// HeaderAdd sets or appends one header.
type HeaderAdd struct {
	// Name is in lower case.
	Name string
	// Value is evaluated per request; Literal is its text where it has no operators.
	Value     Format
	Literal   string
	Action    HeaderAction
	KeepEmpty bool
}

// HeaderAction says what happens when the header is already there.
type HeaderAction uint8

// The header actions, as Envoy's append_action.
const (
	HeaderAppend HeaderAction = iota
	HeaderAddIfAbsent
	HeaderOverwrite
	HeaderOverwriteIfExists
)

// RetryPolicy says which failed attempts are repeated, how often and how soon. The conditions are RetryOn's.
type RetryPolicy struct {
	On RetryOn
	// Retries is the number of attempts after the first.
	Retries            int
	PerTryTimeout      time.Duration
	PerTryIdleTimeout  time.Duration
	StatusCodes        []int
	Headers            []HeaderMatch
	BackOffBase        time.Duration
	BackOffMax         time.Duration
	SkipPreviousHosts  bool
	HostSelectionTries int
}

// RetryOn is a set of retry conditions, named as in Envoy's x-envoy-retry-on and x-envoy-retry-grpc-on.
type RetryOn uint32

// The retry conditions.
const (
	RetryOn5xx RetryOn = 1 << iota
	RetryOnGatewayError
	RetryOnReset
	RetryOnResetBeforeRequest
	RetryOnConnectFailure
	RetryOnRefusedStream
	RetryOnRetriable4xx
	RetryOnRetriableStatusCodes
	RetryOnRetriableHeaders
	RetryOnEnvoyRateLimited
	RetryOnGRPCCancelled
	RetryOnGRPCDeadlineExceeded
	RetryOnGRPCInternal
	RetryOnGRPCResourceExhausted
	RetryOnGRPCUnavailable
)

// Fallback is Meshtap's own route extension: what answers when the cluster cannot. Exactly one of Cluster and Response
// is set.
type Fallback struct {
	On       FallbackOn
	Cluster  string
	Response *DirectResponse
	// Headers are added to the static response.
	Headers []HeaderAdd
}

// FallbackOn is a set of reasons for a fallback.
type FallbackOn uint8

// The reasons for a fallback.
const (
	FallbackOnOpenCircuit FallbackOn = 1 << iota
	FallbackOnNoHealthyHost
	FallbackOnOverflow
	FallbackOnConnectFailure
)
