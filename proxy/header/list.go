// SPDX-License-Identifier: Apache-2.0

// Package header holds the ordered header list that every codec fills and every filter reads: names keep their case and
// fields their order, lookups ignore case, and nothing is allocated per field.
//
// A List owns the bytes of its fields: a codec names the fields by their offsets in a head (Append) and then hands over
// the head's bytes at once (Own); later additions go behind them. It belongs to one goroutine at a time and is reused
// from request to request.
package header

import (
	"bytes"
)

// List is an ordered list of header fields. The zero value is an empty list. Slices that its methods return are
// borrowed: they stay as they are until Reset, whatever is added or removed in between.
type List struct {
	arena  []byte
	fields []field
}

// field locates one field in the arena. Where raw is set, the arena holds "name: value\r\n" in just that form, so that
// runs of such neighbours are written with one copy.
type field struct {
	name, nameEnd   uint32
	value, valueEnd uint32
	id              ID
	raw, dead       bool
}

// Reset empties the list and keeps its memory, unless one large head made it grow beyond keep.
func (l *List) Reset() {
	const keep = 16 << 10
	if cap(l.arena) > keep {
		l.arena = nil
	}
	l.arena, l.fields = l.arena[:0], l.fields[:0]
}

// Append adds the field whose name and value are at these offsets of the head that Own will bring. raw says that exactly
// ": " is between them and CRLF behind.
func (l *List) Append(id ID, name, nameEnd, value, valueEnd int, raw bool) {
	l.fields = append(l.fields, field{uint32(name), uint32(nameEnd), uint32(value), uint32(valueEnd), id, raw, false})
}

// DropLast removes the field that Append added last.
func (l *List) DropLast() { l.fields[len(l.fields)-1].dead = true }

// Own copies the head whose fields were appended since Reset, and returns the copy.
func (l *List) Own(head []byte) []byte {
	l.arena = append(l.arena[:0], head...)
	return l.arena
}

// Bytes returns what Own copied and what came behind it, so that offsets into a head can be resolved.
func (l *List) Bytes() []byte { return l.arena }

// Len returns the number of fields that are there.
func (l *List) Len() int {
	n := 0
	for i := range l.fields {
		if !l.fields[i].dead {
			n++
		}
	}
	return n
}

// Size returns the bytes that the fields take in HTTP/1.1, with ": " and CRLF.
func (l *List) Size() int {
	n := 0
	for i := range l.fields {
		if f := &l.fields[i]; !f.dead {
			n += int(f.nameEnd-f.name) + int(f.valueEnd-f.value) + 4
		}
	}
	return n
}

// All calls yield for each field, in order, with the name as it was written.
func (l *List) All(yield func(name, value []byte) bool) {
	for i := range l.fields {
		f := &l.fields[i]
		if !f.dead && !yield(l.arena[f.name:f.nameEnd], l.arena[f.value:f.valueEnd]) {
			return
		}
	}
}

// HasPrefix reports whether there is a field whose name begins with this lower-case prefix and goes on.
func (l *List) HasPrefix(prefix string) bool {
	for i := range l.fields {
		f := &l.fields[i]
		if !f.dead && int(f.nameEnd-f.name) > len(prefix) && EqualFold(l.arena[f.name:int(f.name)+len(prefix)], prefix) {
			return true
		}
	}
	return false
}

// Get returns the value of the first field with this lower-case name, or nil. A field that is there with an empty value
// gives an empty slice that is not nil.
func (l *List) Get(name string) []byte {
	if f := l.find(name, 0); f >= 0 {
		return l.at(f)
	}
	return nil
}

// GetID is Get for a field that has an ID.
func (l *List) GetID(id ID) []byte {
	for i := range l.fields {
		if f := &l.fields[i]; f.id == id && !f.dead {
			return l.at(i)
		}
	}
	return nil
}

// Has reports whether there is a field with this lower-case name.
func (l *List) Has(name string) bool { return l.find(name, 0) >= 0 }

// HasID is Has for a field that has an ID.
func (l *List) HasID(id ID) bool { return l.GetID(id) != nil }

// Values calls yield for the value of each field with this lower-case name.
func (l *List) Values(name string, yield func(value []byte) bool) {
	for i := l.find(name, 0); i >= 0; i = l.find(name, i+1) {
		if !yield(l.at(i)) {
			return
		}
	}
}

// Joined returns the values of all fields with this lower-case name, joined with "," (RFC 9110 section 5.3), or nil.
// It allocates only where there is more than one.
func (l *List) Joined(name string) []byte {
	i := l.find(name, 0)
	if i < 0 {
		return nil
	}
	v := l.at(i)
	j := l.find(name, i+1)
	if j < 0 {
		return v
	}
	out := bytes.Clone(v)
	for ; j >= 0; j = l.find(name, j+1) {
		out = append(append(out, ','), l.at(j)...)
	}
	return out
}

// Add appends a field. name is in lower case and a valid token, value is free of CR, LF and NUL; see ValidValue.
func (l *List) Add(name string, value []byte) {
	at, v := l.addName(name)
	l.arena = append(l.arena, value...)
	l.seal(at, v)
}

// AddString is Add for a string.
func (l *List) AddString(name, value string) {
	at, v := l.addName(name)
	l.arena = append(l.arena, value...)
	l.seal(at, v)
}

// AddLine appends the field that line holds, as "name: value", without a line's end. The name is in lower case and n bytes
// long, and id is its IDOf.
func (l *List) AddLine(id ID, line []byte, n int) {
	at := len(l.arena)
	l.arena = append(append(l.arena, line...), "\r\n"...)
	l.Append(id, at, at+n, at+n+len(": "), at+len(line), true)
}

// Slots returns the number of places of fields, those that were removed included. See At.
func (l *List) Slots() int { return len(l.fields) }

// At returns the field in place i; its name is nil where it was removed. It is All for those who cannot afford a call for
// each field.
func (l *List) At(i int) (id ID, name, value []byte) {
	f := &l.fields[i]
	if f.dead {
		return None, nil, nil
	}
	return f.id, l.arena[f.name:f.nameEnd], l.arena[f.value:f.valueEnd]
}

// Set removes all fields with this lower-case name and appends one.
func (l *List) Set(name string, value []byte) {
	l.Remove(name)
	l.Add(name, value)
}

// SetString is Set for a string.
func (l *List) SetString(name, value string) {
	l.Remove(name)
	l.AddString(name, value)
}

// Remove removes all fields with this lower-case name and reports whether there was one.
func (l *List) Remove(name string) bool {
	found := false
	for i := l.find(name, 0); i >= 0; i = l.find(name, i+1) {
		l.fields[i].dead, found = true, true
	}
	return found
}

// RemoveID is Remove for a field that has an ID.
func (l *List) RemoveID(id ID) {
	for i := range l.fields {
		if l.fields[i].id == id {
			l.fields[i].dead = true
		}
	}
}

// RemoveFunc removes the fields for which drop returns true.
func (l *List) RemoveFunc(drop func(name, value []byte) bool) {
	for i := range l.fields {
		f := &l.fields[i]
		if !f.dead && drop(l.arena[f.name:f.nameEnd], l.at(i)) {
			f.dead = true
		}
	}
}

// AppendHTTP1 appends the fields as HTTP/1.1 lines, each ended by CRLF, neighbours that were never touched with one
// copy.
func (l *List) AppendHTTP1(dst []byte) []byte {
	for i := 0; i < len(l.fields); i++ {
		f := &l.fields[i]
		switch {
		case f.dead:
		case f.raw:
			end := f.valueEnd + 2
			for i+1 < len(l.fields) {
				n := &l.fields[i+1]
				if n.dead || !n.raw || n.name != end {
					break
				}
				end = n.valueEnd + 2
				i++
			}
			dst = append(dst, l.arena[f.name:end]...)
		default:
			dst = append(dst, l.arena[f.name:f.nameEnd]...)
			dst = append(dst, ": "...)
			dst = append(dst, l.at(i)...)
			dst = append(dst, "\r\n"...)
		}
	}
	return dst
}

// CopyFrom replaces the list with the fields of src.
func (l *List) CopyFrom(src *List) {
	l.Reset()
	src.All(func(name, value []byte) bool {
		at := len(l.arena)
		l.arena = append(append(l.arena, name...), ": "...)
		v := len(l.arena)
		l.arena = append(l.arena, value...)
		l.seal(at, v)
		return true
	})
}

// Hold copies p behind the fields and returns the copy, which lives as long as the list's own bytes. It is where a
// request keeps a rewritten path or authority.
func (l *List) Hold(p []byte) []byte {
	at := len(l.arena)
	l.arena = append(l.arena, p...)
	return l.arena[at:len(l.arena):len(l.arena)]
}

func (l *List) at(i int) []byte {
	f := &l.fields[i]
	return l.arena[f.value:f.valueEnd:f.valueEnd]
}

// find returns the index of the first field from i on with the lower-case name, or -1.
func (l *List) find(name string, i int) int {
	for ; i < len(l.fields); i++ {
		f := &l.fields[i]
		if !f.dead && int(f.nameEnd-f.name) == len(name) && EqualFold(l.arena[f.name:f.nameEnd], name) {
			return i
		}
	}
	return -1
}

// addName begins a field; the value follows in the arena, and then seal. This is not one generic function for strings and
// slices, because what is given to such a function has to be on the heap.
func (l *List) addName(name string) (at, value int) {
	at = len(l.arena)
	l.arena = append(append(l.arena, name...), ": "...)
	return at, len(l.arena)
}

// seal ends the field whose name is at the index at, and whose value at the index value.
func (l *List) seal(at, value int) {
	end := len(l.arena)
	l.arena = append(l.arena, "\r\n"...)
	nameEnd := value - len(": ")
	l.Append(IDOf(l.arena[at:nameEnd]), at, nameEnd, value, end, true)
}
