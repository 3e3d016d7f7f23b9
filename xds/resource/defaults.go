// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"time"

	"github.com/meshtap/meshtap/internal/protomatch"
)

// Envoy's defaults, where a resource says nothing. What differs from Envoy stands in Limits and in Differences.
const (
	defaultFiltersTimeout     = 15 * time.Second
	defaultStreamIdle         = 5 * time.Minute
	defaultIdle               = time.Hour
	defaultDrain              = 5 * time.Second
	defaultDelayedClose       = time.Second
	defaultRouteTimeout       = 15 * time.Second
	defaultConnectTimeout     = 5 * time.Second
	defaultRetryBackOff       = 25 * time.Millisecond
	defaultDNSRefresh         = 5 * time.Second
	defaultCleanup            = 5 * time.Second
	defaultNoTrafficInterval  = time.Minute
	defaultMaxEjection        = 5 * time.Minute
	defaultBaseEjection       = 30 * time.Second
	defaultOutlierInterval    = 10 * time.Second
	defaultRetries            = 1
	defaultDirectBody         = 4096
	defaultPanicThreshold     = 50
	defaultOverprovisioning   = 140
	defaultThreshold          = 1024
	defaultMaxRetries         = 3
	defaultRetryBudgetPercent = 20
	defaultServerName         = "envoy"
	defaultOriginalDstHeader  = "x-envoy-original-dst-host"
)

// maxDepth bounds the nesting of messages.
const maxDepth = 100

// Limits are the limits of resources that set none.
type Limits struct {
	// ResourceBytes bounds one serialized resource.
	ResourceBytes int
	// ListenerConnections bounds the connections of a listener.
	ListenerConnections int
	// BufferBytes bounds what is held per connection and direction.
	BufferBytes int
	// RequestHeaders is the time a client has to send its request's headers.
	RequestHeaders time.Duration
	// HeaderBytes and HeaderCount bound a header section, of requests and of answers.
	HeaderBytes, HeaderCount int
	// RegexProgram bounds a compiled regular expression, in instructions.
	RegexProgram int
}

// DefaultLimits returns the limits that Meshtap promises.
func DefaultLimits() Limits {
	return Limits{
		ResourceBytes:       4 << 20,
		ListenerConnections: 10_000,
		BufferBytes:         256 << 10,
		RequestHeaders:      10 * time.Second,
		HeaderBytes:         60 << 10,
		HeaderCount:         100,
		RegexProgram:        protomatch.MaxProgram,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	l.ResourceBytes = orDefault(l.ResourceBytes, d.ResourceBytes)
	l.ListenerConnections = orDefault(l.ListenerConnections, d.ListenerConnections)
	l.BufferBytes = orDefault(l.BufferBytes, d.BufferBytes)
	l.RequestHeaders = orDefault(l.RequestHeaders, d.RequestHeaders)
	l.HeaderBytes = orDefault(l.HeaderBytes, d.HeaderBytes)
	l.HeaderCount = orDefault(l.HeaderCount, d.HeaderCount)
	l.RegexProgram = orDefault(l.RegexProgram, d.RegexProgram)
	return l
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Difference is a default that is not Envoy's.
type Difference struct {
	// Where is the message and field, or the place, that it concerns.
	Where string
	// Envoy and Meshtap are the two defaults.
	Envoy, Meshtap string
	// Why is the reason.
	Why string
}

// Differences returns every default of this package that is not Envoy's, for documents. An explicit value in the
// configuration always wins.
func Differences() []Difference {
	return []Difference{
		{"any resource: serialized size", "unlimited", "4 MiB", "a control plane's content may be written by tenants"},
		{
			"Listener.per_connection_buffer_limit_bytes, Cluster.per_connection_buffer_limit_bytes", "1 MiB", "256 KiB",
			"memory per connection is bounded for the connections that may be open",
		},
		{
			"Listener: connections (envoy.resource_limits.listener.<name>.connection_limit)", "unlimited", "10,000",
			"one listener cannot use up the process",
		},
		{
			"HttpConnectionManager.request_headers_timeout", "off", "10 s",
			"a client that sends its headers slowly must not hold a connection",
		},
		{
			"Cluster.circuit_breakers.thresholds: retries", "max_retries 3",
			"retry_budget of 20 % of the requests in flight, never less than 3",
			"retries must not multiply an outage, and three are few where thousands of requests are in flight",
		},
		{
			"OutlierDetection.enforcing_success_rate", "100", "0 (not supported)",
			"ejection by success rate is not there; consecutive failures eject",
		},
		{
			"HttpConnectionManager.http2_protocol_options.max_concurrent_streams", "1,024", "100",
			"what one client connection can have in work is bounded; the streams that we open to an upstream stay at 1,024",
		},
		{
			"Http2ProtocolOptions.initial_stream_window_size, initial_connection_window_size", "16 MiB, 24 MiB", "256 KiB, 1 MiB",
			"memory per connection is bounded for the connections that may be open",
		},
		{
			"Http2ProtocolOptions.connection_keepalive", "none", "a PING after 30 s, answered within 10 s",
			"a connection whose other end is gone is noticed before a request is lost on it",
		},
		{
			"FilterChain.transport_socket_connect_timeout", "off", "10 s, of 1,000 handshakes at a time in the process",
			"a client that does not get on with its handshake must not hold a connection",
		},
		{
			"CommonTlsContext.alpn_protocols: the client offers none of them", "no protocol is negotiated", "the handshake fails",
			"RFC 7301; what a client did not mean to speak must not be taken for something else",
		},
		{
			"CommonTlsContext.validation_context of a listener: resumption of sessions", "on", "off",
			"a certificate counts for the connection on which it was shown",
		},
		{
			"TLS: the connection ends without close_notify", "an end in order", "an error",
			"whoever is on the way could cut an answer short, and nobody would know",
		},
	}
}
