// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/meshtap/meshtap/internal/protofields"
)

// source checks that a resource is to be fetched over the one xDS stream: because it says so, or because its own
// stream would go to the same control plane.
func (s *scope) source(p *at, c *corev3.ConfigSource) {
	if v := c.GetResourceApiVersion(); v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
		s.errorf(p.field("resource_api_version"), "%s is not supported; supported: V3", v)
	}
	switch x := c.GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Ads:
	case *corev3.ConfigSource_ApiConfigSource:
		target := Target(x.ApiConfigSource)
		if target == "" {
			s.errorf(p.field("api_config_source"), "is not supported unless it is of type GRPC with one service; write ads: {}")
			return
		}
		if !slices.Contains(s.d.opt.ControlPlane, target) {
			s.errorf(p.field("api_config_source"), "goes to %q, but there is one xDS stream, to %s; write ads: {} "+
				"to use it", target, orNone(s.d.opt.ControlPlane))
			return
		}
		s.notef(p.field("api_config_source"), "read over the one xDS stream to %q", target)
	case nil:
		s.errorf(p, "needs a source; write ads: {}")
	}
}

// Target returns the cluster, or the target URI, that a gRPC config source goes to, "" where it has none.
func Target(c *corev3.ApiConfigSource) string {
	switch c.GetApiType() {
	case corev3.ApiConfigSource_GRPC, corev3.ApiConfigSource_DELTA_GRPC:
	default:
		return ""
	}
	if len(c.GetGrpcServices()) != 1 {
		return ""
	}
	g := c.GetGrpcServices()[0]
	if g.GetGoogleGrpc() != nil {
		return g.GetGoogleGrpc().GetTargetUri()
	}
	return g.GetEnvoyGrpc().GetClusterName()
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "nowhere (the bootstrap names no control plane)"
	}
	return strings.Join(names, ", ")
}

// addSourceFields states what is honoured of config sources.
func addSourceFields(t *protofields.Table) {
	t.Add(&corev3.ConfigSource{}, protofields.Honour("ads", "resource_api_version"),
		protofields.Opaque("api_config_source"),
		protofields.Refuse("take resources over the one xDS stream: ads: {}", "path", "path_config_source", "self"),
		protofields.Refuse("xdstp:// authorities are not supported", "authorities"),
		protofields.Ignore("warming waits 15 s for a resource", "initial_fetch_timeout=15s"))
	t.Add(&corev3.AggregatedConfigSource{})
}
