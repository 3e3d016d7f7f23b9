// SPDX-License-Identifier: Apache-2.0

package accelerate

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/cilium/ebpf"
)

// UnavailableError says why nothing can be spliced here.
type UnavailableError struct {
	// Missing is what is not there, and Do what a person can do about it.
	Missing, Do string
	// Err is the cause.
	Err error
}

func (e *UnavailableError) Error() string {
	s := "accelerate: missing: " + e.Missing
	if e.Err != nil {
		s += " (" + e.Err.Error() + ")"
	}
	return s + ": " + e.Do
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

func missing(what, do string, err error) error {
	return &UnavailableError{Missing: what, Do: do, Err: err}
}

// explain finds out what an error of the system means here.
func explain(err error) error {
	var known *UnavailableError
	var rejected *ebpf.VerifierError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &rejected):
		return missing("something that the programs need of this kernel", "use Linux 6.13 or newer", err)
	case errors.Is(err, syscall.EPERM), errors.Is(err, fs.ErrPermission):
		return missing("the right to load and attach BPF programs",
			"give the process the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EBADF):
		return missing("the cgroup2 folder", "give one that is there: --accelerate=sockmap:/sys/fs/cgroup/NAME", err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS):
		return missing("BPF's hash of sockets", "use Linux 6.13 or newer with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and CONFIG_NET_SOCK_MSG", err)
	case errors.Is(err, syscall.ENOMEM):
		return missing("memory for the tables", "give the process's cgroup more", err)
	}
	return missing("a kernel that does as expected", "leave --accelerate out, or report this", err)
}
