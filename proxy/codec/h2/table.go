// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
)

// class is what a field is for whoever reads a head.
type class uint8

const (
	regular class = iota
	badName       // not a token in lower case, or empty
	unknownPseudo
	pseudoMethod
	pseudoScheme
	pseudoAuthority
	pseudoPath
	pseudoProtocol
	pseudoStatus
	hopByHop // what RFC 9113 section 8.2.2 forbids
	fieldTE
	fieldHost
	fieldLength
	fieldExpect
	fieldTrailer
	fieldCookie
)

// isPseudo reports whether c is that of a pseudo-header field.
func (c class) isPseudo() bool { return c >= unknownPseudo && c <= pseudoStatus }

// field is one field of a header section. line is "name: value", the name is the first n bytes of it.
type field struct {
	line     []byte
	n        int
	id       header.ID
	class    class
	badValue bool // control bytes, or white space at an end
}

func (f *field) name() []byte  { return f.line[:f.n] }
func (f *field) value() []byte { return f.line[f.n+2:] }

// size is what the field counts for in a table and in a header list (RFC 7541 section 4.1, RFC 9113 section 6.5.2).
func (f *field) size() int { return len(f.line) - 2 + 32 }

// classify fills in what f's name is.
func (f *field) classify() {
	name := f.name()
	f.id, f.class = header.None, regular
	if len(name) > 0 && name[0] == ':' {
		f.class = pseudo(name)
		return
	}
	for _, c := range name {
		if !header.IsToken(c) || c-'A' < 26 {
			f.class = badName
			return
		}
	}
	f.id = header.IDOf(name)
	switch f.id {
	case header.None:
		switch {
		case len(name) == 0:
			f.class = badName
		case string(name) == "cookie":
			f.class = fieldCookie
		}
	case header.Connection, header.KeepAlive, header.ProxyConnection, header.TransferEncoding, header.Upgrade:
		f.class = hopByHop
	case header.TE:
		f.class = fieldTE
	case header.Host:
		f.class = fieldHost
	case header.ContentLength:
		f.class = fieldLength
	case header.Expect:
		f.class = fieldExpect
	case header.Trailer:
		f.class = fieldTrailer
	}
}

func pseudo(name []byte) class {
	switch string(name) {
	case ":method":
		return pseudoMethod
	case ":scheme":
		return pseudoScheme
	case ":authority":
		return pseudoAuthority
	case ":path":
		return pseudoPath
	case ":protocol":
		return pseudoProtocol
	case ":status":
		return pseudoStatus
	}
	return unknownPseudo
}

// check fills in whether f's value may be in a field (RFC 9113 section 8.2.1, and DEL and the other control bytes, as in
// HTTP/1.1).
func (f *field) check() {
	v := f.value()
	n := len(v)
	f.badValue = codec.Control(v) != n || n > 0 && (v[0] <= ' ' || v[n-1] <= ' ')
}

// table is a dynamic table (RFC 7541 section 2.3.2): a queue of fields, in memory of its own that is bounded by twice the
// table's size.
type table struct {
	bytes []byte
	base  uint64 // where bytes[0] is among all bytes that ever were added
	ents  []entry
	first int    // ents[first] is the oldest
	added uint32 // entries ever, modulo 2^32
	size  int
	max   int
}

// entry is a field of a table; at is among all bytes that ever were added.
type entry struct {
	at       uint64
	len      uint32
	n        uint16 // of the name; a longer one does not fit into any table of ours
	id       header.ID
	class    class
	badValue bool
}

func (e *entry) size() int { return int(e.len) - 2 + 32 }

// maxTable bounds a table, so that a name's length fits into an entry.
const maxTable = 64 << 10

func (t *table) len() int { return len(t.ents) - t.first }

// get reads entry i, of which 0 is the newest, into f. The line stays valid until the next add.
func (t *table) get(i int, f *field) {
	e := &t.ents[len(t.ents)-1-i]
	at := int(e.at - t.base)
	*f = field{t.bytes[at : at+int(e.len) : at+int(e.len)], int(e.n), e.id, e.class, e.badValue}
}

// add adds a field, whose line may be one of the table's own.
func (t *table) add(f *field) {
	size := f.size()
	for t.size+size > t.max && t.len() > 0 {
		t.evict()
	}
	if size > t.max {
		return // RFC 7541 section 4.4: the table is empty then
	}
	// f.line stays what it is: append does not touch it, and pack happens only after it was copied.
	e := entry{t.base + uint64(len(t.bytes)), uint32(len(f.line)), uint16(f.n), f.id, f.class, f.badValue}
	t.bytes = append(t.bytes, f.line...)
	t.ents = append(t.ents, e)
	t.size += size
	t.added++
	t.pack()
}

// evict removes the oldest entry.
func (t *table) evict() {
	t.size -= t.ents[t.first].size()
	t.first++
}

// resize changes the greatest size.
func (t *table) resize(limit int) {
	t.max = limit
	for t.size > limit {
		t.evict()
	}
}

// pack moves what is in the table to the front of its memory, when half of that is in use for nothing.
func (t *table) pack() {
	if t.first > 16 && t.first > len(t.ents)/2 {
		t.ents = t.ents[:copy(t.ents, t.ents[t.first:])]
		t.first = 0
	}
	old := t.base + uint64(len(t.bytes))
	if t.len() > 0 {
		old = t.ents[t.first].at
	}
	if dead := int(old - t.base); dead > 1<<10 && dead > len(t.bytes)/2 {
		t.bytes = t.bytes[:copy(t.bytes, t.bytes[dead:])]
		t.base = old
	}
}

// staticFields is the static table (RFC 7541 appendix A); the first is number 1.
var staticFields = func() []field {
	fields := make([]field, 0, len(staticTable))
	for _, e := range staticTable {
		f := field{line: []byte(e[0] + ": " + e[1]), n: len(e[0])}
		f.classify()
		fields = append(fields, f)
	}
	return fields
}()

// staticNames finds the number of the first field with a name in the static table.
var staticNames = func() map[string]uint8 {
	m := map[string]uint8{}
	for i := len(staticTable) - 1; i >= 0; i-- {
		m[staticTable[i][0]] = uint8(i + 1)
	}
	return m
}()

var staticTable = [...][2]string{
	{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"},
	{":scheme", "http"}, {":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"},
	{":status", "304"}, {":status", "400"}, {":status", "404"}, {":status", "500"}, {"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"}, {"accept-language", ""}, {"accept-ranges", ""}, {"accept", ""},
	{"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""}, {"cache-control", ""},
	{"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
	{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""},
	{"expect", ""}, {"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""},
	{"if-none-match", ""}, {"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""},
	{"location", ""}, {"max-forwards", ""}, {"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""},
	{"referer", ""}, {"refresh", ""}, {"retry-after", ""}, {"server", ""}, {"set-cookie", ""},
	{"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""}, {"via", ""},
	{"www-authenticate", ""},
}
