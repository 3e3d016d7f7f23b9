// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/meshtap/meshtap/internal/nearest"
)

const (
	typeKey       = "@type"
	typePrefix    = "type.googleapis.com/"
	typedStruct   = "xds.type.v3.TypedStruct"
	oldTypeStruct = "udpa.type.v1.TypedStruct"
)

// isWellKnown says whether a message has a JSON form of its own.
func isWellKnown(d protoreflect.MessageDescriptor) bool {
	return d.ParentFile().Package() == "google.protobuf" && d.Name() != "Empty"
}

// wellKnown walks a message that has a JSON form of its own; nil means that there is no value.
func (w *walker) wellKnown(n *yaml.Node, d protoreflect.MessageDescriptor, path string, depth int) any {
	if n.Kind == yaml.ScalarNode {
		w.places[path] = w.at(n)
		w.texts[path] = n.Value
	}
	switch d.Name() {
	case "Any":
		return w.any(n, path, depth)
	case "Struct":
		return w.object(n, path, depth)
	case "Value":
		return w.generic(n, path, depth)
	case "ListValue":
		if n.Kind != yaml.SequenceNode {
			w.fail(n, path, label(path)+" must be a list, not "+kind(n), "")
			return nil
		}
		return w.generic(n, path, depth)
	case "Duration":
		if n.Kind == yaml.MappingNode {
			return w.longDuration(n, d, path, depth)
		}
		return w.checked(n, path, durationValue)
	case "Timestamp", "FieldMask":
		return w.checked(n, path, stringValue)
	}
	return w.wrapper(n, d, path, depth)
}

func (w *walker) checked(n *yaml.Node, path string, read func(*yaml.Node) (any, *valueError)) any {
	v, err := read(n)
	if err != nil {
		w.fail(n, path, label(path)+" "+err.msg, err.hint)
		return nil
	}
	return v
}

// wrapper reads a wrapped scalar, which may also be written as a mapping, as in Envoy.
func (w *walker) wrapper(n *yaml.Node, d protoreflect.MessageDescriptor, path string, depth int) any {
	fd := d.Fields().ByName("value")
	if fd == nil {
		return w.fields(n, d, path, depth)
	}
	if n.Kind == yaml.MappingNode {
		v, ok := w.fields(n, d, path, depth)["value"]
		if !ok {
			return zero(fd)
		}
		return v
	}
	return w.checked(n, path, func(n *yaml.Node) (any, *valueError) { return scalar(n, fd) })
}

// longDuration reads a duration that is written with its fields.
func (w *walker) longDuration(n *yaml.Node, d protoreflect.MessageDescriptor, path string, depth int) any {
	m := w.fields(n, d, path, depth)
	part := func(name string) int64 {
		v, _ := strconv.ParseInt(fmt.Sprint(m[name]), 10, 64)
		return v
	}
	secs, nanos := part("seconds"), part("nanos")
	if secs < 0 || nanos < 0 || nanos >= 1e9 || secs > 315576000000 {
		w.fail(n, path, label(path)+" must be a duration of 0s or more", "")
		return nil
	}
	return fmt.Sprintf("%d.%09ds", secs, nanos)
}

// any walks a typed configuration as the message of its type.
func (w *walker) any(n *yaml.Node, path string, depth int) any {
	if n.Kind != yaml.MappingNode {
		w.fail(n, path, fmt.Sprintf("%s must be a mapping with %q, not %s", label(path), typeKey, kind(n)), "")
		return nil
	}
	key, url := entry(n, typeKey)
	switch {
	case url == nil:
		w.fail(n, path, fmt.Sprintf("%s needs %q, the type of the configuration", label(path), typeKey), "")
		return nil
	case !strings.Contains(url.Value, "/"):
		w.fail(url, path, fmt.Sprintf("%q must begin with %s", typeKey, typePrefix),
			fmt.Sprintf("write %q", typePrefix+url.Value))
		return nil
	}
	w.places[path] = w.at(key)
	name := url.Value[strings.LastIndexByte(url.Value, '/')+1:]
	if name == typedStruct || name == oldTypeStruct {
		return w.typedStruct(n, name, path, depth)
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		w.hintType(path, name)
		return structOf(name, w.object(without(n, typeKey), path, depth))
	}
	return w.typed(n, mt.Descriptor(), path, depth)
}

// typed walks the fields of a typed configuration and adds its type.
func (w *walker) typed(n *yaml.Node, d protoreflect.MessageDescriptor, path string, depth int) any {
	if isWellKnown(d) {
		_, value := entry(n, "value")
		if value == nil {
			w.fail(n, path, fmt.Sprintf("%s needs \"value\"", label(path)), "")
			return nil
		}
		return map[string]any{typeKey: typePrefix + string(d.FullName()), "value": w.message(value, d, path, depth+1)}
	}
	out := w.fields(n, d, path, depth)
	out[typeKey] = typePrefix + string(d.FullName())
	return out
}

// typedStruct walks the value of a TypedStruct as the message that it stands for; its fields have the paths that they
// would have without the wrapper.
func (w *walker) typedStruct(n *yaml.Node, wrapper, path string, depth int) any {
	_, url := entry(n, "type_url")
	if url == nil {
		_, url = entry(n, "typeUrl")
	}
	_, value := entry(n, "value")
	if url == nil || url.Value == "" {
		w.fail(n, path, fmt.Sprintf("%s needs type_url, the type of the configuration", wrapper), "")
		return nil
	}
	name := url.Value[strings.LastIndexByte(url.Value, '/')+1:]
	inner := map[string]any{}
	if value = resolved(value); value != nil && !null(value) {
		mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
		if err != nil || isWellKnown(mt.Descriptor()) {
			w.hintType(path, name)
			inner, _ = w.object(value, path, depth).(map[string]any)
		} else {
			inner, _ = w.message(value, mt.Descriptor(), path, depth).(map[string]any)
		}
	}
	return structOf(name, inner)
}

// structOf wraps a configuration whose type this program does not have: the decoder knows what that means.
func structOf(name string, value any) any {
	return map[string]any{typeKey: typePrefix + typedStruct, "type_url": typePrefix + name, "value": value}
}

// hintType guesses which type was meant by a name that nobody has.
func (w *walker) hintType(path, name string) {
	// Long names with a common beginning are near by that alone, so few letters may differ.
	const few = 4
	if near := nearest.Name(name, typeNames()); near != "" && nearest.Edits(name, near) <= few {
		w.hints[path] = fmt.Sprintf("did you mean %q?", typePrefix+near)
	}
}

func entry(n *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], resolved(n.Content[i+1])
		}
	}
	return nil, nil
}

func without(n *yaml.Node, name string) *yaml.Node {
	out := *n
	out.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != name {
			out.Content = append(out.Content, n.Content[i], n.Content[i+1])
		}
	}
	return &out
}

// object reads a mapping that follows no descriptor.
func (w *walker) object(n *yaml.Node, path string, depth int) any {
	if n.Kind != yaml.MappingNode {
		w.fail(n, path, fmt.Sprintf("%s must be a mapping, not %s", label(path), kind(n)), "")
		return map[string]any{}
	}
	return w.generic(n, path, depth)
}

// generic reads a value that follows no descriptor.
func (w *walker) generic(n *yaml.Node, path string, depth int) any {
	if n = w.enter(n, path, depth); n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			kp := step(path, key.Value)
			if _, twice := out[key.Value]; twice {
				w.fail(key, kp, fmt.Sprintf("%q is given twice", key.Value), "")
				continue
			}
			w.places[kp] = w.at(key)
			out[key.Value] = w.generic(n.Content[i+1], kp, depth+1)
		}
		return out
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		for i, item := range n.Content {
			out = append(out, w.generic(item, path+"["+strconv.Itoa(i)+"]", depth+1))
		}
		return out
	}
	return genericScalar(n)
}

func genericScalar(n *yaml.Node) any {
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int":
		if v, err := strconv.ParseInt(n.Value, 0, 64); err == nil {
			return json.Number(strconv.FormatInt(v, 10))
		}
	case "!!float":
		if v, err := strconv.ParseFloat(n.Value, 64); err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
	}
	return n.Value
}
