// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"

	"github.com/meshtap/meshtap/eventtap/event"
)

// variable is a name that an expression may use.
type variable struct {
	name string
	typ  *cel.Type
	get  func(*event.Event) any
}

// attributes are those of CloudEvents and their extensions.
var attributes = []variable{
	{"id", cel.StringType, func(e *event.Event) any { return text(e.ID) }},
	{"source", cel.StringType, func(e *event.Event) any { return text(e.Source) }},
	{"type", cel.StringType, typeOf},
	{"subject", cel.StringType, func(e *event.Event) any { return text(e.Subject) }},
	{"time", cel.TimestampType, func(e *event.Event) any { return types.Timestamp{Time: time.Unix(0, e.Time).UTC()} }},
	{"partitionkey", cel.StringType, func(e *event.Event) any { return text(e.PartitionKey) }},
	{"traceparent", cel.StringType, func(e *event.Event) any { return text(e.TraceParent) }},
	{"bootid", cel.StringType, func(e *event.Event) any { return text(e.BootID) }},
}

func typeOf(e *event.Event) any {
	if e.Kind == event.Unknown {
		return text(e.Type)
	}
	return types.String(e.Kind.Type())
}

func text(b []byte) types.String { return types.String(b) }

// variables returns the attributes and the fields.
func variables() []variable {
	out := append([]variable(nil), attributes...)
	for _, f := range event.Fields() {
		out = append(out, field(f))
	}
	return out
}

func field(f event.Named) variable {
	v := variable{name: f.Name}
	switch {
	case f.IsList:
		v.typ = cel.ListType(cel.MapType(cel.StringType, cel.DynType))
		v.get = func(e *event.Event) any { return entries(e, f) }
	case f.IsText:
		v.typ = cel.StringType
		v.get = func(e *event.Event) any { return text(e.Texts[f.Text]) }
	case f.IsFlag:
		v.typ = cel.BoolType
		v.get = func(e *event.Event) any { return types.Bool(e.Numbers[f.Number] != 0) }
	default:
		v.typ = cel.IntType
		v.get = func(e *event.Event) any { return types.Int(e.Numbers[f.Number]) }
	}
	return v
}

// entries are an event's list, where it has this one.
func entries(e *event.Event, list event.Named) any {
	out := []map[string]any{}
	if e.ListName() != list.Name {
		return out
	}
	for i := range e.Items[:e.NumItems] {
		entry := map[string]any{}
		for _, m := range list.Members {
			if m.IsText {
				entry[m.Name] = string(e.Items[i].Texts[m.Text])
			} else {
				entry[m.Name] = e.Items[i].Numbers[m.Number]
			}
		}
		out = append(out, entry)
	}
	return out
}

// activation lends an event to an evaluation.
type activation struct {
	event *event.Event
	names map[string]*variable
}

// ResolveName returns the value of a variable.
func (a *activation) ResolveName(name string) (any, bool) {
	v := a.names[name]
	if v == nil {
		return nil, false
	}
	return v.get(a.event), true
}

// Parent returns nil: there is nothing else.
func (*activation) Parent() interpreter.Activation { return nil }

var _ interpreter.Activation = (*activation)(nil)
