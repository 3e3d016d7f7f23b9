// SPDX-License-Identifier: Apache-2.0

// Package protorules checks messages against the rules that their proto files carry (protoc-gen-validate's options), by
// reflection. It does what the Validate methods that are generated from the same options do, in the same words.
//
// The generated methods are a fifth of Envoy's API in a binary, and no linker can tell which of them are needed: a program
// that calls one through an interface holds all. Here a message type costs something once it is checked.
//
// A Table may be used by several goroutines.
package protorules

import (
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Violation is a rule that a message breaks.
type Violation struct {
	// Path leads from the message to the field, as in package protofields; for a oneof, to the message that has it.
	Path string
	// Field is the field whose value is wrong, nil where no field of Oneof is set.
	Field protoreflect.FieldDescriptor
	Oneof protoreflect.OneofDescriptor
	// Reason is in the words of the generated methods: "value must be greater than 0s".
	Reason string
}

// Table holds what was made of the rules of message types.
type Table struct {
	mu    sync.Mutex
	plans map[protoreflect.FullName]*plan
}

// NewTable returns a table that knows no message type yet; each is read when its first message comes.
func NewTable() *Table { return &Table{plans: map[protoreflect.FullName]*plan{}} }

// Check calls found for each rule that m, or a message in it, breaks, until found returns false. It does not look into
// Any. The cost is linear in the fields of the messages that are set.
func (t *Table) Check(m proto.Message, found func(Violation) (more bool)) {
	w := walker{table: t, found: found}
	w.message(m.ProtoReflect(), t.plan(m.ProtoReflect()))
}

func (t *Table) plan(m protoreflect.Message) *plan {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := m.Descriptor().FullName()
	p := t.plans[name]
	if p == nil {
		p = newPlan(m.Type().Zero())
		t.plans[name] = p
	}
	return p
}

// plan is what there is to check in a message type.
type plan struct {
	// fields are by index in the descriptor; nil where there is nothing to check.
	fields []*fieldPlan
	// needed are those of fields that break a rule where they are not set.
	needed []*fieldPlan
	// oneofs are those of which one field has to be set.
	oneofs []protoreflect.OneofDescriptor
}

type fieldPlan struct {
	fd   protoreflect.FieldDescriptor
	name string
	// of is the plan of the messages in the field, nil until the first one comes.
	of atomic.Pointer[plan]
	// required says that the message must be set.
	required bool
	// wrapper says that the checks are about the one field of the message, such as an UInt32Value's.
	wrapper bool
	// into says that the field's messages have rules of their own, or may have.
	into bool
	// unique says that items must differ.
	unique bool
	// checks are of the value, of a list or a map as a whole; items of each element, keys of each key.
	checks, items, keys []check
}

// check returns what is wrong with a value, "" for nothing.
type check func(v protoreflect.Value) string

// newPlan makes the plan of a message type of its empty message.
func newPlan(empty protoreflect.Message) *plan {
	d := empty.Descriptor()
	p := &plan{fields: make([]*fieldPlan, d.Fields().Len())}
	if flag(d.Options(), "validate.disabled") || flag(d.Options(), "validate.ignored") {
		return p
	}
	for i := range p.fields {
		f := newFieldPlan(d.Fields().Get(i))
		if !f.matters() {
			continue
		}
		p.fields[i] = f
		if f.needed(empty.Get(f.fd)) {
			p.needed = append(p.needed, f)
		}
	}
	for i := range d.Oneofs().Len() {
		if o := d.Oneofs().Get(i); flag(o.Options(), "validate.required") {
			p.oneofs = append(p.oneofs, o)
		}
	}
	return p
}

func (f *fieldPlan) matters() bool {
	return f.required || f.into || f.unique || len(f.checks)+len(f.items)+len(f.keys) > 0
}

// needed says whether a field breaks a rule where it is not set and has its zero value.
func (f *fieldPlan) needed(zero protoreflect.Value) bool {
	if f.fd.HasPresence() {
		return f.required && f.fd.ContainingOneof() == nil
	}
	return slices.ContainsFunc(f.checks, func(c check) bool { return c(zero) != "" })
}

func newFieldPlan(fd protoreflect.FieldDescriptor) *fieldPlan {
	f := &fieldPlan{fd: fd, name: string(fd.Name())}
	of := fd.Message() // of a map: of its values
	if fd.IsMap() {
		of = fd.MapValue().Message()
	}
	f.into = of != nil && of.FullName().Parent() != "google.protobuf"
	rules := option(fd.Options(), "validate.rules")
	if rules == nil {
		return f
	}
	f.rules(rules, of)
	return f
}

// rules takes in a FieldRules.
func (f *fieldPlan) rules(all protoreflect.Message, of protoreflect.MessageDescriptor) {
	all.Range(func(kind protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		r := v.Message()
		switch kind.Name() {
		case "message":
			f.required = f.required || isSet(r, "required")
			f.into = f.into && !isSet(r, "skip")
		case "repeated":
			f.checks = append(f.checks, lengths(r, "min_items", "max_items", "item(s)", "items", listLen)...)
			f.unique = isSet(r, "unique")
			if items := sub(r, "items"); items != nil {
				item := &fieldPlan{fd: f.fd, into: f.into}
				item.rules(items, of)
				f.items, f.into, f.wrapper = item.checks, item.into, item.wrapper
			}
		case "map":
			f.checks = append(f.checks, lengths(r, "min_pairs", "max_pairs", "pair(s)", "pairs", mapLen)...)
			if keys := sub(r, "keys"); keys != nil {
				key := &fieldPlan{fd: f.fd.MapKey()}
				key.rules(keys, nil)
				f.keys = key.checks
			}
			if values := sub(r, "values"); values != nil {
				value := &fieldPlan{fd: f.fd.MapValue(), into: f.into}
				value.rules(values, of)
				f.items, f.into, f.wrapper = value.checks, value.into, value.wrapper
			}
		default:
			f.required = f.required || isSet(r, "required")
			f.checks = append(f.checks, checksOf(string(kind.Name()), r, f.fd)...)
			whole := kind.Name() == "duration" || kind.Name() == "any" || kind.Name() == "timestamp"
			f.wrapper = of != nil && !whole
			f.into = f.into && !whole // ExtensionConfigSource.config_source has a rule for Any, though it is none
		}
		return true
	})
}

// option returns a message option by name, nil where it is not set. Looked up by name, the option's own Go package need
// not be imported.
func option(o protoreflect.ProtoMessage, name protoreflect.FullName) (found protoreflect.Message) {
	o.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.FullName() == name && fd.Message() != nil {
			found = v.Message()
		}
		return found == nil
	})
	return found
}

// flag returns a boolean option by name.
func flag(o protoreflect.ProtoMessage, name protoreflect.FullName) (set bool) {
	o.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.FullName() == name && fd.Kind() == protoreflect.BoolKind {
			set = v.Bool()
		}
		return !set
	})
	return set
}

// get returns a field of a rule by name.
func get(r protoreflect.Message, name string) (v protoreflect.Value, ok bool) {
	fd := r.Descriptor().Fields().ByName(protoreflect.Name(name))
	if fd == nil || !r.Has(fd) {
		return v, false
	}
	return r.Get(fd), true
}

func isSet(r protoreflect.Message, name string) bool {
	v, ok := get(r, name)
	return ok && v.Bool()
}

func sub(r protoreflect.Message, name string) protoreflect.Message {
	if v, ok := get(r, name); ok {
		return v.Message()
	}
	return nil
}
