// SPDX-License-Identifier: Apache-2.0

package mesh

import "time"

// HTTP2Options is how HTTP/2 is spoken on one side of the proxy: what our end allows the other (RFC 9113), with the names and
// meanings of Envoy's Http2ProtocolOptions. The decoder fills in every default.
type HTTP2Options struct {
	// MaxConcurrentStreams bounds the streams of a connection: those that clients may open, or that we open to an upstream.
	MaxConcurrentStreams uint32
	// StreamWindow and ConnectionWindow are the bytes of bodies that the other end may send ahead, in one stream and in all.
	StreamWindow, ConnectionWindow uint32
	// HeaderTable is the size of the dynamic table of HPACK in each direction, in bytes; 0 means none.
	HeaderTable uint32
	// AllowConnect allows extended CONNECT (RFC 8441).
	AllowConnect bool
	// OutboundFrames and OutboundControlFrames bound what waits to be sent on a connection.
	OutboundFrames, OutboundControlFrames uint32
	// EmptyFrames bounds the frames in a row that carry nothing and end nothing, PriorityFrames the PRIORITY frames, and
	// WindowUpdates the WINDOW_UPDATE frames for each DATA frame that we sent (Envoy's formulas).
	EmptyFrames, PriorityFrames, WindowUpdates uint32
	KeepAlive                                  HTTP2KeepAlive
}

// HTTP2KeepAlive says how a connection is probed with PING frames.
type HTTP2KeepAlive struct {
	// Interval is after how long without a frame from the other end it is probed; 0 means never. A probe that is not
	// answered within Timeout ends the connection.
	Interval, Timeout time.Duration
}
