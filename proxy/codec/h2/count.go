// SPDX-License-Identifier: Apache-2.0

package h2

import "github.com/meshtap/meshtap/proxy/metrics"

// count counts one of metrics.HTTP2. The lock is held.
func (c *conn) count(i int) { c.add(i, 1) }

// add adds to one of metrics.HTTP2. The lock is held.
func (c *conn) add(i int, n int64) {
	if s := c.cfg.Stats; s != nil {
		s.Add(c.shard, i, n)
	}
}

// countEnd counts why the connection ends, where that has a number. The lock is held.
func (c *conn) countEnd(err error) {
	switch err {
	case errSilent:
		c.count(metrics.HTTP2KeepAliveTimeout)
	case errEmptyFlood:
		c.count(metrics.HTTP2EmptyFlood)
	case errPriorityFlood:
		c.count(metrics.HTTP2PriorityFlood)
	case errWindowFlood:
		c.count(metrics.HTTP2WindowFlood)
	case errFlood:
		c.count(metrics.HTTP2OutboundFlood)
	case errControlFlood:
		c.count(metrics.HTTP2OutboundControlFlood)
	}
}

// countRefusal counts a message that is not as it should be. The lock is held.
func (c *conn) countRefusal(r *refusal) {
	switch {
	case r.malformed:
		c.count(metrics.HTTP2RxMessagingError)
	case r.Status == 431:
		c.count(metrics.HTTP2HeaderOverflow)
	}
}
