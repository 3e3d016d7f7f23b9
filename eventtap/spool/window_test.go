// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"slices"
	"testing"
)

// rot turns every byte of a file behind its head.
func (d *disk) rot(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.files[name].now[headSize:] {
		d.files[name].now[headSize+i] ^= 0xff
	}
}

// TestWindow has a disk that gives nothing back: what Read returns is what is in memory, which is the newest, and no more
// than it may be.
func TestWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		cfg  Config
		want []uint64 // of what four appends of two records each have written
	}{
		{"none", Config{}, nil},
		{"one piece is for what is written", Config{Groups: 1}, nil},
		{"two", Config{Groups: 2}, []uint64{5, 6, 7, 8}},
		{"three, encrypted", Config{Groups: 3, Key: key}, []uint64{3, 4, 5, 6, 7, 8}},
		{"more than there is", Config{Groups: 9, Commit: Batch}, []uint64{1, 2, 3, 4, 5, 6, 7, 8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDisk(1)
			c.cfg.files = d
			l, _ := mustOpen(t, c.cfg)
			for n := uint64(1); n <= 8; n += 2 {
				mustAppend(t, l, n, n+1)
			}
			d.rot(segmentName(1))
			came, missing, _ := readAll(t, l)
			if !slices.Equal(came, c.want) || len(came)+int(missing) != 8 {
				t.Errorf("%v came, and %d are missing", came, missing)
			}
			if l.made > max(c.cfg.Groups, 1) {
				t.Errorf("%d pieces of memory", l.made)
			}
		})
	}
}

// TestWindowIsLeft has a reader that falls behind and catches up, several times: it goes on at the right place of the disk.
func TestWindowIsLeft(t *testing.T) {
	t.Parallel()
	l, _ := mustOpen(t, Config{Groups: 3, files: newDisk(1), MaxBytes: MinBytes})
	last := uint64(0)
	for behind := range 60 { // over several segments
		n := last + uint64(behind%5)*20 + 1
		mustAppend(t, l, last+1, n)
		came, _, _ := readAll(t, l)
		inOrder(t, came, last+1, n)
		last = n
		l.Ack(last, nil)
	}
}

// TestRecordOfTwoParts appends heads and tails apart.
func TestRecordOfTwoParts(t *testing.T) {
	t.Parallel()
	for _, groups := range []int{0, 4} {
		l, _ := mustOpen(t, Config{Groups: groups, files: newDisk(1)})
		if _, _, err := l.AppendParts([][]byte{[]byte("he"), nil}, [][]byte{[]byte("ad"), []byte("tail")}); err != nil {
			t.Fatal(err)
		}
		recs, err := l.Read(nil)
		if err != nil || len(recs) != 2 || string(recs[0].Payload) != "head" || string(recs[1].Payload) != "tail" {
			t.Errorf("%d groups: %+v, %v", groups, recs, err)
		}
		if _, _, err := l.AppendParts([][]byte{make([]byte, 1)}, [][]byte{make([]byte, MaxRecord)}); err == nil {
			t.Error("a record that is too large in two parts was taken")
		}
	}
}
