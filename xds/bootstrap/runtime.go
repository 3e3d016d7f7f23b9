// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	"google.golang.org/protobuf/types/known/structpb"

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

// runtime reads the static layers; a later one counts where two have a key.
func (l *loader) runtime(s *resource.Scope, opt *resource.Options, m *bootstrapv3.LayeredRuntime) {
	seen := map[string]bool{}
	for i, layer := range m.GetLayers() {
		path := fmt.Sprintf("layered_runtime.layers[%d]", i)
		if seen[layer.GetName()] {
			s.Fail(path+".name", fmt.Sprintf("%q is the name of an earlier layer", layer.GetName()))
		}
		seen[layer.GetName()] = true
		l.values(s, opt, path+".static_layer", "", layer.GetStaticLayer(), 0)
	}
}

// values reads the keys of a layer. A dot in a key and a mapping in a mapping mean the same.
func (l *loader) values(s *resource.Scope, opt *resource.Options, path, prefix string, m *structpb.Struct, depth int) {
	keys := make([]string, 0, len(m.GetFields()))
	for k := range m.GetFields() {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		v, key, kp := m.GetFields()[k], prefix+k, path+"."+k
		if inner := v.GetStructValue(); inner != nil && depth < maxDepth && !isFraction(inner) {
			l.values(s, opt, kp, key+".", inner, depth+1)
			continue
		}
		l.value(s, opt, kp, key, v)
	}
}

// isFraction says whether a mapping is the value of one key: runtime fractions are written so.
func isFraction(m *structpb.Struct) bool { return m.GetFields()["numerator"] != nil }

func (l *loader) value(s *resource.Scope, opt *resource.Options, path, key string, v *structpb.Value) {
	listener, isLimit := strings.CutPrefix(key, listenerKeyPrefix)
	listener, isSuffix := strings.CutSuffix(listener, listenerKeySuffix)
	switch {
	case key == connectionsKey:
		if n, ok := number(s, path, v); ok && l.config.Connections == 0 {
			l.config.Connections = n
		}
	case key == regexKey:
		if n, ok := number(s, path, v); ok {
			opt.Limits.RegexProgram = n
		}
	case isLimit && isSuffix && listener != "":
		if n, ok := number(s, path, v); ok {
			if opt.ListenerConnections == nil {
				opt.ListenerConnections = map[string]int{}
			}
			opt.ListenerConnections[listener] = n
		}
	default:
		s.Note(path, fmt.Sprintf("no effect: the runtime key %s is not read here", key))
	}
}

// number reads a value of at least 1, which may also be written as a string.
func number(s *resource.Scope, path string, v *structpb.Value) (int, bool) {
	n := v.GetNumberValue()
	if text := v.GetStringValue(); text != "" {
		var err error
		if n, err = strconv.ParseFloat(text, 64); err != nil {
			n = 0
		}
	}
	if n < 1 || n > math.MaxInt32 || n != math.Trunc(n) {
		s.Fail(path, fmt.Sprintf("must be a whole number of at least 1 and at most %d", math.MaxInt32))
		return 0, false
	}
	return int(n), true
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
