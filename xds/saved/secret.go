// SPDX-License-Identifier: Apache-2.0

package saved

import (
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/xds/resource"
)

// maxDepth bounds how deep messages are nested.
const maxDepth = 100

// Secret reports whether a resource holds what the API marks as sensitive (udpa.annotations.sensitive), at any depth, also
// inside of Any. The name of a file or of an environment variable that holds a secret is none. What cannot be read may be
// one.
func Secret(typeURL string, raw []byte) bool {
	return secretAny(&anypb.Any{TypeUrl: typeURL, Value: raw}, false, 0)
}

func secretAny(a *anypb.Any, marked bool, depth int) bool {
	if len(a.GetValue()) == 0 {
		return false
	}
	m, err := a.UnmarshalNew()
	return err != nil || secretMessage(m.ProtoReflect(), marked, depth+1)
}

// secretMessage looks through a message; marked says that all in it is sensitive.
func secretMessage(m protoreflect.Message, marked bool, depth int) (found bool) {
	if depth > maxDepth {
		return true
	}
	switch x := m.Interface().(type) {
	case *anypb.Any:
		return secretAny(x, marked, depth)
	case *corepb.DataSource:
		return marked && (x.GetInlineString() != "" || len(x.GetInlineBytes()) > 0)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		found = secretField(f, v, marked || resource.Sensitive(f), depth)
		return !found
	})
	return found
}

func secretField(f protoreflect.FieldDescriptor, v protoreflect.Value, marked bool, depth int) (found bool) {
	one := func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() == nil {
			return marked
		}
		return secretMessage(v.Message(), marked, depth+1)
	}
	switch {
	case f.IsMap():
		v.Map().Range(func(_ protoreflect.MapKey, item protoreflect.Value) bool {
			found = one(f.MapValue(), item)
			return !found
		})
		return found
	case f.IsList():
		for i := range v.List().Len() {
			if one(f, v.List().Get(i)) {
				return true
			}
		}
		return false
	}
	return one(f, v)
}
