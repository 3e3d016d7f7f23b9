// SPDX-License-Identifier: Apache-2.0

package event

// Text names a text of an event's data.
type Text uint8

// The texts. Those of notices share the names of their fields.
const (
	Method Text = iota
	Route
	Scheme
	ProtocolVersion
	ErrorType
	PeerAddress
	LocalAddress
	ClientAddress
	Direction
	Listener
	FilterChain
	VirtualHost
	RouteName
	Cluster
	RequestID
	ResponseFlags
	FailureSide
	Details
	TransportFailure
	Termination
	UpstreamHostname
	UpstreamLocality
	UpstreamProtocol
	CircuitState
	ListenersVersion
	RoutesVersion
	ClustersVersion
	EndpointsVersion
	GRPCService
	GRPCMethod
	Host
	From
	To
	Reason
	Origin
	Result
	Resource
	Version
	Phase
	OutcomeID
	Failure
	Secret
	Holder
	CertificateSubject
	Serial
	OldSerial
	numTexts
)

// Number names a number of an event's data. Booleans are 0 and 1.
type Number uint8

// The numbers. Durations are in nanoseconds, sizes in bytes.
const (
	Status Number = iota
	ResendCount
	RequestBodySize
	ResponseBodySize
	PeerPort
	LocalPort
	ConnectionID
	RequestHeaderSize
	ResponseHeaderSize
	UpstreamSentSize
	UpstreamReceivedSize
	Duration
	RequestEnd // the first that may be Absent
	UpstreamStart
	UpstreamFirst
	UpstreamEnd
	UpstreamTook
	GRPCStatus // the last that may be Absent
	Attempts
	Fallback
	RequestMessages
	ResponseMessages
	Requests
	Failures
	Slow
	Ejected
	Times
	EjectedFor
	Enforced
	Accepted
	Rejected
	Connections
	Count
	FirstSequence
	LastSequence
	FirstStreamSeq
	LastStreamSeq
	FirstTime
	LastTime
	AttemptNumber
	Took
	Final
	NotAfter
	numNumbers
)

// The texts and numbers of list entries.
const (
	ItemHost Text = iota
	ItemFailure
	ItemReason
	numItemTexts

	// A rejection's kind and name stand where a try's host and failure do.
	ItemKind = ItemHost
	ItemName = ItemFailure
)

const (
	ItemStatus Number = iota
	ItemTook
	numItemNumbers
)

var optional = [...]Number{RequestEnd, UpstreamStart, UpstreamFirst, UpstreamEnd, UpstreamTook, GRPCStatus}
