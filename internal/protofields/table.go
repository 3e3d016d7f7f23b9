// SPDX-License-Identifier: Apache-2.0

// Package protofields says which fields of a protobuf message a decoder honours, and finds, by reflection, those set
// fields that it does not. It is how Meshtap keeps its word that configuration is honoured, reported or refused, and
// never silently dropped: a field that no table names is refused.
//
// A Table is built once, beside the decoders whose fields it describes, and is read-only from then on.
package protofields

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/internal/protorules"
)

// Class says what becomes of a field.
type Class uint8

// The classes. Refused is the zero value: it is what a field is that no rule names.
const (
	Refused Class = iota
	// Honoured fields do what Envoy's documentation says.
	Honoured
	// NoEffect fields are accepted and reported: they change nothing here.
	NoEffect
	// Observational fields only affect what can be seen of traffic. They are refused unless the user accepts the loss.
	Observational
)

// String returns the class as documents spell it.
func (c Class) String() string {
	return [...]string{"refused", "honoured", "no effect", "observational"}[c]
}

// unsupported is what is said of a field that no rule names.
const unsupported = "not supported by this version of Meshtap"

// Rule is a statement about some fields of one message.
type Rule struct {
	class  Class
	opaque bool
	why    string
	names  []string
}

// Honour names fields that are honoured. Where a field holds messages, their types need rules too.
func Honour(names ...string) Rule { return Rule{class: Honoured, names: names} }

// Opaque names fields that are honoured and whose inside the decoder looks at itself.
func Opaque(names ...string) Rule { return Rule{class: Honoured, opaque: true, names: names} }

// Ignore names fields that are accepted without effect, and says why that is right. A name may be followed by "=" and
// the value at which the field need not be reported, such as "reuse_port=true"; the zero value of a scalar never is,
// and an empty message is written "{}".
func Ignore(why string, names ...string) Rule { return Rule{class: NoEffect, why: why, names: names} }

// Observe names fields that only affect what can be seen. Names are as in Ignore.
func Observe(why string, names ...string) Rule {
	return Rule{class: Observational, why: why, names: names}
}

// Refuse names fields that are refused, and says why or what to use instead. Names are as in Ignore; the value after
// "=" is accepted in silence.
func Refuse(why string, names ...string) Rule { return Rule{class: Refused, why: why, names: names} }

// Table holds the rules of many messages.
type Table struct {
	messages map[protoreflect.FullName]*message
	order    []*message
	rules    *protorules.Table
}

type message struct {
	desc   protoreflect.MessageDescriptor
	rules  []Rule
	once   sync.Once
	fields []field // by index in the descriptor; see resolved
}

type field struct {
	Class  Class
	opaque bool
	why    string
	silent string // the value that need not be reported, "" where there is none
}

// New returns an empty table.
func New() *Table {
	return &Table{messages: map[protoreflect.FullName]*message{}, rules: protorules.NewTable()}
}

// Add adds the rules of one message. A name that the message does not have, a field named twice, and a message added
// twice are programming errors and panic; the first two when the message is first met, or here where invariants are checked.
func (t *Table) Add(m proto.Message, rules ...Rule) {
	desc := m.ProtoReflect().Descriptor()
	if t.messages[desc.FullName()] != nil {
		panic("protofields: two sets of rules for " + string(desc.FullName()))
	}
	msg := &message{desc: desc, rules: rules}
	t.messages[desc.FullName()] = msg
	t.order = append(t.order, msg)
	if invariant.On {
		msg.resolved()
	}
}

// resolved returns the fields of the message. They are looked up when the message is first met: a configuration has few of
// all messages, and looking at one unfolds the descriptors of its whole file, which then stay in memory.
func (m *message) resolved() []field {
	m.once.Do(m.resolve)
	return m.fields
}

func (m *message) resolve() {
	desc := m.desc
	m.fields = make([]field, desc.Fields().Len())
	for i := range m.fields {
		m.fields[i].why = unsupported
	}
	seen := map[int]bool{}
	for _, r := range m.rules {
		for _, n := range r.names {
			name, silent, _ := strings.Cut(n, "=")
			fd := desc.Fields().ByName(protoreflect.Name(name))
			if fd == nil || seen[fd.Index()] {
				panic(fmt.Sprintf("protofields: %s has no field %s, or two rules for it", desc.FullName(), name))
			}
			seen[fd.Index()] = true
			m.fields[fd.Index()] = field{Class: r.class, opaque: r.opaque, why: r.why, silent: silent}
		}
	}
	m.rules = nil
}

// Class returns what becomes of a field.
func (t *Table) Class(fd protoreflect.FieldDescriptor) Class {
	if m := t.messages[fd.ContainingMessage().FullName()]; m != nil {
		return m.resolved()[fd.Index()].Class
	}
	return Refused
}

// Messages returns the messages that have rules, in the order of Add. Those without fields have no Rows.
func (t *Table) Messages() []protoreflect.MessageDescriptor {
	var out []protoreflect.MessageDescriptor
	for _, m := range t.order {
		out = append(out, m.desc)
	}
	return out
}

// Row is one line of a table, for documents.
type Row struct {
	Message, Field string
	Class          Class
	// Opaque says of an honoured field that the decoder looks at its value itself and may refuse some.
	Opaque bool
	// Why is the reason given for a field that is not honoured.
	Why string
	// Silent is the value at which the field is passed over in silence, "" where there is none.
	Silent string
}

// Rows returns every field of every message in the table, in the order of Add and of the proto files.
func (t *Table) Rows() []Row {
	var rows []Row
	for _, m := range t.order {
		for i, f := range m.resolved() {
			rows = append(rows, Row{
				Message: string(m.desc.FullName()), Field: string(m.desc.Fields().Get(i).Name()),
				Class: f.Class, Opaque: f.opaque, Why: f.why, Silent: f.silent,
			})
		}
	}
	return rows
}

// Uncovered returns the message types that can be reached through honoured fields from m and that have no rules, so
// that everything in them would be refused. It is for tests of a table.
func (t *Table) Uncovered(m proto.Message) []string {
	var out []string
	seen := map[protoreflect.FullName]bool{}
	var visit func(protoreflect.MessageDescriptor)
	visit = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] || leaf(d) {
			return
		}
		seen[d.FullName()] = true
		msg := t.messages[d.FullName()]
		if msg == nil {
			out = append(out, string(d.FullName()))
			return
		}
		for i, f := range msg.resolved() {
			fd := d.Fields().Get(i)
			if f.Class != Honoured || f.opaque {
				continue
			}
			if fd.IsMap() {
				fd = fd.MapValue()
			}
			if fd.Message() != nil {
				visit(fd.Message())
			}
		}
	}
	visit(m.ProtoReflect().Descriptor())
	return out
}

// leaf says whether a message is a value of its own: the well-known types, Any among them, whose content is checked by
// the extension that reads it.
func leaf(d protoreflect.MessageDescriptor) bool {
	return d.ParentFile().Package() == "google.protobuf"
}

// text writes a value as rules do after "=".
func text(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch {
	case fd.IsList() || fd.IsMap():
		return ""
	case fd.Enum() != nil:
		if e := fd.Enum().Values().ByNumber(v.Enum()); e != nil {
			return string(e.Name())
		}
		return ""
	case fd.Message() == nil:
		return v.String()
	}
	return messageText(v.Message())
}

func messageText(m protoreflect.Message) string {
	d := m.Descriptor()
	if !leaf(d) {
		if empty(m) {
			return "{}"
		}
		return ""
	}
	switch d.Name() {
	case "Duration":
		secs := m.Get(d.Fields().ByNumber(1)).Int()
		nanos := m.Get(d.Fields().ByNumber(2)).Int()
		return (time.Duration(secs)*time.Second + time.Duration(nanos)).String()
	case "Any", "Struct", "Value", "ListValue":
		return ""
	}
	if value := d.Fields().ByName("value"); value != nil { // the wrappers
		return m.Get(value).String()
	}
	return ""
}

func empty(m protoreflect.Message) bool {
	any := false
	m.Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool {
		any = true
		return false
	})
	return !any
}
