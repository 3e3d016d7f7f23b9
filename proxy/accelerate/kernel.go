// SPDX-License-Identifier: Apache-2.0

package accelerate

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf/btf"
)

// kernelOffsets asks the kernel's own description of its types.
func kernelOffsets() (o offsets, err error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return o, missing("the kernel's type information in /sys/kernel/btf/vmlinux", "use a kernel that is built with CONFIG_DEBUG_INFO_BTF", err)
	}
	for _, f := range []struct {
		to   *int16
		typ  string
		path []string
	}{
		{&o.rmem, "sock", []string{"sk_backlog", "rmem_alloc"}},
		{&o.writeSeq, "tcp_sock", []string{"write_seq"}},
		{&o.copied, "tcp_sock", []string{"copied_seq"}},
	} {
		var s *btf.Struct
		if err := spec.TypeByName(f.typ, &s); err != nil {
			return o, odd(fmt.Errorf("struct %s: %w", f.typ, err))
		}
		at, err := offsetOf(s, f.path)
		if err != nil {
			return o, odd(fmt.Errorf("struct %s: %w", f.typ, err))
		}
		if at > math.MaxInt16 { // what an instruction can hold
			return o, odd(fmt.Errorf("struct %s: %v is at %d", f.typ, f.path, at))
		}
		*f.to = int16(at)
	}
	return o, nil
}

// odd is for a kernel whose structures are not those that we know.
func odd(err error) error {
	return missing("what this version knows of the kernel's structures", "use a newer meshtap, or leave --accelerate out", err)
}

// offsetOf returns where a field is, in bytes; path leads through structs in structs.
func offsetOf(t btf.Type, path []string) (uint32, error) {
	s, ok := btf.UnderlyingType(t).(*btf.Struct)
	if !ok {
		return 0, fmt.Errorf("%q is in no struct", path[0])
	}
	for _, m := range s.Members {
		if m.Name != path[0] {
			continue
		}
		at := m.Offset.Bytes()
		if len(path) == 1 {
			return at, nil
		}
		below, err := offsetOf(m.Type, path[1:])
		return at + below, err
	}
	return 0, fmt.Errorf("there is no field %q", path[0])
}
