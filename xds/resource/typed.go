// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"errors"
	"fmt"
	"strings"

	xdstypev1 "github.com/cncf/xds/go/udpa/type/v1"
	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshtap/meshtap/internal/nearest"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// typed is a typed configuration with its wrappers removed: the type's full name and its serialized message.
type typed struct {
	name  string
	value []byte
	// err says why a TypedStruct could not become a message; of an unknown type it is nil and value is empty.
	err error
}

// unwrap takes a google.protobuf.Any apart. Both kinds of TypedStruct become the message they stand for.
func unwrap(a *anypb.Any) typed {
	name := typeName(a.GetTypeUrl())
	switch name {
	case "udpa.type.v1.TypedStruct":
		m := &xdstypev1.TypedStruct{}
		if err := proto.Unmarshal(a.GetValue(), m); err != nil {
			return typed{name: name, err: err}
		}
		return fromStruct(m.GetTypeUrl(), m.GetValue())
	case "xds.type.v3.TypedStruct":
		m := &xdstypev3.TypedStruct{}
		if err := proto.Unmarshal(a.GetValue(), m); err != nil {
			return typed{name: name, err: err}
		}
		return fromStruct(m.GetTypeUrl(), m.GetValue())
	}
	return typed{name: name, value: a.GetValue()}
}

func typeName(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// fromStruct reads a JSON object as the message of the given type.
func fromStruct(url string, value *structpb.Struct) typed {
	t := typed{name: typeName(url)}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(t.name))
	if err != nil {
		return t
	}
	if value == nil {
		return t
	}
	b, err := protojson.Marshal(value)
	if err != nil {
		t.err = err
		return t
	}
	m := mt.New().Interface()
	if err := (protojson.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(b, m); err != nil {
		t.err = jsonText(err, m.ProtoReflect().Descriptor())
		return t
	}
	t.value, t.err = proto.Marshal(m)
	return t
}

// jsonText removes the position in a text that the user never saw, and says which field of the message may have been meant.
func jsonText(err error, d protoreflect.MessageDescriptor) error {
	text := protoText(err)
	if _, rest, ok := strings.Cut(text, "): "); ok && strings.HasPrefix(text, "(line ") {
		text = rest
	}
	if name, ok := strings.CutPrefix(text, `unknown field "`); ok {
		names := fieldNames(d, map[protoreflect.FullName]bool{})
		if near := nearest.Name(strings.TrimSuffix(name, `"`), names); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
	}
	return errors.New(text)
}

// fieldNames are the names of the fields of a message, and of the messages in it.
func fieldNames(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) (names []string) {
	if seen[d.FullName()] {
		return nil
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		names = append(names, string(f.Name()))
		if f.Message() != nil {
			names = append(names, fieldNames(f.Message(), seen)...)
		}
	}
	return names
}

// message reads a typed configuration of a type that the decoder itself knows.
func (s *scope) message(p *at, t typed, m proto.Message) bool {
	if t.err != nil {
		s.errorf(p, "%v", t.err)
		return false
	}
	return s.read(p, t.value, m)
}

// isType says whether a typed configuration holds a message of m's type.
func isType(t typed, m proto.Message) bool {
	return t.name == string(m.ProtoReflect().Descriptor().FullName())
}

// extension reads a typed configuration with its factory's Parse; false means that there is none to use. p is the place
// of the typed configuration itself. One of an unknown type is an error, unless it is optional; own lists types of the
// category that the decoder reads without the registry, for the message.
func (s *scope) extension(p *at, c registry.Category, name string, a *anypb.Any, optional bool, own ...string) (
	mesh.Extension, bool,
) {
	if a == nil {
		s.errorf(p, "%s", isRequired)
		return mesh.Extension{}, false
	}
	t := unwrap(a)
	if t.err != nil {
		s.errorf(p, "%v", t.err)
		return mesh.Extension{}, false
	}
	parsed, info, ok, err := s.d.opt.Parsers.Parse(c, t.name, t.value)
	if !ok && optional {
		s.notef(p, "type %s is not known, and is_optional is set", t.name)
		return mesh.Extension{}, false
	}
	if !ok {
		s.errorf(p, "%s", s.unknownType(c, name, t.name, own...))
		return mesh.Extension{}, false
	}
	if err != nil {
		s.extensionError(p, err)
		return mesh.Extension{}, false
	}
	for _, path := range parsed.NoEffect {
		s.note(p.join(path), "no effect")
	}
	if info.Status == registry.Inert {
		s.notef(p, "%s is accepted and does nothing here", t.name)
	}
	s.clusters = append(s.clusters, parsed.Clusters...)
	if c, ok := parsed.Config.(tunable); ok && s.d.opt.Runtime != nil {
		parsed.Config = c.WithRuntime(s.d.opt.Runtime)
	}
	return mesh.Extension{Name: name, TypeURL: t.name, Config: parsed.Config}, true
}

// unknownType is the message for a type that nobody reads.
func (s *scope) unknownType(c registry.Category, name, typeName string, own ...string) string {
	known := append(own, s.d.opt.Parsers.Known(c)...)
	list := strings.Join(known, ", ")
	if list == "" {
		list = "none"
	}
	text := fmt.Sprintf("extension %q has type %s, which is not supported in %s; supported: %s", name, typeName, c, list)
	if s.d.opt.Static {
		return text // the bootstrap has suggestions of its own
	}
	for _, k := range known {
		if nearest.Edits(k, typeName) <= typos {
			text += fmt.Sprintf("; did you mean %s?", k)
			break
		}
	}
	return text
}

// typos is how many letters of a type's name may be wrong for it to be known: types of other extensions differ by more.
const typos = 2

// extensionError reports what a factory's Parse returned, field by field where it tells them.
func (s *scope) extensionError(p *at, err error) {
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range list.Unwrap() {
			s.extensionError(p, e)
		}
		return
	}
	var fe *registry.FieldError
	if errors.As(err, &fe) {
		s.fail(p.join(fe.Path), fe.Msg)
		return
	}
	s.errorf(p, "%v", err)
}
