// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"net"
	"net/netip"

	"github.com/meshtap/meshtap/mesh"
)

// routes say which listener serves an original destination, and which destinations are ourselves. They are replaced as a
// whole.
type routes struct {
	// targets are the listeners with bind_to_port false, by address; wild those with an unspecified IP.
	targets map[netip.AddrPort]*listener
	wild    map[port]*listener
	// own and ownWild are where the listeners are bound that intercept connections.
	own     map[netip.AddrPort]bool
	ownWild map[port]bool
}

// port is a port of all addresses of one family.
type port struct {
	v6   bool
	port uint16
}

func portOf(a netip.AddrPort) port { return port{a.Addr().Is6(), a.Port()} }

func newRoutes() *routes {
	return &routes{
		targets: map[netip.AddrPort]*listener{},
		wild:    map[port]*listener{},
		own:     map[netip.AddrPort]bool{},
		ownWild: map[port]bool{},
	}
}

func (r *routes) addTarget(a mesh.Address, l *listener) {
	if a.IP.Addr().IsUnspecified() {
		r.wild[portOf(a.IP)] = l
		return
	}
	r.targets[a.IP] = l
}

func (r *routes) addOwn(a netip.AddrPort) {
	if a.Addr().IsUnspecified() {
		r.ownWild[portOf(a)] = true
		return
	}
	r.own[a] = true
}

// target returns the listener for an original destination: that of the very address, or else that of all addresses of
// the family with the same port; nil where there is none.
func (r *routes) target(to netip.AddrPort) *listener {
	if l := r.targets[to]; l != nil {
		return l
	}
	return r.wild[portOf(to)]
}

// ours reports whether a destination is one of our own intercepting listeners. local returns the addresses of this host;
// it is asked only where a wildcard listener has the port, since another host may well use the same one.
func (r *routes) ours(to netip.AddrPort, local func() ([]netip.Addr, error)) bool {
	if r.own[to] {
		return true
	}
	if !r.ownWild[portOf(to)] {
		return false
	}
	if to.Addr().IsLoopback() {
		return true
	}
	addrs, err := local()
	if err != nil {
		return true // not to know is no reason to go in a circle
	}
	for _, a := range addrs {
		if a == to.Addr().WithZone("") {
			return true
		}
	}
	return false
}

func systemAddrs() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, n := range nets {
		if ipn, ok := n.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(ipn.IP); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	return out, nil
}
