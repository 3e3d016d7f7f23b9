// SPDX-License-Identifier: Apache-2.0

// Package format reads Envoy's substitution formats, which access logs and header values are written in: text with
// operators such as %REQ(X?Y):Z%, and JSON objects whose strings are such text. It checks everything that can be checked
// without a request, so that proxy/format, which evaluates the result, has no errors to report.
//
// The syntax is that of Envoy's "Substitution Formatter" page; the operators are a closed list, so that a format either
// means here what it means there or is refused by name.
package format

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/meshtap/meshtap/mesh"
)

// Default is Envoy's access log format where none is configured.
const Default = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% ` +
	`%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ` +
	`"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"` + "\n"

// Error is a mistake in a format string.
type Error struct {
	// Column is where the operator begins, in bytes, from 1.
	Column int
	// Op is the operator's name as it was written, "" where there is none.
	Op string
	// Msg says what is wrong, and what is allowed.
	Msg string
}

// Error returns "column N: message".
func (e *Error) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.Msg) }

// Parse reads a format string. The error, if any, is an *Error.
func Parse(s string) (mesh.Format, error) {
	var f mesh.Format
	text := make([]byte, 0, 32)
	flush := func() {
		if len(text) > 0 {
			f = append(f, mesh.FormatPart{Text: string(text)})
			text = text[:0]
		}
	}
	for i := 0; i < len(s); {
		switch {
		case s[i] != '%':
			text = append(text, s[i])
			i++
		case strings.HasPrefix(s[i:], "%%"):
			text = append(text, '%')
			i += 2
		default:
			p, n, err := operator(s[i:])
			if err != nil {
				err.Column = i + 1
				return nil, err
			}
			flush()
			f = append(f, p)
			i += n
		}
	}
	flush()
	return f, nil
}

// Literal returns the text of a format without operators; ok is false where it has some.
func Literal(f mesh.Format) (text string, ok bool) {
	switch {
	case len(f) == 0:
		return "", true
	case len(f) == 1 && f[0].Op == "":
		return f[0].Text, true
	}
	return "", false
}

// operator reads the operator that s begins with and returns how long it is.
func operator(s string) (p mesh.FormatPart, n int, err *Error) {
	name := s[1 : 1+nameLen(s[1:])]
	if name == "" {
		return p, 0, &Error{Msg: `a "%" begins an operator in capital letters, such as %DURATION%; write "%%" for a "%" itself`}
	}
	arg, limit, n, ok := rest(s, 1+len(name))
	if !ok {
		return p, 0, &Error{Op: name, Msg: fmt.Sprintf(
			"operator %%%s is not ended; it is written %%%s%%, %%%s(ARGUMENT)%% or %%%s(ARGUMENT):LENGTH%%", name, name, name, name)}
	}
	p = mesh.FormatPart{Op: canonical(name), Arg: arg}
	spec, ok := operators[p.Op]
	if !ok {
		return p, 0, &Error{Op: name, Msg: unknown(name)}
	}
	if msg := spec.apply(&p, limit); msg != "" {
		return p, 0, &Error{Op: name, Msg: fmt.Sprintf("operator %%%s%%: %s", name, msg)}
	}
	return p, n, nil
}

func nameLen(s string) int {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c != '_' && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

// rest reads what follows the operator's name, which ends at i: "(argument)", ":length" and "%". An argument ends with
// the first ')' that has the end of an operator behind it, and stays on one line, as in Envoy.
func rest(s string, i int) (arg, limit string, n int, ok bool) {
	if limit, n, ok = tail(s, i); ok {
		return "", limit, n, true
	}
	if i >= len(s) || s[i] != '(' {
		return "", "", 0, false
	}
	for j := i + 1; j < len(s) && s[j] != '\n'; j++ {
		if s[j] != ')' {
			continue
		}
		if limit, n, ok = tail(s, j+1); ok {
			return s[i+1 : j], limit, n, true
		}
	}
	return "", "", 0, false
}

// tail reads ":digits%" or "%" at i.
func tail(s string, i int) (limit string, n int, ok bool) {
	if i < len(s) && s[i] == ':' {
		from := i + 1
		for i = from; i < len(s) && s[i]-'0' < 10; i++ {
		}
		if limit = s[from:i]; limit == "" {
			return "", 0, false
		}
	}
	if i < len(s) && s[i] == '%' {
		return limit, i + 1, true
	}
	return "", 0, false
}

// apply checks the operator's argument and length against its specification and puts them into their final form.
func (s spec) apply(p *mesh.FormatPart, limit string) string {
	if limit != "" {
		n, err := strconv.Atoi(limit)
		switch {
		case !s.length:
			return `takes no length ":` + limit + `"`
		case err != nil || n < 1 || n > math.MaxInt32:
			return fmt.Sprintf("length %q is not in 1 ... %d", limit, math.MaxInt32)
		}
		p.Max = n
	}
	switch {
	case s.arg == argNone && p.Arg != "":
		return fmt.Sprintf("takes no argument (%s)", p.Arg)
	case s.arg == argRequired && p.Arg == "":
		return "needs an argument, " + s.example
	case s.check != nil && p.Arg != "":
		return s.check(p)
	}
	return ""
}
