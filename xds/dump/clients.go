// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"maps"
	"slices"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statuspb "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/xds/resource"
)

// ClientConfig returns what is known of all resources as CSDS has it, one item for each: the one that was accepted last, and
// whether the last that came was (ACKED) or was not (NACKED). bare leaves the resources themselves out.
func ClientConfig(in Input, node *corepb.Node, redactor *Redactor, bare bool) (*statuspb.ClientConfig, error) {
	r := renderer{in: in, opt: Options{Redactor: redactor}, careful: true}
	c := clients{renderer: &r, bare: bare, out: &statuspb.ClientConfig{Node: proto.CloneOf(node)}, seen: map[shared]bool{}}
	for _, list := range []struct {
		typeURL string
		entries []Entry
	}{
		{resource.ClusterType, in.Clusters}, {resource.ListenerType, in.Listeners}, {resource.RouteType, in.Routes},
		{resource.SecretType, in.Secrets}, {resource.ExtensionType, in.Filters},
	} {
		for _, e := range list.entries {
			c.entry(list.typeURL, e)
		}
	}
	for _, e := range in.Endpoints {
		c.endpoints(e)
	}
	for _, s := range in.ScopeSets {
		c.set(resource.ScopeType, s.Scopes)
	}
	for _, table := range slices.Sorted(maps.Keys(in.Hosts)) {
		c.set(resource.HostType, in.Hosts[table])
	}
	return c.out, r.err
}

// shared is one resource of a set, of which several connection managers or tables may have the same.
type shared struct{ typeURL, source, name string }

// set adds the resources of a set that are not there yet.
func (c *clients) set(typeURL string, entries []Entry) {
	for _, e := range entries {
		if key := (shared{typeURL, e.Source, e.Name}); !c.seen[key] {
			c.seen[key] = true
			c.entry(typeURL, e)
		}
	}
}

// clients makes the items.
type clients struct {
	*renderer
	bare bool
	out  *statuspb.ClientConfig
	seen map[shared]bool
}

func (c *clients) add(typeURL, name string, static bool, status adminpb.ClientResourceStatus) *statuspb.ClientConfig_GenericXdsConfig {
	x := &statuspb.ClientConfig_GenericXdsConfig{TypeUrl: typeURL, Name: clean(name), IsStaticResource: static, ClientStatus: status}
	c.out.GenericXdsConfigs = append(c.out.GenericXdsConfigs, x)
	return x
}

func (c *clients) entry(typeURL string, e Entry) {
	res, status := e.Next, adminpb.ClientResourceStatus_ACKED
	if res == nil {
		res = e.Live
	}
	switch {
	case e.Failure != nil:
		status = adminpb.ClientResourceStatus_NACKED
	case res == nil:
		status = adminpb.ClientResourceStatus_REQUESTED
	}
	x := c.add(typeURL, e.Name, e.Static, status)
	x.ErrorState = c.failed(typeURL, e.Failure)
	if x.ErrorState != nil && c.bare {
		x.ErrorState.FailedConfiguration = nil
	}
	if res == nil {
		return
	}
	x.VersionInfo, x.LastUpdated = res.Version, stamp(res.At)
	if e.Static {
		x.LastUpdated = stamp(c.in.Started)
	}
	x.XdsConfig = c.config(func() *anypb.Any { return c.resource(typeURL, res.Raw) })
}

func (c *clients) endpoints(e Endpoints) {
	x := c.add(resource.EndpointsType, e.Cluster, e.Static, adminpb.ClientResourceStatus_ACKED)
	x.LastUpdated = stamp(c.in.Started)
	if e.Resource != nil {
		x.VersionInfo, x.LastUpdated = e.Resource.Version, stamp(e.Resource.At)
	}
	x.XdsConfig = c.config(func() *anypb.Any { return c.assignment(e) })
}

func (c *clients) config(make func() *anypb.Any) *anypb.Any {
	if c.bare {
		return nil
	}
	return make()
}
