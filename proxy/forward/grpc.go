// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"time"

	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/proxy/exchange"
)

const hdrGRPCTimeout = "grpc-timeout"

// grpcTimeout returns the request's grpc-timeout; ok is false where there is none that can be read.
func (c *Call) grpcTimeout() (d time.Duration, ok bool) {
	return grpcwire.Timeout(c.x.Request.Header.Get(hdrGRPCTimeout))
}

func (c *Call) setGRPCTimeout(d time.Duration) {
	c.scratch = grpcwire.AppendTimeout(c.scratch[:0], d)
	c.x.Request.Header.Set(hdrGRPCTimeout, c.scratch)
}

// routeTimeout returns how long the route lets the request take (Envoy's FilterUtility::finalTimeout).
func (c *Call) routeTimeout() time.Duration {
	g := &c.action.GRPC
	switch {
	case g.Durations:
		return 0
	case !c.grpc || g.Max == nil:
		return c.action.Timeout
	}
	d, _ := c.grpcTimeout()
	if g.Offset < d {
		d -= g.Offset // otherwise it would be 0, which is no limit
	}
	if longest := *g.Max; longest > 0 && (d == 0 || d > longest) {
		d = longest
	}
	return d
}

// limitDuration sets how long the request may last in all (Envoy's ActiveStream::refreshDurationTimeout).
func (c *Call) limitDuration() {
	x, g := c.x, &c.action.GRPC
	longest, limited := c.streamDuration()
	if !limited {
		if g.Durations && x.IsGRPC && x.Manager.MaxStreamDuration > 0 {
			x.Request.Header.Remove(hdrGRPCTimeout)
		}
		x.ClearDeadline(exchange.MaxDeadline)
		return
	}
	if g.Durations && x.IsGRPC {
		c.setGRPCTimeout(longest)
	}
	const centuries = 200 * 365 * 24 * time.Hour // which a grpc-timeout may exceed, and the clock not
	x.SetDeadline(exchange.MaxDeadline, x.Start+int64(min(longest, centuries)))
	if longest == 0 {
		x.Worker.Interrupt() // it is over now: a quick answer would come before the deadline is seen
	}
}

// streamDuration returns the longest duration of the request; limited is false where there is none.
func (c *Call) streamDuration() (longest time.Duration, limited bool) {
	g := &c.action.GRPC
	if g.HeaderMax != nil {
		if d, ok := c.grpcTimeout(); ok {
			if *g.HeaderMax > 0 {
				d = min(d, *g.HeaderMax)
			}
			return max(d-g.HeaderOffset, 0), true
		}
	}
	d := c.x.Manager.MaxStreamDuration
	if own := c.action.MaxStreamDuration; own != nil {
		d = *own
	}
	return d, d > 0
}

// tellGRPC tells a gRPC upstream how long its answer is waited for, where the route's timeout may come from its header.
func (c *Call) tellGRPC(d time.Duration) {
	if g := &c.action.GRPC; c.grpc && !g.Durations && g.Max != nil {
		c.setGRPCTimeout(d)
	}
}
