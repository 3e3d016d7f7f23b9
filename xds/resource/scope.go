// SPDX-License-Identifier: Apache-2.0

package resource

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// Scope reads a message that is not a resource, the bootstrap, with the means by which resources are read. Paths are
// those of fields, as in Error.
type Scope struct{ s scope }

// Scope returns a Scope for one message.
func (d *Decoder) Scope(kind mesh.ResourceKind, name string) *Scope {
	return &Scope{scope{d: d.now(), report: report{kind: kind, name: name}}}
}

func place(path string) *at {
	if path == "" {
		return nil
	}
	return (*at)(nil).field(path)
}

// Fail reports an error at a field; the first error of a field is kept.
func (c *Scope) Fail(path, msg string) { c.s.fail(path, msg) }

// Note reports a field that is set without effect.
func (c *Scope) Note(path, why string) { c.s.note(path, why) }

// Check applies the rules of the proto files and the table of fields to a message.
func (c *Scope) Check(path string, m proto.Message) { c.s.check(place(path), m) }

// Message reads a typed configuration as m, and returns false where it is of another type or cannot be read.
func (c *Scope) Message(path string, a *anypb.Any, m proto.Message) bool {
	return c.s.ownMessage(place(path), a, m)
}

// Address reads an IP address with a port, or a unix socket.
func (c *Scope) Address(path string, a *corev3.Address) mesh.Address {
	return c.s.address(place(path), a)
}

// Extension reads a typed configuration with the factory that the registry has for it.
func (c *Scope) Extension(path string, cat registry.Category, name string, a *anypb.Any) (mesh.Extension, bool) {
	return c.s.extension(place(path), cat, name, a, false)
}

// Resolver reads a typed DNS resolver, for Options.DNS.
func (c *Scope) Resolver(path string, m *corev3.TypedExtensionConfig) mesh.DNS {
	var d mesh.DNS
	c.s.resolver(place(path), &d, m)
	return d
}

// Result returns the errors, which may be none, and the notes in the form of Decoded.NoEffect.
func (c *Scope) Result() (Errors, []string) {
	errs, _ := c.s.err().(Errors)
	return errs, c.s.noEffect()
}
