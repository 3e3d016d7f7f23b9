// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// WriteContext puts c at path, for its owner's eyes only: it holds the bus's token. A reader sees the file whole, or the
// one before.
func WriteContext(c *cli.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".context") // its mode is 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// RemoveContext removes the file at path where it is that of this process.
func RemoveContext(path string, pid int) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var c cli.Context
	if json.Unmarshal(b, &c) != nil || c.PID != pid {
		return nil // somebody else's
	}
	return os.Remove(path)
}

// Running returns the process that wrote the file at path, if it still runs; 0 where there is none. The process must answer
// at its socket: its number alone may be that of another by now.
func Running(path string) int {
	b, err := os.ReadFile(path)
	var c cli.Context
	if err != nil || json.Unmarshal(b, &c) != nil {
		return 0
	}
	conn, err := net.Dial("unix", c.Faults)
	if err != nil {
		return 0
	}
	conn.Close()
	return c.PID
}
