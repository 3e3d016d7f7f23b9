// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"strconv"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// answerGRPC turns the answer of our own into one that a client of gRPC understands, as Envoy's Http::Utility does: 200,
// and what went wrong in grpc-status and grpc-message, without a body. A grpc-status that is there already stays, so that a
// route may set its own.
func (x *Exchange) answerGRPC(body []byte) {
	r, l := &x.Response, &x.Response.Header
	x.Outcome.ClusterStatus = r.Status
	code := grpcwire.OfHTTP(r.Status)
	if x.Outcome.Failure == mesh.MaxDuration && x.Outcome.Side == mesh.SideDownstream {
		code = grpcwire.DeadlineExceeded // as Envoy says of the time that the client itself may have set
	}
	r.Status, r.Length = 200, 0
	l.RemoveID(header.ContentLength)
	l.RemoveID(header.ContentType)
	l.AddString("content-type", grpcwire.ContentType)
	if len(l.Get("grpc-status")) == 0 {
		l.Set("grpc-status", strconv.AppendInt(x.number[:0], code, 10))
	}
	if len(body) > 0 && string(x.Request.Method) != "HEAD" {
		l.Set("grpc-message", grpcwire.AppendMessage(make([]byte, 0, len(body)+16), body))
	}
}

// SettleGRPC notes in the Outcome how a request of gRPC ended.
func (x *Exchange) SettleGRPC() {
	o := &x.Outcome
	if o.GRPC = o.GRPC || x.IsGRPC; !o.GRPC {
		return
	}
	v := x.ResponseTrailer("grpc-status")
	if v == nil && x.Response.Status != 0 {
		v = x.Response.Header.Get("grpc-status")
	}
	switch {
	case v != nil:
		o.GRPCStatus = grpcwire.Status(v)
	case o.Status != 0:
		o.GRPCStatus = grpcwire.OfHTTP(o.Status)
	default:
		o.GRPCStatus = grpcwire.Invalid
	}
}

// ownBody is the body of an answer of our own.
type ownBody struct{ bytes []byte }

// Buffered implements codec.Body.
func (b *ownBody) Buffered() (bytebuf.Piece, bool, error) { return bytebuf.Of(b.bytes), true, nil }

// Next implements codec.Body.
func (b *ownBody) Next(*socket.Worker) (bytebuf.Piece, bool, error) {
	return bytebuf.Piece{}, true, nil
}

// Trailers implements codec.Body.
func (b *ownBody) Trailers() *header.List { return nil }

var _ codec.Body = (*ownBody)(nil)
