// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
)

// The ports for sidecars lie below those that the kernel gives to outgoing connections (ip_local_port_range, by default
// from 32768), so that none of these takes one before its sidecar binds it.
const (
	firstPort = 20000
	ports     = 12000
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// freePorts returns n loopback addresses that nobody listens on.
func freePorts(n int) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, i := range rand.Perm(ports) {
		if len(out) == n {
			return out, nil
		}
		at := netip.AddrPortFrom(loopback, uint16(firstPort+i))
		ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			continue // taken
		}
		ln.Close()
		out = append(out, at)
	}
	return nil, errors.New("there are no free ports on 127.0.0.1 from 20000 to 31999")
}
