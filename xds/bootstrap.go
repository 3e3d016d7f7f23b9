// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource"
)

// DefaultFetchTimeout is Envoy's initial_fetch_timeout where the configuration does not say.
const DefaultFetchTimeout = 15 * time.Second

// FromBootstrap returns the Config that a bootstrap asks for, with the default for everything it does not say.
func FromBootstrap(b *bootstrap.Config) Config {
	cfg := Config{FetchTimeout: DefaultFetchTimeout}
	for _, list := range [][]bootstrap.Static{b.Clusters, b.Listeners} {
		for _, s := range list {
			cfg.Static = append(cfg.Static, Static{s.Decoded, s.Raw})
		}
	}
	for _, s := range b.Secrets {
		s.Name = sourcekey.Join(s.Name, sourcekey.Static)
		cfg.Static = append(cfg.Static, Static{s.Decoded, s.Raw})
	}
	for _, r := range b.RTDS {
		cfg.Runtime = append(cfg.Runtime, Layer{Place: r.Layer, Name: r.Name, Source: r.Source})
	}
	cfg.Parts = b.Discovered
	if b.Dynamic == nil {
		return cfg
	}
	cfg.Listeners, cfg.Clusters = b.Dynamic.Listeners != nil, b.Dynamic.Clusters != nil
	cfg.Sources = map[mesh.ResourceKind]resource.Source{}
	if b.Dynamic.ADS != nil {
		cfg.ADS = *b.Dynamic.ADS
	}
	for _, src := range []*resource.Source{b.Dynamic.Listeners, b.Dynamic.Clusters} {
		if src != nil {
			cfg.Sources[src.Kind] = *src
		}
	}
	return cfg
}

// Streams opens the sources of a bootstrap, and those that resources name.
type Streams struct {
	b   *bootstrap.Config
	log *zap.Logger
}

// NewStreams returns Streams for an accepted bootstrap.
func NewStreams(b *bootstrap.Config, log *zap.Logger) *Streams { return &Streams{b, log} }

// Aggregated returns the aggregated stream, nil where the bootstrap has none.
func (s *Streams) Aggregated() (Stream, error) {
	if s.b.Dynamic == nil || s.b.Dynamic.ADS == nil {
		return nil, nil
	}
	cfg, err := s.config(*s.b.Dynamic.ADS)
	if err != nil {
		return nil, err
	}
	cfg.Types = Types()
	return ads.New(cfg, s.log), nil
}

// Open opens a source of its own.
func (s *Streams) Open(src resource.Source) (Stream, error) {
	if src.Variant == resource.File {
		return newFiles(src, s.b.Resource.RejectUnknown, s.log), nil
	}
	cfg, err := s.single(src)
	if err != nil {
		return nil, err
	}
	return ads.New(cfg, s.log), nil
}

// single returns what a stream is told that brings the one type of a source.
func (s *Streams) single(src resource.Source) (ads.Config, error) {
	cfg, err := s.config(src)
	if err != nil {
		return cfg, err
	}
	cfg.Types = []string{typeURL(src.Kind)}
	svc := services[src.Kind]
	switch {
	case src.Variant == resource.REST:
		cfg.Poll = &ads.Poll{Path: svc.path, Delay: src.RefreshDelay, Timeout: src.RequestTimeout, Host: src.Cluster}
	case cfg.Delta:
		cfg.Method = svc.delta
	default:
		cfg.Method = svc.stream
	}
	return cfg, nil
}

// services are the services for one type each: the gRPC methods, and the path for REST.
var services = map[mesh.ResourceKind]struct{ stream, delta, path string }{
	mesh.KindCluster: {
		"/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
		"/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters", "/v3/discovery:clusters",
	},
	mesh.KindEndpoints: {
		"/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints",
		"/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints", "/v3/discovery:endpoints",
	},
	mesh.KindListener: {
		"/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners",
		"/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners", "/v3/discovery:listeners",
	},
	mesh.KindExtension: {
		"/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs",
		"/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs", "/v3/discovery:extension_configs",
	},
	mesh.KindSecret: {
		"/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
		"/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets", "/v3/discovery:secrets",
	},
	mesh.KindRouteTable: {
		"/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
		"/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes", "/v3/discovery:routes",
	},
	mesh.KindScope: {
		"/envoy.service.route.v3.ScopedRoutesDiscoveryService/StreamScopedRoutes",
		"/envoy.service.route.v3.ScopedRoutesDiscoveryService/DeltaScopedRoutes", "/v3/discovery:scoped-routes",
	},
	mesh.KindRuntime: {
		"/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime",
		"/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime", "/v3/discovery:runtime",
	},
	mesh.KindVirtualHost: {delta: "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts"},
}

// config returns where a source is, and what it is told.
func (s *Streams) config(src resource.Source) (ads.Config, error) {
	cfg := ads.Config{
		Delta: src.Variant == resource.DeltaGRPC, Node: s.b.NodeProto, NodeOnFirstOnly: src.NodeOnFirstOnly,
		Authority: src.Authority, MaxResponseBytes: src.MaxMessageBytes,
	}
	for _, h := range src.Metadata {
		cfg.Metadata = append(cfg.Metadata, h.Name, h.Value)
	}
	if src.Target != "" {
		return s.configClient(cfg, src)
	}
	for _, c := range s.b.Clusters {
		if c.Name != src.Cluster {
			continue
		}
		v := c.Value.(*mesh.Cluster)
		cfg.Targets = targets(v)
		if v.TLS == nil {
			continue
		}
		secrets, err := s.secretsOf(c, v.TLS)
		if err != nil {
			return cfg, err
		}
		cfg.Secure = s.secure(c, secrets)
	}
	if len(cfg.Targets) == 0 {
		return cfg, fmt.Errorf("xds: the control plane's cluster %q has no addresses", src.Cluster)
	}
	return cfg, nil
}

// targets returns the addresses of a cluster, in the order of the configuration. Names are looked up for each try.
func targets(c *mesh.Cluster) []ads.Target {
	var out []ads.Target
	if c.Endpoints != nil {
		for _, l := range c.Endpoints.Localities {
			for _, e := range l.Endpoints {
				out = append(out, ads.Target{Network: e.Address.Network(), Address: e.Address.String()})
			}
		}
	}
	if c.DNS != nil {
		for _, t := range c.DNS.Targets {
			out = append(out, ads.Target{Network: "tcp", Address: net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))})
		}
	}
	return out
}

// parseTarget reads a gRPC target URI (gRPC naming): host:port, dns:host:port, dns:///host:port, ipv4:address:port,
// ipv6:[address]:port, unix:path and unix:///path.
func parseTarget(uri string) (ads.Target, error) {
	scheme, rest, found := strings.Cut(uri, ":")
	switch {
	case found && scheme == "unix":
		return ads.Target{Network: "unix", Address: strings.TrimPrefix(rest, "//")}, nil
	case found && scheme == "dns":
		if authority, ok := strings.CutPrefix(rest, "//"); ok {
			// The authority is a DNS server, which is not asked here.
			_, rest, _ = strings.Cut(authority, "/")
		}
	case found && (scheme == "ipv4" || scheme == "ipv6"):
	default:
		rest = uri
	}
	_, port, err := net.SplitHostPort(rest)
	if _, notPort := strconv.ParseUint(port, 10, 16); err != nil || notPort != nil {
		return ads.Target{}, fmt.Errorf("xds: the control plane's address %q is not understood; "+
			"write host:port, dns:///host:port or unix:path", uri)
	}
	return ads.Target{Network: "tcp", Address: rest}, nil
}
