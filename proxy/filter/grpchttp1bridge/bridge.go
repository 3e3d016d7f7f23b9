// SPDX-License-Identifier: Apache-2.0

// Package grpchttp1bridge is the filter envoy.filters.http.grpc_http1_bridge: it lets clients of HTTP/1.1 make unary gRPC
// calls. The answer is collected, so that the grpc-status behind its body can stand in its head, and a failure becomes a
// 503. Clients that know nothing of gRPC's framing can be served too (upgrade_protobuf_to_grpc).
package grpchttp1bridge

import (
	"bytes"
	"math"
	"strconv"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/route"
)

// Config is what the filter does beside collecting answers.
type Config struct {
	// UpgradeProtobuf puts the body of an application/x-protobuf request into a frame of gRPC, and takes that of the answer
	// out of it. IgnoreQuery removes the query of requests.
	UpgradeProtobuf, IgnoreQuery bool
}

const typeProtobuf = "application/x-protobuf"

// Filter is the filter.
type Filter struct {
	cfg   Config
	place int
}

// New returns the filter for a Config.
func New(config any, deps filter.Deps) (filter.Filter, error) {
	return &Filter{cfg: config.(Config), place: deps.Place}, nil
}

// call is what is kept of a request that is bridged: whether its body was put into a frame.
type call struct{ framed bool }

// OnRequest implements filter.Filter.
func (f *Filter) OnRequest(x *exchange.Exchange) (filter.Verdict, []byte) {
	q := &x.Request
	framed := f.cfg.UpgradeProtobuf && string(q.Header.GetID(header.ContentType)) == typeProtobuf && len(q.Path) > 0
	if !framed && !route.IsGRPC(q) {
		return filter.Continue, nil
	}
	if framed {
		q.Header.RemoveID(header.ContentType)
		q.Header.AddString("content-type", grpcwire.ContentType)
		if body, answered := frame(x); answered {
			return filter.Stop, body
		}
	}
	if q.Protocol == mesh.HTTP2 {
		return filter.Continue, nil
	}
	// A client's own TE ended with its connection; servers of gRPC may insist on one (gRPC, PROTOCOL-HTTP2.md).
	q.Header.SetString("te", "trailers")
	if i := bytes.IndexByte(q.Path, '?'); i >= 0 && f.cfg.IgnoreQuery {
		q.SetPath(q.Path[:i])
	}
	x.Keep(f.place, &call{framed: framed})
	return filter.Continue, nil
}

// frame puts the request's body into a frame. The length stands in front of it; where it is not known, the body has to be
// collected, and where that is too much, the request is answered.
func frame(x *exchange.Exchange) (body []byte, answered bool) {
	q := &x.Request
	if q.Length == 0 {
		return nil, false // as in Envoy, no body becomes no frame
	}
	length := q.Length
	q.Header.RemoveID(header.ContentLength)
	q.Length = codec.Unknown
	if length > 0 && length <= math.MaxUint32 {
		x.RequestBody = filter.Wrap(x.Body(), &framer{head: grpcwire.AppendHead(nil, 0, int(length))})
		return nil, false
	}
	if err := x.Stream.Continue(x.Worker); err != nil {
		x.RequestBody = filter.Broken(err)
		return nil, false
	}
	got, whole, err := filter.Collect(x, x.Body())
	switch {
	case err != nil:
		x.RequestBody = filter.Broken(err)
	case !whole:
		const text = "Payload Too Large"
		x.Answer(413, "request_payload_too_large", []byte(text))
		x.Stream.CloseAfter()
		return []byte(text), true
	default:
		x.RequestBody = filter.Held(append(grpcwire.AppendHead(make([]byte, 0, grpcwire.HeadSize+len(got)), 0, len(got)), got...))
	}
	return nil, false
}

// framer writes the head of a frame in front of a body.
type framer struct {
	head []byte // nil once it was written
	out  []byte
}

// Piece implements filter.Stage.
func (s *framer) Piece(p bytebuf.Piece, _ bool, _ *header.List) (bytebuf.Piece, error) {
	if s.head == nil {
		return p, nil
	}
	s.out = append(append(s.out[:0], s.head...), p.Bytes()...)
	s.head = nil
	return bytebuf.Of(s.out), nil
}

// Trailers implements filter.Stage.
func (s *framer) Trailers(t *header.List) *header.List { return t }

// OnResponse implements filter.Filter.
func (f *Filter) OnResponse(x *exchange.Exchange) {
	r := &x.Response
	c, _ := x.Kept(f.place).(*call)
	if c == nil || r.Length == 0 || r.Status != 200 || !grpcwire.IsContentType(r.Header.GetID(header.ContentType)) {
		return
	}
	src := x.ResponseBody
	body, whole, err := filter.Collect(x, src)
	if err == nil && !whole {
		err = &mesh.Failure{
			Kind: mesh.InternalError, Side: mesh.SideInternal, Detail: "the answer is too large to be collected",
			Reply: &mesh.Reply{Status: 500, Details: "response_payload_too_large", Body: "Internal Server Error"},
		}
	}
	if err != nil {
		x.ResponseBody = filter.Broken(err)
		return
	}
	if t := src.Trailers(); t != nil {
		takeStatus(r, t)
	}
	if c.framed && len(body) >= grpcwire.HeadSize {
		body = body[grpcwire.HeadSize:]
	}
	r.Length = int64(len(body))
	r.Header.RemoveID(header.ContentLength)
	r.Header.Add("content-length", strconv.AppendInt(nil, r.Length, 10))
	x.ResponseBody = filter.Held(body)
}

// takeStatus moves the result of a call from the trailers to the head.
func takeStatus(r *codec.Response, trailers *header.List) {
	if v := trailers.Get("grpc-status"); v != nil {
		if grpcwire.Status(v) != grpcwire.OK {
			r.Status = 503
		}
		r.Header.Set("grpc-status", v)
	}
	if v := trailers.Get("grpc-message"); v != nil {
		r.Header.Set("grpc-message", v)
	}
}

var (
	_ filter.Filter = (*Filter)(nil)
	_ filter.Stage  = (*framer)(nil)
)
