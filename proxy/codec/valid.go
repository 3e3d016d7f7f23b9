// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/meshtap/meshtap/proxy/header"
)

// This file is what all HTTP versions check alike, so that no message means one thing in one version and another in the
// next.

// ValidHost accepts the bytes of uri-host [":" port] (RFC 3986 section 3.2), without userinfo.
func ValidHost(b []byte) bool {
	if len(b) == 0 || len(b) > 255+6+2 {
		return false
	}
	for _, c := range b {
		if !hostByte[c] {
			return false
		}
	}
	if b[0] == '[' {
		i := bytes.IndexByte(b, ']')
		return i > 0 && (i+1 == len(b) || b[i+1] == ':' && digits(b[i+2:]))
	}
	i := bytes.IndexByte(b, ':')
	return i != 0 && !bytes.ContainsAny(b, "[]") && (i < 0 || digits(b[i+1:]))
}

func digits(b []byte) bool {
	for _, c := range b {
		if c-'0' > 9 {
			return false
		}
	}
	return len(b) <= 5
}

var hostByte = func() (t [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+,;=:[]") {
		t[c] = true
	}
	return t
}()

// ValidTarget accepts the bytes of a request target: visible ASCII without '#', since a fragment never travels (RFC 9110
// section 7.1).
func ValidTarget(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return len(b) > 0
}

// DropFromTrailers removes what must not come in a trailer section (RFC 9110 section 6.5.1): what frames, routes or
// authenticates a message was decided on its head.
func DropFromTrailers(l *header.List) {
	l.RemoveFunc(func(name, _ []byte) bool {
		switch header.IDOf(name) {
		case header.None, header.Date, header.Server:
			return header.EqualFold(name, "authorization") || header.EqualFold(name, "cookie") ||
				header.EqualFold(name, "set-cookie") || header.EqualFold(name, "content-encoding") ||
				header.EqualFold(name, "cache-control") || header.EqualFold(name, "content-range")
		}
		return true
	})
}

// Control returns the index of the first control byte other than tab, len(b) where there is none. It looks at eight
// bytes at a time; DEL is found too.
func Control(b []byte) int {
	const ones = 0x0101010101010101
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		below := (w - ones*0x20) &^ w
		x := w ^ ones*0x7f
		del := (x - ones) &^ x
		m := (below | del) & (ones * 0x80)
		if m == 0 {
			continue
		}
		i += bits.TrailingZeros64(m) >> 3
		if IsControl(b[i]) {
			return i
		}
		i -= 7 // a tab, or a borrow from the byte before: go on behind it
	}
	for ; i < len(b); i++ {
		if IsControl(b[i]) {
			return i
		}
	}
	return i
}

// IsControl reports whether c is a control byte that no field value may hold.
func IsControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
