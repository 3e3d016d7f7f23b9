// SPDX-License-Identifier: Apache-2.0

package h2

import "sync/atomic"

// Together bounds what the servers' connections of a process hold together of heads and bodies: many connections, each
// within its own bounds, would be too much. What each holds up to its share is free and costs nothing to count; while what
// they hold beyond is more than the limit, none is given more than its share. So a flood over many connections is met
// where it comes from, and connections that hold little do not notice.
type Together struct {
	limit  int64
	share  int
	beyond atomic.Int64
}

// The defaults: with ten connections that means 35 MiB at most, beside what their windows allow already.
const togetherBytes, shareBytes = 32 << 20, 256 << 10

// NewTogether returns the bound for the connections of one process.
func NewTogether() *Together { return &Together{limit: togetherBytes, share: shareBytes} }

// bound returns what a connection may hold that may hold n otherwise.
func (t *Together) bound(n int) int {
	if t == nil || t.beyond.Load() <= t.limit {
		return n
	}
	return min(n, t.share)
}

// heldChanged tells the others what the connection holds beyond its share. The lock is held.
func (c *conn) heldChanged() {
	t := c.cfg.Together
	if t == nil {
		return
	}
	if beyond := max(0, c.heads+c.held-t.share); beyond != c.beyond {
		t.beyond.Add(int64(beyond - c.beyond))
		c.beyond = beyond
	}
}

// maxHeld is how much the bodies may hold that wait to be read.
func (c *conn) maxHeld() int { return c.cfg.Together.bound(c.cfg.HeldBytes) }

// headsFull reports whether there might be no room for another head; there is for the first.
func (c *conn) headsFull() bool {
	limit := c.cfg.Together.bound(max(c.cfg.HeldHeads, 8*c.cfg.HeadBytes))
	return c.heads > max(0, limit-c.cfg.HeadBytes)
}
