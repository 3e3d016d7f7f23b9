// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"fmt"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/meshtap/meshtap/xds/resource"
)

func (r *renderer) clusters() proto.Message {
	out := &adminpb.ClustersConfigDump{VersionInfo: r.in.ClusterVersion}
	for _, e := range r.in.Clusters {
		switch {
		case !r.shown(e.Name):
		case e.Static:
			for _, res := range []*Resource{e.Live, e.Next} {
				if res != nil {
					out.StaticClusters = append(out.StaticClusters, &adminpb.ClustersConfigDump_StaticCluster{
						Cluster: r.resource(resource.ClusterType, res.Raw), LastUpdated: stamp(r.in.Started),
					})
					break
				}
			}
		default:
			r.dynamicCluster(out, e)
		}
	}
	return out
}

// dynamicCluster adds what is in force and what waits. A failure stands with the former, or by itself in the list of
// the latter.
func (r *renderer) dynamicCluster(out *adminpb.ClustersConfigDump, e Entry) {
	state := func(res *Resource, f *Failure) *adminpb.ClustersConfigDump_DynamicCluster {
		c := &adminpb.ClustersConfigDump_DynamicCluster{ErrorState: r.failed(resource.ClusterType, f)}
		if res != nil {
			c.VersionInfo, c.Cluster, c.LastUpdated = res.Version, r.resource(resource.ClusterType, res.Raw), stamp(res.At)
		}
		return c
	}
	if e.Live != nil {
		out.DynamicActiveClusters = append(out.DynamicActiveClusters, state(e.Live, e.Failure))
	}
	if e.Next != nil {
		out.DynamicWarmingClusters = append(out.DynamicWarmingClusters, state(e.Next, nil))
	}
	if e.Live == nil && e.Next == nil && e.Failure != nil {
		out.DynamicWarmingClusters = append(out.DynamicWarmingClusters, state(nil, e.Failure))
	}
}

func (r *renderer) listeners() proto.Message {
	out := &adminpb.ListenersConfigDump{VersionInfo: r.in.ListenerVersion}
	state := func(res *Resource) *adminpb.ListenersConfigDump_DynamicListenerState {
		if res == nil {
			return nil
		}
		return &adminpb.ListenersConfigDump_DynamicListenerState{
			VersionInfo: res.Version, Listener: r.resource(resource.ListenerType, res.Raw), LastUpdated: stamp(res.At),
		}
	}
	for _, e := range r.in.Listeners {
		switch {
		case !r.shown(e.Name):
		case e.Static:
			for _, res := range []*Resource{e.Live, e.Next} {
				if res != nil {
					out.StaticListeners = append(out.StaticListeners, &adminpb.ListenersConfigDump_StaticListener{
						Listener: r.resource(resource.ListenerType, res.Raw), LastUpdated: stamp(r.in.Started),
					})
					break
				}
			}
		default:
			out.DynamicListeners = append(out.DynamicListeners, &adminpb.ListenersConfigDump_DynamicListener{
				Name: clean(e.Name), ActiveState: state(e.Live), WarmingState: state(e.Next),
				ErrorState: r.failed(resource.ListenerType, e.Failure),
			})
		}
	}
	return out
}

func (r *renderer) routes() proto.Message {
	out := &adminpb.RoutesConfigDump{}
	for _, e := range r.in.Listeners {
		if e.Live != nil {
			r.inlineRoutes(out, e.Live)
		}
	}
	for _, e := range r.in.Routes {
		res := e.Live
		if res == nil {
			res = e.Next
		}
		if !r.shown(e.Name) || res == nil && e.Failure == nil {
			continue
		}
		c := &adminpb.RoutesConfigDump_DynamicRouteConfig{ErrorState: r.failed(resource.RouteType, e.Failure)}
		if res != nil {
			c.VersionInfo, c.RouteConfig, c.LastUpdated = res.Version, r.resource(resource.RouteType, res.Raw), stamp(res.At)
		}
		out.DynamicRouteConfigs = append(out.DynamicRouteConfigs, c)
	}
	return out
}

// inlineRoutes adds the tables that are written inside a listener, which Envoy calls static.
func (r *renderer) inlineRoutes(out *adminpb.RoutesConfigDump, res *Resource) {
	l := &listenerpb.Listener{}
	if proto.Unmarshal(res.Raw, l) != nil {
		return
	}
	chains := l.GetFilterChains()
	if c := l.GetDefaultFilterChain(); c != nil {
		chains = append(chains[:len(chains):len(chains)], c)
	}
	for _, c := range chains {
		for _, f := range c.GetFilters() {
			hcm := &hcmpb.HttpConnectionManager{}
			if !f.GetTypedConfig().MessageIs(hcm) || f.GetTypedConfig().UnmarshalTo(hcm) != nil {
				continue
			}
			table := hcm.GetRouteConfig()
			if table == nil || !r.shown(table.GetName()) {
				continue
			}
			b, err := proto.Marshal(table)
			if err != nil {
				continue
			}
			at := res.At
			if at.IsZero() {
				at = r.in.Started
			}
			out.StaticRouteConfigs = append(out.StaticRouteConfigs, &adminpb.RoutesConfigDump_StaticRouteConfig{
				RouteConfig: r.resource(resource.RouteType, b), LastUpdated: stamp(at),
			})
		}
	}
}

// partOf returns the items of one list of the parts.
func partOf(parts []proto.Message, name string) ([]proto.Message, error) {
	for _, p := range parts {
		m := p.ProtoReflect()
		f := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if f == nil || !f.IsList() || f.Message() == nil {
			continue
		}
		var out []proto.Message
		list := m.Get(f).List()
		for i := range list.Len() {
			out = append(out, list.Get(i).Message().Interface())
		}
		return out, nil
	}
	return nil, fmt.Errorf("dump: there is no list %q; there are static_clusters, dynamic_active_clusters, "+
		"dynamic_warming_clusters, static_listeners, dynamic_listeners, static_route_configs, dynamic_route_configs and, "+
		"with include_eds, static_endpoint_configs, dynamic_endpoint_configs", name)
}
