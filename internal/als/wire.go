// SPDX-License-Identifier: Apache-2.0

package als

import (
	"bytes"
	"net/netip"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/meshtap/meshtap/mesh"
)

// What follows appends fields of protobuf messages. Zero values are left out, as proto3 has it.

func appendInt(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}

func appendString(dst []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	if !utf8.ValidString(s) {
		return appendBytes(dst, field, []byte(s))
	}
	return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), s)
}

// appendBytes appends a string. Bytes that are not UTF-8, which a string must be, become "!", as in Envoy.
func appendBytes(dst []byte, field protowire.Number, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	if !utf8.Valid(b) {
		b = bytes.ToValidUTF8(b, []byte("!"))
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), b)
}

// open begins a message. Its length is written by end.
func open(dst []byte, field protowire.Number) (_ []byte, at int) {
	dst = append(protowire.AppendTag(dst, field, protowire.BytesType), 0)
	return dst, len(dst)
}

// end ends a message that open began at.
func end(dst []byte, at int) []byte {
	n := len(dst) - at
	if n < 0x80 { // as nearly all are
		dst[at-1] = byte(n)
		return dst
	}
	var size [10]byte
	length := protowire.AppendVarint(size[:0], uint64(n))
	dst = append(dst, length[1:]...)
	copy(dst[at-1+len(length):], dst[at:at+n])
	copy(dst[at-1:], length)
	return dst
}

// endFilled is end for a message that is left out where nothing is in it.
func endFilled(dst []byte, at int, field protowire.Number) []byte {
	if len(dst) == at {
		return dst[:at-1-protowire.SizeTag(field)]
	}
	return end(dst, at)
}

// appendPair appends an entry of a map of strings.
func appendPair(dst []byte, field protowire.Number, name string, value []byte) []byte {
	dst, at := open(dst, field)
	dst = appendBytes(appendString(dst, 1, name), 2, value)
	return end(dst, at)
}

// appendSpan appends a google.protobuf.Duration, or a Timestamp; a negative one is none.
func appendSpan(dst []byte, field protowire.Number, ns int64) []byte {
	if ns < 0 {
		return dst
	}
	dst, at := open(dst, field)
	dst = appendInt(appendInt(dst, 1, uint64(ns/1e9)), 2, uint64(ns%1e9))
	return end(dst, at)
}

// appendNumber appends a google.protobuf.UInt32Value.
func appendNumber(dst []byte, field protowire.Number, v uint64) []byte {
	dst, at := open(dst, field)
	return end(appendInt(dst, 1, v), at)
}

// appendAddress appends an envoy.config.core.v3.Address; one that is not valid is none.
func appendAddress(dst []byte, field protowire.Number, a mesh.Address) []byte {
	if !a.IP.IsValid() && a.Pipe == "" {
		return dst
	}
	dst, at := open(dst, field)
	if a.Pipe != "" {
		var pipe int
		dst, pipe = open(dst, 2)
		dst = end(appendString(dst, 1, a.Pipe), pipe)
		return end(dst, at)
	}
	dst, socket := open(dst, 1)
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	dst, text := append(dst, 0), len(dst)+1
	dst = end(a.IP.Addr().AppendTo(dst), text)
	// The port is a field of a oneof: 0 is written as well.
	dst = protowire.AppendVarint(protowire.AppendTag(dst, 3, protowire.VarintType), uint64(a.IP.Port()))
	return end(end(dst, socket), at)
}

func appendAddrPort(dst []byte, field protowire.Number, a netip.AddrPort) []byte {
	return appendAddress(dst, field, mesh.Address{IP: a})
}
