// SPDX-License-Identifier: Apache-2.0

package dump

import (
	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/xds/resource"
)

// secrets shows the secrets that are named, and those of the bootstrap. One that has not come yet has a name and nothing
// else, as in Envoy.
func (r *renderer) secrets() proto.Message {
	out := &adminpb.SecretsConfigDump{}
	for _, e := range r.in.Secrets {
		switch {
		case !r.shown(e.Name):
		case e.Static:
			out.StaticSecrets = append(out.StaticSecrets, &adminpb.SecretsConfigDump_StaticSecret{
				Name: clean(e.Name), LastUpdated: stamp(r.in.Started), Secret: r.resource(resource.SecretType, e.Live.Raw),
			})
		case e.Live == nil:
			out.DynamicWarmingSecrets = append(out.DynamicWarmingSecrets, &adminpb.SecretsConfigDump_DynamicSecret{
				Name: clean(e.Name), VersionInfo: "uninitialized", ErrorState: r.failed(resource.SecretType, e.Failure),
			})
		default:
			out.DynamicActiveSecrets = append(out.DynamicActiveSecrets, &adminpb.SecretsConfigDump_DynamicSecret{
				Name: clean(e.Name), VersionInfo: e.Live.Version, LastUpdated: stamp(e.Live.At),
				Secret: r.resource(resource.SecretType, e.Live.Raw), ErrorState: r.failed(resource.SecretType, e.Failure),
			})
		}
	}
	return out
}

// filters shows the configurations of filters that come by themselves. One that has not come yet is left out, as in Envoy,
// unless it was refused.
func (r *renderer) filters() proto.Message {
	out := &adminpb.EcdsConfigDump{}
	for _, e := range r.in.Filters {
		if !r.shown(e.Name) || e.Live == nil && e.Failure == nil {
			continue
		}
		f := &adminpb.EcdsConfigDump_EcdsFilterConfig{ErrorState: r.failed(resource.ExtensionType, e.Failure)}
		if e.Live != nil {
			f.VersionInfo, f.LastUpdated = e.Live.Version, stamp(e.Live.At)
			f.EcdsFilter = r.resource(resource.ExtensionType, e.Live.Raw)
		}
		out.EcdsFilters = append(out.EcdsFilters, f)
	}
	return out
}
