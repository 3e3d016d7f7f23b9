// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
)

// Context is the file in which the demo tells `meshtap` where everything is.
type Context struct {
	Name    string         `json:"name"`
	PID     int            `json:"pid"`
	Proxies []ContextProxy `json:"proxies"`
	Bus     ContextBus     `json:"bus"`
	Control ContextControl `json:"control"`
	// Faults is the socket where faults are switched.
	Faults string `json:"faults"`
}

// ContextProxy is a sidecar and its administration socket.
type ContextProxy struct {
	Name    string `json:"name"`
	Service string `json:"service"`
	Admin   string `json:"admin"`
}

// ContextBus is where the events are.
type ContextBus struct {
	URL     string `json:"url"`
	Token   string `json:"token"`
	Stream  string `json:"stream"`
	Subject string `json:"subject"`
}

// ContextControl is the control plane's administration socket.
type ContextControl struct {
	Admin string `json:"admin"`
}

// ContextPath is where the file is: $MESHTAP_CONTEXT, or below the user's state directory.
func ContextPath(getenv func(string) string) (string, error) {
	if path := getenv("MESHTAP_CONTEXT"); path != "" {
		return path, nil
	}
	dir := getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", errors.New("there is no home for the context file; set MESHTAP_CONTEXT")
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "meshtap", "context.json"), nil
}

// Write puts the context at path, for its owner's eyes only: it holds the bus's token. A reader sees the file whole, or
// the one before.
func (c *Context) Write(path string) error {
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
	var c Context
	if json.Unmarshal(b, &c) != nil || c.PID != pid {
		return nil // somebody else's
	}
	return os.Remove(path)
}

// Running returns the process that wrote the file at path, if it still runs; 0 where there is none. The process must answer
// at its socket: its number alone may be that of another by now.
func Running(path string) int {
	b, err := os.ReadFile(path)
	var c Context
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
