// SPDX-License-Identifier: Apache-2.0

package event

import "strconv"

// form is how a field is encoded.
type form uint8

const (
	text form = iota
	unsigned
	flag
	point // unsigned, where 0 is a value and Absent is none
)

// field is one field of a message.
type field struct {
	num  uint32
	form form
	slot uint8  // a Text or a Number
	name string // in JSON

	tag uint32 // the protobuf tag
	key []byte // the JSON key with quotes and colon
}

// list is a message's list of entries.
type list struct {
	field
	fields []field
	byNum  index
}

// message is the data of one kind.
type message struct {
	short  string
	typ    string // CloudEvents type
	schema string // dataschema
	any    string // type URL of the data
	fields []field
	byNum  index
	list   *list
}

// index finds a field by its number: the place in the fields, plus one.
type index [80]uint8

func indexOf(fields []field) (x index) {
	for i := range fields {
		x[fields[i].num] = uint8(i + 1)
	}
	return x
}

func textField(num uint32, slot Text, name string) field {
	return derive(field{num: num, form: text, slot: uint8(slot), name: name}, 2)
}

func uintField(num uint32, slot Number, name string) field {
	return derive(field{num: num, form: unsigned, slot: uint8(slot), name: name}, 0)
}

func flagField(num uint32, slot Number, name string) field {
	return derive(field{num: num, form: flag, slot: uint8(slot), name: name}, 0)
}

func pointField(num uint32, slot Number, name string) field {
	return derive(field{num: num, form: point, slot: uint8(slot), name: name}, 0)
}

func derive(f field, wire uint32) field {
	f.tag = f.num<<3 | wire
	f.key = append(strconv.AppendQuote(nil, f.name), ':')
	return f
}

func msg(short, typ, name string, fields []field, l *list) message {
	return message{
		short:  short,
		typ:    "io.meshtap." + typ + ".v1",
		schema: "urn:meshtap:event:v1:" + name,
		any:    "type.googleapis.com/meshtap.event.v1." + name,
		fields: fields,
		byNum:  indexOf(fields),
		list:   l,
	}
}

func listOf(num uint32, name string, fields ...field) *list {
	return &list{field: textField(num, 0, name), fields: fields, byNum: indexOf(fields)}
}

var tries = listOf(66, "meshtap.tries",
	textField(1, ItemHost, "host"),
	textField(2, ItemFailure, "failure"),
	uintField(3, ItemStatus, "status"),
	uintField(4, ItemTook, "took_ns"),
)

var rejections = listOf(6, "meshtap.errors",
	textField(1, ItemKind, "kind"),
	textField(2, ItemName, "name"),
	textField(3, ItemReason, "reason"),
)

// messages are the kinds' schemas, as in api/meshtap/event/v1/event.proto, in the order in which JSON has the fields.
var messages = [NumKinds]message{
	Unknown:    {short: "unknown"},
	Request:    msg("outcome", "outcome", "RequestOutcome", requestFields, tries),
	Connection: msg("connection", "connection", "ConnectionOutcome", connectionFields, tries),
	Circuit:    msg("circuit", "circuit", "CircuitTransition", circuitFields, nil),
	Ejection:   msg("ejection", "ejection", "Ejection", ejectionFields, nil),
	Health:     msg("health", "health", "HealthChange", healthFields, nil),
	Config:     msg("config", "config", "ConfigUpdate", configFields, rejections),
	Lifecycle:  msg("lifecycle", "lifecycle", "Lifecycle", lifecycleFields, nil),
	Lost:       msg("lost", "lost", "Lost", lostFields, nil),
	Attempt:    msg("attempt", "attempt", "Attempt", attemptFields, nil),

	Certificate: msg("certificate", "certificate", "CertificateChange", certificateFields, nil),
}

var requestFields = []field{
	textField(1, Method, "http.request.method"),
	textField(3, Route, "http.route"),
	uintField(2, Status, "http.response.status_code"),
	textField(6, ErrorType, "error.type"),
	textField(30, ResponseFlags, "meshtap.response_flags"),
	textField(24, RouteName, "meshtap.route_name"),
	textField(25, Cluster, "meshtap.cluster"),
	uintField(50, Duration, "meshtap.duration_ns"),
	textField(4, Scheme, "url.scheme"),
	textField(5, ProtocolVersion, "network.protocol.version"),
	uintField(7, ResendCount, "http.request.resend_count"),
	uintField(8, RequestBodySize, "http.request.body.size"),
	uintField(9, ResponseBodySize, "http.response.body.size"),
	textField(10, PeerAddress, "network.peer.address"),
	uintField(11, PeerPort, "network.peer.port"),
	textField(12, LocalAddress, "network.local.address"),
	uintField(13, LocalPort, "network.local.port"),
	textField(14, ClientAddress, "client.address"),
	pointField(15, GRPCStatus, "meshtap.grpc_status"),
	textField(16, GRPCService, "meshtap.grpc_service"),
	textField(17, GRPCMethod, "meshtap.grpc_method"),
	uintField(18, RequestMessages, "meshtap.request_messages"),
	uintField(19, ResponseMessages, "meshtap.response_messages"),
	textField(20, Direction, "meshtap.direction"),
	textField(21, Listener, "meshtap.listener"),
	textField(22, FilterChain, "meshtap.filter_chain"),
	textField(23, VirtualHost, "meshtap.virtual_host"),
	uintField(26, ConnectionID, "meshtap.connection_id"),
	textField(27, RequestID, "meshtap.request_id"),
	textField(31, FailureSide, "meshtap.failure_side"),
	textField(32, Details, "meshtap.response_code_details"),
	textField(33, TransportFailure, "meshtap.transport_failure"),
	textField(34, Termination, "meshtap.termination"),
	uintField(40, RequestHeaderSize, "meshtap.request_header_size"),
	uintField(41, ResponseHeaderSize, "meshtap.response_header_size"),
	uintField(42, UpstreamSentSize, "meshtap.upstream_sent_size"),
	uintField(43, UpstreamReceivedSize, "meshtap.upstream_received_size"),
	pointField(51, RequestEnd, "meshtap.request_end_ns"),
	pointField(52, UpstreamStart, "meshtap.upstream_start_ns"),
	pointField(53, UpstreamFirst, "meshtap.upstream_first_ns"),
	pointField(54, UpstreamEnd, "meshtap.upstream_end_ns"),
	pointField(55, UpstreamTook, "meshtap.upstream_took_ns"),
	textField(60, UpstreamHostname, "meshtap.upstream_hostname"),
	textField(61, UpstreamLocality, "meshtap.upstream_locality"),
	textField(62, UpstreamProtocol, "meshtap.upstream_protocol_version"),
	uintField(63, Attempts, "meshtap.attempts"),
	textField(64, CircuitState, "meshtap.circuit_state"),
	flagField(65, Fallback, "meshtap.fallback"),
	textField(70, ListenersVersion, "meshtap.listeners_version"),
	textField(71, RoutesVersion, "meshtap.routes_version"),
	textField(72, ClustersVersion, "meshtap.clusters_version"),
	textField(73, EndpointsVersion, "meshtap.endpoints_version"),
}

var connectionFields = []field{
	textField(6, ErrorType, "error.type"),
	textField(30, ResponseFlags, "meshtap.response_flags"),
	textField(25, Cluster, "meshtap.cluster"),
	uintField(50, Duration, "meshtap.duration_ns"),
	uintField(8, RequestBodySize, "meshtap.received_size"),
	uintField(9, ResponseBodySize, "meshtap.sent_size"),
	textField(10, PeerAddress, "network.peer.address"),
	uintField(11, PeerPort, "network.peer.port"),
	textField(12, LocalAddress, "network.local.address"),
	uintField(13, LocalPort, "network.local.port"),
	textField(14, ClientAddress, "client.address"),
	textField(20, Direction, "meshtap.direction"),
	textField(21, Listener, "meshtap.listener"),
	textField(22, FilterChain, "meshtap.filter_chain"),
	uintField(26, ConnectionID, "meshtap.connection_id"),
	textField(31, FailureSide, "meshtap.failure_side"),
	textField(32, Details, "meshtap.response_code_details"),
	textField(33, TransportFailure, "meshtap.transport_failure"),
	textField(34, Termination, "meshtap.termination"),
	uintField(42, UpstreamSentSize, "meshtap.upstream_sent_size"),
	uintField(43, UpstreamReceivedSize, "meshtap.upstream_received_size"),
	pointField(52, UpstreamStart, "meshtap.upstream_start_ns"),
	pointField(53, UpstreamFirst, "meshtap.upstream_first_ns"),
	pointField(54, UpstreamEnd, "meshtap.upstream_end_ns"),
	textField(60, UpstreamHostname, "meshtap.upstream_hostname"),
	textField(61, UpstreamLocality, "meshtap.upstream_locality"),
	uintField(63, Attempts, "meshtap.attempts"),
	textField(64, CircuitState, "meshtap.circuit_state"),
	textField(70, ListenersVersion, "meshtap.listeners_version"),
	textField(72, ClustersVersion, "meshtap.clusters_version"),
	textField(73, EndpointsVersion, "meshtap.endpoints_version"),
}

var circuitFields = []field{
	textField(1, Cluster, "meshtap.cluster"),
	textField(2, Host, "meshtap.host"),
	textField(3, From, "meshtap.from"),
	textField(4, To, "meshtap.to"),
	textField(5, Reason, "meshtap.reason"),
	uintField(6, Requests, "meshtap.requests"),
	uintField(7, Failures, "meshtap.failures"),
	uintField(8, Slow, "meshtap.slow"),
	textField(9, OutcomeID, "meshtap.outcome_id"),
	textField(10, ClustersVersion, "meshtap.clusters_version"),
	textField(11, EndpointsVersion, "meshtap.endpoints_version"),
}

var ejectionFields = []field{
	textField(1, Cluster, "meshtap.cluster"),
	textField(2, Host, "meshtap.host"),
	flagField(3, Ejected, "meshtap.ejected"),
	textField(4, Reason, "meshtap.reason"),
	uintField(5, Times, "meshtap.times"),
	uintField(6, EjectedFor, "meshtap.ejected_for_ns"),
	flagField(7, Enforced, "meshtap.enforced"),
	textField(8, OutcomeID, "meshtap.outcome_id"),
	textField(9, ClustersVersion, "meshtap.clusters_version"),
	textField(10, EndpointsVersion, "meshtap.endpoints_version"),
}

var healthFields = []field{
	textField(1, Cluster, "meshtap.cluster"),
	textField(2, Host, "meshtap.host"),
	textField(3, From, "meshtap.from"),
	textField(4, To, "meshtap.to"),
	textField(5, Origin, "meshtap.origin"),
	textField(6, Reason, "meshtap.reason"),
	textField(7, ClustersVersion, "meshtap.clusters_version"),
	textField(8, EndpointsVersion, "meshtap.endpoints_version"),
}

var configFields = []field{
	textField(1, Result, "meshtap.result"),
	textField(2, Resource, "meshtap.kind"),
	textField(3, Version, "meshtap.version"),
	uintField(4, Accepted, "meshtap.accepted"),
	uintField(5, Rejected, "meshtap.rejected"),
	textField(7, Cluster, "meshtap.cluster"),
}

var lifecycleFields = []field{
	textField(1, Phase, "meshtap.phase"),
	textField(2, Version, "meshtap.version"),
	textField(3, Reason, "meshtap.reason"),
	uintField(4, Connections, "meshtap.connections"),
	uintField(5, Requests, "meshtap.requests"),
}

var attemptFields = []field{
	textField(1, OutcomeID, "meshtap.outcome_id"),
	uintField(2, AttemptNumber, "meshtap.attempt"),
	flagField(3, Final, "meshtap.final"),
	textField(4, Cluster, "meshtap.cluster"),
	textField(5, Host, "meshtap.host"),
	textField(6, Failure, "meshtap.failure"),
	uintField(7, Status, "http.response.status_code"),
	uintField(8, Took, "meshtap.took_ns"),
	textField(9, RequestID, "meshtap.request_id"),
	textField(10, RouteName, "meshtap.route_name"),
}

var certificateFields = []field{
	textField(1, Result, "meshtap.result"),
	textField(2, Resource, "meshtap.kind"),
	textField(3, Secret, "meshtap.secret"),
	textField(4, Holder, "meshtap.resource"),
	textField(5, CertificateSubject, "meshtap.subject"),
	textField(6, Serial, "meshtap.serial"),
	textField(7, OldSerial, "meshtap.old_serial"),
	uintField(8, NotAfter, "meshtap.not_after_ns"),
}

var lostFields = []field{
	uintField(1, Count, "meshtap.count"),
	uintField(2, FirstSequence, "meshtap.first_sequence"),
	uintField(3, LastSequence, "meshtap.last_sequence"),
	uintField(4, FirstStreamSeq, "meshtap.first_streamseq"),
	uintField(5, LastStreamSeq, "meshtap.last_streamseq"),
	uintField(6, FirstTime, "meshtap.first_time_ns"),
	uintField(7, LastTime, "meshtap.last_time_ns"),
	textField(8, Reason, "meshtap.reason"),
	textField(9, Origin, "meshtap.origin"),
}
