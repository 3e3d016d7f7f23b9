// SPDX-License-Identifier: Apache-2.0

// Package grpcwire reads and writes what gRPC puts into HTTP: the frames of messages, the codes of grpc-status, the text
// of grpc-message, and grpc-timeout (gRPC, "gRPC over HTTP2"). It knows nothing of connections or of protobuf, and nothing
// in it allocates.
package grpcwire

import "bytes"

// ContentType is the media type of gRPC.
const ContentType = "application/grpc"

// IsContentType reports whether a content-type is gRPC's: the type itself, or with a suffix such as +proto. As in Envoy,
// one with parameters is not.
func IsContentType(v []byte) bool {
	rest, ok := bytes.CutPrefix(v, []byte(ContentType))
	return ok && (len(rest) == 0 || rest[0] == '+')
}

// Names takes the service and the method from a path: it has exactly two parts that are not empty, as in Envoy's
// Grpc::Common::resolveServiceAndMethod. The query does not count.
func Names(path []byte) (service, method []byte, ok bool) {
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	parts := 0
	for len(path) > 0 {
		var part []byte
		part, path, _ = bytes.Cut(path, []byte{'/'})
		if len(part) == 0 {
			continue
		}
		if parts++; parts == 1 {
			service = part
		} else {
			method = part
		}
	}
	if parts != 2 {
		return nil, nil, false
	}
	return service, method, true
}
