// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// unclean tells runes that a terminal acts on instead of showing them: C0 and C1 control characters, DEL, line
// separators, zero-width characters, and what turns the direction of text around.
func unclean(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r < 0xa0, r == 0xad, r == 0x061c, r == 0x180e, r == 0xfeff:
		return true
	case r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f:
		return true
	case r >= 0xfff9 && r <= 0xfffb, r >= 0xe0000 && r <= 0xe0fff:
		return true
	}
	return false
}

// Clean returns s with each rune that a terminal would act on, and each byte that is not UTF-8, escaped as in a Go
// string. What it returns is one line.
func Clean(s string) string {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f {
			return appendClean(s)
		}
	}
	return s
}

func appendClean(s string) string {
	var dst []byte
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			dst = fmt.Appendf(dst, `\x%02x`, s[0])
		case unclean(r) && r < 0x80:
			dst = fmt.Appendf(dst, `\x%02x`, r)
		case unclean(r) && r > 0xffff:
			dst = fmt.Appendf(dst, `\U%08x`, r)
		case unclean(r):
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = append(dst, s[:n]...)
		}
		s = s[n:]
	}
	return string(dst)
}

// AppendJSON appends a JSON text with the runes escaped that JSON lets stand and a terminal would act on. They can only
// be inside of strings, where \u is right; line breaks and tabs between tokens stay. Bytes that are not UTF-8 become
// U+FFFD.
func AppendJSON(dst, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == '\n' || r == '\t':
			dst = append(dst, byte(r))
		case r == '\r': // it is between tokens; in a string it would be escaped
			dst = append(dst, ' ')
		case !unclean(r):
			dst = utf8.AppendRune(dst, r)
		case r > 0xffff:
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		}
		text = text[n:]
	}
	return dst
}

// indentJSON returns v as JSON over several lines.
func indentJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return AppendJSON(nil, b.Bytes()), nil
}
