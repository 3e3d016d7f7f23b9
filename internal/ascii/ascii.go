// SPDX-License-Identifier: Apache-2.0

// Package ascii reads what protocols write in digits. Nothing here allocates.
package ascii

// Decimal reads 1*DIGIT of at most so many digits; most is at most 18, so that the number fits.
func Decimal(b []byte, most int) (n int64, ok bool) {
	if len(b) == 0 || len(b) > most {
		return 0, false
	}
	for _, c := range b {
		if c-'0' > 9 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// Unhex returns the value of a hexadecimal digit in either case.
func Unhex(c byte) (v byte, ok bool) {
	switch {
	case c-'0' <= 9:
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// Escaped reads a percent escape at the front of p (RFC 3986 section 2.1).
func Escaped(p []byte) (c byte, ok bool) {
	if len(p) < 3 || p[0] != '%' {
		return 0, false
	}
	hi, ok1 := Unhex(p[1])
	lo, ok2 := Unhex(p[2])
	return hi<<4 | lo, ok1 && ok2
}
