// SPDX-License-Identifier: Apache-2.0

package event

// Field is a field of the data of requests and connections, by its name in JSON.
type Field struct {
	// Text or Number is where the field is, by IsText. IsList says that it is the list of tries, which is neither.
	Text           Text
	Number         Number
	IsText, IsList bool
}

// FieldOf finds a field of RequestOutcome or ConnectionOutcome by its name in JSON, such as "http.route".
func FieldOf(name string) (f Field, ok bool) {
	if name == tries.name {
		return Field{IsList: true}, true
	}
	for _, list := range [][]field{requestFields, connectionFields} {
		for i := range list {
			if list[i].name != name {
				continue
			}
			if list[i].form == text {
				return Field{Text: Text(list[i].slot), IsText: true}, true
			}
			return Field{Number: Number(list[i].slot)}, true
		}
	}
	return Field{}, false
}

// Named is a field of any kind's data.
type Named struct {
	Field
	// Name is its name in JSON. It is the same field in every kind that has the name.
	Name string
	// IsFlag says of a number that it is true or false.
	IsFlag bool
	// Members are the fields of a list's entries; nil where the field is no list.
	Members []Named
}

// Fields returns the fields of all kinds, each once, in the order of the kinds.
func Fields() []Named {
	var out []Named
	seen := map[string]bool{}
	add := func(f Named) {
		if !seen[f.Name] {
			seen[f.Name] = true
			out = append(out, f)
		}
	}
	for k := Request; k < NumKinds; k++ {
		m := &messages[k]
		for i := range m.fields {
			add(named(&m.fields[i]))
		}
		if m.list == nil {
			continue
		}
		l := Named{Field: Field{IsList: true}, Name: m.list.name}
		for i := range m.list.fields {
			l.Members = append(l.Members, named(&m.list.fields[i]))
		}
		add(l)
	}
	return out
}

// ListName is the name in JSON of the list that the event's kind has, "" where it has none.
func (e *Event) ListName() string {
	if l := messages[e.Kind].list; l != nil {
		return l.name
	}
	return ""
}

func named(f *field) Named {
	if f.form == text {
		return Named{Field: Field{Text: Text(f.slot), IsText: true}, Name: f.name}
	}
	return Named{Field: Field{Number: Number(f.slot)}, Name: f.name, IsFlag: f.form == flag}
}

// Default returns what a number is where it is left out.
func Default(n Number) int64 {
	if isOptional(n) {
		return Absent
	}
	return 0
}
