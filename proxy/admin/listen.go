// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/meshtap/meshtap/mesh"
)

// listen binds the address.
func listen(ctx context.Context, c *Config) (net.Listener, error) {
	if c.Address.Pipe != "" {
		return listenUnix(ctx, c.Address.Pipe, c.Mode)
	}
	ip := c.Address.IP.Addr()
	if !ip.IsValid() {
		return nil, errors.New("admin: the address is neither an IP and port nor a socket's path")
	}
	if !ip.Unmap().IsLoopback() && !c.Exposed {
		return nil, fmt.Errorf("admin: %s can be reached from outside this host; name it in the bootstrap's admin.address if that is wanted", c.Address)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", c.Address.String())
	if err != nil {
		return nil, bindError(c.Address, err)
	}
	return ln, nil
}

// bindError says what to do about an address that cannot be bound.
func bindError(a mesh.Address, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("admin: %s is in use by another process; end that, or set another admin.address: %w", a, err)
	}
	return fmt.Errorf("admin: listen on %s: %w", a, err)
}

// listenUnix makes a unix socket at path. It is bound in a directory of its own, which nobody else may enter, and moved to
// its place when its mode is right. A socket that nobody listens on any more is replaced; anything else at path is not.
func listenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	a := mesh.Address{Pipe: path}
	if strings.HasPrefix(path, "@") {
		return nil, fmt.Errorf("admin: %s is an abstract socket, which has no mode to protect it; use a path", path)
	}
	if err := checkStale(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".a")
	if err != nil {
		return nil, fmt.Errorf("admin: make a place beside %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "s")
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", tmp)
	if err != nil {
		return nil, bindError(a, err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(tmp, mode)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("admin: put the socket at %s: %w", path, err)
	}
	own, err := os.Lstat(path)
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("admin: look at the socket at %s: %w", path, err)
	}
	return &unixListener{ln, path, own}, nil
}

// checkStale returns an error where there is something at path that may not be replaced.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin: look at %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("admin: %s is there and is not a socket; remove it, or set another admin.address", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return bindError(mesh.Address{Pipe: path}, syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("admin: look who listens on %s: %w", path, err)
	}
	return nil
}

// unixListener removes its socket when it is closed, if it is still its own.
type unixListener struct {
	net.Listener
	path string
	own  fs.FileInfo
}

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.own) {
		os.Remove(l.path)
	}
	return l.Listener.Close()
}

// Addr returns the address that clients connect to.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }
