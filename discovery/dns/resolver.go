// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// resolver makes look-ups with Go's resolver.
type resolver struct{ timeout time.Duration }

// lookup asks for a name in the families that the configuration wants, as Envoy does: AUTO is IPv6 and, where that finds
// nothing, IPv4.
func (r resolver) lookup(ctx context.Context, d *mesh.DNS, host string) ([]netip.Addr, *time.Duration, error) {
	networks := [...][]string{
		mesh.FamilyAuto:        {"ip6", "ip4"},
		mesh.FamilyV4Only:      {"ip4"},
		mesh.FamilyV6Only:      {"ip6"},
		mesh.FamilyV4Preferred: {"ip4", "ip6"},
		mesh.FamilyAll:         {"ip"},
	}[d.Family]
	// Go finds a name of one label with a dot behind it in no /etc/hosts, so such names are left to the servers then.
	if d.NoSearch && !strings.HasSuffix(host, ".") {
		host += "."
	}
	var failed error
	for _, network := range networks {
		addresses, ttl, err := r.ask(ctx, d, network, host)
		if len(addresses) > 0 {
			return addresses, ttl, nil
		}
		if err != nil {
			failed = err
		}
	}
	return nil, nil, failed
}

// ask asks the system's servers, or those of the configuration in turn. That a name does not exist is an answer; a
// server that fails is passed over.
func (r resolver) ask(ctx context.Context, d *mesh.DNS, network, host string) (
	addresses []netip.Addr, ttl *time.Duration, err error,
) {
	if len(d.Resolvers) == 0 {
		return r.askOne(ctx, d, netip.AddrPort{}, network, host)
	}
	for _, server := range d.Resolvers {
		addresses, ttl, err = r.askOne(ctx, d, server, network, host)
		var e *net.DNSError
		if err == nil || errors.As(err, &e) && e.IsNotFound {
			break
		}
	}
	return addresses, ttl, err
}

// askOne makes one look-up with a resolver of its own, so that what is read on its connections belongs to this look-up.
func (r resolver) askOne(ctx context.Context, d *mesh.DNS, server netip.AddrPort, network, host string) (
	[]netip.Addr, *time.Duration, error,
) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var seen ttls
	var dialer net.Dialer
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if server.IsValid() {
			address = server.String()
		}
		if d.UseTCP {
			network = "tcp"
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return tap(conn, &seen), nil
	}}
	addresses, err := resolver.LookupNetIP(ctx, network, host)
	return addresses, seen.least(), err
}
