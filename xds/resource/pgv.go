// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/meshtap/meshtap/internal/protofields"
)

// The generated validation code speaks of Go: "RouteValidationError.Match: value is required". This file turns that
// into the field paths of the proto files and into words that say what is allowed.

// maxValidateAll is the size up to which all violations of a message are looked for. The generated code collects them
// without a bound, so that a long message with nothing but mistakes would cost a hundred times what it costs to read it.
const maxValidateAll = 128 << 10

// validate applies the rules that the proto files carry. size is the serialized size of the message.
func (s *scope) validate(p *at, m proto.Message, size int) {
	v, ok := m.(interface {
		ValidateAll() error
		Validate() error
	})
	if !ok {
		return
	}
	validate := v.ValidateAll
	if size > maxValidateAll {
		validate = v.Validate
	}
	if err := validate(); err != nil {
		s.violation(p.String(), m.ProtoReflect().Descriptor(), err)
	}
}

// violation walks down a validation error beside the message's descriptor. An error is a list of errors, an error with
// a cause in a nested message, or an error of its own.
func (s *scope) violation(path string, d protoreflect.MessageDescriptor, err error) {
	if s.full() {
		return
	}
	if list, ok := err.(interface{ AllErrors() []error }); ok {
		for _, e := range list.AllErrors() {
			s.violation(path, d, e)
		}
		return
	}
	v, ok := err.(fieldViolation)
	if !ok {
		s.fail(path, err.Error())
		return
	}
	name, index, _ := strings.Cut(v.Field(), "[")
	fd := fieldByGoName(d, name)
	if fd == nil {
		s.oneof(path, d, name, v.Reason())
		return
	}
	path = fieldPath(path, fd, strings.TrimSuffix(index, "]"))
	if fd.IsMap() {
		fd = fd.MapValue()
	}
	if v.Cause() != nil && fd.Message() != nil && v.Reason() == "embedded message failed validation" {
		s.violation(path, fd.Message(), v.Cause())
		return
	}
	s.fail(path, allowed(fd, v.Reason()))
}

// fieldViolation is what the generated error types have in common.
type fieldViolation interface {
	Field() string
	Reason() string
	Cause() error
}

// fieldPath appends a field to a path. index is a list index or a map key, "" where there is none.
func fieldPath(path string, fd protoreflect.FieldDescriptor, index string) string {
	if path != "" {
		path += "."
	}
	path += string(fd.Name())
	switch {
	case fd.IsMap():
		return path + "[" + strconv.Quote(index) + "]"
	case index != "":
		return path + "[" + index + "]"
	}
	return path
}

// oneof reports a rule about a group of fields of which one has to be set; those that are refused are not offered.
func (s *scope) oneof(path string, d protoreflect.MessageDescriptor, goName, reason string) {
	for i := range d.Oneofs().Len() {
		o := d.Oneofs().Get(i)
		if !sameName(string(o.Name()), goName) {
			continue
		}
		var names []string
		for j := range o.Fields().Len() {
			if fd := o.Fields().Get(j); s.d.fields.Class(fd) == protofields.Honoured {
				names = append(names, string(fd.Name()))
			}
		}
		text := strings.Join(names, ", ") + " is required"
		if len(names) > 1 {
			text = "one of " + text
		}
		s.fail(path, text)
		return
	}
	s.fail(path, goName+": "+reason)
}

func fieldByGoName(d protoreflect.MessageDescriptor, goName string) protoreflect.FieldDescriptor {
	for i := range d.Fields().Len() {
		if fd := d.Fields().Get(i); sameName(string(fd.Name()), goName) {
			return fd
		}
	}
	return nil
}

// sameName compares a proto name with the Go name that the generator made of it.
func sameName(proto, goName string) bool {
	return strings.EqualFold(strings.ReplaceAll(proto, "_", ""), strings.ReplaceAll(goName, "_", ""))
}

var (
	atLeastItems = regexp.MustCompile(`^value must contain at least (\d+) item\(s\)$`)
	inRange      = regexp.MustCompile(`^value must be inside range ([\[(])(.*), (.*)([\])])$`)
)

// allowed turns a reason of the generated code into words.
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
		return isRequired
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

// controlCharacters is said of text that goes into a head and would end a line there.
const controlCharacters = "must not hold control characters such as a line feed"

func patternText(reason string) string {
	_, pattern, _ := strings.Cut(reason, "pattern ")
	switch {
	case strings.Contains(pattern, `\\x00`) || strings.Contains(pattern, `\x00`):
		return controlCharacters
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
