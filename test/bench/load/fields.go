// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// trailers are "grpc-status: 0", spelled out, so that they may go before or behind any head.
var trailers = append([]byte("\x00\x0bgrpc-status\x01"), '0')

// heads are the fields of all requests, or of all answers, in HPACK (RFC 7541).
type heads struct {
	first []byte // of a connection: it puts the fields into the peer's table
	rest  []byte // made from the table
	bare  []byte // made without one, for peers that want none
}

// encode encodes fields twice: from the second time on, the result is the same.
func encode(fields []hpack.HeaderField) (h heads) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, to := range []*[]byte{&h.first, &h.rest} {
		b.Reset()
		for _, f := range fields {
			_ = e.WriteField(f) // into memory
		}
		*to = bytes.Clone(b.Bytes())
	}
	b.Reset()
	e.SetMaxDynamicTableSize(0) // which each block says again, and that is allowed
	for _, f := range fields {
		_ = e.WriteField(f)
	}
	h.bare = b.Bytes()
	return h
}

// payload is a body: of as many bytes, or in gRPC a message of as many behind its length.
func (j *Job) payload(size int) []byte {
	b := bytes.Repeat([]byte{'x'}, size)
	if j.GRPC {
		b = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(size)), b...)
	}
	return b
}

// asks are the fields of a request in HTTP/2: those of HTTP/1.1, or a call's.
func (j *Job) asks() []hpack.HeaderField {
	if j.GRPC {
		return append(j.target("POST"),
			hpack.HeaderField{Name: "content-type", Value: "application/grpc"},
			hpack.HeaderField{Name: "user-agent", Value: "grpc-go/1.76.0"},
			hpack.HeaderField{Name: "te", Value: "trailers"},
			hpack.HeaderField{Name: "grpc-accept-encoding", Value: "gzip"},
			hpack.HeaderField{Name: "authorization", Value: "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZXNoIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"},
			hpack.HeaderField{Name: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
	}
	method, _, _ := strings.Cut(string(j.request()[:8]), " ")
	return append(j.target(method), fields(j.request())...)
}

func (j *Job) target(method string) []hpack.HeaderField {
	scheme := "http"
	if j.TLS {
		scheme = "https"
	}
	return []hpack.HeaderField{
		{Name: ":method", Value: method}, {Name: ":scheme", Value: scheme}, {Name: ":authority", Value: j.Host}, {Name: ":path", Value: j.Path},
	}
}

// answers are the fields of an answer in HTTP/2.
func (j *Job) answers() []hpack.HeaderField {
	status := []hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(200)}}
	if j.GRPC {
		return append(status, hpack.HeaderField{Name: "content-type", Value: "application/grpc"},
			hpack.HeaderField{Name: "server", Value: "bench/1.0"}, hpack.HeaderField{Name: "grpc-accept-encoding", Value: "gzip"})
	}
	return append(status, fields(j.response())...)
}

// fields reads those of a message in HTTP/1.1, without what HTTP/2 says otherwise.
func fields(message []byte) (all []hpack.HeaderField) {
	lines := bufio.NewScanner(bytes.NewReader(message))
	lines.Scan()
	for lines.Scan() && lines.Text() != "" {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		if name = strings.ToLower(name); name != "host" && name != "connection" {
			all = append(all, hpack.HeaderField{Name: name, Value: value})
		}
	}
	return all
}
