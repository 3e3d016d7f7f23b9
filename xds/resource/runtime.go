// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"math"

	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/layered"
)

// regexKey is the runtime key that bounds regular expressions.
const regexKey = "re2.max_program_size.error_level"

// key returns a key of the runtime; nil where there is no name, or no runtime.
func (s *scope) key(name string) mesh.RuntimeKey {
	if name == "" || s.d.opt.Runtime == nil {
		return nil
	}
	return s.d.opt.Runtime.Key(name)
}

// tunable is the configuration of an extension that names keys of the runtime: WithRuntime returns it with those keys.
type tunable interface {
	WithRuntime(mesh.Runtime) any
}

// now returns a Decoder with the limits that the runtime sets now, for one resource.
func (d *Decoder) now() *Decoder {
	if d.regex == nil {
		return d
	}
	was := uint64(d.opt.Limits.RegexProgram)
	n := min(d.regex.Integer(was), math.MaxInt32) // which Kuma and Envoy Gateway exceed, for "no limit"
	if n == was || n == 0 {
		return d
	}
	with := *d
	with.opt.Limits.RegexProgram = int(n)
	return &with
}

// runtimeLayer reads the values of a layer of the runtime.
func (s *scope) runtimeLayer(m *runtimev3.Runtime) map[string]layered.Value {
	if m.GetName() == "" {
		s.errorf((*at)(nil).field("name"), isRequired)
	}
	values, err := layered.FromStruct(m.GetLayer())
	if err != nil {
		s.errorf((*at)(nil).field("layer"), "%v", err)
	}
	return values
}

func addRuntimeFields(t *protofields.Table) {
	t.Add(&runtimev3.Runtime{}, protofields.Opaque("layer"), protofields.Honour("name"))
}
