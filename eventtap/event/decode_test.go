// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"testing"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	for i := range uint64(50) {
		e := Random(i)
		for _, b := range [][]byte{e.AppendJSON(nil), e.AppendProto(nil)} {
			var got Event
			if err := got.Decode(b); err != nil {
				t.Fatal(err)
			}
			if err := equal(e, &got); err != nil {
				t.Fatal(err)
			}
		}
	}
	if new(Event).Decode(nil) == nil {
		t.Error("nothing is not an event")
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	a, b := Random(1), Random(2)
	pa, pb := a.AppendProto(nil), b.AppendProto(nil)
	protoBatch := append(AppendProtoBatchHead(nil, len(pa)), pa...)
	protoBatch = append(AppendProtoBatchHead(protoBatch, len(pb)), pb...)
	jsonBatch := append(a.AppendJSON([]byte("[")), ',')
	jsonBatch = append(b.AppendJSON(jsonBatch), ']')
	for _, c := range []struct {
		name, mediaType string
		body            []byte
		want            int // events, -1 for an error
	}{
		{"json", TypeJSON, a.AppendJSON(nil), 1},
		{"json with a charset", TypeJSON + "; charset=UTF-8", a.AppendJSON(nil), 1},
		{"json batch", TypeJSONBatch, jsonBatch, 2},
		{"an empty json batch", TypeJSONBatch, []byte("[]"), 0},
		{"protobuf", TypeProto, pa, 1},
		{"protobuf batch", TypeProtoBatch, protoBatch, 2},
		{"no json batch", TypeJSONBatch, pa, -1},
		{"no protobuf batch", TypeProtoBatch, []byte{0xff}, -1},
		{"another type", "text/plain", pa, -1},
		{"no type", "", pa, -1},
		{"too large", TypeProtoBatch, make([]byte, MaxBatch+1), -1},
	} {
		got, err := Split(c.mediaType, c.body)
		if (err != nil) != (c.want < 0) || err == nil && len(got) != c.want {
			t.Errorf("%s: %d events, %v", c.name, len(got), err)
		}
		for i, g := range got {
			var e Event
			if err := e.Decode(g); err != nil || !bytes.Equal(e.ID, []*Event{a, b}[i].ID) {
				t.Errorf("%s: event %d: %v", c.name, i, err)
			}
		}
	}
}

func TestAttribute(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, want string
		ok       bool
	}{
		{"", "", true},
		{"outbound|80||a.b", "outbound|80||a.b", true},
		{"é世😀", "é世😀", true},
		{"a\nb", "a\ufffdb", false},
		{"\x7f", "\ufffd", false},
		{"é\u0085", "é\ufffd", false},
		{"\uffff\U0001fffe\ufdd0", "\ufffd\ufffd\ufffd", false},
		{"a\xffb", "a\ufffdb", false},
		{"\ufffd", "\ufffd", true},
	} {
		if got := Attribute([]byte(c.in)); got != c.ok {
			t.Errorf("Attribute(%q) = %v", c.in, got)
		}
		if got := string(AppendAttribute(nil, []byte(c.in))); got != c.want {
			t.Errorf("AppendAttribute(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(uint8(0), Random(1).AppendJSON(nil))
	f.Add(uint8(3), append(AppendProtoBatchHead(nil, 3), "abc"...))
	f.Add(uint8(1), []byte("[{}]"))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		types := []string{TypeJSON, TypeJSONBatch, TypeProto, TypeProtoBatch}
		events, err := Split(types[int(kind)%len(types)], b)
		if err != nil {
			return
		}
		for _, e := range events {
			_ = new(Event).Decode(e)
		}
	})
}

// TestAttributeBytes puts every byte at every place of texts of many lengths: those that are looked at eight at a time too.
func TestAttributeBytes(t *testing.T) {
	t.Parallel()
	for size := 1; size <= 20; size++ {
		for at := range size {
			for c := range 256 {
				s := bytes.Repeat([]byte{'~'}, size)
				s[at] = byte(c)
				if want := c >= ' ' && c < 0x7f; Attribute(s) != want {
					t.Fatalf("Attribute(%q) = %v", s, !want)
				}
			}
		}
	}
}
