// SPDX-License-Identifier: Apache-2.0

package circuit

import "github.com/meshtap/meshtap/mesh"

// Attempt is how one attempt upstream ended: what Outlier and Plan judge by. The zero Attempt is a connection that was
// made, where that is all there is to say, as for TCP.
type Attempt struct {
	// Failure is why the attempt failed. It may come after the head of an answer.
	Failure mesh.Failure
	// Status is the HTTP status of the answer; 0 where no head came.
	Status int
	// IsGRPC says that the request is gRPC and that the answer's head holds GRPC, its grpc-status. A status in the
	// trailers comes too late for any decision here, as in Envoy.
	IsGRPC bool
	GRPC   uint32
	// Answer matches the answer's headers; nil where no head came.
	Answer Answer

	// Sent says that at least one byte of the request was written to the upstream.
	Sent bool
	// Committed says that the answer has begun to go to the client.
	Committed bool
	// Replayable says that the whole request can be sent again: there is no body, or all that was read of it was kept.
	Replayable bool
	// Idempotent says that the request may take effect twice: by its method (see Idempotent), or because it says so.
	Idempotent bool
}

// Answer is the head of an answer.
type Answer interface {
	// Matches reports whether m holds for the answer's headers.
	Matches(m *mesh.HeaderMatch) bool
}

// Idempotent reports whether a method has the same effect once or often (RFC 9110 section 9.2.2).
func Idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// The codes of grpc-status that are looked at by name (gRPC, "Status codes and their use in gRPC").
const (
	grpcCancelled         = 1
	grpcDeadlineExceeded  = 4
	grpcResourceExhausted = 8
	grpcInternal          = 13
	grpcUnavailable       = 14
)

// grpcHTTP are the HTTP statuses that codes of grpc-status stand for, as in Envoy's Grpc::Utility::grpcToHttpStatus and
// google/rpc/code.proto.
var grpcHTTP = [...]int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}

// status returns the status that outlier detection goes by; 0 where no head came.
func (a *Attempt) status() int {
	switch {
	case a.Status == 0 || !a.IsGRPC:
		return a.Status
	case a.GRPC < uint32(len(grpcHTTP)):
		return grpcHTTP[a.GRPC]
	}
	return 500
}
