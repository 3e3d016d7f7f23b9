// SPDX-License-Identifier: Apache-2.0

package ads

import (
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

// encodedNode is the field of a request that says who we are, as it is on the wire, for each variant. It is the same in all
// requests, and large: a node tells its metadata and all extensions.
type encodedNode struct{ sotw, delta []byte }

// encodeNode encodes the field. A node that cannot be encoded is left to SendMsg, which says so.
func encodeNode(n *corepb.Node) (e encodedNode) {
	var err error
	if e.sotw, err = proto.Marshal(&discoverypb.DiscoveryRequest{Node: n}); err != nil {
		return encodedNode{}
	}
	if e.delta, err = proto.Marshal(&discoverypb.DeltaDiscoveryRequest{Node: n}); err != nil {
		return encodedNode{}
	}
	return e
}

// sender sends requests with the node that was encoded before.
type sender struct {
	stream
	node encodedNode
}

// SendMsg sends a request. In place of its node it gets the bytes of it, as a field that is not known: those are written as
// they are.
func (s *sender) SendMsg(m any) error {
	switch r := m.(type) {
	case *discoverypb.DiscoveryRequest:
		if r.Node != nil && s.node.sotw != nil {
			r.Node = nil
			r.ProtoReflect().SetUnknown(s.node.sotw)
		}
	case *discoverypb.DeltaDiscoveryRequest:
		if r.Node != nil && s.node.delta != nil {
			r.Node = nil
			r.ProtoReflect().SetUnknown(s.node.delta)
		}
	}
	return s.stream.SendMsg(m)
}
