// SPDX-License-Identifier: Apache-2.0

package format

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// CheckTime reports a time format (the argument of START_TIME) that AppendTime cannot write: a specifier outside of its
// list, or one that would write a newline.
func CheckTime(spec string) error {
	for s := spec; s != ""; {
		var v verb
		_, v, s = next(s)
		if v.name != 0 && !v.known() {
			return fmt.Errorf("time specifier %%%s is not known; allowed are those of strftime (%s), "+
				"%%E4Y, %%Ez, %%E*z, %%:z, %%s and, for fractions of a second, %%f, %%1f to %%9f, %%E1S to %%E9S, %%E*S, %%E1f to %%E9f, %%E*f",
				v.text, strings.Join(strings.Split(verbs, ""), " "))
		}
	}
	return nil
}

// verbs are the strftime specifiers of one letter, besides the fractions.
const verbs = "aAbBcCdDeFgGhHIjklmMpPrRsStTuUVwWxXyYzZ%"

// verb is a specifier: its last letter, what stands before it, and the number of digits where the letter is 'f' or 'S'.
type verb struct {
	name   byte
	mod    byte // 'E', ':' or 0
	digits int  // 0 where not given, -1 for '*'
	text   string
}

func (v verb) known() bool {
	switch v.name {
	case 'f':
		return v.mod == 0 && v.digits >= 0 || v.mod == 'E' && v.digits != 0
	case 'S':
		return v.mod == 0 && v.digits == 0 || v.mod == 'E' && v.digits != 0
	case 'z':
		return v.digits == 0 || v.mod == 'E' && v.digits == -1
	case 'Y':
		return v.mod == 0 && v.digits == 0 || v.mod == 'E' && v.digits == 4
	}
	return v.mod == 0 && v.digits == 0 && strings.IndexByte(verbs, v.name) >= 0
}

// next splits off the text up to the next specifier and that specifier. v.name is 0 where none follows; a lone '%' at
// the end is text.
func next(s string) (text string, v verb, rest string) {
	i := strings.IndexByte(s, '%')
	if i < 0 || i == len(s)-1 {
		return s, verb{}, ""
	}
	text, s = s[:i], s[i+1:]
	j := 0
	if s[j] == 'E' || s[j] == ':' {
		v.mod = s[j]
		j++
	}
	if j < len(s) {
		switch c := s[j]; {
		case c == '*':
			v.digits = -1
			j++
		case c >= '1' && c <= '9':
			v.digits = int(c - '0')
			j++
		}
	}
	if j == len(s) {
		j--
	}
	v.name, v.text = s[j], s[:j+1]
	return text, v, s[j+1:]
}

// AppendTime appends t in the format spec, which CheckTime accepts, as Envoy writes it; "" is ISO 8601 with
// milliseconds. Names of days and months are English.
func AppendTime(dst []byte, spec string, t time.Time) []byte {
	if spec == "" {
		return t.AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
	}
	for spec != "" {
		var text string
		var v verb
		text, v, spec = next(spec)
		dst = append(dst, text...)
		switch v.name {
		case 0:
		case 'f', 'S', 'z', 'Y':
			dst = appendModified(dst, v, t)
		default:
			dst = appendVerb(dst, v.name, t)
		}
	}
	return dst
}

// appendModified appends the specifiers that take a modifier or a number of digits.
func appendModified(dst []byte, v verb, t time.Time) []byte {
	switch v.name {
	case 'f':
		if v.digits == 0 {
			v.digits = 9
		}
		return fraction(dst, t, v.digits)
	case 'S':
		dst = pad(dst, t.Second(), 2, '0')
		if v.mod == 0 || v.digits < 0 && t.Nanosecond() == 0 {
			return dst
		}
		return fraction(append(dst, '.'), t, v.digits)
	case 'z':
		switch {
		case v.mod == 0:
			return t.AppendFormat(dst, "-0700")
		case v.digits < 0:
			return t.AppendFormat(dst, "-07:00:00")
		}
		return t.AppendFormat(dst, "-07:00")
	}
	return pad(dst, t.Year(), 4, '0')
}

// appendVerb appends the specifiers of one letter.
func appendVerb(dst []byte, name byte, t time.Time) []byte {
	switch name {
	case '%':
		return append(dst, '%')
	case 't':
		return append(dst, '\t')
	case 's':
		return strconv.AppendInt(dst, t.Unix(), 10)
	case 'C':
		return pad(dst, t.Year()/100, 2, '0')
	case 'e':
		return pad(dst, t.Day(), 2, ' ')
	case 'j':
		return pad(dst, t.YearDay(), 3, '0')
	case 'k':
		return pad(dst, t.Hour(), 2, ' ')
	case 'l':
		return pad(dst, (t.Hour()+11)%12+1, 2, ' ')
	case 'u':
		return pad(dst, (int(t.Weekday())+6)%7+1, 1, '0')
	case 'w':
		return pad(dst, int(t.Weekday()), 1, '0')
	case 'U':
		return pad(dst, (t.YearDay()+6-int(t.Weekday()))/7, 2, '0')
	case 'W':
		return pad(dst, (t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0')
	case 'G', 'g', 'V':
		year, week := t.ISOWeek()
		switch name {
		case 'V':
			return pad(dst, week, 2, '0')
		case 'g':
			return pad(dst, year%100, 2, '0')
		}
		return pad(dst, year, 4, '0')
	}
	return t.AppendFormat(dst, layout(name))
}

// layout returns package time's layout for the specifiers that have one.
func layout(name byte) string {
	switch name {
	case 'a':
		return "Mon"
	case 'A':
		return "Monday"
	case 'b', 'h':
		return "Jan"
	case 'B':
		return "January"
	case 'c':
		return "Mon Jan _2 15:04:05 2006"
	case 'd':
		return "02"
	case 'D', 'x':
		return "01/02/06"
	case 'F':
		return "2006-01-02"
	case 'H':
		return "15"
	case 'I':
		return "03"
	case 'm':
		return "01"
	case 'M':
		return "04"
	case 'p':
		return "PM"
	case 'P':
		return "pm"
	case 'r':
		return "03:04:05 PM"
	case 'R':
		return "15:04"
	case 'T', 'X':
		return "15:04:05"
	case 'y':
		return "06"
	}
	return "MST" // Z
}

// fraction appends digits of the fraction of the second; a negative number means as many as it takes, at least one.
func fraction(dst []byte, t time.Time, digits int) []byte {
	ns := t.Nanosecond()
	if digits < 0 {
		for digits = 9; digits > 1 && ns%10 == 0; digits-- {
			ns /= 10
		}
		return pad(dst, ns, digits, '0')
	}
	for range 9 - digits {
		ns /= 10
	}
	return pad(dst, ns, digits, '0')
}

// pad appends n, which is not negative, in at least width places.
func pad(dst []byte, n, width int, fill byte) []byte {
	for limit := 10; width > 1; width-- {
		if n < limit {
			break
		}
		limit *= 10
	}
	for ; width > 1; width-- {
		dst = append(dst, fill)
	}
	return strconv.AppendInt(dst, int64(n), 10)
}
