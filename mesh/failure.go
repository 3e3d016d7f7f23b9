// SPDX-License-Identifier: Apache-2.0

package mesh

import "strings"

// Failure is why an attempt or an exchange did not end as it should. The zero value is no failure.
type Failure struct {
	Kind FailureKind
	Side Side
	// Retry says whether the same request may be sent again as far as its bytes are concerned; whether it should is for
	// the retry policy.
	Retry RetryVerdict
	// Detail is the cause in words, for logs: never an address or a secret of the peer.
	Detail string
	// Reply is what a client is answered in place of what the kind says, without its flag; nil where the kind has the word.
	Reply *Reply
}

// Reply is an answer in place of a failure's own: a status, response code details, and a body of plain text. It is
// constant.
type Reply struct {
	Status        int
	Details, Body string
}

// FailureKind is what went wrong. Each kind has one response flag, one status and one name in response code details.
type FailureKind uint8

// The failure kinds.
const (
	NoFailure FailureKind = iota
	NoRoute
	NoCluster
	NoHealthyHost
	Overflow
	CircuitOpen
	ConnectFailure
	ConnectTimeout
	UpstreamReset
	UpstreamClosed
	UpstreamProtocolError
	RequestTimeout
	PerTryTimeout
	StreamIdleTimeout
	RequestReadTimeout
	MaxDuration
	DownstreamClosed
	DownstreamProtocolError
	Overloaded
	LocalReset
	InternalError
	// Maintenance: the runtime says that the cluster gets no requests now (upstream.maintenance_mode).
	Maintenance
	numFailureKinds
)

// Side is who caused a failure.
type Side uint8

// The sides.
const (
	SideNone Side = iota
	SideDownstream
	SideUpstream
	SideInternal
)

// RetryVerdict says whether sending a request again could repeat it at the upstream.
type RetryVerdict uint8

// The retry verdicts.
const (
	// RetryNever: the upstream may have acted on the request.
	RetryNever RetryVerdict = iota
	// RetryAlways: nothing of the request reached the upstream.
	RetryAlways
	// RetryIfReused: the connection came from the pool and was closed without a byte of an answer, so the upstream
	// most likely closed it before it saw the request.
	RetryIfReused
)

// FailureInfo is what is fixed for a failure kind.
type FailureInfo struct {
	// Name is the value in metrics, logs and events.
	Name string
	// Flag is Envoy's response flag; 0 where there is none.
	Flag Flags
	// Status is what a client is answered; 0 where it is not answered.
	Status int
	// Details is Envoy's response code details.
	Details string
}

var failures = [numFailureKinds]FailureInfo{
	NoFailure:               {"", 0, 0, ""},
	NoRoute:                 {"no_route", FlagNR, 404, "route_not_found"},
	NoCluster:               {"no_cluster", FlagNC, 503, "cluster_not_found"},
	NoHealthyHost:           {"no_healthy_host", FlagUH, 503, "no_healthy_upstream"},
	Overflow:                {"overflow", FlagUO, 503, "upstream_reset_before_response_started{overflow}"},
	CircuitOpen:             {"circuit_open", FlagUO, 503, "circuit_open"},
	ConnectFailure:          {"connect_failure", FlagUF, 503, "upstream_reset_before_response_started{remote_connection_failure}"},
	ConnectTimeout:          {"connect_timeout", FlagUF, 503, "upstream_reset_before_response_started{connection_timeout}"},
	UpstreamReset:           {"upstream_reset", FlagUR, 503, "upstream_reset_before_response_started{remote_reset}"},
	UpstreamClosed:          {"upstream_closed", FlagUC, 503, "upstream_reset_before_response_started{connection_termination}"},
	UpstreamProtocolError:   {"upstream_protocol_error", FlagUPE, 502, "upstream_reset_before_response_started{protocol_error}"},
	RequestTimeout:          {"request_timeout", FlagUT, 504, "response_timeout"},
	PerTryTimeout:           {"per_try_timeout", FlagUT, 504, "upstream_per_try_timeout"},
	StreamIdleTimeout:       {"stream_idle_timeout", FlagSI, 504, "stream_idle_timeout"},
	RequestReadTimeout:      {"request_read_timeout", 0, 408, "request_overall_timeout"},
	MaxDuration:             {"max_duration", FlagUMSDR, 504, "upstream_max_stream_duration_reached"},
	DownstreamClosed:        {"downstream_closed", FlagDC, 0, "downstream_remote_disconnect"},
	DownstreamProtocolError: {"downstream_protocol_error", FlagDPE, 400, "http1.codec_error"},
	Overloaded:              {"overloaded", FlagOM, 503, "overload"},
	LocalReset:              {"local_reset", FlagLR, 503, "upstream_reset_before_response_started{local_reset}"},
	InternalError:           {"internal_error", 0, 500, "internal_error"},
	Maintenance:             {"maintenance_mode", FlagUO, 503, "maintenance_mode"},
}

// Info returns what is fixed for the kind.
func (k FailureKind) Info() FailureInfo { return failures[k] }

// String returns the kind's name, "" for NoFailure.
func (k FailureKind) String() string { return failures[k].Name }

// Flags is a set of Envoy's response flags.
type Flags uint32

// The response flags, by Envoy's short names.
const (
	FlagUH Flags = 1 << iota
	FlagUF
	FlagUO
	FlagNR
	FlagURX
	FlagNC
	FlagDT
	FlagDC
	FlagLH
	FlagUT
	FlagLR
	FlagUR
	FlagUC
	FlagDI
	FlagFI
	FlagRL
	FlagUAEX
	FlagRLSE
	FlagIH
	FlagSI
	FlagDPE
	FlagUPE
	FlagUMSDR
	FlagNFCF
	FlagOM
	FlagDF
	FlagDO
)

// flagNames are in bit order: the short name and the long one.
var flagNames = [...][2]string{
	{"UH", "NoHealthyUpstream"},
	{"UF", "UpstreamConnectionFailure"},
	{"UO", "UpstreamOverflow"},
	{"NR", "NoRouteFound"},
	{"URX", "UpstreamRetryLimitExceeded"},
	{"NC", "NoClusterFound"},
	{"DT", "DurationTimeout"},
	{"DC", "DownstreamConnectionTermination"},
	{"LH", "FailedLocalHealthCheck"},
	{"UT", "UpstreamRequestTimeout"},
	{"LR", "LocalReset"},
	{"UR", "UpstreamRemoteReset"},
	{"UC", "UpstreamConnectionTermination"},
	{"DI", "DelayInjected"},
	{"FI", "FaultInjected"},
	{"RL", "RateLimited"},
	{"UAEX", "UnauthorizedExternalService"},
	{"RLSE", "RateLimitServiceError"},
	{"IH", "InvalidEnvoyRequestHeaders"},
	{"SI", "StreamIdleTimeout"},
	{"DPE", "DownstreamProtocolError"},
	{"UPE", "UpstreamProtocolError"},
	{"UMSDR", "UpstreamMaxStreamDurationReached"},
	{"NFCF", "NoFilterConfigFound"},
	{"OM", "OverloadManagerTerminated"},
	{"DF", "DnsResolutionFailed"},
	{"DO", "DropOverload"},
}

// Append appends the short names, separated by commas, or "-" for the empty set.
func (f Flags) Append(dst []byte) []byte { return f.append(dst, 0) }

// AppendLong appends the long names, separated by commas, or "-" for the empty set.
func (f Flags) AppendLong(dst []byte) []byte { return f.append(dst, 1) }

func (f Flags) append(dst []byte, form int) []byte {
	if f == 0 {
		return append(dst, '-')
	}
	first := true
	for i := range flagNames {
		if f&(1<<i) == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, flagNames[i][form]...)
	}
	return dst
}

// String returns the short names, separated by commas, or "-".
func (f Flags) String() string { return string(f.Append(nil)) }

// ParseFlag returns the flag with this short name; ok is false where there is none.
func ParseFlag(name string) (f Flags, ok bool) {
	for i := range flagNames {
		if strings.EqualFold(flagNames[i][0], name) {
			return 1 << i, true
		}
	}
	return 0, false
}

// Error returns the kind's name and the detail. A *Failure is what the data path's calls return as an error.
func (f *Failure) Error() string {
	if f.Detail == "" {
		return f.Kind.String()
	}
	return f.Kind.String() + ": " + f.Detail
}
