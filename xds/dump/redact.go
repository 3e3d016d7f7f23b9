// SPDX-License-Identifier: Apache-2.0

package dump

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshtap/meshtap/xds/resource"
)

// Redactor hides what the API marks as sensitive (udpa.annotations.sensitive), at any depth, also inside of Any: a text
// becomes "[redacted len=32 id=ab12cd34]", everything else is left out. Equal values have equal ids, so that one can see
// whether a secret is the same in two places; the ids are made with a key, so that nobody can try values out.
type Redactor struct{ key []byte }

// NewRedactor returns a Redactor with a key of random bytes.
func NewRedactor(key []byte) *Redactor { return &Redactor{key} }

// maxDepth bounds how deep messages are nested, as for JSON elsewhere.
const maxDepth = 100

var errDepth = errors.New("messages are nested too deep")

// any returns a copy of a packed message without what is sensitive. A type that is not known is described instead,
// since nothing is known of what is sensitive in it either.
func (r *Redactor) any(a *anypb.Any) (*anypb.Any, error) { return r.anyAt(a, false, 0) }

func (r *Redactor) anyAt(a *anypb.Any, all bool, depth int) (*anypb.Any, error) {
	m, err := a.UnmarshalNew()
	if err != nil {
		if errors.Is(err, protoregistry.NotFound) {
			return describe(a, "of a type that is not known here")
		}
		return nil, err
	}
	if err := r.walk(m.ProtoReflect(), all, depth+1); err != nil {
		return nil, err
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return &anypb.Any{TypeUrl: a.GetTypeUrl(), Value: b}, err
}

// describe makes a note that stands for a message.
func describe(a *anypb.Any, why string) (*anypb.Any, error) {
	s, err := structpb.NewStruct(map[string]any{
		"type_url": strings.ToValidUTF8(a.GetTypeUrl(), "?"),
		"note":     fmt.Sprintf("%d bytes %s", len(a.GetValue()), why),
	})
	if err != nil {
		return nil, err
	}
	return anypb.New(s)
}

// message redacts a message in place; all hides every field.
func (r *Redactor) message(m protoreflect.Message, all bool) error { return r.walk(m, all, 0) }

func (r *Redactor) walk(m protoreflect.Message, all bool, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	if a, ok := m.Interface().(*anypb.Any); ok {
		clean, err := r.anyAt(a, all, depth)
		if err == nil {
			a.TypeUrl, a.Value = clean.GetTypeUrl(), clean.GetValue()
		}
		return err
	}
	if v, ok := m.Interface().(*structpb.Value); ok && all {
		// A Value has to have one of its fields.
		v.Kind = &structpb.Value_StringValue{StringValue: r.Text([]byte(v.String()))}
		return nil
	}
	var failed error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		failed = r.field(m, f, v, all || resource.Sensitive(f), depth)
		return failed == nil
	})
	m.SetUnknown(nil)
	return failed
}

// field redacts one field, and what is below it.
func (r *Redactor) field(
	m protoreflect.Message, f protoreflect.FieldDescriptor, v protoreflect.Value, hide bool, depth int,
) error {
	switch {
	case f.IsMap():
		return r.mapField(f, v.Map(), hide, depth)
	case f.IsList():
		return r.list(m, f, v.List(), hide, depth)
	case f.Message() != nil:
		return r.walk(v.Message(), hide, depth+1)
	case hide:
		if mask, ok := r.mask(f, v); ok {
			m.Set(f, mask)
		} else {
			m.Clear(f)
		}
	}
	return nil
}

func (r *Redactor) list(
	m protoreflect.Message, f protoreflect.FieldDescriptor, l protoreflect.List, hide bool, depth int,
) error {
	for i := range l.Len() {
		if f.Message() != nil {
			if err := r.walk(l.Get(i).Message(), hide, depth+1); err != nil {
				return err
			}
			continue
		}
		if !hide {
			return nil
		}
		mask, ok := r.mask(f, l.Get(i))
		if !ok {
			m.Clear(f)
			return nil
		}
		l.Set(i, mask)
	}
	return nil
}

func (r *Redactor) mapField(f protoreflect.FieldDescriptor, values protoreflect.Map, hide bool, depth int) error {
	var failed error
	value := f.MapValue()
	values.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		switch {
		case value.Message() != nil:
			failed = r.walk(v.Message(), hide, depth+1)
		case hide:
			if mask, ok := r.mask(value, v); ok {
				values.Set(k, mask)
			} else {
				values.Clear(k)
			}
		}
		return failed == nil
	})
	return failed
}

// mask returns what stands for a value; ok is false where nothing of its kind can.
func (r *Redactor) mask(f protoreflect.FieldDescriptor, v protoreflect.Value) (out protoreflect.Value, ok bool) {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(r.Text([]byte(v.String()))), true
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(r.Text(v.Bytes()))), true
	default:
		return out, false
	}
}

// Text returns what stands for a secret.
func (r *Redactor) Text(secret []byte) string {
	h := hmac.New(sha256.New, r.key)
	h.Write(secret)
	return fmt.Sprintf("[redacted len=%d id=%x]", len(secret), h.Sum(nil)[:4])
}
