// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Context is the file in which something that runs proxies, such as "meshtapd demo", says where they are. Fields that
// this version does not know are passed over.
type Context struct {
	Name string `json:"name"`
	// PID is the process that wrote the file and took what is in it down when it ended; 0 where there is none.
	PID     int         `json:"pid"`
	Proxies []Proxy     `json:"proxies"`
	Bus     *ContextBus `json:"bus"`
	// Control is the control plane.
	Control ContextControl `json:"control"`
	// Faults is the socket where faults are switched, "" where there is none.
	Faults string `json:"faults"`
}

// Proxy is one proxy: what to call it, the service that it stands beside, and the administration address, which is the
// path of a unix socket, an address with a port, or a URL.
type Proxy struct {
	Name    string `json:"name"`
	Service string `json:"service"`
	Admin   string `json:"admin"`
}

// ContextBus is the event bus of a Context.
type ContextBus struct {
	URL     string `json:"url"`
	Token   string `json:"token"`
	Stream  string `json:"stream"`
	Subject string `json:"subject"`
}

// ContextControl is where a control plane of a Context answers about its proxies: an administration address, "" where
// there is none.
type ContextControl struct {
	Admin string `json:"admin"`
}

// maxContext bounds a context file, in bytes.
const maxContext = 1 << 20

// ContextPath returns where the context is: $MESHTAP_CONTEXT, or below the user's state directory. It is "" where there is
// no home.
func ContextPath(getenv func(string) string) string {
	if path := getenv("MESHTAP_CONTEXT"); path != "" {
		return path
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "meshtap", "context.json")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "meshtap", "context.json")
	}
	return ""
}

// errStale says that a context's process has ended.
type errStale struct {
	ctx  *Context
	path string
}

func (e *errStale) Error() string {
	return fmt.Sprintf("the context %q in %s is ignored: its process %d has ended", e.ctx.Name, e.path, e.ctx.PID)
}

// readContext reads a context. It returns an errStale where its process has ended, and fs.ErrNotExist where there is no
// file.
func readContext(path string) (*Context, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxContext+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxContext {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxContext)
	}
	c := &Context{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%s is not a context: %w", path, err)
	}
	if c.PID > 0 && !alive(c.PID) {
		return nil, &errStale{c, path}
	}
	return c, nil
}

// alive reports whether a process is there. One that may not be signalled is.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, fs.ErrPermission)
}
