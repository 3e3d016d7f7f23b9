// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// Configs returns where the configuration with a key is once it has come (proxy/filter.Configs.Place). What it returns gives
// nil before, and may be called by many goroutines.
type Configs func(key string) func() *mesh.Extension

// discovered is a listener filter whose configuration comes by itself (ECDS). Since filters keep no state of a connection, one
// that is looked at sees each change at once.
type discovered struct {
	// Immutable.
	config   func() *mesh.Extension
	fallback *mesh.Extension // nil where there is none
	builds   map[string]Build
	redirect bool // it may find the original destination

	now atomic.Pointer[built]
}

// built is a filter with the configuration that it was built of.
type built struct {
	config *mesh.Extension
	filter Filter
}

func newDiscovered(place string, d *mesh.FilterDiscovery, builds map[string]Build, configs Configs) (*discovered, error) {
	types := strings.Fields(d.Types)
	for _, t := range types {
		if builds[t] == nil {
			return nil, unknown(place, t)
		}
	}
	return &discovered{
		config: configs(d.Key), fallback: d.Default, builds: builds, redirect: slices.Contains(types, typeOriginalDst),
	}, nil
}

func unknown(place, typeURL string) error {
	return registry.Errorf(place, "there is no listener filter of type %q", typeURL)
}

// filter returns what is in force; ok is false where nothing has come and there is no default.
func (d *discovered) filter() (f Filter, ok bool) {
	c := d.config()
	if c == nil || d.builds[c.TypeURL] == nil { // others may name it too, and let it be something else
		c = d.fallback
	}
	if c == nil {
		return f, false
	}
	v := d.now.Load()
	if v == nil || v.config != c {
		v = &built{c, d.builds[c.TypeURL](c.Config)}
		d.now.Store(v)
	}
	return v.filter, true
}

func placeOf(i int) string { return fmt.Sprintf("listener_filters[%d]", i) }
