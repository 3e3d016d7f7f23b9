// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"fmt"
	"net/http"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
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
	r.inlineRoutes(out)
	for i, e := range r.in.Routes {
		res := e.Live
		if res == nil {
			res = e.Next
		}
		if !r.shown(e.Name) || res == nil && e.Failure == nil {
			continue
		}
		c := &adminpb.RoutesConfigDump_DynamicRouteConfig{ErrorState: r.failed(resource.RouteType, e.Failure)}
		if res != nil {
			c.VersionInfo, c.RouteConfig, c.LastUpdated = res.Version, r.merged(res, r.in.Hosts[i]), stamp(res.At)
		}
		out.DynamicRouteConfigs = append(out.DynamicRouteConfigs, c)
	}
	return out
}

// inlineRoutes adds the tables that are written inside connection managers, which Envoy calls static.
func (r *renderer) inlineRoutes(out *adminpb.RoutesConfigDump) {
	r.managers(func(hcm *hcmpb.HttpConnectionManager, at time.Time) {
		table := hcm.GetRouteConfig()
		if table == nil || !r.shown(table.GetName()) {
			return
		}
		if b, err := proto.Marshal(table); err == nil {
			out.StaticRouteConfigs = append(out.StaticRouteConfigs, &adminpb.RoutesConfigDump_StaticRouteConfig{
				RouteConfig: r.resource(resource.RouteType, b), LastUpdated: stamp(at),
			})
		}
	})
}

// partOf returns the items of one list of the parts.
func partOf(parts []proto.Message, name string) ([]proto.Message, error) {
	for _, p := range parts {
		m := p.ProtoReflect()
		f := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if f == nil {
			continue
		}
		if !f.IsList() || f.Message() == nil {
			return nil, &QueryError{http.StatusBadRequest, fmt.Sprintf("%[1]s is not a repeated field. Use ?mask=%[1]s to get only this field\n", name)}
		}
		var out []proto.Message
		list := m.Get(f).List()
		for i := range list.Len() {
			out = append(out, list.Get(i).Message().Interface())
		}
		return out, nil
	}
	return nil, &QueryError{http.StatusNotFound, fmt.Sprintf("%s not found in config dump; there are static_clusters, dynamic_active_clusters, "+
		"dynamic_warming_clusters, static_listeners, dynamic_listeners, static_route_configs, dynamic_route_configs, "+
		"inline_scoped_route_configs, dynamic_scoped_route_configs, "+
		"static_secrets, dynamic_active_secrets, dynamic_warming_secrets, ecds_filters and, "+
		"with include_eds, static_endpoint_configs, dynamic_endpoint_configs\n", name)}
}
