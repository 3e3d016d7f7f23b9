// SPDX-License-Identifier: Apache-2.0

package listener

import "net/netip"

// Ours reports whether an address is one of our own intercepting listeners, to which a redirected connection must not be
// passed on.
func (s *Set) Ours(to netip.AddrPort) bool { return s.routes.Load().ours(to, s.cfg.LocalAddrs) }

// Accepted returns how many connections were accepted since the start.
func (s *Set) Accepted() uint64 { return s.ids.Load() }
