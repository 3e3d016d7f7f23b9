// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"net/netip"
	"time"
)

// HTTPManager is the HTTP connection manager: how bytes of a connection become requests, and which filters see them.
type HTTPManager struct {
	StatPrefix string
	Codec      Codec
	// RouteTable is the key of a table of the snapshot, unless the table is written here (Routes).
	RouteTable string
	Routes     *RouteTable
	// Scoped picks the table by the request where it is not nil; RouteTable and Routes are empty then.
	Scoped *ScopedRoutes
	// Filters are the HTTP filters before the router, in order.
	Filters []Extension
	// Router is the terminal filter. With RouterDiscovery its configuration comes by itself: an Extension whose Config is a
	// Router.
	Router          Router
	RouterDiscovery *FilterDiscovery
	// ServerName is the value of the server header where ServerHeader says so. The default is "envoy".
	ServerName   string
	ServerHeader ServerHeader
	Via          string

	// Deadlines; 0 means no limit.
	StreamIdleTimeout     time.Duration
	RequestTimeout        time.Duration
	RequestHeadersTimeout time.Duration
	IdleTimeout           time.Duration
	MaxConnectionDuration time.Duration
	MaxStreamDuration     time.Duration
	DrainTimeout          time.Duration
	DelayedCloseTimeout   time.Duration

	// Limits; 0 means no limit.
	MaxRequestsPerConnection int
	MaxHeaderBytes           int
	MaxHeaderCount           int

	// Trust and rewriting, with Envoy's meaning.
	UseRemoteAddress   bool
	InternalAddresses  []netip.Prefix // whose requests may tell the router what to do
	XFFTrustedHops     int
	SkipXFFAppend      bool
	AppendXForwardPort bool
	GenerateRequestID  bool
	KeepExternalID     bool
	RequestIDInAnswer  bool
	NormalizePath      bool
	MergeSlashes       bool
	EscapedSlashes     EscapedSlashes
	StripAnyPort       bool
	StripMatchingPort  bool
	StripTrailingDot   bool
	Underscores        Underscores
	Proxy100Continue   bool

	// HTTP/1 options.
	AcceptHTTP10   bool
	DefaultHost    string
	EnableTrailers bool

	HTTP2 HTTP2Options

	Upgrades   []Upgrade
	AccessLogs []AccessLog
}

// Codec says which HTTP versions a connection manager speaks.
type Codec uint8

// The codecs.
const (
	CodecAuto Codec = iota
	CodecHTTP1
	CodecHTTP2
)

// Router holds the options of the terminal HTTP filter.
type Router struct {
	// SuppressEnvoyHeaders leaves out the x-envoy-* headers that the router adds.
	SuppressEnvoyHeaders bool
	// StartChildSpan and others of Envoy's router options have no effect here and are reported at decode.
}

// ServerHeader says what happens to the server header of answers.
type ServerHeader uint8

// The server header transformations.
const (
	ServerOverwrite ServerHeader = iota
	ServerAppendIfAbsent
	ServerPassThrough
)

// EscapedSlashes says what happens to %2f and %5c in paths.
type EscapedSlashes uint8

// The actions for escaped slashes.
const (
	SlashesKeep EscapedSlashes = iota
	SlashesReject
	SlashesUnescapeRedirect
	SlashesUnescapeForward
)

// Underscores says what happens to header names that hold an underscore.
type Underscores uint8

// The actions for header names with underscores.
const (
	UnderscoresAllow Underscores = iota
	UnderscoresReject
	UnderscoresDrop
)

// Upgrade turns one upgrade protocol on or off.
type Upgrade struct {
	// Type is the protocol in lower case, such as "websocket".
	Type    string
	Enabled bool
}
