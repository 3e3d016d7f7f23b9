// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"net/netip"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/xds/resource"
)

const (
	managerName  = "envoy.filters.network.http_connection_manager"
	tcpProxyName = "envoy.filters.network.tcp_proxy"
	routerName   = "envoy.filters.http.router"

	// outboundName is the listener for calls by domain, and its routes.
	outboundName = "outbound"
	inboundName  = "inbound"
)

// portName is the listener for calls to a service by its port, and its routes.
func portName(port uint16) string { return fmt.Sprintf("outbound-%d", port) }

// outbound makes the listeners for calls of the node's application: one where the domain says which service is meant, and
// one for each service that has a port, on the same IP address.
func (b *builder) outbound(at Address) {
	routes := table(outboundName)
	for _, name := range b.mesh.names() {
		s := b.mesh.Services[name]
		if !s.callable() {
			continue
		}
		if !s.tcp() {
			routes.VirtualHosts = append(routes.VirtualHosts, host(name, s, s.domains(name)))
		}
		if s.Port != 0 {
			b.byPort(name, s, Address{IP: netip.AddrPortFrom(at.IP.Addr(), s.Port)})
		}
	}
	b.out.add(resource.RouteType, outboundName, routes)
	b.listener(outboundName, at, corev3.TrafficDirection_OUTBOUND, managerName, manager(outboundName, nil))
}

func (b *builder) byPort(name string, s *Service, at Address) {
	id := portName(s.Port)
	if s.tcp() {
		b.listener(id, at, corev3.TrafficDirection_OUTBOUND, tcpProxyName, tcpProxy(id, name))
		return
	}
	b.out.add(resource.RouteType, id, table(id, host(name, s, []string{"*"})))
	b.listener(id, at, corev3.TrafficDirection_OUTBOUND, managerName, manager(id, nil))
}

// inbound makes the listener of the node's own instance, and the cluster of its application. A node without an instance
// only calls others.
func (b *builder) inbound(n Node, s *Service) {
	for _, e := range s.Endpoints {
		if e.App == (Address{}) || e.Node != "" && e.Node != n.ID {
			continue
		}
		cluster := appCluster(n.Service)
		b.out.add(resource.ClusterType, cluster, &clusterv3.Cluster{
			Name: cluster, ConnectTimeout: duration(appTimeout),
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
			LoadAssignment: &endpointv3.ClusterLoadAssignment{
				ClusterName: cluster, Endpoints: group([]*endpointv3.LbEndpoint{lbEndpoint(address(e.App), nil)}),
			},
		})
		if s.tcp() {
			b.listener(inboundName, e.Address, corev3.TrafficDirection_INBOUND, tcpProxyName, tcpProxy(inboundName, cluster))
		} else {
			b.listener(inboundName, e.Address, corev3.TrafficDirection_INBOUND, managerName, manager(inboundName, appRoutes(cluster)))
		}
		return
	}
}

func (b *builder) listener(name string, at Address, d corev3.TrafficDirection, filter string, config proto.Message) {
	b.out.add(resource.ListenerType, name, &listenerv3.Listener{
		Name: name, Address: address(at), TrafficDirection: d,
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: filter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(config)},
		}}}},
	})
}

func tcpProxy(stat, cluster string) *tcpproxyv3.TcpProxy {
	return &tcpproxyv3.TcpProxy{StatPrefix: stat, ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster}}
}

// manager makes the HTTP filter of a listener, with the routes given, or else with those of the listener's name over ADS.
func manager(name string, routes *routev3.RouteConfiguration) *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: name,
		// The application's answer is passed on as it is.
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		HttpFilters: []*hcmv3.HttpFilter{{
			Name: routerName, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})},
		}},
	}
	if routes != nil {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes}
	} else {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: overADS(), RouteConfigName: name}}
	}
	return m
}
