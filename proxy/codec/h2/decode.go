// SPDX-License-Identifier: Apache-2.0

package h2

// decoder reads header blocks (RFC 7541). It belongs to the connection's turn. It copies nothing of what is in a table,
// and checks names and values of a table's fields once, when they are added.
type decoder struct {
	table   table
	allowed int    // what the peer may make of the table's size
	begun   bool   // the block has had a field
	scratch []byte // the line of a field that is in no table
}

// defaultTable is the size of a dynamic table before anything is said of it (RFC 9113 section 6.5.2).
const defaultTable = 4096

func (d *decoder) init(allowed int) {
	d.allowed = max(allowed, defaultTable)
	d.table.max = defaultTable
}

// acknowledged says that the peer knows of the size that our settings allow.
func (d *decoder) acknowledged(allowed int) {
	d.allowed = allowed
	d.table.resize(min(d.table.max, allowed))
}

// begin prepares for a new block.
func (d *decoder) begin() { d.begun = false }

// next reads one representation at the front of p, which is not empty, and returns what follows it. got is false where
// it was no field. ok is false where p cannot be read, which is the connection's end (RFC 9113 section 4.3). f's line is
// valid until the next call.
func (d *decoder) next(p []byte, f *field) (rest []byte, got, ok bool) {
	b := p[0]
	switch {
	case b&0x80 != 0: // RFC 7541 section 6.1
		i, rest, ok := readInt(p, 7)
		d.begun = true
		return rest, true, ok && d.at(i, f)
	case b&0xc0 == 0x40: // 6.2.1
		rest, ok = d.literal(p, 6, f)
		if ok {
			d.table.add(f)
		}
		return rest, true, ok
	case b&0xe0 == 0x20: // 6.3
		size, rest, ok := readInt(p, 5)
		if !ok || d.begun || size > d.allowed {
			return nil, false, false
		}
		d.table.resize(size)
		return rest, false, true
	}
	rest, ok = d.literal(p, 4, f) // 6.2.2, 6.2.3
	return rest, true, ok
}

// at reads the field with an index (RFC 7541 section 2.3.3).
func (d *decoder) at(i int, f *field) bool {
	switch {
	case i == 0 || i > len(staticFields)+d.table.len():
		return false
	case i <= len(staticFields):
		*f = staticFields[i-1]
	default:
		d.table.get(i-len(staticFields)-1, f)
	}
	return true
}

// literal reads a field with its value, and with its name or the index of that.
func (d *decoder) literal(p []byte, prefix uint, f *field) (rest []byte, ok bool) {
	d.begun = true
	i, p, ok := readInt(p, prefix)
	if !ok {
		return nil, false
	}
	line := d.scratch[:0]
	if i > 0 {
		if !d.at(i, f) {
			return nil, false
		}
		line = append(line, f.name()...)
	} else {
		if line, p, ok = readString(line, p); !ok {
			return nil, false
		}
		f.line, f.n = line, len(line)
		f.classify()
	}
	line = append(line, ": "...)
	if line, p, ok = readString(line, p); !ok {
		return nil, false
	}
	d.scratch = line
	f.line = line
	f.check()
	return p, true
}

// trim gives back what a large block needed.
func (d *decoder) trim() {
	if cap(d.scratch) > 4<<10 {
		d.scratch = nil
	}
}

// readInt reads an integer with a prefix of so many bits (RFC 7541 section 5.1). More than four bytes behind the prefix
// are more than anything here can count.
func readInt(p []byte, prefix uint) (n int, rest []byte, ok bool) {
	if len(p) == 0 {
		return 0, nil, false
	}
	mask := byte(1<<prefix - 1)
	n = int(p[0] & mask)
	p = p[1:]
	if n < int(mask) {
		return n, p, true
	}
	for shift := 0; shift < 28 && len(p) > 0; shift += 7 {
		b := p[0]
		p = p[1:]
		n += int(b&0x7f) << shift
		if b&0x80 == 0 {
			return n, p, true
		}
	}
	return 0, nil, false
}

// readString appends a string literal (RFC 7541 section 5.2).
func readString(dst, p []byte) (_, rest []byte, ok bool) {
	if len(p) == 0 {
		return dst, nil, false
	}
	packed := p[0]&0x80 != 0
	n, p, ok := readInt(p, 7)
	if !ok || n > len(p) {
		return dst, nil, false
	}
	if !packed {
		return append(dst, p[:n]...), p[n:], true
	}
	dst, ok = theHuffman.decode(dst, p[:n])
	return dst, p[n:], ok
}
