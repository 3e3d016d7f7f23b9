// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop_test

import (
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/meshtap/meshtap/test/e2e/examples"
)

// The entries that an access log service gets are the same, but for what is of the moment, which is compared by its being
// there, and for what settle and unlike leave out.
func TestSameEntries(t *testing.T) {
	t.Parallel()
	entries := func(binary string) (out []string) {
		r := examples.NewRig(t)
		r.Start(r.Read("als.yaml"), binary)
		requests, connection := r.ServiceEntries(t)
		for _, e := range requests {
			q, a := e.GetRequest(), e.GetResponse()
			settle(e.GetCommonProperties())
			if q.GetRequestId() != "" {
				q.RequestId = "some"
			}
			unlike(q, a)
			out = append(out, text(e))
		}
		settle(connection.GetCommonProperties())
		connection.GetCommonProperties().StreamId = "" // a connection has a number here
		return append(out, text(connection))
	}
	theirs, ours := entries(envoy), entries("")
	for i := range theirs {
		if theirs[i] != ours[i] {
			t.Errorf("entry %d: only Envoy has %q, only Meshtap %q", i, missing(theirs[i], ours[i]), missing(ours[i], theirs[i]))
		}
	}
}

// text is without the chance that prototext puts into spaces.
func text(m proto.Message) string {
	var out []string
	for line := range strings.Lines(prototext.MarshalOptions{Multiline: true}.Format(m)) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(out, "\n") + "\n"
}

// unlike takes out what is counted otherwise: Envoy counts the heads of HTTP/1.1 in two ways, once without what frames
// them, and keeps those of upstreams.
func unlike(q *accesslogpb.HTTPRequestProperties, a *accesslogpb.HTTPResponseProperties) {
	for _, n := range []*uint64{
		&q.RequestHeadersBytes, &q.DownstreamHeaderBytesReceived, &q.UpstreamHeaderBytesSent,
		&a.ResponseHeadersBytes, &a.DownstreamHeaderBytesSent, &a.UpstreamHeaderBytesReceived,
	} {
		*n = 0
	}
}

func settle(c *accesslogpb.AccessLogCommon) {
	for _, a := range []*corepb.Address{
		c.GetDownstreamRemoteAddress(), c.GetDownstreamLocalAddress(), c.GetDownstreamDirectRemoteAddress(), c.GetUpstreamLocalAddress(),
		c.GetUpstreamRemoteAddress(),
	} {
		if s := a.GetSocketAddress(); s != nil {
			s.PortSpecifier = &corepb.SocketAddress_PortValue{PortValue: 1}
		}
	}
	for _, d := range []**durationpb.Duration{
		&c.TimeToLastRxByte, &c.TimeToFirstUpstreamTxByte, &c.TimeToLastUpstreamTxByte, &c.TimeToFirstUpstreamRxByte,
		&c.TimeToLastUpstreamRxByte, &c.TimeToLastDownstreamTxByte, &c.Duration,
	} {
		if *d != nil {
			*d = &durationpb.Duration{Seconds: 1}
		}
	}
	if c.StartTime != nil {
		c.StartTime = &timestamppb.Timestamp{Seconds: 1}
	}
	if c.StreamId != "" {
		c.StreamId = "some"
	}
	// Not known here: when the answer's first byte went downstream, and the bytes on the client's wire.
	c.TimeToFirstDownstreamTxByte, c.DownstreamWireBytesReceived, c.DownstreamWireBytesSent = nil, 0, 0
}
