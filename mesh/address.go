// SPDX-License-Identifier: Apache-2.0

package mesh

import "net/netip"

// Address is where a listener binds, or where an endpoint can be reached: an IP and port, or a unix socket's path.
// Exactly one of them is set in a valid address. Address is comparable.
type Address struct {
	// IP is the IP address and port.
	IP netip.AddrPort
	// Pipe is the path of a unix socket; a leading '@' means the abstract namespace.
	Pipe string
}

// String returns "ip:port", "[ip]:port" or the socket's path.
func (a Address) String() string {
	if a.Pipe != "" {
		return a.Pipe
	}
	return a.IP.String()
}

// Network returns "tcp" or "unix", for package net.
func (a Address) Network() string {
	if a.Pipe != "" {
		return "unix"
	}
	return "tcp"
}
