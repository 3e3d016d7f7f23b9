// SPDX-License-Identifier: Apache-2.0

package header_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/proxy/header"
)

// parsed returns a list as a codec fills it: from lines of a head, of which those that are not "name: value" are not raw.
func parsed(lines ...string) *header.List {
	l := &header.List{}
	parse(l, lines...)
	return l
}

func parse(l *header.List, lines ...string) {
	l.Reset()
	head := "GET / HTTP/1.1\r\n"
	for _, line := range lines {
		at := len(head)
		i := strings.IndexByte(line, ':')
		value := strings.TrimLeft(line[i+1:], " ")
		from := at + len(line) - len(value)
		value = strings.TrimRight(value, " ")
		end := from + len(value)
		raw := from == at+i+2 && end == at+len(line)
		l.Append(header.IDOf([]byte(line[:i])), at, at+i, from, end, raw)
		head += line + "\r\n"
	}
	l.Own([]byte(head + "\r\n"))
}

func text(l *header.List) string { return string(l.AppendHTTP1(nil)) }

func TestLookUp(t *testing.T) {
	t.Parallel()
	l := parsed("Host: a.example", "X-Many: one", "Accept:*/*", "x-MANY:  two  ", "Empty:", "Content-Type: text/plain")
	for _, tc := range []struct {
		name, want string
		there      bool
		joined     string
	}{
		{"host", "a.example", true, "a.example"},
		{"x-many", "one", true, "one,two"},
		{"accept", "*/*", true, "*/*"},
		{"empty", "", true, ""},
		{"content-type", "text/plain", true, "text/plain"},
		{"content-typ", "", false, ""},
		{"missing", "", false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := l.Get(tc.name)
			if string(got) != tc.want || (got != nil) != tc.there || l.Has(tc.name) != tc.there {
				t.Errorf("Get gave %q, there %v", got, got != nil)
			}
			if id := header.IDOf([]byte(tc.name)); id != header.None && string(l.GetID(id)) != tc.want {
				t.Errorf("GetID gave %q", l.GetID(id))
			}
			if got := l.Joined(tc.name); string(got) != tc.joined || (got != nil) != tc.there {
				t.Errorf("Joined gave %q", got)
			}
		})
	}
	var seen []string
	l.Values("x-many", func(v []byte) bool { seen = append(seen, string(v)); return true })
	if !slices.Equal(seen, []string{"one", "two"}) {
		t.Errorf("Values gave %q", seen)
	}
	if l.Len() != 6 {
		t.Errorf("%d fields", l.Len())
	}
}

// TestWriting: what was not touched is written as it came, what was removed is not, and what was added comes behind.
func TestWriting(t *testing.T) {
	t.Parallel()
	lines := []string{"A: 1", "Host: h", "B:2", "C: 3", "D: 4", "E:  5 ", "F: 6"}
	for _, tc := range []struct {
		name string
		do   func(l *header.List)
		want string
	}{
		{"untouched", func(*header.List) {}, "A: 1|Host: h|B: 2|C: 3|D: 4|E: 5|F: 6|"},
		{"the first is removed", func(l *header.List) { l.Remove("a") }, "Host: h|B: 2|C: 3|D: 4|E: 5|F: 6|"},
		{"the last is removed", func(l *header.List) { l.Remove("f") }, "A: 1|Host: h|B: 2|C: 3|D: 4|E: 5|"},
		{"a run is split", func(l *header.List) { l.Remove("c") }, "A: 1|Host: h|B: 2|D: 4|E: 5|F: 6|"},
		{"neighbours are removed", func(l *header.List) { l.Remove("c"); l.Remove("d"); l.Remove("b") }, "A: 1|Host: h|E: 5|F: 6|"},
		{"by id", func(l *header.List) { l.RemoveID(header.Host) }, "A: 1|B: 2|C: 3|D: 4|E: 5|F: 6|"},
		{"by a function", func(l *header.List) {
			l.RemoveFunc(func(name, value []byte) bool { return string(name) == "A" || string(value) == "5" })
		}, "Host: h|B: 2|C: 3|D: 4|F: 6|"},
		{"all are removed", func(l *header.List) { l.RemoveFunc(func(_, _ []byte) bool { return true }) }, ""},
		{"one is added", func(l *header.List) { l.AddString("x-new", "n") }, "A: 1|Host: h|B: 2|C: 3|D: 4|E: 5|F: 6|x-new: n|"},
		{"removed and added again", func(l *header.List) { l.Remove("d"); l.Add("d", []byte("44")) }, "A: 1|Host: h|B: 2|C: 3|E: 5|F: 6|d: 44|"},
		{"set", func(l *header.List) { l.Set("c", []byte("33")); l.SetString("x", "y") }, "A: 1|Host: h|B: 2|D: 4|E: 5|F: 6|c: 33|x: y|"},
		{"added ones are a run too", func(l *header.List) {
			l.AddString("x", "1")
			l.AddString("y", "2")
			l.AddString("z", "3")
			l.Remove("y")
		}, "A: 1|Host: h|B: 2|C: 3|D: 4|E: 5|F: 6|x: 1|z: 3|"},
		{"held bytes are no field", func(l *header.List) {
			l.AddString("x", "1")
			l.Hold([]byte("held"))
			l.AddString("y", "2")
		}, "A: 1|Host: h|B: 2|C: 3|D: 4|E: 5|F: 6|x: 1|y: 2|"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := parsed(lines...)
			tc.do(l)
			if got := strings.ReplaceAll(text(l), "\r\n", "|"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if l.Size() != len(text(l)) {
				t.Errorf("the size is %d, written are %d bytes", l.Size(), len(text(l)))
			}
			c := &header.List{}
			c.CopyFrom(l)
			if text(c) != text(l) {
				t.Errorf("a copy is %q", text(c))
			}
		})
	}
}

// TestBorrowed: what methods return stays as it is until Reset, however the list grows.
func TestBorrowed(t *testing.T) {
	t.Parallel()
	l := parsed("Host: a.example", "X: value")
	host, x, held := l.Get("host"), l.Get("x"), l.Hold([]byte("/held"))
	for i := range 1000 {
		l.AddString(fmt.Sprint("n", i), strings.Repeat("v", i))
	}
	l.Remove("host")
	l.Set("x", []byte("other"))
	_ = append(host, "over"...)
	if string(host) != "a.example" || string(x) != "value" || string(held) != "/held" || string(l.Get("n0")) != "" {
		t.Errorf("%q %q %q", host, x, held)
	}
	if got := string(l.Get("x")); got != "other" {
		t.Errorf("x is %q", got)
	}
}

// TestSetFromItself: a value may be a part of the list's own memory.
func TestSetFromItself(t *testing.T) {
	t.Parallel()
	l := parsed("X: " + strings.Repeat("0123456789", 100))
	for range 20 {
		l.Set("x", l.Get("x"))
	}
	if got := text(l); got != "x: "+strings.Repeat("0123456789", 100)+"\r\n" {
		t.Errorf("%q", got)
	}
}

func TestDropLast(t *testing.T) {
	t.Parallel()
	l := &header.List{}
	head := "a: 1\r\nconnection: close\r\nb: 2\r\n\r\n"
	l.Append(header.None, 0, 1, 3, 4, true)
	l.Append(header.Connection, 6, 16, 18, 23, true)
	l.DropLast()
	l.Append(header.None, 25, 26, 28, 29, true)
	l.Own([]byte(head))
	if got := text(l); got != "a: 1\r\nb: 2\r\n" || l.Len() != 2 || l.HasID(header.Connection) {
		t.Errorf("%q", got)
	}
}

// TestAgainstNaive does random things to a list and to a plain slice.
func TestAgainstNaive(t *testing.T) {
	t.Parallel()
	type pair struct{ name, value string }
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		names := []string{"host", "a", "b", "c", "content-type", "x-request-id"}
		var naive []pair
		var lines []string
		for range r.IntN(8) {
			p := pair{names[r.IntN(len(names))], fmt.Sprint("v", r.IntN(100))}
			naive = append(naive, p)
			lines = append(lines, p.name+":"+strings.Repeat(" ", r.IntN(3))+p.value)
		}
		l := parsed(lines...)
		for range 12 {
			name, value := names[r.IntN(len(names))], fmt.Sprint("w", r.IntN(100))
			without := slices.DeleteFunc(slices.Clone(naive), func(p pair) bool { return p.name == name })
			switch r.IntN(4) {
			case 0:
				if found := l.Remove(name); found != (len(without) < len(naive)) {
					t.Fatalf("seed %d: Remove reported %v", seed, found)
				}
				naive = without
			case 1:
				l.SetString(name, value)
				naive = append(without, pair{name, value})
			case 2:
				l.AddString(name, value)
				naive = append(naive, pair{name, value})
			case 3:
				if id := header.IDOf([]byte(name)); id != header.None {
					l.RemoveID(id)
					naive = without
				}
			}
			want := ""
			for _, p := range naive {
				want += p.name + ": " + p.value + "\r\n"
			}
			if got := text(l); got != want || l.Len() != len(naive) || l.Size() != len(want) {
				t.Fatalf("seed %d: got %q, want %q", seed, got, want)
			}
		}
	}
}

// TestReset: a list is as good as new, and one large head does not stay in memory.
func TestReset(t *testing.T) {
	t.Parallel()
	l := parsed("A: 1", "Big: "+strings.Repeat("x", 40<<10))
	l.Reset()
	if l.Len() != 0 || text(l) != "" || cap(l.Bytes()) != 0 {
		t.Errorf("%d fields, %d bytes kept", l.Len(), cap(l.Bytes()))
	}
	parse(l, "B: 2")
	if text(l) != "B: 2\r\n" {
		t.Errorf("%q", text(l))
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	for id := header.None + 1; id <= header.ProxyAuthorization; id++ {
		for _, name := range []string{id.Name(), strings.ToUpper(id.Name())} {
			if got := header.IDOf([]byte(name)); got != id {
				t.Errorf("%s has the id %d, want %d", name, got, id)
			}
		}
		near := []byte(id.Name())
		near[len(near)-1] ^= 1
		if got := header.IDOf(near); got != header.None {
			t.Errorf("%s has the id of %s", near, got.Name())
		}
	}
}

func TestValidity(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"a": true, "X-Y_z!~": true, "": false, "a b": false, "a:": false, "\x7f": false, "\xc3\xa4": false} {
		if header.ValidName(name) != want {
			t.Errorf("name %q: want %v", name, want)
		}
	}
	for value, want := range map[string]bool{
		"": true, "a b\tc": true, "\xc3\xa4": true, " a": false, "a\t": false, "a\r\nb": false, "a\x00": false, "\x7f": false,
	} {
		if header.ValidValue([]byte(value)) != want {
			t.Errorf("value %q: want %v", value, want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l := &header.List{}
	head := []byte("GET / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\nAccept: */*\r\nX-A: 1\r\nX-B: 2\r\n\r\n")
	out := make([]byte, 0, 1024)
	value := []byte("0b5e6c1e-6a1c-4b43-8a1a-0c6a6f6f6d6e")
	allocs := testing.AllocsPerRun(1000, func() {
		l.Reset()
		l.Append(header.Host, 16, 20, 22, 31, true)
		l.Append(header.UserAgent, 33, 43, 45, 46, true)
		l.Append(header.None, 48, 54, 56, 59, true)
		l.Append(header.None, 61, 64, 66, 67, true)
		l.Append(header.None, 69, 72, 74, 75, true)
		l.Own(head)
		l.Set("x-request-id", value)
		l.Remove("x-a")
		if string(l.Get("accept")) != "*/*" || l.GetID(header.Host) == nil || l.Has("x-none") || l.Size() == 0 {
			t.Fatal("a look-up went wrong")
		}
		l.RemoveFunc(func(name, _ []byte) bool { return len(name) > 100 })
		out = l.AppendHTTP1(out[:0])
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if want := "Host: a.example\r\nUser-Agent: x\r\nAccept: */*\r\nX-B: 2\r\nx-request-id: " + string(value) + "\r\n"; string(out) != want {
		t.Errorf("got %q", out)
	}
}

func BenchmarkAppendHTTP1(b *testing.B) {
	l := parsed("Host: a.example", "User-Agent: x", "Accept: */*", "X-A: 1", "X-B: 2", "X-C: 3", "X-D: 4", "X-E: 5", "X-F: 6", "X-G: 7")
	l.SetString("x-request-id", "0b5e6c1e-6a1c-4b43-8a1a-0c6a6f6f6d6e")
	out := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		out = l.AppendHTTP1(out[:0])
	}
}

func TestHasPrefix(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"X-Envoy-Retry-On": true, "x-envoy-a": true, "x-envoy-": false, "x-envo": false, "y-x-envoy-a": false} {
		var l header.List
		l.AddString("host", "a")
		l.AddString(name, "1")
		if got := l.HasPrefix("x-envoy-"); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
