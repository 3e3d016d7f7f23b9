// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"time"

	"github.com/meshtap/meshtap/proxy/metrics"
)

// Config is what the connections of one side of the proxy have in common. It is immutable; see Defaults.
type Config struct {
	// Stats are the numbers of these connections; nil counts nothing.
	Stats *metrics.HTTP2
	// Streams bounds the streams that a client may have open at a time (server), or that are opened to a server that allows
	// as many (client). A stream counts until whoever serves it has finished.
	Streams int
	// StreamWindow and ConnWindow are the bytes of bodies that the peer may send ahead, on a stream and in all. Neither is
	// less than 65,535, with which connections begin.
	StreamWindow, ConnWindow int
	// HeldBytes bounds the memory in which bodies wait to be read on all streams of a connection. Beyond it, streams that
	// nobody has read from for StallGrace are reset, and the peer gets no more window until there is room again.
	HeldBytes  int
	StallGrace time.Duration
	// TableBytes is the size of the table for decoding header blocks, at most 64 KiB.
	TableBytes int
	// HeadBytes bounds a header section, as decoded and with 32 bytes for each field (RFC 9113 section 6.5.2), Fields the
	// number of its fields, ValueBytes one value, TargetBytes the path. Cookies and fields that are dropped count, too.
	HeadBytes, Fields, ValueBytes, TargetBytes int
	// HeldHeads bounds what the heads of all requests that are served at a time count, each as for HeadBytes (server).
	// Streams for which there might be no room are refused. It is at least eight times HeadBytes.
	HeldHeads int
	// Together is what lowers HeldBytes and HeldHeads where all connections hold too much (server); nil does not.
	Together *Together
	// TrailerBytes and Trailers bound a trailer section.
	TrailerBytes, Trailers int
	// Continuations bounds the CONTINUATION frames of one header block.
	Continuations int
	// Resets is how many streams may be reset in a second, by the peer or for its fault, ResetBurst how many at once.
	Resets, ResetBurst int
	// PrematureStreams is after how many streams a connection ends where more than half of them were reset within a second
	// of their beginning; 0 turns that off.
	PrematureStreams int
	// EmptyData is how many DATA frames without data and without an end may follow each other.
	EmptyData int
	// Priorities bounds PRIORITY frames per stream, WindowUpdates WINDOW_UPDATE frames per DATA frame sent, each beside a
	// constant. Pings is how many PING and SETTINGS frames may come in a second, beside as many as there are HEADERS and
	// DATA frames.
	Priorities, WindowUpdates, Pings int
	// ControlFrames bounds the control frames that wait to be sent, Frames all frames that do.
	ControlFrames, Frames int
	// Interims bounds the 1xx answers that wait to be read on a stream (client).
	Interims int
	// HeadTimeout ends a connection on which the peer's SETTINGS, or a head that has begun, are not complete in time; 0 does
	// not.
	HeadTimeout time.Duration
	// StallTimeout ends a stream whose peer gives no window for so long, and a connection whose peer takes no bytes.
	StallTimeout time.Duration
	// PingInterval is after how long without a frame from the peer it is asked whether it is there, PingTimeout how long
	// its answer is waited for. 0 turns that off.
	PingInterval, PingTimeout time.Duration
	// DrainTimeout is how long a graceful GOAWAY waits for the client to have seen it before it is told the last stream.
	DrainTimeout time.Duration
	// ExtendedConnect allows clients to ask for other protocols with CONNECT (RFC 8441).
	ExtendedConnect bool
}

// Defaults returns what holds where the configuration says nothing.
func Defaults() Config {
	return Config{
		Streams: 100, StreamWindow: 256 << 10, ConnWindow: 1 << 20, HeldBytes: 4 << 20, StallGrace: time.Second,
		TableBytes: 4 << 10, HeadBytes: 60 << 10, HeldHeads: 2 << 20, Fields: 100, ValueBytes: 16 << 10, TargetBytes: 8 << 10,
		TrailerBytes: 8 << 10, Trailers: 20, Continuations: 5,
		Resets: 200, ResetBurst: 1000, PrematureStreams: 500, EmptyData: 1, Priorities: 100, WindowUpdates: 10, Pings: 10,
		ControlFrames: 1000, Frames: 10000, Interims: 8,
		HeadTimeout: 10 * time.Second, StallTimeout: 30 * time.Second, PingInterval: 30 * time.Second, PingTimeout: 10 * time.Second, DrainTimeout: time.Second,
	}
}
