// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	goyaml "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
	"go.yaml.in/yaml/v3"
)

const (
	// maxBytes bounds a file, maxDepth its nesting, and maxNodes the values in it after aliases are followed.
	maxBytes = 16 << 20
	maxDepth = 32
	maxNodes = 1 << 20
)

// document walks a YAML text beside the Go type that it fills, and remembers where each field stands. What is wrong is
// reported and left out, so that the rest can still be looked at.
type document struct {
	file   string
	issues []Issue
	// places leads from the path of a field to where it stands.
	places map[string]position
	// hurt are the paths at which something was left out: what else is found there may follow from that.
	hurt map[string]bool
	// nodes counts the values read so far; tooMuch is set when they are more than allowed.
	nodes   int
	tooMuch bool
}

type position struct{ line, column int }

// fail reports an error at a field, or at the nearest one around it that is there.
func (d *document) fail(path, msg, hint string) {
	at, ok := d.places[path]
	for up := path; !ok && up != ""; {
		up = parent(up)
		at, ok = d.places[up]
	}
	d.add(at, path, msg, hint)
}

func (d *document) add(at position, path, msg, hint string) {
	d.issues = append(d.issues, Issue{
		File: d.file, Line: at.line, Column: at.column, Severity: "error", Path: path, Message: msg, Hint: hint,
	})
}

// failNode reports a value that cannot be read, and marks its path and the one around it.
func (d *document) failNode(n *yaml.Node, path, msg, hint string) {
	d.hurt[path], d.hurt[parent(path)] = true, true
	d.add(position{n.Line, n.Column}, path, msg, hint)
}

// read fills into from a text. It reports false where the text is not one YAML document at all.
func (d *document) read(text []byte, into any) bool {
	if len(text) > maxBytes {
		d.add(position{}, "", fmt.Sprintf("the file has %d bytes, of which %d are allowed", len(text), maxBytes), "")
		return false
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	err := dec.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		d.add(position{1, 1}, "", "the file is empty; it must hold services", "")
		return false
	case err != nil:
		at, msg := syntaxError(text, err)
		d.add(at, "", msg, "")
		return false
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		d.add(position{second.Line, second.Column}, "", "there must be one document in the file", "")
		return false
	}
	d.value(doc.Content[0], reflect.ValueOf(into).Elem(), "", 0)
	return true
}

// value reads a node into v, which can be set.
func (d *document) value(n *yaml.Node, v reflect.Value, path string, depth int) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		if !d.tooMuch {
			d.failNode(n, path, fmt.Sprintf("there are more than %d values, or more than %d levels of them", maxNodes, maxDepth), "")
		}
		d.tooMuch = true
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // as if it were not there
	}
	if s, ok := v.Addr().Interface().(scalar); ok {
		d.scalar(n, path, s.parse)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path, depth)
	case reflect.Struct:
		d.structure(n, v, path, depth)
	case reflect.Map:
		d.mapping(n, v, path, depth)
	case reflect.Slice:
		d.list(n, v, path, depth)
	default:
		d.scalar(n, path, func(text string) *valueError { return plain(n, text, v) })
	}
}

func (d *document) scalar(n *yaml.Node, path string, set func(string) *valueError) {
	if n.Kind != yaml.ScalarNode {
		d.failNode(n, path, fmt.Sprintf("%s must be a single value, not %s", label(path), kind(n)), "")
		return
	}
	d.places[path] = position{n.Line, n.Column}
	if err := set(n.Value); err != nil {
		d.failNode(n, path, label(path)+" "+err.msg, err.hint)
	}
}

// plain reads a scalar into one of Go's own types.
func plain(n *yaml.Node, text string, v reflect.Value) *valueError {
	switch v.Kind() {
	case reflect.String:
		// What was meant by 0123, 1.10 or true would be a guess.
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && n.Tag != "!!str" {
			e := mustBe("a string")
			e.hint = fmt.Sprintf("write %q in quotes", text)
			return e
		}
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return mustBe("true or false")
		}
		v.SetBool(text == "true")
	case reflect.Uint16, reflect.Uint32:
		u, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return mustBe("a whole number from 0 to %d", uint64(1)<<v.Type().Bits()-1)
		}
		v.SetUint(u)
	default:
		panic("control: a mesh.yaml has no fields of type " + v.Type().String())
	}
	return nil
}

func (d *document) structure(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.failNode(n, path, fmt.Sprintf("%s must be a mapping with the fields %s, not %s", label(path),
			strings.Join(fieldNames(v.Type()), ", "), kind(n)), "")
		return
	}
	d.entries(n, path, func(key, value *yaml.Node, at string) {
		i := fieldIndex(v.Type(), key.Value)
		if i < 0 {
			where := "the file"
			if path != "" {
				where = label(path)
			}
			names := fieldNames(v.Type())
			hint := didYouMean(key.Value, names)
			if hint == "" {
				hint = "known are " + strings.Join(names, ", ")
			}
			d.failNode(key, at, fmt.Sprintf("unknown field %q in %s", key.Value, where), hint)
			return
		}
		d.value(value, v.Field(i), at, depth+1)
	})
}

func (d *document) mapping(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.failNode(n, path, fmt.Sprintf("%s must be a mapping from names to values, not %s", label(path), kind(n)), "")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.entries(n, path, func(key, value *yaml.Node, at string) {
		elem := reflect.New(v.Type().Elem()).Elem()
		if elem.Kind() == reflect.Pointer {
			elem.Set(reflect.New(elem.Type().Elem())) // also for a name with nothing behind it
		}
		d.value(value, elem, at, depth+1)
		v.SetMapIndex(reflect.ValueOf(key.Value), elem)
	})
}

// entries calls f for each entry of a mapping, and reports keys that are there twice.
func (d *document) entries(n *yaml.Node, path string, f func(key, value *yaml.Node, at string)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			d.failNode(key, path, fmt.Sprintf("a name in %s must be a single value, not %s", label(path), kind(key)), "")
			continue
		}
		at := join(path, key.Value)
		if seen[key.Value] {
			d.failNode(key, at, fmt.Sprintf("%s is given twice", label(at)), "")
			continue
		}
		seen[key.Value] = true
		d.places[at] = position{key.Line, key.Column}
		f(key, value, at)
	}
}

func (d *document) list(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.SequenceNode {
		d.failNode(n, path, fmt.Sprintf("%s must be a list, not %s", label(path), kind(n)), "")
		return
	}
	// One by one: an alias may make a list longer than its text.
	v.Set(reflect.MakeSlice(v.Type(), 0, len(n.Content)))
	for i, item := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		d.places[at] = position{item.Line, item.Column}
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(item, elem, at, depth+1)
		v.Set(reflect.Append(v, elem))
	}
}

// fieldNames are the names of a type's fields in a mesh.yaml.
func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("yaml")
	}
	return names
}

func fieldIndex(t reflect.Type, name string) int {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") == name {
			return i
		}
	}
	return -1
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

// join puts a name behind a path. Names that could be taken for something else are quoted.
func join(path, name string) string {
	for i := range len(name) {
		if c := name[i]; c != '_' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return path + "[" + strconv.Quote(name) + "]"
		}
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// label is how messages call a field: its name after that of the field around it.
func label(path string) string {
	if path == "" {
		return "the file"
	}
	return path[last(strings.TrimSuffix(path[:last(path)], ".")):]
}

// parent is the path around a path.
func parent(path string) string {
	if strings.HasSuffix(path, "]") {
		return path[:strings.LastIndexByte(path, '[')]
	}
	return strings.TrimSuffix(path[:last(path)], ".")
}

// last returns where the last name of a path begins; an index belongs to the name before it.
func last(path string) int { return strings.LastIndexByte(path, '.') + 1 }

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntaxError says where a text stops being YAML. The parser in use names the line at which the broken block began; a
// second one knows the place, so it has the word where the text is not too long for it.
func syntaxError(text []byte, err error) (position, string) {
	const longest = 1 << 20
	var syntax *goyaml.SyntaxError
	if len(text) <= longest {
		if _, second := parser.ParseBytes(text, 0); errors.As(second, &syntax) && syntax.Token != nil {
			p := syntax.Token.Position
			return position{p.Line, p.Column}, strings.ReplaceAll(syntax.Message, "\t", `\t`)
		}
	}
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return position{}, err.Error()
	}
	line, _ := strconv.Atoi(m[1])
	return position{line: line}, m[2]
}
