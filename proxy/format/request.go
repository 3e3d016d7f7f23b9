// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bytes"
	"strconv"

	"github.com/meshtap/meshtap/internal/ascii"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
)

// either looks up the operator's first header, or the second where there is no such header; an empty one is there.
func either(o *mesh.Outcome, p *mesh.FormatPart, look func(*mesh.Outcome, string) []byte) []byte {
	v := look(o, p.Arg)
	if v == nil && p.Alt != "" {
		v = look(o, p.Alt)
	}
	return v
}

// requestHeader looks up a request header. As in Envoy the pseudo-headers are those of the request as it stands: rewritten,
// once it went upstream.
func requestHeader(o *mesh.Outcome, name string) []byte {
	if o.Headers != nil {
		v := o.Headers.RequestHeader(name)
		if pseudo := name == "host" || name[0] == ':'; len(v) > 0 || v != nil && !pseudo {
			return v
		}
	}
	switch name {
	case ":method":
		return notEmpty(o.Method)
	case ":path":
		return currentPath(o)
	case ":authority", "host":
		return notEmpty(o.Authority)
	case ":scheme":
		return notEmpty(o.Scheme)
	case "x-envoy-original-path":
		return originalPath(o)
	}
	return nil
}

func responseHeader(o *mesh.Outcome, name string) []byte {
	if o.Headers == nil {
		return nil
	}
	return o.Headers.ResponseHeader(name)
}

func responseTrailer(o *mesh.Outcome, name string) []byte {
	if o.Headers == nil {
		return nil
	}
	return o.Headers.ResponseTrailer(name)
}

// currentPath is the path as it went upstream, or as it came where it did not.
func currentPath(o *mesh.Outcome) []byte {
	if len(o.UpstreamPath) > 0 {
		return o.UpstreamPath
	}
	return notEmpty(o.Path)
}

// originalPath is the path as it came where it was rewritten, nil where it was not: what x-envoy-original-path says.
func originalPath(o *mesh.Outcome) []byte {
	if len(o.UpstreamPath) == 0 || bytes.Equal(o.UpstreamPath, o.Path) {
		return nil
	}
	return notEmpty(o.Path)
}

// requestPath is the path that PATH(X:Y) means by Y.
func requestPath(o *mesh.Outcome, source string) []byte {
	if source == "PATH" {
		return currentPath(o)
	}
	if path := requestHeader(o, "x-envoy-original-path"); path != nil || source == "ORIG" {
		return path
	}
	return currentPath(o)
}

func withoutQuery(path []byte) []byte {
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		return path[:i]
	}
	return path
}

// query is the query of the current path, nil where it has none.
func query(o *mesh.Outcome) []byte {
	path := currentPath(o)
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		return path[i+1:]
	}
	return nil
}

// queryParam returns the first value of a parameter, whose name may be percent-encoded in the query. A parameter without
// '=' has an empty value.
func queryParam(query []byte, name string) ([]byte, bool) {
	var buf [128]byte
	for len(query) > 0 {
		var param []byte
		param, query, _ = bytes.Cut(query, []byte{'&'})
		key, value, _ := bytes.Cut(param, []byte{'='})
		if len(key) <= 3*len(name) && string(unescape(buf[:0], key, nil)) == name {
			return value, true
		}
	}
	return nil, false
}

// unescape appends s with %XX decoded, where keep does not say that it stays. What is not valid stays as it is, and so
// does '+', as in Envoy.
func unescape(dst, s []byte, keep func(byte) bool) []byte {
	for i := 0; i < len(s); i++ {
		if c, ok := ascii.Escaped(s[i:]); ok && (keep == nil || !keep(c)) {
			dst = append(dst, c)
			i += 2
			continue
		}
		dst = append(dst, s[i])
	}
	return dst
}

// staysEncoded reports whether QUERY_PARAMS(DECODED) leaves a character encoded, as Envoy 1.40 does.
func staysEncoded(c byte) bool {
	return c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte("\"<>\\^{|}"), c) >= 0
}

// grpcStatus appends the status of a gRPC call: that of the trailers, else of the headers, else what the HTTP status
// stands for. It is unset for other requests.
func grpcStatus(dst []byte, o *mesh.Outcome, form string) ([]byte, kind) {
	if !grpcwire.IsContentType(requestHeader(o, "content-type")) {
		return dst, unset
	}
	code, ok := answered(o)
	if !ok {
		return dst, unset
	}
	name := ""
	switch form {
	case "NUMBER":
		return count(dst, code)
	case "SNAKE_STRING":
		name = grpcwire.SnakeName(code)
	default:
		name = grpcwire.CamelName(code)
	}
	if name == "" {
		return strconv.AppendInt(dst, code, 10), text
	}
	return append(dst, name...), text
}

// GRPCStatus returns the status that an outcome has or stands for in gRPC, whatever was asked for: Unknown where nothing
// was answered, as Envoy's filter of access logs has it, and grpcwire.Invalid for what is no number.
func GRPCStatus(o *mesh.Outcome) int64 {
	if code, ok := answered(o); ok {
		return code
	}
	return grpcwire.Unknown
}

// answered returns the grpc-status of the trailers, else of the headers, else what the HTTP status stands for. ok is false
// where nothing was answered.
func answered(o *mesh.Outcome) (code int64, ok bool) {
	v := responseTrailer(o, "grpc-status")
	if v == nil {
		v = responseHeader(o, "grpc-status")
	}
	if v != nil {
		return grpcwire.Status(v), true
	}
	return grpcwire.OfHTTP(o.Status), o.Status != 0
}

// messages appends the messages of a gRPC call as the filter grpc_stats of Envoy keeps them: "2,1", or the JSON of a
// protobuf message, which has no zeros. It is unset where the filter does not keep them, or there are none.
func messages(dst []byte, o *mesh.Outcome, asText bool) ([]byte, kind) {
	in, out := o.RequestMessages, o.ResponseMessages
	if !o.KeepsMessages || in == 0 && out == 0 {
		return dst, unset
	}
	if asText {
		return strconv.AppendInt(append(strconv.AppendInt(dst, in, 10), ','), out, 10), text
	}
	dst = append(dst, '{')
	if in > 0 {
		dst = append(strconv.AppendInt(append(dst, `"requestMessageCount":"`...), in, 10), '"')
	}
	if in > 0 && out > 0 {
		dst = append(dst, ',')
	}
	if out > 0 {
		dst = append(strconv.AppendInt(append(dst, `"responseMessageCount":"`...), out, 10), '"')
	}
	return append(dst, '}'), object
}
