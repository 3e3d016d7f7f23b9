// SPDX-License-Identifier: Apache-2.0

// Package grpcweb is the filter envoy.filters.http.grpc_web: it makes requests of gRPC-Web, which browsers can send, into
// gRPC, and the answers into gRPC-Web (gRPC, PROTOCOL-WEB.md). The trailers become the last frame of the body. A client may
// use base64 both ways ("text").
//
// Nothing but what does not fill a quantum of base64 is held back: messages of any length stream through. An answer that
// is not gRPC becomes a grpc-message, as in Envoy.
package grpcweb

import (
	"bytes"
	"cmp"
	"strconv"

	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// The media types of gRPC-Web. Others, such as those with +json, are not for this filter, as in Envoy.
const (
	typeBinary      = "application/grpc-web"
	typeBinaryProto = "application/grpc-web+proto"
	typeText        = "application/grpc-web-text"
	typeTextProto   = "application/grpc-web-text+proto"
)

// maxMessage is how much of an answer that is not gRPC becomes a grpc-message, in bytes, as in Envoy.
const maxMessage = 16 << 10

// Filter is the filter.
type Filter struct {
	place int
	calls *metrics.GRPCCalls
}

// New returns the filter. It has no configuration.
func New(_ any, deps filter.Deps) (filter.Filter, error) {
	return &Filter{place: deps.Place, calls: metrics.NewGRPCCalls(deps.Stats, metrics.GRPCWeb)}, nil
}

// Close implements filter.Closer.
func (f *Filter) Close() { f.calls.Release() }

// call is what is kept of a request of gRPC-Web.
type call struct {
	// service and method are "" where the path does not have them; nothing is counted then.
	service, method string
	// text says that the client wants its answer in base64.
	text bool
}

// OnRequest implements filter.Filter.
func (f *Filter) OnRequest(x *exchange.Exchange) (filter.Verdict, []byte) {
	q := &x.Request
	l := &q.Header
	isWeb, text := kind(l.GetID(header.ContentType))
	if !isWeb || len(q.Path) == 0 {
		return filter.Continue, nil
	}
	c := &call{}
	_, c.text = kind(l.Get("accept"))
	service, method, _ := grpcwire.Names(q.Path)
	c.service, c.method = string(service), string(method)
	x.Keep(f.place, c)

	l.RemoveID(header.ContentType)
	l.AddString("content-type", grpcwire.ContentType)
	l.SetString("te", "trailers")
	if !l.Has("grpc-accept-encoding") {
		l.AddString("grpc-accept-encoding", "identity")
	}
	if q.Length != 0 {
		l.RemoveID(header.ContentLength)
		q.Length = codec.Unknown
	}
	if text {
		x.RequestBody = filter.Wrap(x.Body(), &decoder{})
	}
	return filter.Continue, nil
}

// kind reads a media type: whether it is of gRPC-Web, and in base64.
func kind(contentType []byte) (isWeb, text bool) {
	switch string(contentType) {
	case typeBinary, typeBinaryProto:
		return true, false
	case typeText, typeTextProto:
		return true, true
	}
	return false, false
}

// OnResponse implements filter.Filter.
func (f *Filter) OnResponse(x *exchange.Exchange) {
	c, _ := x.Kept(f.place).(*call)
	if c == nil {
		return
	}
	r := &x.Response
	l := &r.Header
	count := f.counting(x, c)
	count(l)
	empty := r.Length == 0 || codec.Bodiless(x.Request.Method, r.Status)
	foreign := !empty && !speaks(r)
	l.RemoveID(header.ContentType)
	if c.text {
		l.AddString("content-type", typeTextProto)
	} else {
		l.AddString("content-type", typeBinaryProto)
	}
	switch {
	case empty:
	case foreign:
		translate(x)
	default:
		l.RemoveID(header.ContentLength)
		r.Length = codec.Unknown
		x.ResponseBody = filter.Wrap(x.ResponseBody, &encoder{text: c.text, ended: count})
	}
}

// speaks reports whether an answer is gRPC already, or gRPC-Web.
func speaks(r *codec.Response) bool {
	if r.Status != 200 {
		return false
	}
	v := r.Header.GetID(header.ContentType)
	if grpcwire.IsContentType(v) {
		return true
	}
	media, _, _ := bytes.Cut(v, []byte{';'})
	media = bytes.TrimRight(media, " \t")
	return header.EqualFold(media, typeBinary) || header.EqualFold(media, typeBinaryProto)
}

// counting returns what counts the call by a grpc-status, where there is one.
func (f *Filter) counting(x *exchange.Exchange, c *call) func(*header.List) {
	cluster := cmp.Or(x.Outcome.ClusterStat, x.Outcome.Cluster)
	shard := x.Worker.Shard
	return func(l *header.List) {
		if v := l.Get("grpc-status"); v != nil && cluster != "" && c.service != "" {
			f.calls.Of(cluster, c.service, c.method, false).Ended(shard, v)
		}
	}
}

// translate makes an answer that is not gRPC, perhaps one of our own, a head alone that says what it said. Its status
// stays.
func translate(x *exchange.Exchange) {
	text, err := beginning(x)
	if err != nil {
		x.ResponseBody = filter.Broken(err)
		return
	}
	r := &x.Response
	l := &r.Header
	l.Set("grpc-message", grpcwire.AppendMessage(make([]byte, 0, len(text)+len(text)/4), text))
	l.Set("grpc-status", strconv.AppendInt(nil, grpcwire.OfHTTP(r.Status), 10))
	l.RemoveID(header.ContentLength)
	r.Length = 0
	x.ResponseBody = filter.Held(nil)
}

// beginning reads an answer, as much of it as fits into a grpc-message.
func beginning(x *exchange.Exchange) (text []byte, err error) {
	p, end, err := x.ResponseBody.Buffered()
	for err == nil {
		text = append(text, p.Bytes()[:min(p.Len(), maxMessage-len(text))]...)
		if end || len(text) == maxMessage {
			break
		}
		p, end, err = x.ResponseBody.Next(x.Worker)
	}
	return text, err
}

// refused is a body that is not base64, answered as Envoy does.
func refused(details string) error {
	return &mesh.Failure{
		Kind: mesh.DownstreamProtocolError, Side: mesh.SideDownstream, Detail: details,
		Reply: &mesh.Reply{Status: 400, Details: details, Body: "Bad gRPC-web request, invalid base64 data."},
	}
}

var (
	_ filter.Filter = (*Filter)(nil)
	_ filter.Closer = (*Filter)(nil)
)
