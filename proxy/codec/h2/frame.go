// SPDX-License-Identifier: Apache-2.0

package h2

import "encoding/binary"

// Preface is what a client's connection begins with (RFC 9113 section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frameType is a frame's type (RFC 9113 section 6).
type frameType uint8

const (
	frameData frameType = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePushPromise
	framePing
	frameGoAway
	frameWindowUpdate
	frameContinuation
)

// Flags of frames. flagAck has the value of flagEndStream: no type has both.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113 section 6.5.2, RFC 8441 section 3).
const (
	settingTableSize       = 1
	settingPush            = 2
	settingStreams         = 3
	settingWindow          = 4
	settingFrameSize       = 5
	settingHeaderList      = 6
	settingConnectProtocol = 8
)

const (
	headerBytes   = 9        // of a frame
	frameBytes    = 16 << 10 // the greatest payload that we take, and send
	defaultWindow = 64<<10 - 1
	maxWindow     = 1<<31 - 1
	maxStreamID   = 1<<31 - 1
)

// frame is a whole frame. The payload is the connection's buffer.
type frame struct {
	typ     frameType
	flags   uint8
	id      uint32
	payload []byte
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

// readFrame reads the frame at the front of b. size is that of the whole frame, 0 where b is less than that; tooLong says
// that it is longer than we allow.
func readFrame(b []byte, f *frame) (size int, tooLong bool) {
	if len(b) < headerBytes {
		return 0, false
	}
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	*f = frame{typ: frameType(b[3]), flags: b[4], id: binary.BigEndian.Uint32(b[5:]) & maxStreamID}
	if n > frameBytes {
		return 0, true
	}
	if len(b) < headerBytes+n {
		return 0, false
	}
	f.payload = b[headerBytes : headerBytes+n]
	return headerBytes + n, false
}

// unpad takes the padding off a DATA or HEADERS frame. ok is false where there is more of it than frame (RFC 9113 section
// 6.1).
func (f *frame) unpad() (p []byte, ok bool) {
	p = f.payload
	if !f.has(flagPadded) {
		return p, true
	}
	if len(p) == 0 || int(p[0]) > len(p)-1 {
		return nil, false
	}
	return p[1 : len(p)-int(p[0])], true
}

// appendFrameHeader appends the header of a frame with so much payload.
func appendFrameHeader(dst []byte, n int, typ frameType, flags uint8, id uint32) []byte {
	return append(dst, byte(n>>16), byte(n>>8), byte(n), byte(typ), flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendSetting(dst []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, id), value)
}

// Code is an error code (RFC 9113 section 7).
type Code uint32

// The error codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
	numCodes
)

var codeNames = [numCodes]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
	"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String returns the code's name in RFC 9113, "UNKNOWN" for others.
func (c Code) String() string {
	if c < numCodes {
		return codeNames[c]
	}
	return "UNKNOWN"
}

// ConnError ends a connection: the other side broke the protocol or a limit (Remote is false, and it has been sent GOAWAY),
// or ended the connection itself with GOAWAY and an error (Remote is true).
type ConnError struct {
	Code Code
	// Reason is short and constant, never a part of what was received.
	Reason string
	Remote bool
}

func (e *ConnError) Error() string {
	if e.Remote {
		return "h2: connection ended by the peer: " + e.Code.String()
	}
	return "h2: connection ended: " + e.Code.String() + ": " + e.Reason
}

// connError is a ConnError of ours.
func connError(code Code, reason string) error { return &ConnError{Code: code, Reason: reason} }
