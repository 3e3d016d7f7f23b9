// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"math"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/layered"
	"github.com/meshtap/meshtap/xds/resource"
)

// The runtime keys that are read.
const (
	connectionsKey     = "overload.global_downstream_max_connections"
	listenerKeyPrefix  = "envoy.resource_limits.listener."
	listenerKeySuffix  = ".connection_limit"
	regexKey           = "re2.max_program_size.error_level"
	connectionsMonitor = "envoy.resource_monitors.global_downstream_max_connections"
)

// RTDSLayer is a layer of the runtime that comes from a control plane or a file.
type RTDSLayer struct {
	// Layer is its place among the layers, Name that of its resource.
	Layer  int
	Name   string
	Source resource.Source
}

// runtime reads the layers; a later one counts where two have a key.
func (l *loader) runtime(s *resource.Scope, b *bootstrapv3.Bootstrap) {
	var layers []layered.Layer
	seen, admin := map[string]bool{}, false
	for i, m := range b.GetLayeredRuntime().GetLayers() {
		path := fmt.Sprintf("layered_runtime.layers[%d]", i)
		if seen[m.GetName()] {
			s.Fail(path+".name", fmt.Sprintf("%q is the name of an earlier layer", m.GetName()))
		}
		seen[m.GetName()] = true
		layer := layered.Layer{Name: m.GetName()}
		switch {
		case m.GetDiskLayer() != nil:
			layer.Kind = layered.Disk
			onDisk(&layer, m.GetDiskLayer(), orElse(l.opt.NodeCluster, b.GetNode().GetCluster()))
		case m.GetAdminLayer() != nil:
			layer.Kind = layered.Admin
			if admin {
				s.Fail(path+".admin_layer", "may be there once: there is one administration interface")
			}
			admin = true
		case m.GetRtdsLayer() != nil:
			layer.Kind = layered.RTDS
		default:
			l.values(s, path+".static_layer", "", m.GetStaticLayer(), 0)
			var err error
			if layer.Values, err = layered.FromStruct(m.GetStaticLayer()); err != nil {
				s.Fail(path+".static_layer", err.Error())
			}
		}
		layers = append(layers, layer)
	}
	if l.config.Runtime = l.opt.Runtime; l.config.Runtime == nil {
		l.config.Runtime = layered.New()
	}
	if err := l.config.Runtime.Configure(layers); err != nil {
		s.Note("layered_runtime.layers", err.Error())
	}
}

// onDisk reads where a layer is on disk. The directory of the proxy's cluster is below the others.
func onDisk(layer *layered.Layer, m *bootstrapv3.RuntimeLayer_DiskLayer, cluster string) {
	layer.Root = filepath.Clean(m.GetSymlinkRoot())
	layer.Dir = filepath.Join(layer.Root, m.GetSubdirectory())
	if m.GetAppendServiceCluster() {
		layer.Dir = filepath.Join(layer.Dir, cluster)
	}
}

// rtds reads where the layers come from that are resources.
func (l *loader) rtds(s *resource.Scope, m *bootstrapv3.LayeredRuntime) {
	d := l.config.Dynamic
	if d == nil {
		d = &Dynamic{}
	}
	for i, layer := range m.GetLayers() {
		r := layer.GetRtdsLayer()
		if r == nil {
			continue
		}
		path := fmt.Sprintf("layered_runtime.layers[%d].rtds_layer", i)
		if r.GetName() == "" {
			s.Fail(path+".name", "must not be empty")
		}
		if src := l.configSource(s, path+".rtds_config", mesh.KindRuntime, r.GetRtdsConfig(), d); src != nil {
			src.Stats = "runtime"
			l.config.RTDS = append(l.config.RTDS, RTDSLayer{Layer: i, Name: r.GetName(), Source: *src})
		} else {
			s.Fail(path+".rtds_config", "is required")
		}
	}
}

// values checks the keys of a layer. A dot in a key and a mapping in a mapping mean the same.
func (l *loader) values(s *resource.Scope, path, prefix string, m *structpb.Struct, depth int) {
	keys := make([]string, 0, len(m.GetFields()))
	for k := range m.GetFields() {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		v, key, kp := m.GetFields()[k], prefix+k, path+"."+k
		if inner := v.GetStructValue(); inner != nil && depth < maxDepth && !isFraction(inner) {
			l.values(s, kp, key+".", inner, depth+1)
			continue
		}
		l.value(s, kp, key, v)
	}
}

// isFraction says whether a mapping is the value of one key: runtime fractions are written so.
func isFraction(m *structpb.Struct) bool { return m.GetFields()["numerator"] != nil }

// value checks the value of a key that is read whatever the configuration says, and reports those of Envoy that are not.
func (l *loader) value(s *resource.Scope, path, key string, v *structpb.Value) {
	listener, isLimit := strings.CutPrefix(key, listenerKeyPrefix)
	listener, isSuffix := strings.CutSuffix(listener, listenerKeySuffix)
	switch {
	case key == connectionsKey, key == regexKey, isLimit && isSuffix && listener != "":
		checkNumber(s, path, v)
	case layered.Inert(key):
		s.Note(path, fmt.Sprintf("no effect: the runtime key %s is not read here, unless a resource names it", key))
	}
}

// checkNumber checks a value of at least 1, which may also be written as a string.
func checkNumber(s *resource.Scope, path string, v *structpb.Value) {
	n := v.GetNumberValue()
	if text := v.GetStringValue(); text != "" {
		var err error
		if n, err = strconv.ParseFloat(text, 64); err != nil {
			n = 0
		}
	}
	if n < 1 || n > math.MaxUint32 || n != math.Trunc(n) {
		s.Fail(path, fmt.Sprintf("must be a whole number of at least 1 and at most %d", uint32(math.MaxUint32)))
	}
}

// overload returns the connection limit that a resource monitor sets, or 0.
func (l *loader) overload(s *resource.Scope, m *overloadv3.OverloadManager) (limit int) {
	for i, monitor := range m.GetResourceMonitors() {
		path := fmt.Sprintf("overload_manager.resource_monitors[%d].typed_config", i)
		c := &connectionsv3.DownstreamConnectionsConfig{}
		if s.Message(path, monitor.GetTypedConfig(), c) {
			limit = int(min(c.GetMaxActiveDownstreamConnections(), math.MaxInt32))
		}
	}
	return limit
}
