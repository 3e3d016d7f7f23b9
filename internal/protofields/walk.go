// SPDX-License-Identifier: Apache-2.0

package protofields

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/meshtap/meshtap/internal/invariant"
)

// Finding is a set field that is not honoured.
type Finding struct {
	// Path leads from the message to the field, in snake_case with list indices and map keys, such as
	// "virtual_hosts[3].cors" or "named_endpoints[\"a\"].hostname".
	Path  string
	Class Class
	// Why is the rule's reason.
	Why string
}

// Walk finds the set fields of m and of the messages in it that are not honoured, and returns how many fields the
// wire held that the message types do not know. It does not look into Any. The cost is linear in the set fields.
// That m has no rules, so that all of it would be refused, is a programming error; it panics where invariants are checked.
func (t *Table) Walk(m proto.Message, found func(Finding)) (unknown int) {
	if invariant.On {
		name := m.ProtoReflect().Descriptor().FullName()
		invariant.Check(t.messages[name] != nil, "protofields: %s is read and no table names it", name)
	}
	w := walker{table: t, found: found}
	w.message(m.ProtoReflect())
	return w.unknown
}

type walker struct {
	table   *Table
	found   func(Finding)
	path    []byte
	unknown int
}

func (w *walker) message(m protoreflect.Message) {
	w.unknown += countUnknown(m.GetUnknown())
	rules := w.table.messages[m.Descriptor().FullName()]
	mark := len(w.path)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if mark > 0 {
			w.path = append(w.path, '.')
		}
		w.path = append(w.path, fd.Name()...)
		if rules == nil {
			w.report(field{why: unsupported})
		} else {
			w.field(rules.resolved()[fd.Index()], fd, v)
		}
		w.path = w.path[:mark]
		return true
	})
}

func (w *walker) field(f field, fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	if f.Class != Honoured {
		if f.silent == "" || text(fd, v) != f.silent {
			w.report(f)
		}
		return
	}
	if f.opaque {
		return
	}
	switch {
	case fd.IsMap():
		if fd.MapValue().Message() != nil && !leaf(fd.MapValue().Message()) {
			w.entries(v.Map())
		}
	case fd.Message() == nil || leaf(fd.Message()):
	case fd.IsList():
		w.items(v.List())
	default:
		w.message(v.Message())
	}
}

func (w *walker) items(l protoreflect.List) {
	mark := len(w.path)
	for i := range l.Len() {
		w.path = append(w.path, '[')
		w.path = strconv.AppendInt(w.path, int64(i), 10)
		w.path = append(w.path, ']')
		w.message(l.Get(i).Message())
		w.path = w.path[:mark]
	}
}

func (w *walker) entries(m protoreflect.Map) {
	mark := len(w.path)
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		w.path = append(w.path, '[')
		w.path = strconv.AppendQuote(w.path, k.String())
		w.path = append(w.path, ']')
		w.message(v.Message())
		w.path = w.path[:mark]
		return true
	})
}

func (w *walker) report(f field) {
	w.found(Finding{Path: string(w.path), Class: f.Class, Why: f.why})
}

func countUnknown(b []byte) (n int) {
	for len(b) > 0 {
		_, _, size := protowire.ConsumeField(b)
		if size < 0 {
			return n + 1
		}
		b = b[size:]
		n++
	}
	return n
}
