// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/proxy/metrics"
)

func server(c admin.Config) *admin.Server {
	return admin.New(c, (&fake{}).views(), admin.Deps{Stats: stats.NewRegistry(stats.Options{}), Log: zap.NewNop()})
}

func TestRun(t *testing.T) {
	t.Parallel()
	s := server(admin.Config{Address: ip("127.0.0.1:0")})
	if s.Addr() != nil {
		t.Error("there is an address before Start")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := s.Start(t.Context()); err == nil {
		t.Error("a server that was closed starts again")
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}

	s = server(admin.Config{Address: ip("127.0.0.1:0")})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err == nil {
		t.Error("a server starts twice")
	}
	addr := s.Addr()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if c, err := net.Dial(addr.Network(), addr.String()); err == nil {
		c.Close()
		t.Error("the address still answers after Close")
	}
}

// TestCloseEndsIdleConnections: a keep-alive connection does not hold Close up.
func TestCloseEndsIdleConnections(t *testing.T) {
	t.Parallel()
	s, c := start(t, admin.Config{}, (&fake{}).views(), registry())
	conn := c.dial(t)
	ask(t, conn, "GET /ready")
	s.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	first, _ := start(t, admin.Config{}, (&fake{}).views(), registry())
	port := first.Addr().(*net.TCPAddr).AddrPort()
	err := server(admin.Config{Address: mesh.Address{IP: port}}).Start(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), port.String()+" is in use") {
		t.Errorf("a second server on a port: %v", err)
	}

	path := socketPath(t)
	start(t, admin.Config{Address: path}, (&fake{}).views(), registry())
	err = server(admin.Config{Address: path}).Start(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path.Pipe+" is in use") {
		t.Errorf("a second server on a socket: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		address mesh.Address
		want    string
	}{
		"no address":          {mesh.Address{}, "neither an IP and port nor"},
		"everyone's":          {ip("0.0.0.0:0"), "can be reached from outside"},
		"everyone's, IPv6":    {ip("[::]:0"), "can be reached from outside"},
		"a public one":        {ip("192.0.2.1:0"), "can be reached from outside"},
		"an abstract socket":  {mesh.Address{Pipe: "@admin"}, "abstract"},
		"a file":              {mesh.Address{Pipe: file}, "is there and is not a socket"},
		"a missing directory": {mesh.Address{Pipe: "/nonexistent/dir/a.sock"}, "/nonexistent/dir/a.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := server(admin.Config{Address: tc.address})
			defer s.Close()
			if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want an error with %q", err, tc.want)
			}
		})
	}
	s := server(admin.Config{Address: ip("0.0.0.0:0"), Exposed: true})
	if err := s.Start(t.Context()); err != nil {
		t.Errorf("an address that the bootstrap asks for: %v", err)
	}
	s.Close()
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	// A socket that a process left behind is replaced.
	old, err := net.Listen("unix", path.Pipe)
	if err != nil {
		t.Fatal(err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	old.Close()

	s, c := start(t, admin.Config{Address: path}, (&fake{}).views(), registry())
	info, err := os.Stat(path.Pipe)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v; want a socket with 0600", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path.Pipe)); len(left) != 1 {
		t.Errorf("beside the socket: %v", left)
	}
	if res, body := c.do(t, "GET", "/ready"); res.StatusCode != 200 || body != "LIVE\n" {
		t.Errorf("/ready: %s %q", res.Status, body)
	}
	s.Close()
	if _, err := os.Stat(path.Pipe); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left after Close: %v", err)
	}

	s, _ = start(t, admin.Config{Address: path, Mode: 0o660}, (&fake{}).views(), registry())
	if info, err := os.Stat(path.Pipe); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", info.Mode(), err)
	}
	// Another process has taken the path: Close leaves its socket alone.
	os.Remove(path.Pipe)
	other, err := net.Listen("unix", path.Pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s.Close()
	if _, err := os.Stat(path.Pipe); err != nil {
		t.Errorf("Close removed a socket that is not its own: %v", err)
	}
}

// TestIntervals: each tick ends the histograms' intervals.
func TestIntervals(t *testing.T) {
	t.Parallel()
	reg := stats.NewRegistry(stats.Options{})
	c := metrics.NewCluster(reg, "a")
	s := admin.New(admin.Config{}, admin.Views{}, admin.Deps{Stats: reg, Log: zap.NewNop()})
	tick := make(chan time.Time)
	var wg sync.WaitGroup
	wg.Go(func() { s.CutAt(tick) })
	c.Observe(0, metrics.UpstreamRqTime, 1e6)
	tick <- time.Time{}
	s.Close()
	wg.Wait()
	if n := c.Interval(metrics.UpstreamRqTime).Count; n != 1 {
		t.Errorf("%d values in the interval, want 1", n)
	}
}
