// SPDX-License-Identifier: Apache-2.0

package ascii

import (
	"strconv"
	"testing"
)

func TestDecimal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		most int
		want int64
		ok   bool
	}{
		{"0", 18, 0, true}, {"007", 3, 7, true}, {"999999999999999999", 18, 999999999999999999, true},
		{"", 18, 0, false}, {"1000", 3, 0, false}, {"-1", 18, 0, false}, {"+1", 18, 0, false}, {"1 ", 18, 0, false},
		{"1/", 18, 0, false}, {"1:", 18, 0, false}, {"0x1", 18, 0, false},
	} {
		if n, ok := Decimal([]byte(tt.in), tt.most); n != tt.want || ok != tt.ok {
			t.Errorf("%q of %d: %d, %v, want %d, %v", tt.in, tt.most, n, ok, tt.want, tt.ok)
		}
	}
}

// TestUnhex holds every byte against strconv.
func TestUnhex(t *testing.T) {
	t.Parallel()
	for i := range 256 {
		c := byte(i)
		want, err := strconv.ParseUint(string([]byte{c}), 16, 8)
		if v, ok := Unhex(c); ok != (err == nil) || uint64(v) != want {
			t.Errorf("%q: %d, %v, want %d, %v", c, v, ok, want, err)
		}
	}
}

func TestEscaped(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{"%41": 'A', "%2fx": '/', "%2F": '/', "%00": 0, "%4": -1, "%": -1, "": -1, "41%": -1, "%4g": -1, "%g4": -1} {
		c, ok := Escaped([]byte(in))
		if ok != (want >= 0) || ok && int(c) != want {
			t.Errorf("%q: %q, %v", in, c, ok)
		}
	}
}
