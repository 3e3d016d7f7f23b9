// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// walker turns a tree of nodes into the JSON form of a message, and remembers where each field stands. What is wrong is
// reported and left out, so that the rest can still be looked at.
type walker struct {
	file         string
	report       *Report
	allowUnknown bool
	// base is the walk of the file that this text is merged over, nil for the file itself.
	base *walker

	// places leads from the path of a field to where it stands. texts are the scalars, as they are written.
	places map[string]position
	texts  map[string]string
	// sizes are the lengths of lists, by path.
	sizes map[string]int
	// hurt are the paths at which something was left out: what else is found there may follow from that.
	hurt map[string]bool
	// hints are guesses for paths that the decoder may have an error for.
	hints map[string]string
}

func newWalker(file string, r *Report, allowUnknown bool) *walker {
	return &walker{
		file: file, report: r, allowUnknown: allowUnknown,
		places: map[string]position{}, texts: map[string]string{}, sizes: map[string]int{}, hurt: map[string]bool{},
		hints: map[string]string{},
	}
}

func (w *walker) at(n *yaml.Node) position { return position{w.file, n.Line, n.Column} }

// fail reports an error at a node and marks the path.
func (w *walker) fail(n *yaml.Node, path, msg, hint string) {
	w.report.fail(w.at(n), w.base.shift(path), msg, hint)
	w.hurt[path] = true
	w.hurt[parent(path)] = true
}

// enter follows aliases and bounds the depth; it returns nil where the walk ends.
func (w *walker) enter(n *yaml.Node, path string, depth int) *yaml.Node {
	n = resolved(n)
	if n != nil && depth > maxDepth {
		w.fail(n, path, errTooDeep.Error(), "")
		return nil
	}
	return n
}

// message walks a mapping beside the descriptor of its message.
func (w *walker) message(n *yaml.Node, d protoreflect.MessageDescriptor, path string, depth int) any {
	if n = w.enter(n, path, depth); n == nil {
		return map[string]any{}
	}
	if isWellKnown(d) {
		return w.wellKnown(n, d, path, depth)
	}
	if n.Kind != yaml.MappingNode {
		if null(n) {
			return map[string]any{}
		}
		is := kind(n)
		if n.Kind == yaml.ScalarNode && d.FullName() == dataSource {
			is = "a text"
		}
		w.fail(n, path, fmt.Sprintf("%s must be a mapping with the fields of %s, not %s", label(path), d.Name(), is), theFields(d))
		return map[string]any{}
	}
	return w.fields(n, d, path, depth)
}

// fields walks the entries of a mapping that are fields of a message.
func (w *walker) fields(n *yaml.Node, d protoreflect.MessageDescriptor, path string, depth int) map[string]any {
	out := map[string]any{}
	oneofs := map[protoreflect.FullName]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Value == "@type" && path != "" {
			continue // the caller has read it
		}
		fd := field(d, key.Value)
		if fd == nil {
			w.unknownField(key, d, path)
			continue
		}
		name := string(fd.Name())
		fp := join(path, name)
		if _, twice := out[name]; twice {
			w.fail(key, fp, fmt.Sprintf("%s is given twice", label(fp)), "")
			continue
		}
		w.places[fp] = w.at(key)
		if resolved(value) == nil || null(resolved(value)) {
			continue
		}
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
			if other := oneofs[o.FullName()]; other != "" {
				w.fail(key, fp, fmt.Sprintf("%s and %s exclude each other", other, name), "")
				continue
			}
			oneofs[o.FullName()] = name
		}
		if v, ok := w.value(value, fd, fp, depth+1); ok {
			out[name] = v
		}
	}
	return out
}

// value walks the value of a field.
func (w *walker) value(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, depth int) (any, bool) {
	switch {
	case fd.IsMap():
		return w.mapping(n, fd, path, depth)
	case fd.IsList():
		return w.list(n, fd, path, depth)
	}
	return w.single(n, fd, path, depth)
}

func (w *walker) single(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, depth int) (any, bool) {
	if fd.Message() != nil {
		v := w.message(n, fd.Message(), path, depth)
		return v, v != nil
	}
	if n = w.enter(n, path, depth); n == nil {
		return nil, false
	}
	if n.Kind == yaml.ScalarNode {
		w.places[path] = w.at(n)
		w.texts[path] = n.Value
	}
	v, err := scalar(n, fd)
	if err != nil {
		w.fail(n, path, label(path)+" "+err.msg, err.hint)
		return nil, false
	}
	return v, true
}

// list walks a sequence. As in Envoy, a list of one may be written without being a list.
func (w *walker) list(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, depth int) (any, bool) {
	if n = w.enter(n, path, depth); n == nil {
		return nil, false
	}
	items := n.Content
	if n.Kind != yaml.SequenceNode {
		items = []*yaml.Node{n}
		if w.byName(n, fd, path) {
			return nil, false
		}
	}
	w.sizes[path] = len(items)
	out := make([]any, 0, len(items))
	for i, item := range items {
		ip := path + "[" + strconv.Itoa(i) + "]"
		w.places[ip] = w.at(item)
		v, ok := w.single(item, fd, ip, depth+1)
		if !ok { // keep its place: the ones behind it are known by their number
			v = zero(fd)
		}
		out = append(out, v)
	}
	return out, true
}

func (w *walker) mapping(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, depth int) (any, bool) {
	if n = w.enter(n, path, depth); n == nil {
		return nil, false
	}
	if n.Kind != yaml.MappingNode {
		w.fail(n, path, fmt.Sprintf("%s must be a mapping from names to values, not %s", label(path), kind(n)), "")
		return nil, false
	}
	out := map[string]any{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		ep := path + "[" + strconv.Quote(key.Value) + "]"
		if _, twice := out[key.Value]; twice {
			w.fail(key, ep, fmt.Sprintf("%q is given twice", key.Value), "")
			continue
		}
		w.places[ep] = w.at(key)
		if v, ok := w.single(value, fd.MapValue(), ep, depth+1); ok {
			out[key.Value] = v
		}
	}
	return out, true
}

// byName reports a mapping from names to values in the place of a list of messages that have names.
func (w *walker) byName(n *yaml.Node, fd protoreflect.FieldDescriptor, path string) bool {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 || fd.Message() == nil || field(fd.Message(), "name") == nil {
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if field(fd.Message(), n.Content[i].Value) != nil || n.Content[i+1].Kind != yaml.MappingNode {
			return false
		}
	}
	w.fail(n, path, label(path)+" must be a list, not a mapping from names to values", fmt.Sprintf("write - name: %s", n.Content[0].Value))
	return true
}

// field finds a field by its proto name or its JSON name.
func field(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := d.Fields().ByName(protoreflect.Name(name)); fd != nil {
		return fd
	}
	return d.Fields().ByJSONName(name)
}

func (w *walker) unknownField(key *yaml.Node, d protoreflect.MessageDescriptor, path string) {
	msg := fmt.Sprintf("unknown field %q in %s", key.Value, container(path, d))
	at := w.base.shift(step(path, key.Value))
	if w.allowUnknown {
		w.report.warn(w.at(key), at, msg)
		return
	}
	w.report.fail(w.at(key), at, msg, fieldHint(key.Value, d))
	w.hurt[path] = true
}

// container names the message that a field is missing in: as its field is called, or by its type where it is a typed
// configuration.
func container(path string, d protoreflect.MessageDescriptor) string {
	name := last(path)
	if name == "" || name == "typed_config" || name == "config" || strings.Contains(name, `["`) {
		return string(d.Name())
	}
	return name
}

// snake turns a JSON name into a proto name.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// step is join for a name that may be anything.
func step(path, name string) string {
	for i := range len(name) {
		if c := name[i]; c != '_' && c != '.' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return path + "[" + strconv.Quote(name) + "]"
		}
	}
	return join(path, name)
}

// last is the last part of a path, with its index, and parent what stands before it.
func last(path string) string { return path[cut(path):] }

func parent(path string) string {
	if i := cut(path); i > 0 {
		return path[:i-1]
	}
	return ""
}

// label is how messages call a field: its name after that of the field around it.
func label(path string) string {
	switch up := parent(path); {
	case path == "":
		return "the configuration"
	case up == "":
		return path
	default:
		return last(up) + "." + last(path)
	}
}

// cut returns where the last part of a path begins. Map keys are quoted and may hold dots.
func cut(path string) (begin int) {
	quoted := false
	for i := 0; i < len(path); i++ {
		switch {
		case quoted && path[i] == '\\':
			i++
		case path[i] == '"':
			quoted = !quoted
		case !quoted && path[i] == '.':
			begin = i + 1
		}
	}
	return begin
}

func resolved(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// dataSource holds keys and tokens, which are not quoted even where they stand in the wrong place.
const dataSource = "envoy.config.core.v3.DataSource"

// kind names what a node is, for messages.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

// typeNames returns the names of all message types that this program has.
func typeNames() (names []string) {
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		names = append(names, string(mt.Descriptor().FullName()))
		return true
	})
	return names
}
