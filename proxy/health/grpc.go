// SPDX-License-Identifier: Apache-2.0

package health

import (
	"encoding/binary"
	"strconv"

	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
)

// servingNames are the values of grpc.health.v1.HealthCheckResponse.ServingStatus, and serving is the good one.
var servingNames = [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

const serving = 1

// grpcAsker returns how a check asks by gRPC's health checking protocol: whether a service is SERVING.
func grpcAsker(cfg *mesh.HealthCheck, t *Target, d *Deps) *http2Asker {
	a, g := newHTTP2Asker(cfg, t, d), cfg.GRPC
	host := checkHost(t, g.Authority)
	q := &a.request
	q.Method, q.Path, q.Authority = []byte("POST"), []byte("/grpc.health.v1.Health/Check"), []byte(host)
	q.Length = codec.Unknown
	l := &q.Header
	l.AddString("te", "trailers")
	l.AddString("content-type", grpcwire.ContentType)
	addHeaders(l, nil, g.Metadata)
	l.Set("grpc-timeout", grpcwire.AppendTimeout(nil, cfg.Timeout))
	a.invalid = !sendable(l, host)
	a.body = appendQuestion(nil, g.Service)
	a.judge = judgeGRPC
	return a
}

// appendQuestion appends a grpc.health.v1.HealthCheckRequest in its frame: field 1 is the service's name, and is left out
// where it is "", which asks for the server as a whole.
func appendQuestion(dst []byte, service string) []byte {
	var m []byte
	if service != "" {
		m = binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
		m = append(m, service...)
	}
	return append(grpcwire.AppendHead(dst, 0, len(m)), m...)
}

// judgeGRPC decides about an answer. All that is not a SERVING in order is the host's own word that it is not well, and
// counts at once; so it is in Envoy, for a host that does not know the protocol (UNIMPLEMENTED) as well.
func judgeGRPC(r *reply) answer {
	why := wrongWith(r)
	if why == "" {
		var status int32
		status, why = servingStatus(r.body)
		switch {
		case why != "":
		case status == serving:
			return answer{verdict: passed}
		case status >= 0 && int(status) < len(servingNames):
			why = servingNames[status]
		default:
			why = "serving status " + strconv.Itoa(int(status))
		}
	}
	return answer{verdict: refused, reason: why}
}

// wrongWith says what is wrong with an answer before its message is looked at, "" where nothing is. grpc-status stands in the
// trailers, or in a head that is all there is; it counts before the HTTP status (gRPC, "HTTP to gRPC Status Code Mapping").
func wrongWith(r *reply) string {
	last, bare := r.trailers, false
	if last == nil {
		last, bare = &r.head.Header, len(r.body) == 0
	}
	code := last.Get("grpc-status")
	switch {
	case r.long:
		return "the answer is too long"
	case r.head.Status != 200 && !(bare && code != nil):
		return "status " + strconv.Itoa(r.head.Status)
	case !bare && !grpcwire.IsContentType(r.head.Header.GetID(header.ContentType)), bare && code == nil:
		return "the answer is not gRPC"
	case r.trailers == nil && !bare, code == nil:
		return "the answer has no grpc-status"
	}
	if n := grpcwire.Status(code); n != grpcwire.OK {
		if name := grpcwire.SnakeName(n); name != "" {
			return "grpc-status " + name
		}
		return "grpc-status " + strconv.FormatInt(n, 10)
	}
	if r.head.Status != 200 {
		return "status " + strconv.Itoa(r.head.Status)
	}
	return ""
}

// servingStatus reads the one grpc.health.v1.HealthCheckResponse of a body, which has the status in field 1. An empty
// message is UNKNOWN, which is 0; as in Envoy there may be any number of these beside another one.
func servingStatus(body []byte) (status int32, why string) {
	frames, full := 0, false
	for len(body) > 0 {
		if len(body) < grpcwire.HeadSize {
			return 0, "the message breaks off"
		}
		flags, size := body[0], uint64(binary.BigEndian.Uint32(body[1:]))
		body = body[grpcwire.HeadSize:]
		switch {
		case flags != 0:
			return 0, "the message is compressed"
		case size > uint64(len(body)):
			return 0, "the message breaks off"
		case size > 0 && full:
			return 0, "more than one message"
		case size > 0:
			var ok bool
			if status, ok = statusField(body[:size]); !ok {
				return 0, "malformed message"
			}
			full = true
		}
		frames++
		body = body[size:]
	}
	if frames == 0 {
		return 0, "no message"
	}
	return status, ""
}

// maxField is the greatest number of a field.
const maxField = 1<<29 - 1

// statusField returns field 1 of a message where it is a varint, its last value if there are several, 0 if there is none.
// Other fields are skipped ("Encoding" in protobuf's documentation).
func statusField(m []byte) (status int32, ok bool) {
	for len(m) > 0 {
		tag, n := binary.Uvarint(m)
		if n <= 0 || tag>>3 == 0 || tag>>3 > maxField {
			return 0, false
		}
		m = m[n:]
		var size uint64
		switch tag & 7 {
		case 0:
			v, n := binary.Uvarint(m)
			if n <= 0 {
				return 0, false
			}
			if tag>>3 == 1 {
				status = int32(v) // as protobuf reads an enum
			}
			size = uint64(n)
		case 1:
			size = 8
		case 2:
			v, n := binary.Uvarint(m)
			if n <= 0 || v > uint64(len(m)) {
				return 0, false
			}
			size = uint64(n) + v
		case 5:
			size = 4
		default:
			return 0, false // groups are not of proto3
		}
		if size > uint64(len(m)) {
			return 0, false
		}
		m = m[size:]
	}
	return status, true
}
