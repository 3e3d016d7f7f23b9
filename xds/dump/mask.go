// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// QueryError is a query that has no answer. Status is that of Envoy's answer, and so are the words, where they say enough.
type QueryError struct {
	Status int
	Msg    string
}

// Error returns the message.
func (e *QueryError) Error() string { return e.Msg }

// mask is a google.protobuf.FieldMask: the paths of the fields that are shown. It is nil where all are.
type mask [][]string

func parseMask(s string) (m mask) {
	for path := range strings.SplitSeq(s, ",") {
		if path != "" {
			m = append(m, strings.Split(path, "."))
		}
	}
	return m
}

// String returns the mask as Envoy's answers show it.
func (m mask) String() string {
	var b strings.Builder
	for _, path := range m {
		fmt.Fprintf(&b, "paths: %q\n", strings.Join(path, "."))
	}
	return b.String()
}

// masked keeps of the parts of a dump those that have all fields of the mask, and of them those fields.
func masked(parts []proto.Message, text string) ([]proto.Message, error) {
	m := parseMask(text)
	if m == nil {
		return parts, nil
	}
	var out []proto.Message
	for _, p := range parts {
		if p, ok := m.trim(p); ok {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, &QueryError{http.StatusBadRequest, fmt.Sprintf("FieldMask %s could not be successfully applied to any configs.", text)}
	}
	return out, nil
}

// maskedItems shows of the items of a list the fields of the mask. A path may lead on into the resource that an item holds.
func maskedItems(items []proto.Message, text string) ([]proto.Message, error) {
	m := parseMask(text)
	if m == nil {
		return items, nil
	}
	out := make([]proto.Message, 0, len(items))
	for _, item := range items {
		trimmed, ok := m.trimItem(item)
		if !ok {
			return nil, &QueryError{http.StatusBadRequest, fmt.Sprintf("FieldMask %s could not be successfully used.", m)}
		}
		out = append(out, trimmed)
	}
	return out, nil
}

// trim returns a copy with the fields of the mask alone; ok is false where a path leads nowhere, or into a list.
func (m mask) trim(p proto.Message) (out proto.Message, ok bool) {
	root := &tree{}
	for _, path := range m {
		if !leads(p.ProtoReflect().Descriptor(), path) {
			return nil, false
		}
		root.add(path)
	}
	out = proto.Clone(p)
	root.apply(out.ProtoReflect())
	return out, true
}

// trimItem is trim for an item, whose resource is in a google.protobuf.Any.
func (m mask) trimItem(p proto.Message) (out proto.Message, ok bool) {
	var outer, inner mask
	var field protoreflect.FieldDescriptor
	whole := false
	for _, path := range m {
		f := p.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(path[0]))
		if f == nil || f.IsList() || f.Message() == nil || f.Message().FullName() != anyName {
			outer = append(outer, path)
			continue
		}
		field, outer = f, append(outer, path[:1])
		if whole = whole || len(path) == 1; !whole {
			inner = append(inner, path[1:])
		}
	}
	out, ok = outer.trim(p)
	if !ok || field == nil || whole || !out.ProtoReflect().Has(field) {
		return out, ok
	}
	a := out.ProtoReflect().Mutable(field).Message().Interface().(*anypb.Any)
	resource, err := a.UnmarshalNew()
	if err != nil {
		return nil, false
	}
	if resource, ok = inner.trim(resource); !ok {
		return nil, false
	}
	return out, a.MarshalFrom(resource) == nil
}

const anyName = "google.protobuf.Any"

// leads reports whether a path ends at a field. It may end at a list, but not lead through one.
func leads(d protoreflect.MessageDescriptor, path []string) bool {
	for i, name := range path {
		f := d.Fields().ByName(protoreflect.Name(name))
		switch {
		case f == nil:
			return false
		case i == len(path)-1:
			return true
		case f.Message() == nil || f.IsList() || f.IsMap():
			return false
		}
		d = f.Message()
	}
	return false
}

// tree is the fields to keep: a field without fields of its own is kept whole.
type tree struct{ fields map[protoreflect.Name]*tree }

func (t *tree) add(path []string) {
	for i, name := range path {
		next := t.fields[protoreflect.Name(name)]
		if next != nil && next.fields == nil {
			return // the whole field is kept
		}
		if next == nil {
			next = &tree{}
			if t.fields == nil {
				t.fields = map[protoreflect.Name]*tree{}
			}
			t.fields[protoreflect.Name(name)] = next
		}
		if i == len(path)-1 {
			next.fields = nil
		} else if next.fields == nil {
			next.fields = map[protoreflect.Name]*tree{}
		}
		t = next
	}
}

func (t *tree) apply(m protoreflect.Message) {
	if t.fields == nil {
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		keep := t.fields[f.Name()]
		switch {
		case keep == nil:
			m.Clear(f)
		case keep.fields != nil:
			keep.apply(v.Message())
		}
		return true
	})
}
