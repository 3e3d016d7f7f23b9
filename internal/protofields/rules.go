// SPDX-License-Identifier: Apache-2.0

package protofields

import (
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/meshtap/meshtap/internal/protorules"
)

// The rules of the proto files speak of values: "value must be greater than 0s". This file turns that into words that say
// what is allowed.

// Check applies the rules that the proto files carry. It calls found with the path of each field that breaks one, and with
// what is allowed, until found returns false.
func (t *Table) Check(m proto.Message, found func(path, msg string) (more bool)) {
	t.rules.Check(m, func(v protorules.Violation) bool {
		if v.Oneof != nil {
			return found(v.Path, t.oneof(v.Oneof))
		}
		return found(v.Path, allowed(v.Field, v.Reason))
	})
}

// oneof is said of a group of fields of which one has to be set; those that are refused are not offered.
func (t *Table) oneof(o protoreflect.OneofDescriptor) string {
	var names []string
	for i := range o.Fields().Len() {
		if fd := o.Fields().Get(i); t.Class(fd) == Honoured {
			names = append(names, string(fd.Name()))
		}
	}
	text := strings.Join(names, ", ") + " is required"
	if len(names) > 1 {
		text = "one of " + text
	}
	return text
}

var (
	atLeastItems = regexp.MustCompile(`^value must contain at least (\d+) item\(s\)$`)
	inRange      = regexp.MustCompile(`^value must be inside range ([\[(])(.*), (.*)([\])])$`)
)

// allowed turns the reason of a violation into words.
func allowed(fd protoreflect.FieldDescriptor, reason string) string {
	if m := atLeastItems.FindStringSubmatch(reason); m != nil {
		return "must have at least " + m[1] + plural(" item", m[1])
	}
	if m := inRange.FindStringSubmatch(reason); m != nil {
		low, high := "at least ", "at most "
		if m[1] == "(" {
			low = "more than "
		}
		if m[4] == ")" {
			high = "less than "
		}
		return "must be " + low + m[2] + " and " + high + m[3]
	}
	switch {
	case reason == "value length must be at least 1 runes", reason == "value length must be at least 1 bytes":
		return "must not be empty"
	case strings.HasPrefix(reason, "value is required"):
		return "is required"
	case reason == "value must be one of the defined enum values":
		return "is none of " + strings.Join(enumNames(fd), ", ")
	case strings.HasPrefix(reason, "value does not match regex pattern"):
		return patternText(reason)
	case strings.HasPrefix(reason, "value must contain no more than"):
		return strings.Replace(strings.TrimPrefix(reason, "value "), "contain no more than", "have at most", 1)
	case strings.HasPrefix(reason, "value is not a valid duration"):
		return "is not a valid duration"
	}
	return comparisons.Replace(strings.TrimPrefix(reason, "value "))
}

var comparisons = strings.NewReplacer("greater than or equal to", "at least", "less than or equal to", "at most",
	"greater than", "more than")

// ControlCharacters is said of text that goes into a head and would end a line there.
const ControlCharacters = "must not hold control characters such as a line feed"

func patternText(reason string) string {
	_, pattern, _ := strings.Cut(reason, "pattern ")
	switch {
	case strings.Contains(pattern, `\\x00`) || strings.Contains(pattern, `\x00`):
		return ControlCharacters
	case strings.Contains(pattern, `^[^?#]+`):
		return "must not hold ? or #, nor end in /"
	case strings.Contains(pattern, `0-9a-zA-Z`):
		return "must be a header name: letters, digits and !#$%&'*+-.^_|~`"
	}
	return "must match " + pattern
}

func plural(word, n string) string {
	if n == "1" {
		return word
	}
	return word + "s"
}

// enumNames returns the values of an enum that are not deprecated.
func enumNames(fd protoreflect.FieldDescriptor) []string {
	var out []string
	if fd.IsMap() {
		fd = fd.MapValue()
	}
	if fd.Enum() == nil {
		return nil
	}
	for i := range fd.Enum().Values().Len() {
		v := fd.Enum().Values().Get(i)
		if o, ok := v.Options().(interface{ GetDeprecated() bool }); !ok || !o.GetDeprecated() {
			out = append(out, string(v.Name()))
		}
	}
	return out
}
