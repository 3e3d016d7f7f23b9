// SPDX-License-Identifier: Apache-2.0

package codec

import "strconv"

// ResetError says that a stream was ended before its messages were, by a reset or with its connection. Only protocols
// that carry several streams on a connection give it.
type ResetError struct {
	// Code is the error code of RFC 9113 section 7.
	Code uint32
	// Remote says that the peer ended the stream, not Meshtap.
	Remote bool
	// Unprocessed says that the peer has not acted on the request in any way (RFC 9113 section 8.7): whatever its method,
	// it can be sent again.
	Unprocessed bool
}

func (e *ResetError) Error() string {
	by := "by this side"
	if e.Remote {
		by = "by the peer"
	}
	return "stream reset " + by + ", code " + strconv.FormatUint(uint64(e.Code), 10)
}
