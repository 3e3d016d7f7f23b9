// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestTextMapping(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"00400000-00a8b000 r-xp 00000000 fd:01 1 /usr/bin/meshtap":           true,
		"00a8b000-01a8b000 r--p 0068b000 fd:01 1 /usr/bin/meshtap":           true,
		"01a8b000-01b8b000 rw-p 0168b000 fd:01 1 /usr/bin/meshtap":           false,
		"7f0000000000-7f0000001000 r-xp 00000000 fd:01 2 /usr/lib/ld.so":     false,
		"c000000000-c000400000 rw-p 00000000 00:00 0":                        false,
		"00400000-00a8b000 ---p 00000000 fd:01 1 /usr/bin/meshtap":           false,
		"00400000-00a8b000 r-xp 00000000 fd:01 1 /usr/bin/meshtap (deleted)": false,
		"nonsense": false,
		"":         false,
	} {
		from, to, ok := textMapping(line, "/usr/bin/meshtap")
		if ok != want || ok && from >= to {
			t.Errorf("%q: %x %x %v", line, from, to, ok)
		}
	}
}

// The program goes on after its text was dropped, and less of it is in memory.
func TestDropText(t *testing.T) {
	before := residentFile(t)
	DropText()
	if after := residentFile(t); after >= before {
		t.Errorf("%d KiB of files were mapped, and are now %d", before, after)
	}
}

func residentFile(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "RssFile:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
