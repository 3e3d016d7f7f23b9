// SPDX-License-Identifier: Apache-2.0

package protofields

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/registry"
)

// Decode reads an extension's message from b into m, for its Parse. What the table does not honour is refused, or noted as
// without effect; what breaks a rule of the proto files is refused.
func (t *Table) Decode(b []byte, m proto.Message) (registry.Parsed, error) {
	name := m.ProtoReflect().Descriptor().FullName()
	if err := proto.Unmarshal(b, m); err != nil {
		return registry.Parsed{}, registry.Errorf("", "not a valid %s: %v", name, err)
	}
	var p registry.Parsed
	var refused error
	unknown := t.Walk(m, func(f Finding) {
		switch {
		case f.Class == NoEffect:
			p.NoEffect = append(p.NoEffect, f.Path)
		case refused == nil:
			refused = registry.Errorf(f.Path, "%s", f.Why)
		}
	})
	if refused == nil && unknown > 0 {
		refused = registry.Errorf("", "%d fields that this version of %s does not have", unknown, name)
	}
	t.Check(m, func(path, msg string) bool {
		if refused == nil {
			refused = registry.Errorf(path, "%s", msg)
		}
		return false
	})
	if refused != nil {
		return registry.Parsed{}, refused
	}
	slices.Sort(p.NoEffect)
	return p, nil
}
