// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"strings"
	"time"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/graph"
)

// tagPart is the name of a secret, or of the configuration of a filter, in Prometheus.
const tagPart = "envoy.xds_resource_name"

// keyRotationFailed is the number of secrets alone, behind those of every subscription.
const keyRotationFailed = updateVersionText + 1

// partSchemas are the numbers of parts, by their kinds.
func partSchemas() map[mesh.ResourceKind]*stats.Schema {
	secrets := updateSchema("sds")
	secrets.Defs = append(secrets.Defs, stats.Def{Name: "key_rotation_failed"})
	return map[mesh.ResourceKind]*stats.Schema{
		mesh.KindSecret: secrets, mesh.KindExtension: updateSchema("extension_config_discovery.http_filter"),
	}
}

// part is a resource that is counted by its own name, as in Envoy.
type part struct {
	kind mesh.ResourceKind
	key  string
}

// follow opens and closes the numbers of parts, such as sds.<name>.*, with what is asked for. types says which types a part
// may have.
func (n *numbers) follow(s graph.Subscribe, types func(mesh.ResourceKind, string) string) {
	if n.schemas[s.Kind] == nil {
		return
	}
	for _, key := range s.Add {
		schema := n.schemas[s.Kind]
		for prefix, other := range n.ofFilters {
			if s.Kind == mesh.KindExtension && strings.HasPrefix(types(s.Kind, key), prefix) {
				schema = other
			}
		}
		name := sourcekey.Name(key)
		n.parts[part{s.Kind, key}] = n.reg.Group(schema, schema.Name+"."+name, stats.Tag{Name: tagPart, Value: name})
	}
	for _, key := range s.Remove {
		n.parts[part{s.Kind, key}].Release()
		delete(n.parts, part{s.Kind, key})
	}
}

// acceptedParts counts the parts of a response that was accepted, by their keys.
func (n *numbers) acceptedParts(kind mesh.ResourceKind, keys []string, version string, at time.Time) {
	for _, key := range keys {
		if g := n.parts[part{kind, key}]; g != nil {
			count(g, version, at)
		}
	}
}

// rejectedParts counts those of one of which some, by their names, were refused.
func (n *numbers) rejectedParts(kind mesh.ResourceKind, keys, names []string) {
	for _, key := range keys {
		g := n.parts[part{kind, key}]
		switch {
		case g == nil:
		case slices.Contains(names, sourcekey.Name(key)):
			g.Inc(0, updateRejected)
		default:
			g.Inc(0, updateSuccess)
		}
	}
}

// timedOutPart counts a part that did not come in time, by its name.
func (n *numbers) timedOutPart(kind mesh.ResourceKind, name string) {
	for p, g := range n.parts {
		if p.kind == kind && sourcekey.Name(p.key) == name {
			g.Inc(0, initFetchTimeout)
		}
	}
}

// rotationFailed counts a change of a secret's files that could not be taken.
func (n *numbers) rotationFailed(key string) {
	if g := n.parts[part{mesh.KindSecret, key}]; g != nil {
		g.Inc(0, keyRotationFailed)
	}
}

// failedParts counts a source of parts that could not be read.
func (n *numbers) failedParts(source string) {
	for p, g := range n.parts {
		if sourcekey.Source(p.key) == source {
			g.Inc(0, updateFailure)
		}
	}
}
