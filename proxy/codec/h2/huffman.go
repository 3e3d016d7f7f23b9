// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"strings"

	"golang.org/x/net/http2/hpack"
)

// huffman is the code of RFC 7541 appendix B, as tables to decode with. The code is canonical: codes of one length are
// consecutive numbers in the order of their symbols, and longer codes are greater than shorter ones that are filled up
// with zeros. So one comparison for each length finds the length of a code, and a subtraction its symbol.
type huffman struct {
	// short finds the codes of up to eight bits by the next eight bits: symbol<<8 | length, 0 where the code is longer.
	short [256]uint16
	// Of the codes of each length: what the first one beyond them is in the upper bits of 32, the first one's number, and
	// where its symbol is in symbols.
	limit   [31]uint64
	first   [31]uint32
	at      [31]int
	symbols [256]byte
}

// theHuffman is a table that never changes. x/net, whose encoder knows the code, is where it is read from.
var theHuffman = newHuffman()

func newHuffman() *huffman {
	h := &huffman{}
	n := 0
	for length := 1; length <= 30; length++ {
		h.at[length], h.first[length] = n, 0
		last := uint32(0)
		for c := range 256 {
			s := string([]byte{byte(c)})
			// Eight times the code is as many bytes as the code has bits.
			if int(hpack.HuffmanEncodeLength(strings.Repeat(s, 8))) != length {
				continue
			}
			code := uint32(0)
			for _, b := range hpack.AppendHuffmanString(nil, s) {
				code = code<<8 | uint32(b)
			}
			code >>= (8 - length%8) % 8
			if n == h.at[length] {
				h.first[length] = code
			}
			h.symbols[n], last = byte(c), code
			n++
			if length <= 8 {
				for fill := range 1 << (8 - length) {
					h.short[int(code)<<(8-length)|fill] = uint16(c)<<8 | uint16(length)
				}
			}
		}
		if n > h.at[length] {
			h.limit[length] = uint64(last+1) << (32 - length)
		}
	}
	return h
}

// decode appends what p stands for. ok is false where p holds the end of string symbol, or padding that is longer than
// seven bits or other than the beginning of that symbol (RFC 7541 section 5.2).
func (h *huffman) decode(dst, p []byte) (_ []byte, ok bool) {
	var bits uint64 // the upper n of it are to be decoded
	n := 0
	for {
		for n <= 56 && len(p) > 0 {
			bits |= uint64(p[0]) << (56 - n)
			n += 8
			p = p[1:]
		}
		if s := h.short[bits>>56]; s != 0 && int(s&0xff) <= n {
			dst = append(dst, byte(s>>8))
			bits <<= s & 0xff
			n -= int(s & 0xff)
			continue
		}
		if n < 8 && len(p) == 0 {
			// Ones to the end are padding; no code is as short as that and all ones.
			return dst, bits>>(64-n) == 1<<n-1
		}
		next := bits >> 32
		length := 9
		for length <= 30 && next >= h.limit[length] {
			length++
		}
		if length > 30 || length > n {
			return dst, false
		}
		dst = append(dst, h.symbols[h.at[length]+int(uint32(next>>(32-length))-h.first[length])])
		bits <<= length
		n -= length
	}
}
