// SPDX-License-Identifier: Apache-2.0

package format

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/meshtap/meshtap/mesh"
)

// JSON is a value of a JSON log format. Exactly one of Const, Format, Fields and Items says what it is; an empty object
// has Fields that are not nil.
type JSON struct {
	// Const is JSON text that is the same in every line.
	Const string
	// Format makes a value of each line: of the operator's own type where it is one operator and nothing else, otherwise
	// a string.
	Format mesh.Format
	// Fields are the members of an object, sorted by name as Envoy sorts them.
	Fields []Field
	// Items are the elements of an array.
	Items []*JSON
}

// Field is a member of an object.
type Field struct {
	// Key is the name as JSON text, with the colon.
	Key   string
	Value *JSON
}

// null is the Const of values that are dropped where empty values are omitted.
const null = "null"

// Null reports whether j is the literal null.
func (j *JSON) Null() bool { return j.Const == null }

// maxDepth bounds nesting, so that a hostile configuration cannot exhaust the stack.
const maxDepth = 100

// ParseJSON reads a JSON log format: an object whose strings are formats, in the form that encoding/json and
// structpb.Struct.AsMap give (map[string]any, []any, string, float64, bool, nil). Errors name the path of the member.
func ParseJSON(object map[string]any) (*JSON, error) { return parseObject(object, "", 0) }

func parseObject(object map[string]any, path string, depth int) (*JSON, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: nested deeper than %d", path, maxDepth)
	}
	j := &JSON{Fields: []Field{}}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		v, err := parseValue(object[key], strings.TrimPrefix(path+"."+key, "."), depth+1)
		if err != nil {
			return nil, err
		}
		j.Fields = append(j.Fields, Field{Key: string(AppendJSON(nil, []byte(key))) + ":", Value: v})
	}
	return j, nil
}

func parseValue(v any, path string, depth int) (*JSON, error) {
	switch v := v.(type) {
	case nil:
		return &JSON{Const: null}, nil
	case bool:
		return &JSON{Const: strconv.FormatBool(v)}, nil
	case float64:
		return parseNumber(v, path)
	case string:
		return parseString(v, path)
	case map[string]any:
		return parseObject(v, path, depth)
	case []any:
		return parseArray(v, path, depth)
	}
	return nil, fmt.Errorf("%s: %T is not a JSON value", path, v)
}

func parseArray(items []any, path string, depth int) (*JSON, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: nested deeper than %d", path, maxDepth)
	}
	j := &JSON{Items: []*JSON{}}
	for i, item := range items {
		v, err := parseValue(item, fmt.Sprintf("%s[%d]", path, i), depth+1)
		if err != nil {
			return nil, err
		}
		j.Items = append(j.Items, v)
	}
	return j, nil
}

func parseNumber(f float64, path string) (*JSON, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, fmt.Errorf("%s: %v is not a JSON number", path, f)
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return &JSON{Const: strconv.FormatFloat(f, 'f', -1, 64)}, nil
	}
	return &JSON{Const: strconv.FormatFloat(f, 'g', -1, 64)}, nil
}

func parseString(s, path string) (*JSON, error) {
	f, err := Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if text, ok := Literal(f); ok {
		return &JSON{Const: string(AppendJSON(nil, []byte(text)))}, nil
	}
	return &JSON{Format: f}, nil
}
