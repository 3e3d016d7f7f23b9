// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"slices"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/resource"
)

// SecretSource returns where a secret comes from that the cluster of a control plane names by its key: a file, another control
// plane, or the zero value where it stands in the bootstrap. It cannot come over a cluster that needs it first.
func (c *Config) SecretSource(cluster Static, key string) (src resource.Source, err error) {
	name, id := sourcekey.Split(key)
	const allowed = "the cluster of a control plane takes secrets from files (sds_config.path_config_source), from static_resources.secrets " +
		"and from another control plane (sds_config.api_config_source)"
	if id == sourcekey.Static {
		return src, nil
	}
	i := slices.IndexFunc(cluster.Refs.Sources, func(s resource.Source) bool { return s.ID == id })
	if i < 0 {
		return src, fmt.Errorf("the secret %q comes over %s, which may need it first; %s", name, resource.ADS, allowed)
	}
	src = cluster.Refs.Sources[i]
	if src.Cluster != "" && c.needs(src.Cluster, cluster.Name, map[string]bool{}) {
		return src, fmt.Errorf("the secret %q would come over the cluster %q, which cannot connect without it; %s", name, src.Cluster, allowed)
	}
	return src, nil
}

// needs says whether a cluster is another one, or takes a secret from it, be it by way of others. seen are those that were
// looked at.
func (c *Config) needs(cluster, other string, seen map[string]bool) bool {
	if cluster == other || seen[cluster] {
		return cluster == other
	}
	seen[cluster] = true
	i := slices.IndexFunc(c.Clusters, func(s Static) bool { return s.Name == cluster })
	return i >= 0 && slices.ContainsFunc(c.Clusters[i].Refs.Sources, func(s resource.Source) bool {
		return s.Kind == mesh.KindSecret && s.Cluster != "" && c.needs(s.Cluster, other, seen)
	})
}

// planeSecrets checks that the clusters of control planes can have their secrets.
func (l *loader) planeSecrets() {
	for i, c := range l.config.Clusters {
		v, ok := c.Value.(*mesh.Cluster)
		if !ok || v.TLS == nil || !slices.Contains(l.planes(), c.Name) {
			continue
		}
		for _, key := range slices.Concat(v.TLS.CertificateSecrets, []string{v.TLS.ValidationSecret}) {
			if key == "" {
				continue
			}
			if _, err := l.config.SecretSource(c, key); err != nil {
				p := l.where(fmt.Sprintf("static_resources.clusters[%d]", i), sourcekey.Name(key),
					"_sds_secret_configs[0].name", "_sds_secret_config.name")
				l.fail(p, err.Error(), "")
			}
		}
	}
}

// planes returns the clusters that sources lead to, of all that the bootstrap holds.
func (l *loader) planes() (names []string) {
	c := l.config
	for _, s := range c.Dynamic.sources() {
		names = append(names, s.Cluster)
	}
	for _, r := range c.RTDS {
		names = append(names, r.Source.Cluster)
	}
	for _, list := range [][]Static{c.Listeners, c.Clusters} {
		for _, r := range list {
			for _, s := range r.Refs.Sources {
				names = append(names, s.Cluster)
			}
		}
	}
	for _, r := range c.Discovered {
		for _, s := range r.Sources {
			names = append(names, s.Cluster)
		}
	}
	return names
}
