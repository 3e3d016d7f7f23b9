// SPDX-License-Identifier: Apache-2.0

package h2

import "github.com/meshtap/meshtap/mesh"

// headShare is how much of HeldHeads there is for each of the streams that a configuration allows.
const headShare = 2 << 10

// From returns what a configuration asks for, on top of the defaults. The zero value asks for nothing.
func From(o *mesh.HTTP2Options) Config {
	c := Defaults()
	if *o == (mesh.HTTP2Options{}) {
		return c
	}
	c.Streams = int(o.MaxConcurrentStreams)
	c.HeldHeads = max(c.HeldHeads, c.Streams*headShare)
	c.StreamWindow, c.ConnWindow = int(o.StreamWindow), int(o.ConnectionWindow)
	c.HeldBytes = max(c.HeldBytes, c.ConnWindow)
	c.TableBytes = int(o.HeaderTable)
	c.ExtendedConnect = o.AllowConnect
	c.Frames, c.ControlFrames = int(o.OutboundFrames), int(o.OutboundControlFrames)
	c.EmptyData, c.Priorities, c.WindowUpdates = int(o.EmptyFrames), int(o.PriorityFrames), int(o.WindowUpdates)
	c.PingInterval, c.PingTimeout = o.KeepAlive.Interval, o.KeepAlive.Timeout
	return c
}
