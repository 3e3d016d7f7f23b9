// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"fmt"
	"io"
	"unicode/utf8"
)

// unclean reports whether a rune could change what a terminal or a reader makes of a line: C0, DEL and C1 control
// characters, line separators, and what turns the direction of text around.
func unclean(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r < 0xa0:
		return true
	case r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}

// clean returns s with each unclean rune, and each byte that is not UTF-8, escaped as in a Go string.
func clean[T string | []byte](s T) string {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f {
			return string(appendClean(nil, string(s)))
		}
	}
	return string(s)
}

func appendClean(dst []byte, s string) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			dst = fmt.Appendf(dst, `\x%02x`, s[0])
		case unclean(r):
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = append(dst, s[:n]...)
		}
		s = s[n:]
	}
	return dst
}

// jsonWriter passes JSON on and escapes what JSON allows to stand unescaped but unclean does not: such runes can only be
// inside of strings, where \u is right. Bytes that are not UTF-8 become U+FFFD, as JSON wants.
type jsonWriter struct {
	w       *bufio.Writer
	partial []byte // the beginning of a rune
}

func (j *jsonWriter) Write(p []byte) (int, error) {
	n := len(p)
	if len(j.partial) > 0 {
		p = append(j.partial, p...)
		j.partial = nil
	}
	for len(p) > 0 {
		run := 0
		for run < len(p) && (p[run] >= 0x20 && p[run] < 0x7f || p[run] == '\n' || p[run] == '\t') {
			run++
		}
		if _, err := j.w.Write(p[:run]); err != nil {
			return 0, err
		}
		if p = p[run:]; len(p) == 0 {
			break
		}
		if !utf8.FullRune(p) {
			j.partial = append(j.partial, p...)
			break
		}
		r, size := utf8.DecodeRune(p)
		if err := j.rune(r); err != nil {
			return 0, err
		}
		p = p[size:]
	}
	return n, nil
}

func (j *jsonWriter) rune(r rune) error {
	if unclean(r) {
		_, err := fmt.Fprintf(j.w, `\u%04x`, r)
		return err
	}
	_, err := j.w.WriteRune(r)
	return err
}

// Flush writes out what is held.
func (j *jsonWriter) Flush() error {
	if len(j.partial) > 0 {
		j.partial = nil
		if _, err := j.w.WriteRune(utf8.RuneError); err != nil {
			return err
		}
	}
	return j.w.Flush()
}

var _ io.Writer = (*jsonWriter)(nil)
