// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/meshtap/meshtap/proxy/header"
)

// decodeAll decodes a block with our decoder.
func decodeAll(d *decoder, p []byte) (out []string, ok bool) {
	d.begin()
	for len(p) > 0 {
		var f field
		var got bool
		if p, got, ok = d.next(p, &f); !ok {
			return out, false
		}
		if got {
			out = append(out, string(f.name())+"\x00"+string(f.value()))
		}
	}
	return out, true
}

// theirs decodes a block with x/net's.
func theirs(d *hpack.Decoder, p []byte) (out []string, ok bool) {
	d.SetEmitFunc(func(f hpack.HeaderField) { out = append(out, f.Name+"\x00"+f.Value) })
	if _, err := d.Write(p); err != nil {
		return out, false
	}
	return out, d.Close() == nil
}

// TestHuffman: every byte, alone and among others, and all that RFC 7541 section 5.2 refuses.
func TestHuffman(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	check := func(s string) {
		t.Helper()
		got, ok := theHuffman.decode(nil, hpack.AppendHuffmanString(nil, s))
		if !ok || string(got) != s {
			t.Fatalf("%q: %q, %v", s, got, ok)
		}
	}
	for i := range 256 {
		check(string([]byte{byte(i)}))
	}
	for range 2000 {
		b := make([]byte, r.IntN(40))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		check(string(b))
	}
	for _, bad := range []string{"\xff", "\xff\xff\xff\xff", "\x00", "\x1f\xff", "\xfe"} {
		want, wantErr := hpack.HuffmanDecodeToString([]byte(bad))
		got, ok := theHuffman.decode(nil, []byte(bad))
		if ok != (wantErr == nil) || ok && string(got) != want {
			t.Errorf("%x: %q, %v, want %q, %v", bad, got, ok, want, wantErr)
		}
	}
}

// FuzzHuffman holds the decoder against x/net's.
func FuzzHuffman(f *testing.F) {
	f.Add([]byte("\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3"))
	f.Add([]byte("\xff\xff\xff\xfc"))
	f.Fuzz(func(t *testing.T, p []byte) {
		want, err := hpack.HuffmanDecodeToString(p)
		got, ok := theHuffman.decode(nil, p)
		if ok != (err == nil) || ok && string(got) != want {
			t.Fatalf("%x: %q, %v; x/net: %q, %v", p, got, ok, want, err)
		}
	})
}

// FuzzDecode holds the decoder against x/net's, over several blocks on one connection. Ours refuses two things that
// x/net's takes: integers of more than five bytes, and a size update behind a field where the table is empty.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"), []byte("\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf"))
	f.Add([]byte("\x3f\xe1\x1f\x40\x01a\x01b"), []byte("\xbe\x20\x40\x01a\x01b\xbe"))
	f.Add([]byte("?0?0"), []byte("\xbcb\x05\xff\xff\x05\xba\xda"))
	f.Add([]byte("\x40\x0acustom-key\x0dcustom-header"), []byte("\x7f\x00\x01c\x10\x08password\x06secret"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var d decoder
		d.init(defaultTable)
		x := hpack.NewDecoder(defaultTable, nil)
		for _, p := range [][]byte{a, b, a} {
			got, ok := decodeAll(&d, p)
			want, wantOK := theirs(x, p)
			if ok && !wantOK && resizes(p) > 1 {
				return // RFC 7541, section 4.2 wants two where the size went down and up; x/net takes them while its table is empty
			}
			if ok && (!wantOK || !slices.Equal(got, want)) {
				t.Fatalf("%x: %q; x/net: %q, %v", p, got, want, wantOK)
			}
			if wantOK && !ok && !strictly(p) {
				t.Fatalf("%x: refused; x/net: %q", p, want)
			}
			if !ok || !wantOK {
				return
			}
			if d.table.size != tableSize(&d.table) || d.table.size > d.table.max || len(d.table.bytes) > 4*defaultTable {
				t.Fatalf("the table is %d of %d, in %d bytes", d.table.size, d.table.max, len(d.table.bytes))
			}
		}
	})
}

func tableSize(tb *table) (n int) {
	for i := range tb.len() {
		var f field
		tb.get(i, &f)
		n += f.size()
	}
	return n
}

// resizes counts the changes of the table's size that a block begins with.
func resizes(p []byte) (n int) {
	for len(p) > 0 && p[0]&0xe0 == 0x20 {
		n++
		more := p[0]&0x1f == 0x1f
		for p = p[1:]; more && len(p) > 0; p = p[1:] {
			more = p[0]&0x80 != 0
		}
	}
	return n
}

// strictly reports whether a block may hold what we refuse and x/net does not.
func strictly(p []byte) bool {
	run := 0
	for _, c := range p {
		if run++; c&0x80 == 0 {
			run = 0
		}
		if run >= 4 || c&0xe0 == 0x20 {
			return true
		}
	}
	return false
}

// TestEncode: what the encoder writes, x/net's decoder and ours read, whatever repeats, whatever the peer says of the
// table, and in every case of names.
func TestEncode(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	var e encoder
	e.init()
	var d decoder
	d.init(defaultTable)
	x := hpack.NewDecoder(defaultTable, nil)
	for n := range 3000 {
		if n%97 == 96 {
			for range 1 + r.IntN(2) {
				size := []int{0, 64, 500, 4096, 100000}[r.IntN(5)]
				e.allow(size)
			}
		}
		var l header.List
		var want []string
		for range r.IntN(12) {
			name := []string{"content-type", "x-a", "x-request-id", "authorization", "cookie", "content-length", "date", "x-b"}[r.IntN(8)]
			value := fmt.Sprint("v", r.IntN(1+r.IntN(300)))
			if r.IntN(50) == 0 {
				value = strings.Repeat(value, 300)
			}
			want = append(want, name+"\x00"+value)
			if r.IntN(3) == 0 {
				name = strings.ToUpper(name)
			}
			head := name + ": " + value + "\r\n"
			var one header.List
			one.Append(header.IDOf([]byte(name)), 0, len(name), len(name)+2, len(name)+2+len(value), true)
			one.Own([]byte(head))
			id, nm, v := one.At(0)
			_ = id
			l.AddLine(header.IDOf(nm), append(append(bytes.Clone(nm), ": "...), v...), len(nm))
		}
		block := e.list(e.begin(nil), &l, nil)
		got, ok := decodeAll(&d, block)
		if !ok || !slices.Equal(got, want) {
			t.Fatalf("%d: %q, %v, want %q", n, got, ok, want)
		}
		if got, ok := theirs(x, block); !ok || !slices.Equal(got, want) {
			t.Fatalf("%d: x/net: %q, %v, want %q", n, got, ok, want)
		}
		if e.table.size != tableSize(&e.table) || e.table.size > e.table.max {
			t.Fatalf("the table is %d of %d", e.table.size, e.table.max)
		}
	}
}

// TestEncodeWhat: what repeats is one byte from the third time on; ids, lengths and secrets never enter the table.
func TestEncodeWhat(t *testing.T) {
	t.Parallel()
	var e encoder
	e.init()
	var l header.List
	l.AddString("x-tenant", "blue")
	var sizes []int
	for range 3 {
		sizes = append(sizes, len(e.list(e.begin(nil), &l, nil)))
	}
	if sizes[0] != 15 || sizes[1] != 15 || sizes[2] != 1 {
		t.Errorf("%v", sizes)
	}
	before := e.table.len()
	l.Reset()
	for _, name := range []string{"x-request-id", "content-length", "authorization", "cookie", "set-cookie", "proxy-authorization"} {
		l.AddString(name, "1")
	}
	var block []byte
	for range 5 {
		block = e.list(e.begin(nil), &l, nil)
	}
	if e.table.len() != before {
		t.Errorf("%d entries came into the table", e.table.len()-before)
	}
	never := 0
	d := hpack.NewDecoder(defaultTable, func(f hpack.HeaderField) {
		if f.Sensitive {
			never++
		}
	})
	if _, err := d.Write(block); err != nil || never != 4 {
		t.Errorf("%d never indexed, %v", never, err)
	}
}

// TestEncodeHop: what is of one connection is left out, and names go out in lower case.
func TestEncodeHop(t *testing.T) {
	t.Parallel()
	var e encoder
	e.init()
	var l header.List
	for _, f := range [][2]string{
		{"connection", "x"}, {"keep-alive", "x"}, {"proxy-connection", "x"}, {"transfer-encoding", "chunked"},
		{"upgrade", "x"}, {"host", "a"}, {"te", "gzip"}, {"te", "trailers"}, {"x-one", "1"},
	} {
		l.AddString(f[0], f[1])
	}
	l.Append(header.None, 0, 0, 0, 0, false)
	l.DropLast()
	var d decoder
	d.init(defaultTable)
	got, ok := decodeAll(&d, e.list(e.begin(nil), &l, nil))
	if want := []string{"te\x00trailers", "x-one\x001"}; !ok || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, ok)
	}
}

// TestIntegers: the boundaries of RFC 7541 section 5.1, and what is too long.
func TestIntegers(t *testing.T) {
	t.Parallel()
	for _, prefix := range []uint{4, 5, 6, 7} {
		for _, n := range []int{0, 1, 14, 15, 16, 30, 31, 62, 63, 64, 126, 127, 128, 255, 1337, 1 << 20, 1<<28 - 1} {
			p := appendInt(nil, prefix, 0, n)
			got, rest, ok := readInt(append(p, 9), prefix)
			if got != n || len(rest) != 1 || !ok {
				t.Errorf("%d in %d bits: %d, %v, %v", n, prefix, got, rest, ok)
			}
			for cut := range p {
				if _, _, ok := readInt(p[:cut], prefix); ok {
					t.Errorf("%d in %d bits, cut to %d, was read", n, prefix, cut)
				}
			}
		}
	}
	if _, _, ok := readInt([]byte{0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 7); ok {
		t.Error("an integer without end was read")
	}
}

// TestTableMemory: a table's memory is bounded, whatever is added to it.
func TestTableMemory(t *testing.T) {
	t.Parallel()
	var d decoder
	d.init(defaultTable)
	r := rand.New(rand.NewPCG(5, 6))
	for range 20000 {
		value := strings.Repeat("x", r.IntN(200))
		block := literal(nil, 0x40, []byte("x"), []byte(value))
		if _, ok := decodeAll(&d, block); !ok {
			t.Fatal("refused")
		}
	}
	if cap(d.table.bytes) > 4*defaultTable || cap(d.table.ents) > 1024 {
		t.Errorf("%d bytes, %d entries", cap(d.table.bytes), cap(d.table.ents))
	}
}
