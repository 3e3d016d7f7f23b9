// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"net/netip"
	"time"
)

// Listener is an address on which connections are accepted, or, with BindToPort false, a target that another listener
// hands connections to by their original destination.
type Listener struct {
	Name string
	// Address is where to bind. Of a listener with BindToPort false it is what original destinations are compared with.
	Address    Address
	BindToPort bool
	// UseOriginalDst hands a connection over to the listener whose Address is the connection's original destination,
	// or whose IP is unspecified and whose port is the same, where there is one.
	UseOriginalDst bool
	Direction      Direction
	// StatPrefix replaces the address in the listener's metric names.
	StatPrefix string
	// Filters are the listener filters, in order. They peek at the first bytes and never consume them.
	Filters []ListenerFilter
	// FiltersTimeout bounds all listener filters together; 0 means no limit. The default is 15 s.
	FiltersTimeout    time.Duration
	ContinueOnTimeout bool
	// Chains are matched in Envoy's order; DefaultChain serves where none matches.
	Chains       []*FilterChain
	DefaultChain *FilterChain
	// BufferLimit is the soft limit of bytes held per connection and direction.
	BufferLimit int
	Backlog     int
	ReusePort   bool
	// MaxConnections bounds the accepted connections of this listener. MaxConnectionsRuntime, where it is not nil, replaces it
	// by the value that a key has.
	MaxConnections        int
	MaxConnectionsRuntime RuntimeKey
	// IgnoreGlobalLimit exempts the listener from the process-wide connection limit.
	IgnoreGlobalLimit bool
	// AccessLogs record connections that never reached a filter chain's own logs.
	AccessLogs []AccessLog
	// Static marks listeners of the bootstrap, which a control plane cannot change.
	Static bool
}

// Direction is a listener's traffic direction as the configuration states it.
type Direction uint8

// The traffic directions.
const (
	DirectionUnspecified Direction = iota
	Inbound
	Outbound
)

// ListenerFilter is one listener filter with the predicate that turns it off.
type ListenerFilter struct {
	Extension
	// DisabledOn turns the filter off where it matches; nil never does.
	DisabledOn *ListenerPredicate
}

// ListenerPredicate is a test of a new connection's destination port, in the tree form of Envoy's
// ListenerFilterChainMatchPredicate. Exactly one field is set.
type ListenerPredicate struct {
	Any bool
	// PortStart and PortEnd match start <= destination port < end where PortEnd is not 0.
	PortStart, PortEnd int
	Not                *ListenerPredicate
	And, Or            []*ListenerPredicate
}

// FilterChain is what happens to connections that match it.
type FilterChain struct {
	Name string
	// Key is equal for chains of equal content, so that a listener update drains only the chains that changed.
	Key   string
	Match ChainMatch
	// TLS is set where clients speak TLS. The handshake must end within HandshakeTimeout.
	TLS              *TLSContext
	HandshakeTimeout time.Duration
	// Filters are the network filters before the terminal one.
	Filters []Extension
	// Exactly one of HTTP and TCP is the terminal filter, unless Discovery says where its configuration comes from: an
	// Extension whose Config is one of them.
	HTTP      *HTTPManager
	TCP       *TCPProxy
	Discovery *FilterDiscovery
}

// ChainMatch selects connections. An empty field matches all. Envoy's order decides between chains that match:
// destination port, destination IP, server name, transport protocol, application protocols, direct source IP, source
// type, source IP, source port; at each step the most specific value wins and there is no way back.
type ChainMatch struct {
	DestinationPort      uint16
	DestinationPrefixes  []netip.Prefix
	ServerNames          []string
	TransportProtocol    string
	ApplicationProtocols []string
	DirectSourcePrefixes []netip.Prefix
	SourceType           SourceType
	SourcePrefixes       []netip.Prefix
	SourcePorts          []uint16
}

// SourceType is where a connection comes from, seen from this host.
type SourceType uint8

// The source types.
const (
	SourceAny SourceType = iota
	SourceLocal
	SourceExternal
)

// TCPProxy is the terminal filter that forwards bytes.
type TCPProxy struct {
	StatPrefix string
	Clusters   []WeightedCluster
	// IdleTimeout closes a connection without bytes in either direction; 0 means no limit. The default is 1 h.
	IdleTimeout         time.Duration
	MaxConnectAttempts  int
	MaxDownstreamLength time.Duration
	AccessLogs          []AccessLog
}

// AccessLog is one access logger with its filter.
type AccessLog struct {
	Extension
	// Filter decides what is logged; nil logs all.
	Filter *LogFilter
}

// LogFilter is a test of an Outcome. Exactly one field is set.
type LogFilter struct {
	// StatusMin and StatusOp compare the response code, Duration compares the duration.
	Status   *Comparison
	Duration *Comparison // milliseconds
	// Flags matches when any of these flags is set; HasFlags false in the configuration means any flag at all.
	Flags    Flags
	AnyFlag  bool
	NotCheck bool
	Header   *HeaderMatch
	Share    *LogShare
	GRPC     *LogGRPC
	// HTTP lets requests through, TCP connections: the types of entries that there are.
	HTTP, TCP bool
	// Always lets everything through.
	Always bool
	// Extension is a filter of its own; its Config is what the row of package registry made.
	Extension *Extension
	And, Or   []*LogFilter
}

// LogShare lets a share of outcomes through: Numerator out of Denominator. A request is in it or not by its request id, so
// that all proxies that it passes log the same ones; Independent takes a random number of its own.
type LogShare struct {
	Numerator, Denominator uint32
	// Runtime, where it is not nil, replaces Numerator by the number that a key has.
	Runtime     RuntimeKey
	Independent bool
}

// LogGRPC lets outcomes through by their gRPC status: those whose bit is set in Statuses, or with Exclude the others.
type LogGRPC struct {
	Statuses uint32
	Exclude  bool
}

// Comparison compares a number: Op is one of '=', '>' (greater or equal), '<' (less or equal) and '!' (not equal).
type Comparison struct {
	Op    byte
	Value uint32
	// Runtime, where it is not nil, replaces Value by the value that a key has.
	Runtime RuntimeKey
}
