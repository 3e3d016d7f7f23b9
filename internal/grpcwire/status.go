// SPDX-License-Identifier: Apache-2.0

package grpcwire

import "github.com/meshtap/meshtap/internal/ascii"

// The codes of grpc-status that are used by name (gRPC, "Status codes and their use in gRPC").
const (
	OK                = 0
	Cancelled         = 1
	Unknown           = 2
	DeadlineExceeded  = 4
	PermissionDenied  = 7
	ResourceExhausted = 8
	Unimplemented     = 12
	Internal          = 13
	Unavailable       = 14
	DataLoss          = 15
	Unauthenticated   = 16
)

// Invalid is the code of a grpc-status that is none, as Envoy has it.
const Invalid = -1

// names are the codes as Envoy spells them, in camel case and in snake case.
var names = [...][2]string{
	{"OK", "OK"},
	{"Canceled", "CANCELLED"},
	{"Unknown", "UNKNOWN"},
	{"InvalidArgument", "INVALID_ARGUMENT"},
	{"DeadlineExceeded", "DEADLINE_EXCEEDED"},
	{"NotFound", "NOT_FOUND"},
	{"AlreadyExists", "ALREADY_EXISTS"},
	{"PermissionDenied", "PERMISSION_DENIED"},
	{"ResourceExhausted", "RESOURCE_EXHAUSTED"},
	{"FailedPrecondition", "FAILED_PRECONDITION"},
	{"Aborted", "ABORTED"},
	{"OutOfRange", "OUT_OF_RANGE"},
	{"Unimplemented", "UNIMPLEMENTED"},
	{"Internal", "INTERNAL"},
	{"Unavailable", "UNAVAILABLE"},
	{"DataLoss", "DATA_LOSS"},
	{"Unauthenticated", "UNAUTHENTICATED"},
}

// NumCodes is how many codes gRPC defines, from 0 on.
const NumCodes = len(names)

// CamelName returns a code's name such as "DeadlineExceeded", "" where gRPC does not define the code.
func CamelName(code int64) string { return nameOf(code, 0) }

// SnakeName returns a code's name such as "DEADLINE_EXCEEDED", "" where gRPC does not define the code.
func SnakeName(code int64) string { return nameOf(code, 1) }

func nameOf(code int64, form int) string {
	if code < 0 || code >= int64(NumCodes) {
		return ""
	}
	return names[code][form]
}

// Status reads the value of grpc-status, which may be a code that gRPC does not define; what is no number is Invalid.
func Status(v []byte) int64 {
	if n, ok := ascii.Decimal(v, 10); ok {
		return n
	}
	return Invalid
}

// OfHTTP returns the code that an HTTP status stands for (gRPC, "HTTP to gRPC Status Code Mapping"). A success is Unknown
// as well: where it is asked for, it is the answer of someone who does not speak gRPC.
func OfHTTP(status int) int64 {
	switch status {
	case 400:
		return Internal
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404:
		return Unimplemented
	case 429, 502, 503, 504:
		return Unavailable
	}
	return Unknown
}

var httpStatus = [NumCodes]int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}

// HTTPStatus returns the HTTP status that a code stands for, as in Envoy's Grpc::Utility::grpcToHttpStatus and
// google/rpc/code.proto; 500 for a code that gRPC does not define.
func HTTPStatus(code int64) int {
	if code < 0 || code >= int64(NumCodes) {
		return 500
	}
	return httpStatus[code]
}
