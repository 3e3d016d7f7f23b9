// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/bootstrap"
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
	if b.Dynamic != nil {
		cfg.Listeners, cfg.Clusters = b.Dynamic.Listeners, b.Dynamic.Clusters
	}
	return cfg
}

// StreamConfig returns where the control plane of a bootstrap is, and what it is told. ok is false where there is none.
func StreamConfig(b *bootstrap.Config) (cfg ads.Config, ok bool, err error) {
	if b.Dynamic == nil {
		return ads.Config{}, false, nil
	}
	s := b.Dynamic.Stream
	cfg = ads.Config{
		Types: Types(), Node: b.NodeProto, NodeOnFirstOnly: s.NodeOnFirstOnly,
		Authority: s.Authority, MaxResponseBytes: s.MaxMessageBytes,
	}
	for _, h := range s.Metadata {
		cfg.Metadata = append(cfg.Metadata, h.Name, h.Value)
	}
	if s.Target != "" {
		target, err := parseTarget(s.Target)
		cfg.Targets = []ads.Target{target}
		return cfg, true, err
	}
	for _, c := range b.Clusters {
		if c.Name == s.Cluster {
			cfg.Targets = targets(c.Value.(*mesh.Cluster))
		}
	}
	if len(cfg.Targets) == 0 {
		return cfg, true, fmt.Errorf("xds: the control plane's cluster %q has no addresses", s.Cluster)
	}
	return cfg, true, nil
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
