// SPDX-License-Identifier: Apache-2.0

package format

import "unicode/utf8"

const hex = "0123456789abcdef"

// AppendText appends s for a text log. Control characters, bytes that are not UTF-8 among them, become \xNN: whoever
// reads the log on a terminal must not be steered by a client, and no client may begin a line of its own. All else is
// written as it came, quotes and backslashes too, as Envoy does.
func AppendText(dst, s []byte) []byte {
	for len(s) > 0 {
		n := CleanText(s)
		dst, s = append(dst, s[:n]...), s[n:]
		if len(s) > 0 {
			dst, s = append(dst, '\\', 'x', hex[s[0]>>4], hex[s[0]&15]), s[1:]
		}
	}
	return dst
}

// CleanText returns how many bytes of s AppendText would leave as they are, from its beginning.
func CleanText(s []byte) int {
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		if c <= 0x7f || n == 1 || r < 0xa0 {
			return i
		}
		i += n
	}
	return len(s)
}

// AppendField appends s for a header field: what may not stand in one (RFC 9110 section 5.5) becomes \xNN.
func AppendField(dst, s []byte) []byte {
	for _, c := range s {
		if c < ' ' && c != '\t' || c == 0x7f {
			dst = append(dst, '\\', 'x', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// AppendJSON appends s as a JSON string with its quotes.
func AppendJSON(dst, s []byte) []byte { return append(AppendJSONText(append(dst, '"'), s), '"') }

// AppendJSONText appends s as the inside of a JSON string. Where s is not UTF-8, each byte of it from 0x80 on is written
// as the character of that number, and quotes and backslashes by number too, which is what Envoy does.
func AppendJSONText(dst, s []byte) []byte {
	bytewise := !utf8.Valid(s)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == 0xc2 && !bytewise && s[i+1] < 0xa0: // a C1 control character; valid, so one byte follows
			i++
			dst = number(dst, s[i])
		case c == '"' || c == '\\':
			if bytewise {
				dst = number(dst, c)
			} else {
				dst = append(dst, '\\', c)
			}
		case c < ' ' && !bytewise:
			dst = control(dst, c)
		case c < ' ' || c == 0x7f || c > 0x7f && bytewise:
			dst = number(dst, c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// CleanJSON reports whether s is plain enough for AppendJSONText to leave it as it is.
func CleanJSON(s []byte) bool {
	for _, c := range s {
		if c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func control(dst []byte, c byte) []byte {
	switch c {
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return number(dst, c)
}

func number(dst []byte, c byte) []byte {
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}
