// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/xds/resource"
)

// Node is what a proxy says of itself: its service (node.cluster) and its instance (node.id).
type Node struct{ Service, ID string }

// Resources are what one node gets, by type URL and name.
type Resources map[string]map[string]types.Resource

// add puts a resource under its name.
func (r Resources) add(typeURL, name string, m proto.Message) { r[typeURL][name] = m.(types.Resource) }

// typeURLs are the types that are served, in the order in which a proxy needs them.
var typeURLs = [...]string{resource.ClusterType, resource.EndpointsType, resource.RouteType, resource.ListenerType}

// Build returns what a node gets: every service that can be called, and the listeners of its own. A node whose service is
// not in the mesh gets nothing. The mesh must come from Parse.
func Build(m *Mesh, n Node) Resources {
	r := Resources{}
	for _, t := range typeURLs {
		r[t] = map[string]types.Resource{}
	}
	self := m.Services[n.Service]
	if self == nil {
		return r
	}
	b := builder{mesh: m, out: r}
	for _, name := range m.names() {
		b.clusters(name)
	}
	out := self.Outbound
	if out == (Address{}) {
		out = m.Outbound
	}
	b.outbound(out)
	b.inbound(n, self)
	return r
}

// builder makes the resources of one node.
type builder struct {
	mesh *Mesh
	out  Resources
}

// The names of clusters. checker.clusterNames proves that they differ.
func versionCluster(service, version string) string { return service + "-" + version }
func appCluster(service string) string              { return service + "-app" }

// versions are the versions of a service that splits name, in order.
func (b *builder) versions(service string) []string {
	seen := map[string]bool{}
	var out []string
	for _, name := range b.mesh.names() {
		for _, r := range b.mesh.Services[name].Routes {
			for _, share := range r.Split {
				if r.target(name) == service && !seen[share.Version] {
					seen[share.Version] = true
					out = append(out, share.Version)
				}
			}
		}
	}
	return out
}

func address(a Address) *corev3.Address {
	if a.Pipe != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a.Pipe}}}
	}
	return socketAddress(a.IP.Addr().String(), a.IP.Port())
}

func socketAddress(host string, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// overADS is the source of what comes over the same stream.
func overADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// pack puts a message into an Any, with the same bytes for the same message.
func pack(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(fmt.Sprintf("control: %T: %v", m, err)) // texts are UTF-8 since yaml read them
	}
	return a
}

func duration(d Duration) *durationpb.Duration { return durationpb.New(time.Duration(d)) }

// durationOr is nil, the receiver's default, where d is 0.
func durationOr(d, def Duration) *durationpb.Duration {
	if d == 0 {
		d = def
	}
	if d == 0 {
		return nil
	}
	return duration(d)
}

func number(v *uint32) *wrapperspb.UInt32Value {
	if v == nil {
		return nil
	}
	return wrapperspb.UInt32(*v)
}

func numberOr(v *uint32, def uint32) *wrapperspb.UInt32Value {
	if v == nil {
		return wrapperspb.UInt32(def)
	}
	return wrapperspb.UInt32(*v)
}

// enum finds the value of an enum by its name in mesh.yaml.
func enum(values map[string]int32, word string) int32 { return values[strings.ToUpper(word)] }
