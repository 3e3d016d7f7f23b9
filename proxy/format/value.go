// SPDX-License-Identifier: Apache-2.0

package format

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/meshtap/meshtap/internal/format"
	"github.com/meshtap/meshtap/mesh"
)

// value appends the value of one operator; where it is unset, dst comes back as it was. It is the list of all operators,
// one a line, which is why it is longer than a screen.
func (e *Env) value(dst []byte, p *mesh.FormatPart, o *mesh.Outcome) ([]byte, kind) {
	switch p.Op {
	case "START_TIME":
		return format.AppendTime(dst, p.Arg, time.Unix(0, o.Start).UTC()), text
	case "START_TIME_LOCAL":
		return format.AppendTime(dst, p.Arg, time.Unix(0, o.Start)), text
	case "EMIT_TIME":
		return format.AppendTime(dst, p.Arg, time.Unix(0, o.Start+max(0, o.Duration)).UTC()), text
	case "EMIT_TIME_LOCAL":
		return format.AppendTime(dst, p.Arg, time.Unix(0, o.Start+max(0, o.Duration))), text

	case "DURATION":
		return millis(dst, o.Duration)
	case "REQUEST_DURATION":
		return millis(dst, o.RequestEnd)
	case "REQUEST_TX_DURATION":
		return millis(dst, requestSent(o))
	case "RESPONSE_DURATION":
		return millis(dst, o.UpstreamFirst)
	case "RESPONSE_TX_DURATION":
		return between(dst, o.UpstreamFirst, o.Duration, time.Millisecond)
	case "COMMON_DURATION":
		return commonDuration(dst, p.Arg, o)

	case "BYTES_RECEIVED":
		return count(dst, o.BytesReceived)
	case "BYTES_SENT":
		return count(dst, o.BytesSent)
	case "REQUEST_HEADERS_BYTES":
		return count(dst, o.RequestHeaderBytes)
	case "RESPONSE_HEADERS_BYTES":
		return count(dst, o.AnswerHeaderBytes)
	case "UPSTREAM_WIRE_BYTES_SENT":
		return count(dst, o.UpstreamBytesSent)
	case "UPSTREAM_WIRE_BYTES_RECEIVED":
		return count(dst, o.UpstreamBytesGotten)

	case "PROTOCOL":
		return protocol(dst, o.Protocol)
	case "UPSTREAM_PROTOCOL":
		return protocol(dst, o.UpstreamProtocol)
	case "RESPONSE_CODE":
		return count(dst, int64(o.Status))
	case "RESPONSE_CODE_DETAILS":
		return details(dst, o.Details, p.Arg == "ALLOW_WHITESPACES")
	case "RESPONSE_FLAGS":
		return o.Flags.Append(dst), text
	case "RESPONSE_FLAGS_LONG":
		return o.Flags.AppendLong(dst), text
	case "CONNECTION_TERMINATION_DETAILS":
		return str(dst, o.Termination)
	case "UPSTREAM_TRANSPORT_FAILURE_REASON":
		return details(dst, o.TransportFailure, false)
	case "GRPC_STATUS":
		return grpcStatus(dst, o, p.Arg)
	case "GRPC_STATUS_NUMBER":
		return grpcStatus(dst, o, "NUMBER")

	case "UPSTREAM_HOST":
		return address(dst, o.Upstream)
	case "UPSTREAM_HOST_NAME":
		return hostname(dst, o, false)
	case "UPSTREAM_HOST_NAME_WITHOUT_PORT":
		return hostname(dst, o, true)
	case "UPSTREAM_CLUSTER":
		return firstOf(dst, o.ClusterStat, o.Cluster)
	case "UPSTREAM_CLUSTER_RAW":
		return str(dst, o.Cluster)
	case "UPSTREAM_LOCAL_ADDRESS":
		return addrPort(dst, o.UpstreamLocal)
	case "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":
		return addr(dst, o.UpstreamLocal, p.Arg)
	case "UPSTREAM_LOCAL_PORT":
		return port(dst, o.UpstreamLocal)
	case "UPSTREAM_REMOTE_ADDRESS":
		return address(dst, remote(o))
	case "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
		if r := remote(o); r.Pipe != "" {
			return str(dst, r.Pipe)
		}
		return addr(dst, remote(o).IP, p.Arg)
	case "UPSTREAM_REMOTE_PORT":
		return port(dst, remote(o).IP)
	case "UPSTREAM_REQUEST_ATTEMPT_COUNT":
		return count(dst, int64(o.Attempts))

	case "DOWNSTREAM_REMOTE_ADDRESS":
		return addrPort(dst, o.Remote)
	case "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
		return addr(dst, o.Remote, p.Arg)
	case "DOWNSTREAM_REMOTE_PORT":
		return port(dst, o.Remote)
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS":
		return addrPort(dst, o.DirectRemote)
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT":
		return addr(dst, o.DirectRemote, p.Arg)
	case "DOWNSTREAM_DIRECT_REMOTE_PORT":
		return port(dst, o.DirectRemote)
	case "DOWNSTREAM_LOCAL_ADDRESS":
		return addrPort(dst, o.Local)
	case "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":
		return addr(dst, o.Local, p.Arg)
	case "DOWNSTREAM_LOCAL_PORT":
		return port(dst, o.Local)
	case "REQUESTED_SERVER_NAME":
		return serverName(dst, p, o)

	case "DOWNSTREAM_TRANSPORT_FAILURE_REASON":
		return details(dst, o.DownstreamTransportFailure, false)
	case "DOWNSTREAM_TLS_VERSION":
		return str(dst, settled(o).Version)
	case "DOWNSTREAM_TLS_CIPHER":
		return str(dst, settled(o).Cipher)
	case "DOWNSTREAM_TLS_GROUP":
		return str(dst, settled(o).Group)
	case "DOWNSTREAM_PEER_SUBJECT", "DOWNSTREAM_PEER_ISSUER", "DOWNSTREAM_PEER_SERIAL", "DOWNSTREAM_PEER_FINGERPRINT_256",
		"DOWNSTREAM_PEER_URI_SAN", "DOWNSTREAM_PEER_DNS_SAN", "DOWNSTREAM_PEER_IP_SAN", "DOWNSTREAM_PEER_EMAIL_SAN":
		return peerValue(dst, p.Op, settled(o).Peer)

	case "ROUTE_NAME":
		return str(dst, o.RouteName)
	case "FILTER_CHAIN_NAME":
		return str(dst, o.FilterChain)
	case "CONNECTION_ID":
		return count(dst, int64(o.ConnectionID))
	case "STREAM_ID":
		return raw(dst, notEmpty(o.RequestID))
	case "ACCESS_LOG_TYPE":
		if o.Kind == mesh.OutcomeTCP {
			return append(dst, "TcpConnectionEnd"...), text
		}
		return append(dst, "DownstreamEnd"...), text
	case "HOSTNAME":
		return str(dst, e.Hostname)
	case "FILTER_STATE":
		return messages(dst, o, p.Alt == "PLAIN")
	case "MESHTAP_CIRCUIT":
		return str(dst, o.Circuit.String())
	case "MESHTAP_FALLBACK":
		return str(dst, fallback(o))
	}
	return requestValue(dst, p, o)
}

// requestValue appends the operators that look into the request and the answer.
func requestValue(dst []byte, p *mesh.FormatPart, o *mesh.Outcome) ([]byte, kind) {
	switch p.Op {
	case "REQ":
		return raw(dst, either(o, p, requestHeader))
	case "RESP":
		if p.Arg == ":status" && o.Status > 0 {
			return strconv.AppendInt(dst, int64(o.Status), 10), text
		}
		return raw(dst, either(o, p, responseHeader))
	case "TRAILER":
		return raw(dst, either(o, p, responseTrailer))
	case "REQ_WITHOUT_QUERY":
		return raw(dst, withoutQuery(either(o, p, requestHeader)))
	case "PATH":
		path := requestPath(o, p.Alt)
		if p.Arg == "NQ" {
			path = withoutQuery(path)
		}
		return raw(dst, path)
	case "QUERY_PARAM":
		value, ok := queryParam(query(o), p.Arg)
		if !ok {
			return dst, unset
		}
		return unescape(dst, value, nil), text
	case "QUERY_PARAMS":
		if p.Arg == "DECODED" && query(o) != nil {
			return unescape(dst, query(o), staysEncoded), text
		}
		return raw(dst, query(o))
	}
	return dst, unset
}

func str(dst []byte, s string) ([]byte, kind) {
	if s == "" {
		return dst, unset
	}
	return append(dst, s...), text
}

// firstOf appends the first that is not "".
func firstOf(dst []byte, a, b string) ([]byte, kind) {
	if a != "" {
		return str(dst, a)
	}
	return str(dst, b)
}

// raw appends bytes; nil is unset, empty is not.
func raw(dst, b []byte) ([]byte, kind) {
	if b == nil {
		return dst, unset
	}
	return append(dst, b...), text
}

func notEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

func count(dst []byte, n int64) ([]byte, kind) { return strconv.AppendInt(dst, n, 10), number }

// millis appends a point of time after the start; a negative one was not reached.
func millis(dst []byte, ns int64) ([]byte, kind) { return between(dst, 0, ns, time.Millisecond) }

// between appends the time from one point to a later one.
func between(dst []byte, from, to int64, unit time.Duration) ([]byte, kind) {
	if from < 0 || to < from {
		return dst, unset
	}
	return count(dst, (to-from)/int64(unit))
}

// requestSent is when the last byte of the request went upstream: bodies are passed on as they are read, so that is when
// the request was read whole, or when the connection was there if that was later.
func requestSent(o *mesh.Outcome) int64 {
	if o.UpstreamStart < 0 || o.RequestEnd < 0 {
		return -1
	}
	return max(o.UpstreamStart, o.RequestEnd)
}

func commonDuration(dst []byte, arg string, o *mesh.Outcome) ([]byte, kind) {
	from, rest, _ := strings.Cut(arg, ":")
	to, unit, _ := strings.Cut(rest, ":")
	precision := time.Millisecond
	switch unit {
	case "us":
		precision = time.Microsecond
	case "ns":
		precision = time.Nanosecond
	}
	return between(dst, point(from, o), point(to, o), precision)
}

// point returns a point of time by Envoy's name.
func point(name string, o *mesh.Outcome) int64 {
	switch name {
	case "DS_RX_BEG":
		return 0
	case "DS_RX_END":
		return o.RequestEnd
	case "US_TX_BEG":
		return o.UpstreamStart
	case "US_RX_BEG":
		return o.UpstreamFirst
	case "US_RX_END":
		return o.UpstreamEnd
	}
	return o.Duration // DS_TX_END
}

func protocol(dst []byte, p mesh.Protocol) ([]byte, kind) {
	if p == mesh.ProtocolNone {
		return dst, unset
	}
	return append(dst, p.String()...), text
}

// details appends a text with its white space turned into underscores, unless it may stay.
func details(dst []byte, s string, keepSpace bool) ([]byte, kind) {
	at := len(dst)
	dst, k := str(dst, s)
	if !keepSpace {
		for i, c := range dst[at:] {
			if c == ' ' || c >= '\t' && c <= '\r' {
				dst[at+i] = '_'
			}
		}
	}
	return dst, k
}

func fallback(o *mesh.Outcome) string {
	if o.Fallback {
		return "true"
	}
	return ""
}

func addrPort(dst []byte, a netip.AddrPort) ([]byte, kind) {
	if !a.IsValid() {
		return dst, unset
	}
	return a.AppendTo(dst), text
}

// addr appends the address without its port; mask, where it is not "", is the length of the prefix to keep.
func addr(dst []byte, a netip.AddrPort, mask string) ([]byte, kind) {
	if !a.IsValid() {
		return dst, unset
	}
	if mask == "" {
		return a.Addr().AppendTo(dst), text
	}
	bits, err := strconv.Atoi(mask)
	prefix := netip.PrefixFrom(a.Addr(), bits).Masked()
	if err != nil || !prefix.IsValid() {
		return dst, unset // a mask for IPv6 on an IPv4 address
	}
	return prefix.AppendTo(dst), text
}

func port(dst []byte, a netip.AddrPort) ([]byte, kind) {
	if !a.IsValid() {
		return dst, unset
	}
	return count(dst, int64(a.Port()))
}

func address(dst []byte, a mesh.Address) ([]byte, kind) {
	if a.Pipe != "" {
		return str(dst, a.Pipe)
	}
	return addrPort(dst, a.IP)
}

// remote is the upstream that a connection was made to: Envoy leaves UPSTREAM_REMOTE_ADDRESS unset, unlike
// UPSTREAM_HOST, where the host could not be reached.
func remote(o *mesh.Outcome) mesh.Address {
	if o.Upstream.Pipe == "" && !o.UpstreamLocal.IsValid() {
		return mesh.Address{}
	}
	return o.Upstream
}

// hostname appends the upstream's name, or its address where it has none.
func hostname(dst []byte, o *mesh.Outcome, withoutPort bool) ([]byte, kind) {
	switch {
	case o.UpstreamHostname == "" && withoutPort && o.Upstream.Pipe == "":
		return addr(dst, o.Upstream.IP, "")
	case o.UpstreamHostname == "":
		return address(dst, o.Upstream)
	case withoutPort:
		return str(dst, stripPort(o.UpstreamHostname))
	}
	return str(dst, o.UpstreamHostname)
}

// stripPort removes the port of a host, which may be an IPv6 address in brackets or without.
func stripPort(host string) string {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.IndexByte(host[:i], ':') >= 0 && host[i-1] != ']' {
		return host
	}
	return host[:i]
}

// serverName appends what REQUESTED_SERVER_NAME(X:Y) stands for: X is where to look first, Y which host to take.
func serverName(dst []byte, p *mesh.FormatPart, o *mesh.Outcome) ([]byte, kind) {
	if p.Arg == "" || p.Arg == "SNI_ONLY" || p.Arg == "SNI_FIRST" && o.ServerName != "" {
		return str(dst, o.ServerName)
	}
	var host []byte
	if p.Alt != "HOST" {
		host = requestHeader(o, "x-envoy-original-host")
	}
	if host == nil && p.Alt != "ORIG" {
		host = requestHeader(o, ":authority")
	}
	if host == nil {
		return str(dst, o.ServerName)
	}
	return raw(dst, host)
}
