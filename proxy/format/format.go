// SPDX-License-Identifier: Apache-2.0

// Package format evaluates the substitution formats that internal/format parsed: the lines of access logs and the values
// of headers, from one mesh.Outcome. While a request is in flight its exchange fills the Outcome as it goes, so that the
// same code serves the headers on the way and the log at the end; what has not happened yet is unset.
//
// Nothing here allocates: everything is appended to what the caller brings. What came from the wire is escaped on the way
// out, once, here.
package format

import (
	"github.com/meshtap/meshtap/internal/format"
	"github.com/meshtap/meshtap/mesh"
)

// Env is what formats can name that is the same for all requests.
type Env struct {
	// Hostname is what %HOSTNAME% stands for; unset where it is "".
	Hostname string
}

// Style says what is written for an unset value, and what must not be written.
type Style uint8

// The styles.
const (
	// Log writes "-" for an unset value and escapes control characters (internal/format.AppendText).
	Log Style = iota
	// LogOmitEmpty is Log with nothing for an unset value.
	LogOmitEmpty
	// Header writes nothing for an unset value, as Envoy does: "a%REQ(none)%b" is "ab", and a header whose whole value is
	// empty is left out unless it keeps empty values. (Read off Envoy 1.40, whose HeaderParser omits empty values; its
	// documentation does not say.) Bytes that may not stand in a field are escaped.
	Header
)

// kind is what an operator evaluated to.
type kind uint8

const (
	unset kind = iota
	text
	number
	object // JSON already
)

// Append appends the format's text.
func (e *Env) Append(dst []byte, f mesh.Format, o *mesh.Outcome, s Style) []byte {
	for i := range f {
		p := &f[i]
		if p.Op == "" {
			dst = append(dst, p.Text...)
			continue
		}
		at := len(dst)
		var k kind
		dst, k = e.value(dst, p, o)
		switch {
		case k == text:
			dst = s.escape(cut(dst, at, p.Max), at)
		case k == unset && s == Log:
			dst = append(dst, '-')
		}
	}
	return dst
}

// Value appends the value of one operator as it is, without an escape. ok is false where it is unset, and then dst comes
// back as it was.
func (e *Env) Value(dst []byte, p *mesh.FormatPart, o *mesh.Outcome) (_ []byte, ok bool) {
	dst, k := e.value(dst, p, o)
	return dst, k != unset
}

// cut shortens what was appended behind at to limit bytes; 0 leaves it.
func cut(dst []byte, at, limit int) []byte {
	if limit > 0 && len(dst)-at > limit {
		return dst[:at+limit]
	}
	return dst
}

// escape escapes what was appended behind at.
func (s Style) escape(dst []byte, at int) []byte {
	end := len(dst)
	if format.CleanText(dst[at:]) == end-at {
		return dst
	}
	if s == Header {
		dst = format.AppendField(dst, dst[at:end])
	} else {
		dst = format.AppendText(dst, dst[at:end])
	}
	return append(dst[:at], dst[end:]...)
}

// AppendJSON appends the object j as one line with its newline. Unset values are null, or left out with omitEmpty; so are
// objects of which nothing is left, but for the outermost. Each string that is made of the request is cut to most bytes
// before it is escaped; 0 does not cut.
func (e *Env) AppendJSON(dst []byte, j *format.JSON, o *mesh.Outcome, omitEmpty bool, most int) []byte {
	w := jsonWriter{env: e, outcome: o, omit: omitEmpty, most: most}
	at := len(dst)
	dst, there := w.value(dst, j)
	if !there {
		dst = append(dst[:at], "{}"...)
	}
	return append(dst, '\n')
}

type jsonWriter struct {
	env     *Env
	outcome *mesh.Outcome
	omit    bool
	most    int
}

// value appends j; there is false where it is left out, and then what was appended means nothing.
func (w *jsonWriter) value(dst []byte, j *format.JSON) (_ []byte, there bool) {
	switch {
	case j.Const != "":
		return append(dst, j.Const...), !w.omit || !j.Null()
	case j.Format != nil:
		return w.made(dst, j.Format)
	case j.Fields != nil:
		return w.object(dst, j.Fields)
	}
	dst = append(dst, '[')
	first := len(dst)
	for _, item := range j.Items {
		dst = w.member(dst, first, "", item)
	}
	return append(dst, ']'), true
}

func (w *jsonWriter) object(dst []byte, fields []format.Field) ([]byte, bool) {
	dst = append(dst, '{')
	first := len(dst)
	for i := range fields {
		dst = w.member(dst, first, fields[i].Key, fields[i].Value)
	}
	return append(dst, '}'), !w.omit || len(dst) > first
}

// member appends a comma where one is due, the key and the value; or nothing, where the value is left out. first is where
// the object or array has its first member.
func (w *jsonWriter) member(dst []byte, first int, key string, j *format.JSON) []byte {
	at := len(dst)
	if at > first {
		dst = append(dst, ',')
	}
	dst, there := w.value(append(dst, key...), j)
	if !there {
		return dst[:at]
	}
	return dst
}

// made appends a value that is made of the request: of the operator's own type where the format is one operator,
// otherwise a string, in which unset operators are "-", or nothing with omit.
func (w *jsonWriter) made(dst []byte, f mesh.Format) ([]byte, bool) {
	at := len(dst)
	dst = append(dst, '"')
	if len(f) == 1 {
		dst, k := w.piece(dst, &f[0], true)
		switch k {
		case unset:
			return append(dst[:at], "null"...), !w.omit
		case number, object:
			return append(dst[:at], dst[at+1:]...), true
		}
		return append(dst, '"'), true
	}
	for i := range f {
		var k kind
		if dst, k = w.piece(dst, &f[i], false); k == unset && !w.omit {
			dst = append(dst, '-')
		}
	}
	return append(dst, '"'), true
}

// piece appends a text or the value of an operator as the inside of a string. alone says that there is nothing else: an
// object stays one then.
func (w *jsonWriter) piece(dst []byte, p *mesh.FormatPart, alone bool) ([]byte, kind) {
	at, k := len(dst), text
	if p.Op == "" {
		dst = append(dst, p.Text...)
	} else {
		dst, k = w.env.value(dst, p, w.outcome)
		if k == text {
			dst = cut(cut(dst, at, p.Max), at, w.most)
		}
	}
	if end := len(dst); !(k == object && alone) && !format.CleanJSON(dst[at:]) {
		dst = format.AppendJSONText(dst, dst[at:end])
		dst = append(dst[:at], dst[end:]...)
	}
	return dst, k
}
