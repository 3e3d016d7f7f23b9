// SPDX-License-Identifier: Apache-2.0

package route

import "github.com/meshtap/meshtap/mesh"

// maxDomain is the longest name of a host (RFC 1035 section 2.3.4), with a port.
const maxDomain = 255 + len(":65535")

// Domain returns the authority of a request as a domain that a virtual host can have, in lower case; ok is false where it
// cannot be one, because of what is in it.
func Domain(t *mesh.RouteTable, authority []byte) (domain string, ok bool) {
	if t.IgnorePort {
		authority = withoutPort(authority)
	}
	if len(authority) == 0 || len(authority) > maxDomain {
		return "", false
	}
	var buf [maxDomain]byte
	name := buf[:0]
	for _, c := range authority {
		if c <= ' ' || c >= 0x7f || c == '*' || c == '/' {
			return "", false
		}
		name = append(name, lower(c))
	}
	return string(name), true
}
