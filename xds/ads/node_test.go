// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"fmt"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

// encoding is a stream that encodes what is sent, as gRPC does.
type encoding struct {
	stream
	last []byte
}

func (e *encoding) SendMsg(m any) (err error) {
	e.last, err = proto.MarshalOptions{}.MarshalAppend(e.last[:0], m.(proto.Message))
	return err
}

// nodeOf is a node as that of a proxy: it lists what it can do.
func nodeOf(extensions int) *corepb.Node {
	n := &corepb.Node{Id: "me", Cluster: "web", UserAgentName: "meshtap"}
	for i := range extensions {
		n.Extensions = append(n.Extensions, &corepb.Extension{Name: fmt.Sprint("envoy.filters.http.", i), Category: "envoy.filters.http"})
	}
	return n
}

// TestNodeIsEncodedOnce: what is read on the other side is the request, with the node where it has one, again and again.
func TestNodeIsEncodedOnce(t *testing.T) {
	t.Parallel()
	n := nodeOf(50)
	for _, tt := range []struct {
		name  string
		node  *corepb.Node
		known *corepb.Node // what was encoded
	}{
		{"a node", n, n},
		{"left out after the first", nil, n},
		{"an empty node", &corepb.Node{}, &corepb.Node{}},
		{"not to be encoded", &corepb.Node{Id: "ok"}, &corepb.Node{Id: "\xff"}},
		{"none", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wire := &encoding{}
			s := &sender{wire, encodeNode(tt.known)}
			for i := range 2 {
				nonce := fmt.Sprint(i)
				sameOnWire(t, s, wire, &discoverypb.DiscoveryRequest{Node: tt.node, TypeUrl: "t", ResponseNonce: nonce, ResourceNames: []string{"a"}})
				sameOnWire(t, s, wire, &discoverypb.DeltaDiscoveryRequest{Node: tt.node, TypeUrl: "t", ResponseNonce: nonce})
			}
		})
	}
}

func sameOnWire(t *testing.T, s *sender, wire *encoding, m proto.Message) {
	t.Helper()
	want, got := proto.Clone(m), m.ProtoReflect().New().Interface()
	if err := s.SendMsg(m); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(wire.last, got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("on the wire: %v\nwant %v", got, want)
	}
}

// BenchmarkNode is an ACK with a node of 120 extensions, encoded with the others and before.
func BenchmarkNode(b *testing.B) {
	n := nodeOf(120)
	for _, bb := range []struct {
		name string
		s    *sender
	}{{"each time", &sender{&encoding{}, encodedNode{}}}, {"once", &sender{&encoding{}, encodeNode(n)}}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = bb.s.SendMsg(&discoverypb.DeltaDiscoveryRequest{Node: n, TypeUrl: "t", ResponseNonce: "1"})
			}
		})
	}
}
