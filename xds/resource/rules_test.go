// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/meshtap/meshtap/internal/protorules"
)

// TestRulesAgree fills messages of every type of Envoy's API that is linked with values at and around the edges of their
// rules, and compares what package protorules finds wrong with what the generated ValidateAll finds.
func TestRulesAgree(t *testing.T) {
	t.Parallel()
	rules := protorules.NewTable()
	checked, wrong := 0, 0
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		if !strings.HasPrefix(string(mt.Descriptor().FullName()), "envoy.") && !strings.HasPrefix(string(mt.Descriptor().FullName()), "xds.") {
			return true
		}
		r := rand.New(rand.NewPCG(1, uint64(len(mt.Descriptor().FullName()))))
		for range 40 {
			m := mt.New()
			fill(m, r, 1+r.IntN(3))
			v, ok := m.Interface().(interface{ ValidateAll() error })
			if !ok {
				return true
			}
			var want, got []string
			generated("", m.Descriptor(), v.ValidateAll(), func(path, reason string) { want = append(want, path+": "+reason) })
			rules.Check(m.Interface(), func(v protorules.Violation) bool {
				path := v.Path
				if v.Oneof != nil {
					path = strings.TrimPrefix(path+"."+string(v.Oneof.Name()), ".")
				}
				got = append(got, path+": "+v.Reason)
				return true
			})
			checked++
			wrong += min(1, len(want))
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(want, got) {
				t.Errorf("%s\n%s\nwant %s\ngot  %s", mt.Descriptor().FullName(), protojson.Format(m.Interface()), strings.Join(want, "\n     "), strings.Join(got, "\n     "))
				return false
			}
		}
		return true
	})
	t.Logf("%d messages, %d with violations", checked, wrong)
	if checked < 10000 || wrong < checked/4 {
		t.Error("too few to say anything")
	}
}

// generated walks down an error of the generated code beside the message's descriptor: a list of errors, an error with a
// cause in a nested message, or an error of its own.
func generated(path string, d protoreflect.MessageDescriptor, err error, found func(path, reason string)) {
	if err == nil {
		return
	}
	if list, ok := err.(interface{ AllErrors() []error }); ok {
		for _, e := range list.AllErrors() {
			generated(path, d, e, found)
		}
		return
	}
	v := err.(interface {
		Field() string
		Reason() string
		Cause() error
	})
	name, index, _ := strings.Cut(v.Field(), "[")
	same := func(proto protoreflect.Name) bool {
		return strings.EqualFold(strings.ReplaceAll(string(proto), "_", ""), strings.ReplaceAll(name, "_", ""))
	}
	if path != "" {
		path += "."
	}
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if !same(fd.Name()) {
			continue
		}
		path += string(fd.Name())
		switch index = strings.TrimSuffix(index, "]"); {
		case fd.IsMap() && strings.Contains(v.Field(), "["):
			path += "[" + strconv.Quote(index) + "]"
			fd = fd.MapValue()
		case index != "":
			path += "[" + index + "]"
		}
		if v.Cause() != nil && fd.Message() != nil && v.Reason() == "embedded message failed validation" {
			generated(path, fd.Message(), v.Cause(), found)
			return
		}
		found(path, strings.TrimSuffix(v.Reason(), " and must not be nil."))
		return
	}
	for i := range d.Oneofs().Len() {
		if o := d.Oneofs().Get(i); same(o.Name()) {
			found(path+string(o.Name()), v.Reason())
			return
		}
	}
	panic(fmt.Sprintf("%s has no %s", d.FullName(), name))
}

// fill sets some fields of a message.
func fill(m protoreflect.Message, r *rand.Rand, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if r.IntN(3) == 0 || fd.Message() != nil && depth == 0 {
			continue
		}
		value := func(fd protoreflect.FieldDescriptor, empty func() protoreflect.Value) protoreflect.Value {
			if fd.Message() == nil {
				return scalar(fd, r)
			}
			v := empty()
			fill(v.Message(), r, depth-1)
			return v
		}
		switch {
		case fd.IsMap():
			entries := m.Mutable(fd).Map()
			for range r.IntN(3) {
				entries.Set(scalar(fd.MapKey(), r).MapKey(), value(fd.MapValue(), entries.NewValue))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range r.IntN(4) {
				list.Append(value(fd, list.NewElement))
			}
		default:
			m.Set(fd, value(fd, func() protoreflect.Value { return m.NewField(fd) }))
		}
	}
}

// scalar returns a value that rules may stumble over.
func scalar(fd protoreflect.FieldDescriptor, r *rand.Rand) protoreflect.Value {
	texts := []string{"", "a", "x-a", "a b", "a\nb", "a\x00", ":path", "/a", "/", "a?b", "/a/", "ä", "a\x7f", "http://a", strings.Repeat("x", 300), strings.Repeat("ä", 9000)}
	numbers := []int64{0, 0, 1, 2, 9, 10, 99, 100, 101, 128, 129, 199, 200, 399, 599, 600, 1000, 4096, 8192, 8193, 65534, 65535, 65536, 1<<24 - 1, 1 << 24, math.MaxInt32, -1, math.MinInt32}
	n := numbers[r.IntN(len(numbers))]
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n&1 == 0)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(texts[r.IntN(len(texts))])
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(texts[r.IntN(len(texts))]))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(r.IntN(12)))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(n)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(n) / 2)
	default:
		return protoreflect.ValueOfFloat64(float64(n) / 2)
	}
}
