// SPDX-License-Identifier: Apache-2.0

// Package sys is the one place for raw system calls and for unsafe. Its calls are for descriptors that cannot block:
// they go past the scheduler's hooks (RawSyscall), which on a short call would let the runtime hand the processor to
// another thread. Linux only.
package sys
