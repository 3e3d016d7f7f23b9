// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/mesh"
)

const (
	// maxErrors bounds the errors kept of one resource, and maxShown those in its text.
	maxErrors = 100
	maxShown  = 10
)

// Error is one thing that is wrong with a resource.
type Error struct {
	Kind mesh.ResourceKind
	// Name is the resource's name, as far as it could be read.
	Name string
	// Path is the field, in snake_case with list indices and map keys, relative to the resource; "" is all of it.
	Path string
	// Msg says what is wrong and what is allowed.
	Msg string
}

// Error returns `kind "name": path: message`.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q: ", e.Kind, e.Name)
	if e.Path != "" {
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Errors is everything that is wrong with one resource, in the order of paths; it is never empty where it is returned
// as an error.
type Errors []*Error

// Error returns one line per error, ten at most.
func (e Errors) Error() string {
	var b strings.Builder
	for i, err := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == maxShown {
			fmt.Fprintf(&b, "and %d more", len(e)-maxShown)
			break
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// Unwrap gives errors.As each of the errors.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, err := range e {
		out[i] = err
	}
	return out
}

// report collects what is wrong with a resource and what of it has no effect.
type report struct {
	kind  mesh.ResourceKind
	name  string
	errs  Errors
	paths map[string]bool
	notes map[string]*note
	// otherNotes counts those that are not kept.
	otherNotes int
}

// note is a statement about a field, once for all fields that differ in list indices only: fifty thousand routes with
// the same field are one note.
type note struct {
	path, why string
	more      int
}

// full says that further errors would not be kept.
func (r *report) full() bool { return len(r.errs) >= maxErrors }

func (r *report) fail(path, msg string) {
	if r.full() || r.paths[path] {
		return // one error for a field is enough: the later ones follow from the first
	}
	if r.paths == nil {
		r.paths = map[string]bool{}
	}
	r.paths[path] = true
	r.errs = append(r.errs, &Error{Kind: r.kind, Name: r.name, Path: path, Msg: msg})
}

func (r *report) note(path, why string) {
	key := withoutIndices(path) + "\x00" + why
	if n := r.notes[key]; n != nil {
		n.more++
		if comparePaths(path, n.path) < 0 {
			n.path = path
		}
		return
	}
	if r.notes == nil {
		r.notes = map[string]*note{}
	}
	if len(r.notes) >= maxErrors {
		r.otherNotes++
		return
	}
	r.notes[key] = &note{path: path, why: why}
}

// err returns the collected errors in the order of paths, or nil.
func (r *report) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errs, func(a, b *Error) int { return comparePaths(a.Path, b.Path) })
	missing := "\x00"
	return slices.DeleteFunc(r.errs, func(e *Error) bool {
		if strings.HasPrefix(e.Path, missing) {
			return true // what is not there at all need not be told of its parts
		}
		if e.Msg == isRequired {
			missing = e.Path + "."
		}
		return false
	})
}

// isRequired is said of a field that is not set and has to be.
const isRequired = "is required"

// noEffect returns the notes as "path: why", in the order of paths.
func (r *report) noEffect() []string {
	notes := make([]*note, 0, len(r.notes))
	for _, n := range r.notes {
		notes = append(notes, n)
	}
	slices.SortFunc(notes, func(a, b *note) int {
		return cmp.Or(comparePaths(a.path, b.path), strings.Compare(a.why, b.why))
	})
	var out []string
	for _, n := range notes {
		s := n.path + ": " + n.why
		if n.more > 0 {
			s += fmt.Sprintf(" (and %d more like it)", n.more)
		}
		out = append(out, s)
	}
	if r.otherNotes > 0 {
		out = append(out, fmt.Sprintf("%d more fields have no effect", r.otherNotes))
	}
	return out
}

// SplitNote takes an entry of Decoded.NoEffect apart: the path of the field, and why it has no effect.
func SplitNote(note string) (path, why string) {
	quoted := false
	for i := 0; i < len(note); i++ {
		switch {
		case quoted && note[i] == '\\':
			i++
		case note[i] == '"':
			quoted = !quoted
		case !quoted && strings.HasPrefix(note[i:], ": "):
			return note[:i], note[i+2:]
		}
	}
	return "", note
}

// withoutIndices removes the digits of list indices, not map keys, from a path.
func withoutIndices(path string) string {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		out = append(out, path[i])
		if path[i] != '[' {
			continue
		}
		for i+1 < len(path) && path[i+1] >= '0' && path[i+1] <= '9' {
			i++
		}
	}
	return string(out)
}

// comparePaths orders paths as their fields are read: by text, with list indices as numbers.
func comparePaths(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			if c := cmp.Or(cmp.Compare(da, db), strings.Compare(a[:da], b[:db])); c != 0 {
				return c
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) (n int) {
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
