// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"net/netip"
	"sync"
)

// Guard finds our own upstream connections among the redirected ones that come in: both sides tell it their addresses,
// and whoever comes second sees the first. So a connection that goes in a circle does so two or three times, and a few
// more when the machine is busy, since its local address is known only when it is open. It holds one entry for each open upstream connection that was told of, and
// for each redirected connection that is open.
type Guard struct {
	mu               sync.Mutex
	dialed, accepted map[pair]struct{}
}

// pair is a connection as the one who dialed sees it. The source alone would not do: the system gives one port to
// several connections whose destinations differ.
type pair struct{ from, to netip.AddrPort }

func newGuard() *Guard {
	return &Guard{dialed: map[pair]struct{}{}, accepted: map[pair]struct{}{}}
}

// Dialed tells of a new upstream connection, by its local address and the address that was dialed, before anything is
// sent on it. It reports false where that connection has come back to us: it must be closed, and the request or
// connection it was for must fail. Otherwise Gone follows once, when it is closed.
func (g *Guard) Dialed(local, remote netip.AddrPort) (ok bool) {
	return g.enter(pair{local, remote}, g.dialed, g.accepted)
}

// Gone tells that an upstream connection is about to be closed.
func (g *Guard) Gone(local, remote netip.AddrPort) { g.leave(pair{local, remote}, g.dialed) }

func (g *Guard) enter(p pair, mine, others map[pair]struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, loop := others[p]; loop {
		return false
	}
	mine[p] = struct{}{}
	return true
}

func (g *Guard) leave(p pair, mine map[pair]struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(mine, p)
}
