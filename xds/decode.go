// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/graph"
	"github.com/meshtap/meshtap/xds/resource"
)

// known are the resources that were decoded last, by kind and name, so that bytes that come again are not decoded again.
// It holds what is asked for and nothing else: a name that is asked for is there, with nil until its resource came.
type known [mesh.NumResourceKinds]map[string]*graph.Resource

func newKnown() known {
	var k known
	for i := range k {
		k[i] = map[string]*graph.Resource{}
	}
	return k
}

// follow takes a change of the subscriptions.
func (k *known) follow(s graph.Subscribe) {
	for _, n := range s.Add {
		if _, there := k[s.Kind][n]; !there {
			k[s.Kind][n] = nil
		}
	}
	for _, n := range s.Remove {
		delete(k[s.Kind], n)
		if graph.Collective(s.Kind) && sourcekey.Name(n) == graph.Wildcard {
			k.forget(s.Kind, sourcekey.Source(n))
		}
	}
}

// note keeps what a response brought, and drops what a full one left out.
func (k *known) note(r graph.Response) {
	if graph.Collective(r.Kind) {
		k.noteMembers(r)
		return
	}
	old := k[r.Kind]
	if !r.Full && (r.Kind == mesh.KindListener || r.Kind == mesh.KindCluster) {
		// All of them are asked for.
		for _, res := range r.Resources {
			old[res.Name] = res
		}
		for _, n := range r.Removed {
			delete(old, n)
		}
		return
	}
	if !r.Full {
		for _, res := range r.Resources {
			if _, asked := old[res.Name]; asked {
				old[res.Name] = res
			}
		}
		return
	}
	now := make(map[string]*graph.Resource, len(r.Resources))
	for _, b := range r.Bad {
		if last := old[b.Name]; last != nil {
			now[b.Name] = last
		}
	}
	for _, res := range r.Resources {
		now[res.Name] = res
	}
	k[r.Kind] = now
}

func typeURL(kind mesh.ResourceKind) string {
	switch kind {
	case mesh.KindCluster:
		return resource.ClusterType
	case mesh.KindEndpoints:
		return resource.EndpointsType
	case mesh.KindListener:
		return resource.ListenerType
	case mesh.KindScope:
		return resource.ScopeType
	case mesh.KindVirtualHost:
		return resource.HostType
	case mesh.KindSecret:
		return resource.SecretType
	case mesh.KindExtension:
		return resource.ExtensionType
	case mesh.KindRuntime:
		return resource.RuntimeType
	default:
		return resource.RouteType
	}
}

// decode makes a graph event of a response. ok is false where its type is none of Types, which a Stream does not let
// happen.
func (m *Manager) decode(f *feed, r ads.Response) (out graph.Response, ok bool) {
	kind, ok := resource.KindOf(r.TypeURL)
	if !ok {
		return graph.Response{}, false
	}
	out = graph.Response{
		Kind: kind, Source: f.src.ID, Version: r.Version, Nonce: r.Nonce, At: time.Now(),
		Full:      !r.Delta && (kind == mesh.KindListener || kind == mesh.KindCluster || kind == mesh.KindScope),
		Resources: make([]*graph.Resource, 0, len(r.Resources)),
	}
	var fresh []resource.Decoded
	for i, res := range r.Resources {
		name := cmp.Or(res.Name, resource.Name(res.Bytes))
		key := f.key(kind, name)
		if old := m.known[kind][key]; old != nil && res.TypeURL == r.TypeURL && bytes.Equal(old.Raw, res.Bytes) {
			out.Resources = append(out.Resources, old)
			continue
		}
		version := cmp.Or(res.Version, r.Version)
		d, err := m.decodeOne(r, res, version)
		if err != nil {
			b := bad(i, name, res.Bytes, err, r.Place)
			b.Name = f.key(kind, b.Name)
			out.Bad = append(out.Bad, b)
			continue
		}
		fresh = append(fresh, d)
		if len(d.NoEffect) > 0 && m.deps.NoEffect != nil {
			m.deps.NoEffect(len(d.NoEffect))
		}
		if d.Unknown > 0 && m.deps.Unknown != nil {
			m.deps.Unknown(d.Unknown)
		}
		m.note(d.Refs.Sources...)
		d.Name = key
		out.Resources = append(out.Resources, newResource(d, res.Bytes, version, out.At))
	}
	out.Aliases = f.aliases(kind, r.Resources)
	for _, a := range r.Absent {
		out.Absent = append(out.Absent, graph.Absent{Name: f.key(kind, a.Name), Reason: a.Reason})
	}
	for _, n := range r.Removed {
		out.Removed = append(out.Removed, f.key(kind, n))
	}
	for _, n := range r.Alive {
		if old := m.known[kind][f.key(kind, n)]; old != nil {
			out.Resources = append(out.Resources, old)
		}
	}
	m.known.note(out)
	m.warn(r.Version, fresh)
	return out, true
}

func (m *Manager) decodeOne(r ads.Response, res ads.Resource, version string) (resource.Decoded, error) {
	if res.TypeURL != r.TypeURL {
		return resource.Decoded{}, fmt.Errorf("its type is %s, and the response is of %s", res.TypeURL, r.TypeURL)
	}
	// The resource of a virtual host is named after its table; the virtual host may have another name.
	if own := resource.Name(res.Bytes); res.Name != "" && own != res.Name && r.TypeURL != resource.HostType {
		return resource.Decoded{}, fmt.Errorf("calls itself %q", own)
	}
	return m.deps.Decoder.Decode(res.TypeURL, res.Bytes, version)
}

// maxErrors bounds the errors of one resource that go into a NACK.
const maxErrors = 5

// bad describes a resource that was not decoded. Its errors name the fields; kind and name stand before them already.
// place, where there is one, says where in a text a field stands.
func bad(i int, name string, raw []byte, err error, place func(int, string) string) graph.Bad {
	at := func(path string) string {
		if place == nil {
			return ""
		}
		return place(i, path) + ": "
	}
	var all resource.Errors
	var words []string
	if errors.As(err, &all) {
		for j, e := range all {
			if j == maxErrors {
				words = append(words, fmt.Sprintf("and %d more", len(all)-j))
				break
			}
			words = append(words, at(e.Path)+strings.TrimPrefix(e.Path+": "+e.Msg, ": "))
		}
	} else {
		words = []string{at("") + err.Error()}
	}
	// Neither the protocol nor a log can hold bytes that are no text.
	name = strings.ToValidUTF8(name, "\uFFFD")
	reason := strings.ToValidUTF8(strings.Join(words, ", "), "\uFFFD")
	if name == "" {
		reason = fmt.Sprintf("resource %d of the response: %s", i+1, reason)
	}
	return graph.Bad{Name: name, Reason: reason, Raw: raw}
}

func newResource(d resource.Decoded, raw []byte, version string, at time.Time) *graph.Resource {
	return &graph.Resource{
		Name: d.Name, Value: d.Value, Raw: raw, Version: version, At: at,
		Clusters: d.Refs.Clusters, RouteTables: d.Refs.RouteTables, Timeouts: d.Refs.Timeouts,
		Parts: d.Refs.Parts, NoEffect: d.NoEffect,
		Scopes: d.Refs.Scopes, HostSet: d.Refs.HostSet,
	}
}

// maxWarnings bounds the lines in the log about fields without effect, for each response.
const maxWarnings = 10

// warn tells of fields that are set and change nothing here, when a resource comes or changes.
func (m *Manager) warn(version string, fresh []resource.Decoded) {
	told, more := 0, 0
	for _, d := range fresh {
		switch {
		case len(d.NoEffect) == 0:
		case told == maxWarnings:
			more++
		default:
			told++
			m.log.Warn("fields without effect here", zap.Stringer("type", d.Kind), zap.String("name", d.Name),
				zap.String("version", version), zap.Strings("fields", d.NoEffect))
		}
	}
	if more > 0 {
		m.log.Warn("more resources have fields without effect here", zap.String("version", version), zap.Int("resources", more))
	}
}
