// SPDX-License-Identifier: Apache-2.0

package circuit

import (
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
)

// Attempt is how one attempt upstream ended: what Outlier and Plan judge by. The zero Attempt is a connection that was
// made, where that is all there is to say, as for TCP.
type Attempt struct {
	// Failure is why the attempt failed. It may come after the head of an answer.
	Failure mesh.Failure
	// Status is the HTTP status of the answer; 0 where no head came.
	Status int
	// HasGRPC says that the answer's head holds GRPC, its grpc-status, and IsGRPC that the request is gRPC as well: like
	// Envoy, retry policies look at any grpc-status, outlier detection at those of gRPC. A status in the trailers comes too
	// late for any decision here; LateFailure says that there was one that stands for a 5xx.
	HasGRPC, IsGRPC bool
	GRPC            int64
	LateFailure     bool
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

// Judged returns the status that outlier detection and circuits go by: of a gRPC answer the one that its grpc-status
// stands for, as in Envoy's Filter::onUpstreamHeaders; 0 where no head came.
func (a *Attempt) Judged() int {
	if a.Status == 0 || !a.IsGRPC || !a.HasGRPC {
		return a.Status
	}
	return grpcwire.HTTPStatus(a.GRPC)
}
