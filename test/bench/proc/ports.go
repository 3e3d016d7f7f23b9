// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// listening is the state of a listening socket in /proc/net/tcp.
const listening = "0A"

// Listener is somebody who listens on a port.
type Listener struct {
	Port uint16
	// PID is 0 where the process belongs to another user.
	PID  int
	Name string
}

// String tells a person who it is and how to be rid of him.
func (l Listener) String() string {
	if l.PID == 0 {
		return fmt.Sprintf("port %d is taken by a process of another user", l.Port)
	}
	return fmt.Sprintf("port %d is taken by %s, process %d", l.Port, l.Name, l.PID)
}

// Listeners returns who listens on any of the ports, in order of port and process. Several may share one port
// (SO_REUSEPORT), and would share the load of a measurement.
func (fs FS) Listeners(ports ...uint16) ([]Listener, error) {
	inodes := map[string]uint16{}
	for _, name := range []string{"tcp", "tcp6"} {
		s, err := fs.read("net", name)
		if os.IsNotExist(err) && name == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("proc: %w", err)
		}
		sockets(s, func(port uint16, inode string) {
			if slices.Contains(ports, port) {
				inodes[inode] = port
			}
		})
	}
	if len(inodes) == 0 {
		return nil, nil
	}
	found := fs.owners(inodes)
	for _, port := range inodes {
		if !slices.ContainsFunc(found, func(l Listener) bool { return l.Port == port }) {
			found = append(found, Listener{Port: port})
		}
	}
	slices.SortFunc(found, func(a, b Listener) int {
		if a.Port != b.Port {
			return int(a.Port) - int(b.Port)
		}
		return a.PID - b.PID
	})
	return slices.Compact(found), nil
}

// sockets calls f for each listening socket in a table.
func sockets(table string, f func(port uint16, inode string)) {
	for line := range strings.Lines(table) {
		c := strings.Fields(line)
		if len(c) < 10 || c[3] != listening {
			continue
		}
		_, hexPort, _ := strings.Cut(c[1], ":")
		if b, err := hex.DecodeString(hexPort); err == nil && len(b) == 2 {
			f(uint16(b[0])<<8|uint16(b[1]), c[9])
		}
	}
}

// owners looks for the processes that hold the sockets.
func (fs FS) owners(inodes map[string]uint16) (found []Listener) {
	for _, pid := range fs.processes() {
		id := strconv.Itoa(pid)
		dir := filepath.Join(fs.root, id, "fd")
		fds, _ := os.ReadDir(dir) // of other users: not allowed
		for _, fd := range fds {
			link, _ := os.Readlink(filepath.Join(dir, fd.Name()))
			inode := strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")
			if port, ok := inodes[inode]; ok {
				name, _ := fs.read(id, "comm")
				found = append(found, Listener{port, pid, strings.TrimSpace(name)})
			}
		}
	}
	return found
}

func (fs FS) processes() (pids []int) {
	entries, _ := os.ReadDir(fs.root)
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}
