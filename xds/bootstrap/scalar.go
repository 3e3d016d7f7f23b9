// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/meshtap/meshtap/internal/nearest"
)

// valueError says what a value must be. The message begins with a verb: the field's name stands before it.
type valueError struct{ msg, hint string }

func mustBe(format string, args ...any) *valueError {
	return &valueError{msg: "must be " + fmt.Sprintf(format, args...)}
}

// scalar turns a node into the JSON value of a field that is no message. It takes what Envoy takes: numbers and
// booleans may be quoted, and enum values may be in lower case.
func scalar(n *yaml.Node, fd protoreflect.FieldDescriptor) (any, *valueError) {
	if n.Kind != yaml.ScalarNode {
		return nil, mustBe("a single value, not %s", kind(n))
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return stringValue(n)
	case protoreflect.BytesKind:
		if _, err := base64.StdEncoding.DecodeString(n.Value); err != nil {
			return nil, mustBe("bytes in base64, such as aGVsbG8=")
		}
		return n.Value, nil
	case protoreflect.BoolKind:
		return boolValue(n)
	case protoreflect.EnumKind:
		return enumValue(n, fd.Enum())
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		v, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, mustBe("a number, not %q", n.Value)
		}
		return v, nil
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return intValue(n, math.MinInt32, math.MaxInt32)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return intValue(n, 0, math.MaxUint32)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return intValue(n, 0, math.MaxUint64)
	default:
		return intValue(n, math.MinInt64, math.MaxInt64)
	}
}

// stringValue refuses plain numbers and booleans, as Envoy does: what was meant by 0123 or "no" would be a guess.
func stringValue(n *yaml.Node) (any, *valueError) {
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && (n.Tag == "!!int" || n.Tag == "!!bool") {
		e := mustBe("a string")
		e.hint = fmt.Sprintf("write %q in quotes", n.Value)
		return nil, e
	}
	return n.Value, nil
}

func boolValue(n *yaml.Node) (any, *valueError) {
	switch strings.ToLower(n.Value) {
	case "true", "yes", "on", "y":
		return true, nil
	case "false", "no", "off", "n":
		return false, nil
	}
	return nil, mustBe("true or false, not %q", n.Value)
}

// intValue reads a whole number. 1e3, 1.0, 0x10 and 0644 are whole numbers, too, as in Envoy.
func intValue(n *yaml.Node, low int64, high uint64) (any, *valueError) {
	text := n.Value
	if len(text) > 40 {
		return nil, mustBe("a whole number")
	}
	v, ok := new(big.Int).SetString(text, 0)
	if !ok {
		f, _, err := big.ParseFloat(text, 10, 128, big.ToNearestEven)
		if err != nil || !f.IsInt() || f.MantExp(nil) > 70 {
			return nil, mustBe("a whole number, not %q", n.Value)
		}
		v, _ = f.Int(nil)
	}
	min, max := big.NewInt(low), new(big.Int).SetUint64(high)
	if v.Cmp(min) < 0 || v.Cmp(max) > 0 {
		return nil, mustBe("at least %v and at most %v", min, max)
	}
	return json.Number(v.String()), nil
}

func enumValue(n *yaml.Node, d protoreflect.EnumDescriptor) (any, *valueError) {
	values := d.Values()
	if v := values.ByName(protoreflect.Name(n.Value)); v != nil {
		return string(v.Name()), nil
	}
	var names []string
	for i := range values.Len() {
		v := values.Get(i)
		if strings.EqualFold(string(v.Name()), n.Value) || strconv.Itoa(int(v.Number())) == n.Value {
			return string(v.Name()), nil
		}
		names = append(names, string(v.Name()))
	}
	e := mustBe("one of %s, not %q", strings.Join(names, ", "), n.Value)
	if near := nearest.Name(n.Value, names); near != "" {
		e.hint = fmt.Sprintf("did you mean %s?", near)
	}
	return nil, e
}

var seconds = regexp.MustCompile(`^-?[0-9]+(\.[0-9]{0,9})?s$`)

// durationValue reads a duration as protobuf's JSON form has it.
func durationValue(n *yaml.Node) (any, *valueError) {
	if n.Kind == yaml.ScalarNode && seconds.MatchString(n.Value) {
		if v, err := strconv.ParseFloat(strings.TrimSuffix(n.Value, "s"), 64); err == nil && math.Abs(v) <= 315576000000 {
			return n.Value, nil
		}
	}
	e := mustBe("a duration in seconds, such as 5s or 0.25s, not %s", kind(n))
	if d, err := time.ParseDuration(n.Value); err == nil {
		e.hint = fmt.Sprintf("write %ss", strconv.FormatFloat(d.Seconds(), 'f', -1, 64))
	} else if n.Tag == "!!int" || n.Tag == "!!float" {
		e.hint = fmt.Sprintf("write %ss", n.Value)
	}
	return nil, e
}

// zero keeps the place of a list's item that could not be read.
func zero(fd protoreflect.FieldDescriptor) any {
	switch {
	case fd.Message() != nil && fd.Message().Name() == "Duration":
		return "0s"
	case fd.Message() != nil:
		return map[string]any{}
	case fd.Kind() == protoreflect.BoolKind:
		return false
	case fd.Kind() == protoreflect.StringKind || fd.Kind() == protoreflect.BytesKind:
		return ""
	}
	return 0
}
