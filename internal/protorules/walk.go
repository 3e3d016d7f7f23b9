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
	done  bool
}

func (w *walker) report(v Violation) {
	if !w.done {
		v.Path = string(w.path)
		w.done = !w.found(v)
	}
}

func (w *walker) message(m protoreflect.Message) {
	p := w.table.plan(m.Descriptor())
	for i := range p.fields {
		if w.done {
			return
		}
		w.field(m, &p.fields[i])
	}
	for _, o := range p.oneofs {
		if m.WhichOneof(o) == nil {
			w.report(Violation{Oneof: o, Reason: "value is required"})
		}
	}
}

// field checks one field of a message. A field that knows whether it is set is checked where it is; others also where they
// have their zero value.
func (w *walker) field(m protoreflect.Message, f *fieldPlan) {
	set := m.Has(f.fd)
	mark := len(w.path)
	defer func() { w.path = w.path[:mark] }()
	if mark > 0 {
		w.path = append(w.path, '.')
	}
	w.path = append(w.path, f.fd.Name()...)
	switch {
	case f.fd.HasPresence() && !set:
		if f.required && f.fd.ContainingOneof() == nil {
			w.report(Violation{Field: f.fd, Reason: "value is required"})
		}
	case f.fd.IsList():
		w.list(f, m.Get(f.fd))
	case f.fd.IsMap():
		w.entries(f, m.Get(f.fd))
	default:
		w.value(f, f.checks, m.Get(f.fd))
	}
}

// value checks a single value.
func (w *walker) value(f *fieldPlan, checks []check, v protoreflect.Value) {
	if f.wrapper && len(checks) > 0 {
		m := v.Message()
		v = m.Get(m.Descriptor().Fields().Get(0))
	}
	w.run(f, checks, v)
	if f.into {
		w.message(v.Message())
	}
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
	seen := map[any]bool{}
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
