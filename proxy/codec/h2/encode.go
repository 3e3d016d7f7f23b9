// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"hash/maphash"

	"github.com/meshtap/meshtap/proxy/header"
)

// encoder writes header blocks (RFC 7541). It belongs to whoever holds the connection's lock: blocks are written in the
// order in which they are sent.
//
// A field goes into the dynamic table the second time it is sent, so that what differs from message to message does not
// push out what repeats; credentials never do, since whoever can make messages on the same connection could find them
// out by what compresses (RFC 7541 section 7.1). Nothing is written in Huffman code: that would save bytes only of what is
// not indexed, and costs more than it saves.
type encoder struct {
	table table
	// least is the smallest size that the peer has allowed since the last block, -1 where it has said nothing.
	least int
	seed  maphash.Seed
	// seen finds the fields that were sent before, by their hash. It is there once something was sent.
	seen *[seenSets][2]sight
	low  []byte // a name in lower case
}

// sight is a field that was sent: with its number in the table, 0 where it is not there.
type sight struct {
	number uint32
	hash   uint32
}

const seenSets = 64

func (e *encoder) init() {
	e.table.max, e.least = defaultTable, -1
}

// allow takes in the size that the peer allows.
func (e *encoder) allow(size int) {
	size = min(size, defaultTable)
	if e.least < 0 || size < e.least {
		e.least = size
	}
	e.table.resize(size)
}

// begin begins a block.
func (e *encoder) begin(dst []byte) []byte {
	if e.seen == nil {
		e.seen, e.seed = new([seenSets][2]sight), maphash.MakeSeed()
	}
	if e.least >= 0 {
		// RFC 7541 section 4.2: the smallest first, then the last. The first is 0 then: some decoders, x/net's among them,
		// take a second update only for an empty table.
		if e.least < e.table.max {
			most := e.table.max
			e.table.resize(0)
			e.table.max = most
			dst = append(dst, 0x20)
		}
		dst = appendInt(dst, 5, 0x20, e.table.max)
		e.least = -1
	}
	return dst
}

// list appends the fields of a header list, without those that are of one connection (RFC 9113 section 8.2.2).
func (e *encoder) list(dst []byte, l *header.List, skip func(id header.ID, name []byte) bool) []byte {
	for i := range l.Slots() {
		id, name, value := l.At(i)
		switch id {
		case header.Connection, header.KeepAlive, header.ProxyConnection, header.TransferEncoding, header.Upgrade, header.Host:
			continue
		case header.TE:
			if string(value) != "trailers" {
				continue
			}
		}
		if name == nil || skip != nil && skip(id, name) {
			continue
		}
		dst = e.field(dst, id, e.lower(name), value)
	}
	return dst
}

// lower returns a name in lower case.
func (e *encoder) lower(name []byte) []byte {
	for i, c := range name {
		if c-'A' < 26 {
			e.low = append(e.low[:0], name...)
			for j := i; j < len(e.low); j++ {
				if e.low[j]-'A' < 26 {
					e.low[j] |= 0x20
				}
			}
			return e.low
		}
	}
	return name
}

// field appends one field; the name is in lower case.
func (e *encoder) field(dst []byte, id header.ID, name, value []byte) []byte {
	switch {
	case id == header.RequestID || id == header.ContentLength:
		return literal(dst, 0, name, value)
	case id == header.ProxyAuthorization || id == header.None && secret(name):
		return literal(dst, 0x10, name, value)
	}
	size := len(name) + len(value) + 32
	if size > e.table.max/4 {
		return literal(dst, 0, name, value)
	}
	h := uint32(maphash.Bytes(e.seed, value))*31 + uint32(maphash.Bytes(e.seed, name))
	set := &e.seen[h%seenSets]
	way := -1
	for i := range set {
		s := &set[i]
		switch live := e.live(s.number); {
		case s.hash != h || s.number == 0 && s.hash == 0:
			if !live {
				way = i
			}
		case !live:
			s.number = e.insert(name, value)
			return literal(dst, 0x40, name, value)
		case e.is(s.number, name, value):
			return appendInt(dst, 7, 0x80, len(staticFields)+1+int(e.table.added-s.number))
		}
	}
	if way >= 0 {
		set[way] = sight{0, h}
	}
	return literal(dst, 0, name, value)
}

// live reports whether the entry with this number is still in the table.
func (e *encoder) live(number uint32) bool {
	return number != 0 && e.table.added-number < uint32(e.table.len())
}

// is reports whether an entry is this field.
func (e *encoder) is(number uint32, name, value []byte) bool {
	t := &e.table
	at := &t.ents[len(t.ents)-1-int(t.added-number)]
	if int(at.n) != len(name) || int(at.len) != len(name)+len(": ")+len(value) {
		return false
	}
	line := t.bytes[at.at-t.base:][:at.len]
	return string(line[at.n+2:]) == string(value) && string(line[:at.n]) == string(name)
}

// insert adds a field to the table and returns its number.
func (e *encoder) insert(name, value []byte) uint32 {
	var buf [256]byte
	line := append(append(append(buf[:0], name...), ": "...), value...)
	f := field{line: line, n: len(name)}
	e.table.add(&f)
	return e.table.added
}

// secret reports whether a field's value is one that nobody else on the connection may find out.
func secret(name []byte) bool {
	switch string(name) {
	case "authorization", "cookie", "set-cookie":
		return true
	}
	return false
}

// literal appends a field with its value. kind is 0, 0x10 or 0x40 (RFC 7541 section 6.2).
func literal(dst []byte, kind byte, name, value []byte) []byte {
	prefix := uint(4)
	if kind == 0x40 {
		prefix = 6
	}
	if i := staticNames[string(name)]; i != 0 {
		dst = appendInt(dst, prefix, kind, int(i))
	} else {
		dst = append(dst, kind)
		dst = appendInt(dst, 7, 0, len(name))
		dst = append(dst, name...)
	}
	dst = appendInt(dst, 7, 0, len(value))
	return append(dst, value...)
}

// appendInt appends an integer with a prefix of so many bits, behind the bits of kind (RFC 7541 section 5.1).
func appendInt(dst []byte, prefix uint, kind byte, n int) []byte {
	most := 1<<prefix - 1
	if n < most {
		return append(dst, kind|byte(n))
	}
	dst = append(dst, kind|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}
