// SPDX-License-Identifier: Apache-2.0

// Package local serves meshtapd's small HTTP interfaces, such as the list of proxies and the fault switches, to people and
// programs on the same machine: on a unix socket that only its owner may use, or on a loopback port.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// The limits of a server.
const (
	maxConns  = 64
	maxBody   = 16 << 10
	readTime  = 10 * time.Second
	idleTime  = time.Minute
	writeTime = 10 * time.Second
	closeTime = 2 * time.Second
)

// Listen binds "unix:/path", "/path" or "ip:port". A port must be one of the loopback interface, unless remote allows
// others. A socket gets mode 0600; one that nobody listens on any more is replaced.
func Listen(ctx context.Context, address string, remote bool) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok || strings.HasPrefix(address, "/") {
		return listenUnix(ctx, path)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("%q is no address; write 127.0.0.1:18000 or unix:/path/to/socket", address)
	}
	if !ap.Addr().Unmap().IsLoopback() && !remote {
		return nil, fmt.Errorf("%s can be reached from other machines, without encryption; use a loopback address or a unix socket", address)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another process; end that, or take another address", address)
	}
	return ln, err
}

// listenUnix makes the socket in a directory that nobody else may enter, and moves it to its place when its mode is right.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := free(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "s")
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", tmp)
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(tmp, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &socket{ln, path}, nil
}

// free returns an error where there is something at path that may not be replaced.
func free(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is not a socket; remove it, or take another path", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return fmt.Errorf("%s is in use by another process; end that, or take another path", path)
	}
	return nil
}

// socket removes its file when it is closed.
type socket struct {
	net.Listener
	path string
}

// Close implements net.Listener.
func (s *socket) Close() error {
	err := os.Remove(s.path)
	if e := s.Listener.Close(); e != nil {
		return e
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Addr implements net.Listener with the place that clients connect to.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Serve answers requests on ln with handle until ctx ends, then closes ln and waits for the answers at work.
func Serve(ctx context.Context, ln net.Listener, handle fasthttp.RequestHandler) error {
	if ln.Addr().Network() != "unix" {
		handle = guard(handle)
	}
	s := &fasthttp.Server{
		Handler: handle, Logger: quiet{}, Concurrency: maxConns, ReadTimeout: readTime, WriteTimeout: writeTime,
		IdleTimeout: idleTime, MaxRequestBodySize: maxBody, NoDefaultServerHeader: true, NoDefaultContentType: true,
		CloseOnShutdown: true,
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	err := s.ShutdownWithContext(end)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // whoever is left is cut off
	}
	ln.Close() // a server that has only begun does not know its listener yet
	<-served   //nolint:errcheck // it was told to end
	return err
}

// quiet drops what fasthttp would log: clients that break off are no news.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// guard keeps web pages away from a port: a browser tells the page's origin with a write, and the name that the page was made to point
// here with each request.
func guard(handle fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		read := ctx.IsGet() || ctx.IsHead()
		if !read && len(ctx.Request.Header.Peek("Origin")) > 0 || !localName(string(ctx.Host())) {
			Fail(ctx, fasthttp.StatusForbidden, "this interface is not for web pages")
			return
		}
		handle(ctx)
	}
}

// localName says whether the authority of a request is this machine.
func localName(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return name == "" || name == "localhost" || err == nil && ip.IsLoopback()
}

// JSON answers with a document.
func JSON(ctx *fasthttp.RequestCtx, v any) {
	ctx.SetContentType("application/json")
	enc := json.NewEncoder(ctx)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		Fail(ctx, fasthttp.StatusInternalServerError, err.Error())
	}
}

// Fail answers with a status and a message for a person.
func Fail(ctx *fasthttp.RequestCtx, status int, msg string) {
	ctx.Response.Reset()
	ctx.SetStatusCode(status)
	ctx.SetContentType("text/plain; charset=utf-8")
	ctx.SetBodyString(msg + "\n")
}
