// SPDX-License-Identifier: Apache-2.0

package resource

import (
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

func (s *scope) tcpProxy(p *at, m *tcpproxyv3.TcpProxy) *mesh.TCPProxy {
	t := &mesh.TCPProxy{
		StatPrefix:          m.GetStatPrefix(),
		IdleTimeout:         s.durationOr(p, "idle_timeout", m.GetIdleTimeout(), defaultIdle),
		MaxConnectAttempts:  int(uint32Or(m.GetMaxConnectAttempts(), 1)),
		MaxDownstreamLength: s.duration(p, "max_downstream_connection_duration", m.GetMaxDownstreamConnectionDuration()),
		AccessLogs:          s.accessLogs(p, m.GetAccessLog()),
	}
	switch x := m.GetClusterSpecifier().(type) {
	case *tcpproxyv3.TcpProxy_Cluster:
		if x.Cluster == "" {
			s.errorf(p.field("cluster"), "must not be empty")
		}
		t.Clusters = []mesh.WeightedCluster{{Name: x.Cluster, Weight: 1}}
		s.clusters = append(s.clusters, x.Cluster)
	case *tcpproxyv3.TcpProxy_WeightedClusters:
		var total uint64
		for _, c := range x.WeightedClusters.GetClusters() {
			t.Clusters = append(t.Clusters, mesh.WeightedCluster{Name: c.GetName(), Weight: c.GetWeight()})
			s.clusters = append(s.clusters, c.GetName())
			total += uint64(c.GetWeight())
		}
		s.totalWeight(p.field("weighted_clusters").field("clusters"), total)
	}
	return t
}

func addTCPFields(t *protofields.Table) {
	t.Add(&tcpproxyv3.TcpProxy{},
		protofields.Honour("stat_prefix", "cluster", "weighted_clusters", "idle_timeout", "access_log",
			"max_connect_attempts", "max_downstream_connection_duration"),
		protofields.Ignore(noHashing, "hash_policy"),
		protofields.Ignore("connections end without jitter", "max_downstream_connection_duration_jitter_percentage"),
		protofields.Observe("a connection is logged when it ends",
			"access_log_flush_interval", "flush_access_log_on_connected", "access_log_options={}"),
		protofields.Refuse("use idle_timeout", "downstream_idle_timeout", "upstream_idle_timeout"),
		protofields.Refuse("clusters on demand are not supported", "on_demand"),
		protofields.Refuse(noSubsets, "metadata_match={}"),
		protofields.Refuse("attempts follow each other at once", "backoff_options"),
		protofields.Refuse("tunnelling over CONNECT is not supported", "tunneling_config"),
		protofields.Refuse("the PROXY protocol is not supported", "proxy_protocol_tlvs",
			"proxy_protocol_tlv_merge_policy"),
		protofields.Refuse("the upstream is connected at once", "upstream_connect_mode", "max_early_data_bytes"),
		protofields.Ignore("connections are kept while the listener drains", "check_drain_close=false"))
	t.Add(&tcpproxyv3.TcpProxy_WeightedCluster{}, protofields.Honour("clusters"))
	t.Add(&tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{}, protofields.Honour("name", "weight"),
		protofields.Refuse(noSubsets, "metadata_match={}"))
}
