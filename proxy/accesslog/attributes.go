// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"crypto/sha256"
	"encoding/hex"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/format"
)

// attribute is a part of a request or connection that an expression can name (Envoy, "Attributes").
type attribute struct {
	typ *cel.Type
	// get returns the value, nil where there is none: then zero counts, and where that is nil, too, it is an error to ask for
	// it, which has() avoids.
	get  func(*mesh.Outcome) any
	zero any
}

// locality is the one object that is a part of another.
const locality = "Locality"

// attributes are those that there are, by object and name. It is the list of all, one a line, which is why it is longer than
// a screen.
func attributes() map[string]map[string]attribute {
	text := func(op, arg string) attribute { return operator(op, arg, never) }
	return map[string]map[string]attribute{
		"request": {
			"path":      text("REQ", ":path"),
			"url_path":  operator("REQ_WITHOUT_QUERY", ":path", isHTTP),
			"query":     operator("QUERY_PARAMS", "", isHTTP),
			"host":      text("REQ", ":authority"),
			"scheme":    text("REQ", ":scheme"),
			"method":    text("REQ", ":method"),
			"referer":   text("REQ", "referer"),
			"useragent": text("REQ", "user-agent"),
			"id":        text("REQ", "x-request-id"),
			"protocol":  text("PROTOCOL", ""),
			"headers":   lookups("REQ"),
			"time":      of(cel.TimestampType, func(o *mesh.Outcome) any { return types.Timestamp{Time: time.Unix(0, o.Start).UTC()} }),
			"duration":  of(cel.DurationType, func(o *mesh.Outcome) any { return duration(0, o.Duration) }),
			"size":      of(cel.IntType, requestSize),
		},
		"response": {
			"code":            of(cel.IntType, func(o *mesh.Outcome) any { return when(o.Status != 0, types.Int(o.Status)) }),
			"code_details":    text("RESPONSE_CODE_DETAILS", "ALLOW_WHITESPACES"),
			"flags":           of(cel.IntType, func(o *mesh.Outcome) any { return types.Int(flagBits(o.Flags)) }),
			"grpc_status":     of(cel.IntType, func(o *mesh.Outcome) any { return when(o.Status != 0, types.Int(format.GRPCStatus(o))) }),
			"size":            of(cel.IntType, func(o *mesh.Outcome) any { return types.Int(o.BytesSent) }),
			"headers":         lookups("RESP"),
			"trailers":        lookups("TRAILER"),
			"backend_latency": of(cel.DurationType, backendLatency),
		},
		"connection": {
			"id":                    of(cel.DynType, func(o *mesh.Outcome) any { return types.Uint(o.ConnectionID) }),
			"mtls":                  of(cel.BoolType, func(o *mesh.Outcome) any { return types.Bool(o.TLS != nil && o.TLS.Peer != nil) }),
			"requested_server_name": operator("REQUESTED_SERVER_NAME", "", always),
			"termination_details":   text("CONNECTION_TERMINATION_DETAILS", ""),
			"transport_failure_reason": of(cel.StringType, func(o *mesh.Outcome) any {
				return when(o.DownstreamTransportFailure != "", types.String(o.DownstreamTransportFailure))
			}),
			"tls_version":                    operator("DOWNSTREAM_TLS_VERSION", "", secure),
			"subject_peer_certificate":       operator("DOWNSTREAM_PEER_SUBJECT", "", secure),
			"uri_san_peer_certificate":       of(cel.StringType, peerURI),
			"dns_san_peer_certificate":       of(cel.StringType, peerName),
			"sha256_peer_certificate_digest": of(cel.StringType, peerDigest),
		},
		"upstream": {
			"address":                  text("UPSTREAM_HOST", ""),
			"port":                     of(cel.IntType, func(o *mesh.Outcome) any { return when(o.Upstream.IP.IsValid(), types.Int(o.Upstream.IP.Port())) }),
			"local_address":            text("UPSTREAM_LOCAL_ADDRESS", ""),
			"transport_failure_reason": of(cel.StringType, func(o *mesh.Outcome) any { return when(chosen(o), types.String(o.TransportFailure)) }),
			"request_attempt_count":    of(cel.DynType, func(o *mesh.Outcome) any { return types.Uint(o.Attempts) }),
			"locality":                 of(cel.ObjectType(locality), func(o *mesh.Outcome) any { return when(chosen(o), o) }),
		},
		locality: {
			"region":   member(func(l *mesh.Locality) string { return l.Region }),
			"zone":     member(func(l *mesh.Locality) string { return l.Zone }),
			"sub_zone": member(func(l *mesh.Locality) string { return l.SubZone }),
		},
		"source":      {"address": text("DOWNSTREAM_REMOTE_ADDRESS", ""), "port": of(cel.IntType, func(o *mesh.Outcome) any { return types.Int(o.Remote.Port()) })},
		"destination": {"address": text("DOWNSTREAM_LOCAL_ADDRESS", ""), "port": of(cel.IntType, func(o *mesh.Outcome) any { return types.Int(o.Local.Port()) })},
		"xds": {
			"cluster_name":       text("UPSTREAM_CLUSTER_RAW", ""),
			"route_name":         operator("ROUTE_NAME", "", func(o *mesh.Outcome) bool { return o.RouteTemplate != "" }),
			"virtual_host_name":  of(cel.StringType, func(o *mesh.Outcome) any { return when(o.VirtualHost != "", types.String(o.VirtualHost)) }),
			"filter_chain_name":  operator("FILTER_CHAIN_NAME", "", always),
			"listener_direction": of(cel.IntType, func(o *mesh.Outcome) any { return types.Int(o.Direction) }),
		},
	}
}

func always(*mesh.Outcome) bool   { return true }
func never(*mesh.Outcome) bool    { return false }
func secure(o *mesh.Outcome) bool { return o.TLS != nil }
func isHTTP(o *mesh.Outcome) bool { return o.Kind == mesh.OutcomeHTTP }

// chosen reports whether a host was picked.
func chosen(o *mesh.Outcome) bool { return o.Upstream != mesh.Address{} }

func of(typ *cel.Type, get func(*mesh.Outcome) any) attribute { return attribute{typ: typ, get: get} }

// operator is the text that an operator of formats stands for; what is unset is "" where blank says so.
func operator(op, arg string, blank func(*mesh.Outcome) bool) attribute {
	p := &mesh.FormatPart{Op: op, Arg: arg}
	return of(cel.StringType, func(o *mesh.Outcome) any {
		b, ok := new(format.Env).Value(nil, p, o)
		return when(ok || blank(o), types.String(b))
	})
}

// member is a text of a message: one that is "" is not there for has() and can be asked for.
func member(get func(*mesh.Locality) string) attribute {
	return attribute{cel.StringType, func(o *mesh.Outcome) any {
		s := get(&o.UpstreamLocality)
		return when(s != "", types.String(s))
	}, types.String("")}
}

// when returns v where it is there.
func when(there bool, v any) any {
	if !there {
		return nil
	}
	return v
}

func duration(from, to int64) any {
	return when(from >= 0 && to >= from, types.Duration{Duration: time.Duration(to - from)})
}

func backendLatency(o *mesh.Outcome) any {
	if !isHTTP(o) {
		return nil
	}
	return duration(o.UpstreamStart, o.UpstreamEnd)
}

// requestSize is what the client announced, or else what came.
func requestSize(o *mesh.Outcome) any {
	if o.Headers != nil {
		if v := o.Headers.RequestHeader("content-length"); v != nil {
			n, err := strconv.ParseInt(string(v), 10, 64)
			return when(err == nil, types.Int(n))
		}
	}
	return types.Int(o.BytesReceived)
}

func peerURI(o *mesh.Outcome) any {
	if !secure(o) || o.TLS.Peer == nil || len(o.TLS.Peer.URIs) == 0 {
		return nil
	}
	return types.String(o.TLS.Peer.URIs[0].String())
}

func peerName(o *mesh.Outcome) any {
	if !secure(o) || o.TLS.Peer == nil || len(o.TLS.Peer.DNSNames) == 0 {
		return nil
	}
	return types.String(o.TLS.Peer.DNSNames[0])
}

func peerDigest(o *mesh.Outcome) any {
	if !secure(o) || o.TLS.Peer == nil {
		return nil
	}
	sum := sha256.Sum256(o.TLS.Peer.Raw)
	return types.String(hex.EncodeToString(sum[:]))
}

// flagPlaces are the bits of Envoy's response flags (StreamInfo::CoreResponseFlag), by those of mesh.Flags.
var flagPlaces = [...]uint8{
	1, 5, 7, 8, 15, 24, 22, 14, 0, 2, 3, 4, 6, 9, 10, 11, 12, 13, 17, 16, 18, 23, 19, 21, 25, 26, 27,
}

func flagBits(f mesh.Flags) (out int64) {
	for ; f != 0; f &= f - 1 {
		out |= 1 << flagPlaces[bits.TrailingZeros32(uint32(f))]
	}
	return out
}

// lookups are the fields that an operator of formats looks up. They cannot be listed.
func lookups(op string) attribute {
	return of(cel.MapType(cel.StringType, cel.StringType), func(o *mesh.Outcome) any {
		return fieldMap{noFields, o, op}
	})
}

var noFields = types.NewStringStringMap(types.DefaultTypeAdapter, nil)

// fieldMap is a map in CEL.
type fieldMap struct {
	traits.Mapper
	outcome *mesh.Outcome
	op      string
}

// Find implements traits.Mapper.
func (f fieldMap) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok || name == "" {
		return nil, false
	}
	p := mesh.FormatPart{Op: f.op, Arg: strings.ToLower(string(name))}
	if v := f.joined(p.Arg); v != nil {
		return types.String(v), true
	}
	b, ok := new(format.Env).Value(nil, &p, f.outcome)
	return types.String(b), ok
}

// joiner looks up all values of a field, unlike mesh.Headers.
type joiner interface {
	JoinedRequest(name string) []byte
	JoinedResponse(name string) []byte
	JoinedTrailer(name string) []byte
}

// joined is nil for control data, which are no fields.
func (f fieldMap) joined(name string) []byte {
	j, ok := f.outcome.Headers.(joiner)
	switch {
	case !ok || name[0] == ':' || name == "host":
		return nil
	case f.op == "RESP":
		return j.JoinedResponse(name)
	case f.op == "TRAILER":
		return j.JoinedTrailer(name)
	}
	return j.JoinedRequest(name)
}

// Get implements traits.Mapper.
func (f fieldMap) Get(key ref.Val) ref.Val {
	v, ok := f.Find(key)
	if !ok {
		return types.NewErr("no such header: %v", key)
	}
	return v
}

// Contains implements traits.Mapper.
func (f fieldMap) Contains(key ref.Val) ref.Val {
	_, ok := f.Find(key)
	return types.Bool(ok)
}

// Equal implements traits.Mapper.
func (fieldMap) Equal(ref.Val) ref.Val { return types.NewErr("headers cannot be compared as a whole") }
