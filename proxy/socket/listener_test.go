// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/meshtap/meshtap/internal/sys"
)

// TestAcceptFrom: an accepted connection comes with where it comes from, also where its client has gone.
func TestAcceptFrom(t *testing.T) {
	t.Parallel()
	tcp := func(at string) func() (*Listener, error) {
		return func() (*Listener, error) { return ListenTCP(netip.MustParseAddrPort(at), ListenOptions{}) }
	}
	path := filepath.Join(t.TempDir(), "s")
	for _, tc := range []struct {
		name   string
		listen func() (*Listener, error)
		gone   bool
	}{
		{"ipv4", tcp("127.0.0.1:0"), false},
		{"ipv6", tcp("[::1]:0"), false},
		{"reset by its client", tcp("127.0.0.1:0"), true},
		{"unix", func() (*Listener, error) { return ListenUnix(path, ListenOptions{}) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l, err := tc.listen()
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			network, at, want := "unix", path, netip.AddrPort{}
			if l.Addr().IsValid() {
				network, at = "tcp", l.Addr().String()
			}
			c, err := net.Dial(network, at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
				want = a.AddrPort()
			}
			if tc.gone {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
			fd, from, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer sys.Close(fd)
			if from != want {
				t.Errorf("it comes from %v, want %v", from, want)
			}
		})
	}
}
