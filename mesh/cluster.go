// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"net/netip"
	"time"
)

// Cluster is a logical service: how its endpoints are found, chosen, protected and spoken to.
type Cluster struct {
	Name string
	// StatName replaces the name in metrics where it is not "".
	StatName  string
	Version   string
	Discovery Discovery
	// EDSName is the key of the endpoint resource: its name, with its source where that is not the aggregated stream. The
	// name defaults to Name.
	EDSName string
	// KeepLast is how long an EDS cluster goes on with the endpoints it has when a set without any comes. 0: not at all.
	KeepLast time.Duration
	// Endpoints are those of a Static cluster.
	Endpoints *EndpointSet
	// DNS is set for StrictDNS.
	DNS *DNS
	// OriginalDst is set for OriginalDst.
	OriginalDst *OriginalDst

	// ConnectTimeout is for one TCP connection. The default is 5 s.
	ConnectTimeout time.Duration
	// Policy is the load balancing policy; its Config belongs to lb.
	Policy Extension
	// PanicThreshold is the share of healthy hosts, in percent, below which health is ignored. 0 turns that off.
	PanicThreshold float64
	// Limits are the circuit breaker thresholds by priority.
	Limits [2]Limits
	// MaxConnectionsPerHost bounds the connections to each host; 0 means no limit.
	MaxConnectionsPerHost int
	// Preconnect is for how many streams, for each that is open or waits, connections to a host are kept ready; up to 1
	// means none but those that are needed.
	Preconnect float64
	// Predict is the same for all streams of the cluster together: connections are opened to the hosts that come next.
	Predict float64
	Outlier *Outlier
	// HealthChecks are the active checks, of which there is at most one so far.
	HealthChecks []HealthCheck
	Breaker      *Breaker
	HTTP         UpstreamHTTP
	// TLS is set where the endpoints speak TLS.
	TLS *TLSContext
	// BindSource is the local address of upstream connections; the zero value leaves it to the system.
	BindSource  netip.AddrPort
	KeepAlive   *TCPKeepAlive
	BufferLimit int
	// IgnoreHealthOnRemoval drops a host that discovery removed even if its health checks pass.
	IgnoreHealthOnRemoval bool
	// CloseOnHealthFailure closes a host's connections when it becomes unhealthy.
	CloseOnHealthFailure bool
	// Static marks clusters of the bootstrap, which a control plane cannot change.
	Static bool
}

// Discovery is how a cluster's endpoints are found.
type Discovery uint8

// The kinds of discovery.
const (
	Static Discovery = iota
	StrictDNS
	EDS
	OriginalDestination
)

// DNS is how a StrictDNS cluster resolves its names.
type DNS struct {
	Targets []DNSTarget
	Family  DNSFamily
	// Refresh is the time between two look-ups; with RespectTTL the answer's TTL replaces it. The default is 5 s.
	Refresh    time.Duration
	RespectTTL bool
	// FailureBase and FailureMax bound the back-off after a failed look-up.
	FailureBase, FailureMax time.Duration
	// Resolvers are the servers to ask, in order; empty means those of the system.
	Resolvers []netip.AddrPort
	UseTCP    bool
	NoSearch  bool
	// FirstOnly takes the first address of an answer and leaves the others out, as Envoy's LOGICAL_DNS does.
	FirstOnly bool
	// Overprovisioning is that of the EndpointSet that is made of the answers.
	Overprovisioning uint32
}

// DNSTarget is one name of a StrictDNS cluster; each address it resolves to becomes an endpoint like Endpoint.
type DNSTarget struct {
	Host     string
	Port     uint16
	Endpoint Endpoint
	Locality int // index into EndpointSet.Localities of the template
	Group    LocalityGroup
}

// DNSFamily says which addresses are asked for.
type DNSFamily uint8

// The DNS families.
const (
	FamilyAuto DNSFamily = iota
	FamilyV4Only
	FamilyV6Only
	FamilyV4Preferred
	FamilyAll
)

// OriginalDst configures a cluster whose host is where the connection was going.
type OriginalDst struct {
	// HTTPHeader takes the host from this request header; "" does not.
	HTTPHeader string
	// Port replaces the destination port where it is not 0.
	Port uint16
	// IdleHosts is how long a host without requests is kept. The default is 5 s.
	IdleHosts time.Duration
}

// Limits are circuit breaker thresholds. They count exactly, for the whole process. A value is the greatest that is
// admitted; math.MaxUint32 does not limit.
type Limits struct {
	Connections, Pending, Requests, Retries uint32
	// Budget replaces Retries where it is not nil.
	Budget *RetryBudget
	// TrackRemaining publishes what is left of each threshold.
	TrackRemaining bool
}

// RetryBudget bounds retries by the number of requests in flight.
type RetryBudget struct {
	// Percent of the active and pending requests, 0 ... 100. The default is 20.
	Percent float64
	// MinConcurrency is always allowed. The default is 3.
	MinConcurrency uint32
}

// Outlier configures ejection by what requests experience.
type Outlier struct {
	Consecutive5xx, ConsecutiveGateway, ConsecutiveLocal uint32
	// Enforcing are the chances, in percent, that a detection ejects.
	Enforcing5xx, EnforcingGateway, EnforcingLocal uint32
	Interval, BaseEjection, MaxEjection, Jitter    time.Duration
	// MaxEjectionPercent bounds the ejected share of hosts; one host may always be ejected where AlwaysEjectOne says so.
	MaxEjectionPercent uint32
	AlwaysEjectOne     bool
	// SplitLocal counts failures that arose here apart from the answers of the host.
	SplitLocal bool
	// HealthyUnejects returns a host when an active check succeeds.
	HealthyUnejects bool
}

// HealthCheck is one active check.
type HealthCheck struct {
	Timeout, Interval  time.Duration
	InitialJitter      time.Duration
	IntervalJitter     time.Duration
	IntervalJitterPct  uint32
	UnhealthyThreshold uint32
	HealthyThreshold   uint32
	// The intervals below replace Interval in the named state where they are not 0.
	NoTrafficInterval, UnhealthyInterval, UnhealthyEdgeInterval, HealthyEdgeInterval time.Duration
	ReuseConnection                                                                  bool
	// ALPN replaces the application protocols that are offered where the cluster speaks TLS; empty does not.
	ALPN    []string
	AltPort uint16
	// Exactly one of HTTP, TCP and GRPC is set.
	HTTP *HTTPHealthCheck
	TCP  *TCPHealthCheck
	GRPC *GRPCHealthCheck
}

// HTTPHealthCheck asks for a path.
type HTTPHealthCheck struct {
	Host, Path, Method string
	Add                []HeaderAdd
	Remove             []string
	// Expected and Retriable are half-open ranges of status codes; an empty Expected means 200 alone.
	Expected, Retriable []StatusRange
	ServiceName         *StringMatch
	// HTTP2 speaks HTTP/2 in place of HTTP/1.1.
	HTTP2 bool
}

// StatusRange is start <= status < end.
type StatusRange struct{ Start, End int }

// TCPHealthCheck connects and, where Send is not empty, sends bytes and looks for each of Receive in order.
type TCPHealthCheck struct {
	Send    []byte
	Receive [][]byte
}

// GRPCHealthCheck asks by gRPC's health checking protocol for a service; "" asks for the server as a whole.
type GRPCHealthCheck struct {
	Service, Authority string
	Metadata           []HeaderAdd
}

// Breaker is Meshtap's own cluster extension: the circuit breaker that opens on what requests experience.
type Breaker struct {
	// Window is the length of the sliding window in which rates are measured. The default is 10 s.
	Window time.Duration
	// MinVolume is the number of requests in the window before a rate counts. The default is 20.
	MinVolume uint32
	// ConsecutiveFailures opens at once; 0 turns it off.
	ConsecutiveFailures uint32
	// ErrorRate and SlowRate open when the share in the window reaches them, in (0, 1]; 0 turns them off. SlowAfter is
	// what counts as slow.
	ErrorRate, SlowRate float64
	SlowAfter           time.Duration
	// OpenFor is how long the circuit stays open before probes. The default is 5 s.
	OpenFor time.Duration
	// Probes is the number of requests admitted at a time while half open, and the number that must succeed in a row
	// before it closes. The default is 1.
	Probes, ProbeSuccesses uint32
	// FailureStatus are the ranges of status codes that count as failures. The default is 500 to 599.
	FailureStatus []StatusRange
	// PerHost keeps one circuit per host instead of one for the cluster.
	PerHost bool
}

// UpstreamHTTP says how HTTP is spoken to a cluster.
type UpstreamHTTP struct {
	Protocol UpstreamProtocol
	// MaxRequestsPerConnection and IdleTimeout bound pooled connections; 0 means no limit. IdleTimeout's default is 1 h.
	MaxRequestsPerConnection int
	IdleTimeout              time.Duration
	MaxConnectionDuration    time.Duration
	MaxStreamDuration        time.Duration
	MaxHeaderBytes           int
	MaxHeaderCount           int
	HTTP2                    HTTP2Options
}

// UpstreamProtocol selects the HTTP version towards a cluster.
type UpstreamProtocol uint8

// The upstream protocols.
const (
	UpstreamHTTP1 UpstreamProtocol = iota
	UpstreamHTTP2
	// UpstreamAsDownstream is the protocol of the request that is passed on.
	UpstreamAsDownstream
	// UpstreamNegotiated is what the upstream chooses by ALPN, HTTP/1.1 where it does not say.
	UpstreamNegotiated
)

// TCPKeepAlive configures probes on upstream connections. A zero field leaves it to the system.
type TCPKeepAlive struct {
	Probes         int
	Time, Interval time.Duration
}
