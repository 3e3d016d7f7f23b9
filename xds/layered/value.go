// SPDX-License-Identifier: Apache-2.0

package layered

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Value is a value of a key, as text and in every type that it can be read as.
type Value struct {
	Text string

	number                 float64
	integer                uint64
	numerator, denominator uint32 // a denominator of 0 is no fraction
	hasNumber, hasInteger  bool
	boolean, hasBoolean    bool
}

// The bounds of a layer. They are far above what a person writes.
const (
	maxKeys  = 10_000
	maxText  = 64 << 10
	maxDepth = 16 // as in Envoy, for directories
)

// Parse reads a text, as a file or a request to the administration interface has it.
func Parse(text string) Value {
	v := Value{Text: text}
	trimmed := strings.TrimSpace(text)
	if n, err := strconv.ParseFloat(trimmed, 64); err == nil {
		v.setNumber(n)
		return v
	}
	switch {
	case strings.EqualFold(trimmed, "true"):
		v.boolean, v.hasBoolean = true, true
	case strings.EqualFold(trimmed, "false"):
		v.hasBoolean = true
	case strings.Contains(trimmed, "numerator"):
		v.setFraction(trimmed)
	}
	return v
}

// setNumber takes a number. One that is whole and not negative is an integer, too, and a share of percent.
func (v *Value) setNumber(n float64) {
	v.number, v.hasNumber = n, true
	v.boolean, v.hasBoolean = n != 0, true
	if n < 0 || n >= math.MaxUint64 || n != math.Trunc(n) {
		return
	}
	v.integer, v.hasInteger = uint64(n), true
	v.numerator, v.denominator = uint32(min(n, 100)), 100
}

// denominators are those of envoy.type.v3.FractionalPercent.
var denominators = map[string]uint32{
	"": 100, "HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000, "0": 100, "1": 10_000, "2": 1_000_000,
}

// setFraction takes a FractionalPercent in YAML or JSON; what is none stays a text.
func (v *Value) setFraction(text string) {
	var f struct {
		Numerator   uint32
		Denominator string
	}
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	if dec.Decode(&f) == nil {
		v.numerator, v.denominator = f.Numerator, denominators[f.Denominator]
	}
}

// FromStruct reads the values of a static layer or of an RTDS resource. A mapping in a mapping and a dot in a key mean the
// same; a mapping with a numerator is one value.
func FromStruct(m *structpb.Struct) (map[string]Value, error) {
	out := map[string]Value{}
	if err := addStruct(out, "", m); err != nil {
		return nil, err
	}
	return out, nil
}

func addStruct(out map[string]Value, prefix string, m *structpb.Struct) error {
	for _, name := range slices.Sorted(maps.Keys(m.GetFields())) {
		v, key := m.GetFields()[name], prefix+name
		if inner := v.GetStructValue(); inner != nil && len(inner.GetFields()) > 0 && !isFraction(inner) {
			if err := addStruct(out, key+".", inner); err != nil {
				return err
			}
			continue
		}
		value, err := fromProto(v)
		if err != nil {
			return fmt.Errorf("the key %q %w", key, err)
		}
		if out[key] = value; len(out) > maxKeys {
			return fmt.Errorf("there are more than %d keys", maxKeys)
		}
	}
	return nil
}

func isFraction(m *structpb.Struct) bool {
	return m.GetFields()["numerator"] != nil || m.GetFields()["denominator"] != nil
}

func fromProto(v *structpb.Value) (Value, error) {
	switch x := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		if len(x.StringValue) > maxText {
			return Value{}, fmt.Errorf("has more than the %d bytes allowed", maxText)
		}
		return Parse(x.StringValue), nil
	case *structpb.Value_NumberValue, *structpb.Value_BoolValue:
		return Parse(compact(v)), nil
	case *structpb.Value_StructValue:
		return Parse(compact(x.StructValue)), nil
	}
	return Value{}, fmt.Errorf("has a value of a type that is not supported; supported are strings, numbers, true and false, and " +
		"mappings with numerator and denominator")
}

// compact writes a value as JSON without blanks, which the protobuf library puts in at random. Great numbers are written as
// Envoy writes them.
func compact(m json.Marshaler) string {
	b, err := m.MarshalJSON()
	if err != nil {
		return ""
	}
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return string(b)
	}
	return strings.Replace(out.String(), "e+", "e", 1)
}
