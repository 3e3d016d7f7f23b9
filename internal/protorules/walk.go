// SPDX-License-Identifier: Apache-2.0

package protorules

import (
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"
)

type walker struct {
	table *Table
	found func(Violation) bool
	path  []byte
	set   []int // of the messages that are being walked, see order
	done  bool
}

func (w *walker) report(v Violation) {
	if !w.done {
		v.Path = string(w.path)
		w.done = !w.found(v)
	}
}

// message checks a message: the fields that are set and, of those that are not, the ones that have to be.
func (w *walker) message(m protoreflect.Message, p *plan) {
	for _, f := range p.needed {
		if !m.Has(f.fd) {
			w.missing(m, f)
		}
	}
	set := w.order(m, p)
	for _, i := range set {
		if w.done {
			break
		}
		f := p.fields[i]
		w.field(f, m.Get(f.fd))
	}
	w.set = w.set[:len(w.set)-len(set)]
	for _, o := range p.oneofs {
		if m.WhichOneof(o) == nil {
			w.report(Violation{Oneof: o, Reason: "value is required"})
		}
	}
}

// order returns the indexes of the fields that are set and have something to check, in their order: Range has another one in
// each build, and messages to people must not.
func (w *walker) order(m protoreflect.Message, p *plan) []int {
	mark := len(w.set)
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if i := fd.Index(); p.fields[i] != nil {
			w.set = append(w.set, i)
		}
		return true
	})
	set := w.set[mark:len(w.set):len(w.set)]
	slices.Sort(set)
	return set
}

// missing reports a field that is not set. One that does not know whether it is set breaks rules with its zero value.
func (w *walker) missing(m protoreflect.Message, f *fieldPlan) {
	mark := w.enter(f)
	if f.fd.HasPresence() {
		w.report(Violation{Field: f.fd, Reason: "value is required"})
	} else {
		w.run(f, f.checks, m.Get(f.fd))
	}
	w.path = w.path[:mark]
}

// enter adds a field to the path, and returns how long that was before.
func (w *walker) enter(f *fieldPlan) (mark int) {
	mark = len(w.path)
	if mark > 0 {
		w.path = append(w.path, '.')
	}
	w.path = append(w.path, f.name...)
	return mark
}

// field checks a field that is set.
func (w *walker) field(f *fieldPlan, v protoreflect.Value) {
	mark := w.enter(f)
	switch {
	case f.fd.IsList():
		w.list(f, v)
	case f.fd.IsMap():
		w.entries(f, v)
	default:
		w.value(f, f.checks, v)
	}
	w.path = w.path[:mark]
}

// value checks a single value.
func (w *walker) value(f *fieldPlan, checks []check, v protoreflect.Value) {
	if f.wrapper && len(checks) > 0 {
		m := v.Message()
		v = m.Get(m.Descriptor().Fields().Get(0))
	}
	w.run(f, checks, v)
	if !f.into {
		return
	}
	m := v.Message()
	p := f.of.Load()
	if p == nil {
		p = w.table.plan(m)
		f.of.Store(p)
	}
	w.message(m, p)
}

func (w *walker) run(f *fieldPlan, checks []check, v protoreflect.Value) {
	for _, c := range checks {
		if reason := c(v); reason != "" {
			w.report(Violation{Field: f.fd, Reason: reason})
		}
	}
}

func (w *walker) list(f *fieldPlan, v protoreflect.Value) {
	w.run(f, f.checks, v)
	if !f.unique && !f.into && len(f.items) == 0 {
		return
	}
	var seen map[any]bool
	if f.unique {
		seen = map[any]bool{}
	}
	mark := len(w.path)
	for i := range v.List().Len() {
		if w.done {
			return
		}
		item := v.List().Get(i)
		w.path = append(strconv.AppendInt(append(w.path, '['), int64(i), 10), ']')
		if f.unique {
			if key := unique(item); seen[key] {
				w.report(Violation{Field: f.fd, Reason: "repeated value must contain unique items"})
			} else {
				seen[key] = true
			}
		}
		w.value(f, f.items, item)
		w.path = w.path[:mark]
	}
}

// unique returns what two items share where they are equal.
func unique(v protoreflect.Value) any {
	if b, ok := v.Interface().([]byte); ok {
		return string(b)
	}
	return v.Interface()
}

func (w *walker) entries(f *fieldPlan, v protoreflect.Value) {
	w.run(f, f.checks, v)
	if !f.into && len(f.items)+len(f.keys) == 0 {
		return
	}
	var keys []protoreflect.MapKey
	v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return compare(a.Value(), b.Value()) })
	mark := len(w.path)
	for _, k := range keys {
		if w.done {
			return
		}
		w.path = fmt.Appendf(w.path, "[%q]", k.String())
		w.run(f, f.keys, k.Value())
		w.value(f, f.items, v.Map().Get(k))
		w.path = w.path[:mark]
	}
}
