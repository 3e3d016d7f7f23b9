// SPDX-License-Identifier: Apache-2.0

package format

import (
	"strings"
	"testing"
	"time"
)

// TestAppendTime's first cases were recorded from Envoy 1.40 at 2026-11-22T06:55:25.881129Z.
func TestAppendTime(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 6, 55, 25, 881129000, time.UTC)
	whole := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	evening := time.Date(2024, 12, 30, 23, 4, 5, 6, time.FixedZone("EST", -5*3600))
	tests := []struct {
		name, spec string
		t          time.Time
		want       string
	}{
		{"default", "", at, "2026-11-22T06:55:25.881Z"},
		{"zone", "%Y/%m/%dT%H:%M:%S%z", at, "2026/11/22T06:55:25+0000"},
		{"unix millis", "%s.%3f", at, "1795330525.881"},
		{"nanoseconds", "%f", at, "881129000"},
		{"digits", "%6f %9f %1f", at, "881129 881129000 8"},
		{
			"letters", "%a %A %b %B %C %d %D %e %F %h %I %j %k %l %p %r %R %T %u %w %y %Z %%", at,
			"Sun Sunday Nov November 20 22 11/22/26 22 2026-11-22 Nov 06 326  6  6 AM 06:55:25 AM 06:55 06:55:25 7 0 26 UTC %",
		},
		{
			"extended", "%E3S %E*S %E3f %Ez %E*z %E4Y %:z %c %x %X %U %W %V %G %g %P", at,
			"25.881 25.881129 881 +00:00 +00:00:00 2026 +00:00 Sun Nov 22 06:55:25 2026 11/22/26 06:55:25 47 46 47 2026 26 am",
		},
		{"tab and nine digits", "%t|%E9S", at, "\t|25.881129000"},
		{"text only", "no specifier 5%", at, "no specifier 5%"},
		{"no fraction", "%E*S %E*f %f %3f", whole, "00 0 000000000 000"},
		{"new year", "%U %W %V %G %g %j %e %u %C", whole, "00 00 01 2026 26 001  1 4 20"},
		{"ISO year differs", "%G-%V %g", evening, "2025-01 25"},
		{"afternoon and zone", "%I %l %p %P %z %Ez %E*z %Z %E*S", evening, "11 11 PM pm -0500 -05:00 -05:00:00 EST 05.000000006"},
		{"midnight", "%I %l %k", whole, "12 12  0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := CheckTime(tt.spec); err != nil {
				t.Fatal(err)
			}
			if got := string(AppendTime(nil, tt.spec, tt.t)); got != tt.want {
				t.Errorf("AppendTime(%q)\n got %q\nwant %q", tt.spec, got, tt.want)
			}
		})
	}
}

func TestCheckTimeRefuses(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"%n", "%Q", "%E", "%E3", "%ES", "%Ef", "%*f", "%3S", "%0f", "%3Y", "%E3Y", "%:S", "%3z", "%E3z", "%3", "%-d", "%Ea", "a%qb"} {
		if err := CheckTime(spec); err == nil {
			t.Errorf("CheckTime(%q) accepts it", spec)
		}
	}
}

// FuzzTime: what CheckTime accepts is written without a newline and without a specifier left over.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"%Y-%m", "%E*S", "%3f%%", "%:z", "%", "%E4Y", "%é"} {
		f.Add(s, int64(1795330525881129000))
	}
	f.Fuzz(func(t *testing.T, spec string, ns int64) {
		if CheckTime(spec) != nil || ns < 0 {
			return
		}
		got := string(AppendTime(nil, spec, time.Unix(0, ns).UTC()))
		if strings.Contains(got, "\n") != strings.Contains(spec, "\n") {
			t.Errorf("AppendTime(%q) = %q", spec, got)
		}
	})
}

func TestAppendTimeAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under -race")
	}
	at, buf := time.Unix(1795330525, 881129000).UTC(), make([]byte, 0, 256)
	n := testing.AllocsPerRun(100, func() {
		buf = AppendTime(buf[:0], "", at)
		buf = AppendTime(buf, "%Y/%m/%dT%H:%M:%S%z %s.%3f %c %V %E*S", at)
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
