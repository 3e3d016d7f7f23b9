// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"strconv"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
)

// appendRequest appends a request head as it goes to an upstream: always HTTP/1.1, with its own framing.
func appendRequest(dst []byte, q *codec.Request) []byte {
	dst = append(dst, q.Method...)
	dst = append(dst, ' ')
	if len(q.Path) == 0 {
		dst = append(dst, q.Authority...)
	} else {
		dst = append(dst, q.Path...)
	}
	dst = append(dst, " HTTP/1.1\r\n"...)
	if q.HostStale || !q.Header.HasID(header.Host) {
		q.Header.RemoveID(header.Host)
		dst = append(dst, "host: "...)
		dst = append(dst, q.Authority...)
		dst = append(dst, "\r\n"...)
	}
	switch {
	case q.Length == codec.Unknown:
		q.Header.RemoveID(header.ContentLength)
		dst = append(dst, "transfer-encoding: chunked\r\n"...)
	case (q.Length > 0 || meansBody(q.Method)) && !q.Header.HasID(header.ContentLength):
		dst = appendLength(dst, q.Length)
	}
	if len(q.Upgrade) > 0 {
		dst = appendUpgrade(dst, q.Upgrade)
	}
	q.Header.RemoveID(header.TE) // HTTP/2 keeps it, for HTTP/2; here it would be the next hop's
	dst = q.Header.AppendHTTP1(dst)
	return append(dst, "\r\n"...)
}

// meansBody reports whether a method gives a body a meaning, so that the absence of one has to be said (RFC 9110 section
// 8.6). Envoy takes all other methods for one of these.
func meansBody(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "DELETE", "TRACE", "CONNECT":
		return false
	}
	return true
}

// answer is what the server half knows of a response's framing.
type answer struct {
	chunked bool
	close   bool
	// bodiless says that no body follows, whatever the head says of a length (HEAD, 304).
	bodiless bool
}

// appendResponse appends a response head as it goes to a client.
func appendResponse(dst []byte, r *codec.Response, a answer, to mesh.Protocol) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = appendStatus(dst, r.Status)
	switch {
	case r.Switched:
		if r.Status == 101 {
			dst = appendUpgrade(dst, r.Upgrade)
		}
	case a.chunked:
		r.Header.RemoveID(header.ContentLength)
		dst = append(dst, "transfer-encoding: chunked\r\n"...)
	case r.Length == codec.Unknown, r.Status < 200, r.Status == 204:
		r.Header.RemoveID(header.ContentLength) // RFC 9110 section 8.6
	case a.bodiless, r.Header.HasID(header.ContentLength):
	default:
		dst = appendLength(dst, r.Length)
	}
	switch {
	case r.Switched || r.Status < 200:
	case a.close:
		dst = append(dst, "connection: close\r\n"...)
	case to == mesh.HTTP10:
		dst = append(dst, "connection: keep-alive\r\n"...)
	}
	dst = r.Header.AppendHTTP1(dst)
	return append(dst, "\r\n"...)
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "content-length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, "\r\n"...)
}

func appendUpgrade(dst, proto []byte) []byte {
	dst = append(dst, "connection: upgrade\r\nupgrade: "...)
	dst = append(dst, proto...)
	return append(dst, "\r\n"...)
}

// appendStatus appends "200 OK\r\n". The reason is the standard one; an upstream's own is not passed on (RFC 9112
// section 4 makes it optional and without meaning).
func appendStatus(dst []byte, status int) []byte {
	if status == 200 {
		return append(dst, "200 OK\r\n"...)
	}
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, Reason(status)...)
	return append(dst, "\r\n"...)
}

// appendChunkSize appends a chunk's size line.
func appendChunkSize(dst []byte, n int) []byte {
	dst = strconv.AppendUint(dst, uint64(n), 16)
	return append(dst, "\r\n"...)
}

// appendTrailers appends the last chunk and the trailer section.
func appendTrailers(dst []byte, h *header.List) []byte {
	dst = append(dst, "0\r\n"...)
	if h != nil {
		dst = h.AppendHTTP1(dst)
	}
	return append(dst, "\r\n"...)
}

// Reason returns the standard reason phrase of a status code (RFC 9110 section 15 and its registry), "Unknown" for
// others.
func Reason(status int) string {
	if s, ok := reasons[status]; ok {
		return s
	}
	return "Unknown"
}

var reasons = map[int]string{
	100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
	205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Payload Too Large",
	414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
	418: "I'm a teapot", 421: "Misdirected Request", 422: "Unprocessable Entity", 423: "Locked",
	424: "Failed Dependency", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required",
	429: "Too Many Requests", 431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
	507: "Insufficient Storage", 508: "Loop Detected", 510: "Not Extended", 511: "Network Authentication Required",
}
