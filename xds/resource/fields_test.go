// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"testing"

	breakerv1 "github.com/meshtap/meshtap/api/meshtap/breaker/v1"
	endpointsv1 "github.com/meshtap/meshtap/api/meshtap/endpoints/v1"
	fallbackv1 "github.com/meshtap/meshtap/api/meshtap/fallback/v1"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/xds/resource"
)

// TestFieldsCoverEveryMessage proves that no honoured field leads to a message that the table forgot: everything in
// such a message would be refused.
func TestFieldsCoverEveryMessage(t *testing.T) {
	t.Parallel()
	table := resource.Fields()
	for _, root := range []proto.Message{
		&listenerv3.Listener{}, &routev3.RouteConfiguration{}, &clusterv3.Cluster{}, &endpointv3.ClusterLoadAssignment{},
		&routev3.ScopedRouteConfiguration{}, &routev3.VirtualHost{}, &hcmv3.HttpConnectionManager{}, &tcpproxyv3.TcpProxy{}, &routerv3.Router{}, &routev3.FilterConfig{},
		&upstreamhttpv3.HttpProtocolOptions{}, &uuidv3.UuidRequestIdConfig{}, &dnsclusterv3.DnsCluster{},
		&caresv3.CaresDnsResolverConfig{}, &tlsv3.DownstreamTlsContext{}, &tlsv3.UpstreamTlsContext{}, &breakerv1.Breaker{}, &fallbackv1.Fallback{}, &endpointsv1.Endpoints{},
	} {
		if missing := table.Uncovered(root); len(missing) > 0 {
			t.Errorf("%s: no rules for %v", root.ProtoReflect().Descriptor().FullName(), missing)
		}
	}
}
