// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// DropText unmaps, until they are used again, the pages of the program's file that nothing has written to: code and
// constants. Most of what a start touches is not needed afterwards, and the system maps sixteen pages where one is
// touched. The pages stay in the system's cache, so that coming back costs a fault and no read. It does nothing where the
// mappings cannot be read, and leaves alone what a loader has written to.
func DropText() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps") // proc(5): a line for the mapping, then one for each number
	if err != nil {
		return
	}
	defer f.Close()
	var from, to uintptr
	clean := false
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		switch {
		case strings.Contains(name, "-"):
			from, to, clean = textMapping(s.Text(), exe)
		case (name == "Anonymous" || name == "Swap") && strings.TrimSpace(value) != "0 kB":
			clean = false
		case name == "VmFlags" && clean: // the last one
			b := unsafe.Slice((*byte)(unsafe.Add(nil, from)), to-from)
			_ = syscall.Madvise(b, syscall.MADV_DONTNEED) // it is a favour
		}
	}
}

// textMapping reads the line of a mapping: where a mapping of the program's file is that cannot be written.
func textMapping(line, exe string) (from, to uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || !strings.HasSuffix(line, " "+exe) || f[1][:1] != "r" || strings.Contains(f[1], "w") {
		return 0, 0, false
	}
	low, high, _ := strings.Cut(f[0], "-")
	lo, err1 := strconv.ParseUint(low, 16, 64)
	hi, err2 := strconv.ParseUint(high, 16, 64)
	return uintptr(lo), uintptr(hi), err1 == nil && err2 == nil && lo < hi
}
