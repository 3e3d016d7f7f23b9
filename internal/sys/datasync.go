// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Datasync flushes what was written to a file, and of what the system knows of the file as much as reading that takes
// (fdatasync(2)): a write into a place that the file had already costs no entry in the journal of the file system.
func Datasync(f *os.File) error {
	defer runtime.KeepAlive(f)
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("flush %s: %w", f.Name(), err)
		}
	}
}
