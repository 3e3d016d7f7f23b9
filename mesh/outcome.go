// SPDX-License-Identifier: Apache-2.0

package mesh

import "net/netip"

// Outcome is the final result of one request or one TCP connection: exactly one for each, on every path. It is what
// metrics, access logs and the event tap see.
//
// An Outcome is borrowed: it and everything it points to are valid until the observer's call returns, and observers
// must not change it. Byte slices belong to the stream; strings belong to the configuration and may be kept.
type Outcome struct {
	Kind OutcomeKind
	// Shard is a small number that spreads counters over cache lines; see internal/stats.
	Shard uint32
	// Start is the wall clock at the first byte, in nanoseconds since 1970. All durations count from it, in
	// nanoseconds; a negative one means that the point was not reached.
	Start int64
	// Duration ends with the last byte sent downstream.
	Duration int64
	// RequestEnd, UpstreamStart, UpstreamFirst and UpstreamEnd are the points at which the request was read whole, the
	// last attempt got its connection, its first byte came, and its last byte came.
	RequestEnd, UpstreamStart, UpstreamFirst, UpstreamEnd int64

	// Who and where. Local is the address the client connected to; OriginalDst is where it was going before it was
	// redirected, and is Local where it was not.
	Listener, FilterChain string
	Direction             Direction
	Remote, Local         netip.AddrPort
	DirectRemote          netip.AddrPort
	ServerName            string
	// TLS is what the handshake with the client settled, nil on plain connections.
	TLS                    *TLSInfo
	ConnectionID           uint64
	Protocol               Protocol
	StatPrefix             string
	RouteTable             string
	VirtualHost, RouteName string
	// RouteTemplate is the path as the route matched it (a prefix, a path, a pattern), free of what a client sent.
	RouteTemplate string
	Cluster       string
	// ClusterStat is the cluster's name in metrics and in %UPSTREAM_CLUSTER%; "" where that is Cluster.
	ClusterStat string

	// The request. Path is as it came, with the query; UpstreamPath is as it was sent.
	Method, Scheme, Authority, Path, UpstreamPath []byte
	RequestID                                     []byte
	// Headers looks up what loggers ask for; nil for TCP.
	Headers Headers

	// The answer. Status is 0 where none was sent. ClusterStatus is what counts for the cluster where the client was sent
	// another status: a client of gRPC gets 200 with the grpc-status for it, and a filter may have changed it; otherwise 0.
	Status, ClusterStatus int
	// GRPC says that the request is one of gRPC. GRPCStatus is then its grpc-status, from the trailers or else the head; what
	// the HTTP status stands for where there is none; -1 where it is no number, or nothing was answered. The messages are
	// those that came from either side; KeepsMessages says that the filter grpc_stats makes them a filter state.
	GRPC, KeepsMessages               bool
	GRPCStatus                        int64
	RequestMessages, ResponseMessages int64

	Flags   Flags
	Failure FailureKind
	Side    Side
	// Details is Envoy's response code details, such as "via_upstream".
	Details string
	// TransportFailure and Termination are causes in words, "" where there are none. DownstreamTransportFailure is why the
	// handshake with the client failed.
	TransportFailure, Termination, DownstreamTransportFailure string

	// Sizes in bytes: bodies as seen downstream, heads as parsed, and everything on the upstream wire.
	BytesReceived, BytesSent               int64
	RequestHeaderBytes, AnswerHeaderBytes  int64
	UpstreamBytesSent, UpstreamBytesGotten int64

	// The upstream of the last attempt.
	Upstream         Address
	UpstreamLocal    netip.AddrPort
	UpstreamHostname string
	UpstreamLocality Locality
	UpstreamProtocol Protocol
	// UpstreamTook is what x-envoy-upstream-service-time says, in nanoseconds; negative where no answer came.
	UpstreamTook int64
	// Attempts counts the tries; Tries holds those that failed before the last.
	Attempts int
	Tries    []Try
	// Circuit is the breaker's state when the request was admitted or refused; Fallback says that a fallback answered.
	Circuit  CircuitState
	Fallback bool

	// Versions are the versions of the configuration that served the request.
	Versions        Versions
	EndpointVersion string
	// Policy is what the tap was told about this listener and route; opaque here.
	Policy any
}

// Try is an attempt that failed and was repeated.
type Try struct {
	Upstream Address
	Failure  FailureKind
	Status   int
	// Took is in nanoseconds.
	Took int64
}

// Headers looks up header fields of an exchange by lower-case name. The result is borrowed like the Outcome, and nil
// where there is no such field.
type Headers interface {
	RequestHeader(name string) []byte
	ResponseHeader(name string) []byte
	ResponseTrailer(name string) []byte
}

// OutcomeKind tells requests from connections.
type OutcomeKind uint8

// The outcome kinds.
const (
	OutcomeHTTP OutcomeKind = iota
	OutcomeTCP
)

// Protocol is an application protocol and version.
type Protocol uint8

// The protocols.
const (
	ProtocolNone Protocol = iota
	HTTP10
	HTTP11
	HTTP2
)

// String returns the protocol as access logs spell it.
func (p Protocol) String() string { return [...]string{"-", "HTTP/1.0", "HTTP/1.1", "HTTP/2"}[p] }

// Observer is told of every outcome, on the goroutine that served it. It must not block.
type Observer interface {
	Observe(*Outcome)
}

// Notifier is told of every notice. It must not block.
type Notifier interface {
	Notify(*Notice)
}
