// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestFinder(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		blocks []string
		stream []string // as it comes
		want   bool
	}{
		{"whole", []string{"PONG"}, []string{"PONG"}, true},
		{"something around", []string{"PONG"}, []string{"+PONG\r\n"}, true},
		{"in pieces", []string{"PONG"}, []string{"P", "O", "N", "G"}, true},
		{"in order", []string{"ab", "cd"}, []string{"xxabxxcdxx"}, true},
		{"out of order", []string{"ab", "cd"}, []string{"cdab"}, false},
		{"no overlap", []string{"aa", "aa"}, []string{"aaa"}, false},
		{"neighbours", []string{"aa", "aa"}, []string{"aaaa"}, true},
		{"across pieces", []string{"ab", "cd"}, []string{"a", "bc", "d"}, true},
		{"a false start", []string{"aab"}, []string{"aa", "ab"}, true},
		{"too little", []string{"PONG"}, []string{"PON"}, false},
		{"something else", []string{"PONG"}, []string{"ERROR loading"}, false},
		{"an empty block", []string{"", "a", ""}, []string{"a"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := finder{}
			for _, b := range tc.blocks {
				f.blocks = append(f.blocks, []byte(b))
			}
			got := false
			for _, p := range tc.stream {
				got = f.feed([]byte(p))
			}
			if got != tc.want {
				t.Errorf("found %v, want %v", got, tc.want)
			}
		})
	}
}

// inOrder is the finder done the plain way, on all of the stream.
func inOrder(blocks [][]byte, stream []byte) bool {
	for _, b := range blocks {
		i := bytes.Index(stream, b)
		if i < 0 {
			return false
		}
		stream = stream[i+len(b):]
	}
	return true
}

// findInPieces feeds a stream in pieces of the sizes that cuts tells, and checks what the finder holds back.
func findInPieces(t *testing.T, blocks [][]byte, stream, cuts []byte) bool {
	f := finder{blocks: blocks}
	found := f.feed(nil)
	for i := 0; len(stream) > 0; i++ {
		n := len(stream)
		if i < len(cuts) {
			n = min(n, int(cuts[i]%8))
		}
		found = f.feed(stream[:n])
		stream = stream[n:]
		if !found && len(f.rest) >= len(f.blocks[0]) {
			t.Fatalf("holds %d bytes back for a block of %d", len(f.rest), len(f.blocks[0]))
		}
	}
	return found
}

func FuzzFinder(f *testing.F) {
	f.Add([]byte("a"), []byte("ab"), []byte("xaab"), []byte{1, 2})
	f.Add([]byte(""), []byte("PONG"), []byte("+PONG\r\n"), []byte{3})
	f.Fuzz(func(t *testing.T, one, two, stream, cuts []byte) {
		blocks := [][]byte{one, two}
		if got, want := findInPieces(t, blocks, stream, cuts), inOrder(blocks, stream); got != want {
			t.Errorf("found %v, want %v", got, want)
		}
	})
}

func TestFinderAgainstSearch(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	letters := func(n int) []byte {
		p := make([]byte, r.IntN(n))
		for i := range p {
			p[i] = "ab"[r.IntN(2)]
		}
		return p
	}
	found := 0
	for range 20_000 {
		blocks := [][]byte{letters(4), letters(4), letters(4)}
		stream, cuts := letters(30), letters(30)
		got, want := findInPieces(t, blocks, stream, cuts), inOrder(blocks, stream)
		if got != want {
			t.Fatalf("%q in %q: found %v, want %v", blocks, stream, got, want)
		}
		if got {
			found++
		}
	}
	if found == 0 || found == 20_000 {
		t.Errorf("found %d times: the streams are no test", found)
	}
}
