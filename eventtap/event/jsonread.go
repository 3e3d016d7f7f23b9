// SPDX-License-Identifier: Apache-2.0

package event

// maxDepth bounds how deep JSON may be nested, as encoding/json does.
const maxDepth = 10000

// jsonReader walks over JSON text (RFC 8259) without copying. What is malformed ends the walk and sets bad. It accepts what
// encoding/json does.
type jsonReader struct {
	b     []byte
	at    int
	depth int
	// begun says that the array or object that is walked has had an entry, over that it has no more.
	begun, over bool
	// key and val are the entry that next has found: the key with its quotes, the value without the space around it.
	key, val []byte
	bad      bool
}

// open goes into the object or array that b is, by the byte that it must begin with. null has no entries.
func (r *jsonReader) open(b []byte, with byte) {
	*r = jsonReader{b: b}
	r.space()
	if r.peek() == 'n' {
		r.literal("null")
		r.end()
		r.over = true
		return
	}
	r.one(with)
}

// next goes to the next entry. It returns false behind the last one, and where bad is set.
func (r *jsonReader) next(object bool) bool {
	if r.over || r.bad {
		return false
	}
	closing := byte(']')
	if object {
		closing = '}'
	}
	r.space()
	if r.peek() == closing {
		r.at++
		r.end()
		r.over = true
		return false
	}
	if r.begun {
		r.one(',')
		r.space()
	}
	r.begun = true
	if object {
		r.key = r.value('"')
		r.space()
		r.one(':')
		r.space()
	}
	r.val = r.value(0)
	return !r.bad
}

// end sets bad unless nothing more comes.
func (r *jsonReader) end() {
	r.space()
	r.bad = r.bad || r.at < len(r.b)
}

func (r *jsonReader) peek() byte {
	if r.at < len(r.b) {
		return r.b[r.at]
	}
	return 0
}

func (r *jsonReader) one(c byte) {
	if r.peek() != c {
		r.bad = true
		return
	}
	r.at++
}

func (r *jsonReader) space() {
	for r.at < len(r.b) && (r.b[r.at] == ' ' || r.b[r.at] == '\n' || r.b[r.at] == '\r' || r.b[r.at] == '\t') {
		r.at++
	}
}

// value passes over a value, which must begin with a byte unless that is 0, and returns it.
func (r *jsonReader) value(must byte) []byte {
	from, c := r.at, r.peek()
	if must != 0 && c != must {
		r.bad = true
	}
	switch c {
	case '"':
		r.text()
	case '{':
		r.nested(true)
	case '[':
		r.nested(false)
	case 't':
		r.literal("true")
	case 'f':
		r.literal("false")
	case 'n':
		r.literal("null")
	default:
		r.number()
	}
	if r.bad {
		return nil
	}
	return r.b[from:r.at:r.at]
}

// nested passes over an object or an array.
func (r *jsonReader) nested(object bool) {
	closing := byte(']')
	if object {
		closing = '}'
	}
	r.at++
	r.depth++
	r.bad = r.bad || r.depth >= maxDepth // around it is what is walked
	r.space()
	if r.peek() == closing {
		r.at++
		r.depth--
		return
	}
	for !r.bad {
		if object {
			r.value('"')
			r.space()
			r.one(':')
			r.space()
		}
		r.value(0)
		r.space()
		if r.peek() == closing {
			r.at++
			r.depth--
			return
		}
		r.one(',')
		r.space()
	}
}

func (r *jsonReader) literal(s string) {
	if len(r.b)-r.at < len(s) || string(r.b[r.at:r.at+len(s)]) != s {
		r.bad = true
		return
	}
	r.at += len(s)
}

// simple are the bytes that stand for themselves in a string, those of UTF-8 among them, right or wrong.
var simple = func() (t [256]bool) {
	for c := ' '; c < 256; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// text passes over a string.
func (r *jsonReader) text() {
	b := r.b
	for i := r.at + 1; i < len(b); i++ {
		switch c := b[i]; {
		case simple[c]:
		case c == '"':
			r.at = i + 1
			return
		case c != '\\': // a control character
			r.bad = true
			return
		default:
			if i = escape(b, i+1); i < 0 {
				r.bad = true
				return
			}
		}
	}
	r.bad = true
}

// escape returns the last byte of what stands behind a backslash, or -1.
func escape(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i
	case 'u':
		if len(b) < i+5 {
			return -1
		}
		for _, c := range b[i+1 : i+5] {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return -1
			}
		}
		return i + 4
	}
	return -1
}

// number passes over a number.
func (r *jsonReader) number() {
	if r.peek() == '-' {
		r.at++
	}
	if r.peek() == '0' {
		r.at++
	} else {
		r.digits()
	}
	if r.peek() == '.' {
		r.at++
		r.digits()
	}
	if r.peek()|0x20 == 'e' {
		r.at++
		if c := r.peek(); c == '+' || c == '-' {
			r.at++
		}
		r.digits()
	}
}

// digits passes over one digit or more.
func (r *jsonReader) digits() {
	from := r.at
	for r.at < len(r.b) && r.b[r.at] >= '0' && r.b[r.at] <= '9' {
		r.at++
	}
	r.bad = r.bad || r.at == from
}
