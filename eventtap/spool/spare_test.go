// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"testing"
)

// fileOf returns the file of the active segment.
func fileOf(l *Log, d *disk) *image { return d.files[l.active.name] }

// around appends and acknowledges until a segment has begun in a file that was written before, and returns the last number.
func around(t *testing.T, l *Log, d *disk) (last uint64) {
	t.Helper()
	seen := map[*image]string{}
	for n := uint64(1); len(seen) < 4; n += 10 {
		mustAppend(t, l, n, n+9)
		im := fileOf(l, d)
		if name, there := seen[im]; there && name != l.active.name {
			return n + 9
		}
		seen[im] = l.active.name
		came, _, _ := readAll(t, l)
		inOrder(t, came, n, n+9)
		l.Ack(n+9, nil)
	}
	t.Fatal("each segment has a file of its own")
	return 0
}

// TestSpare writes over the file of a segment that is done with: the bound counts it as long as it is, and after a crash
// nothing of what it held comes back, or stays.
func TestSpare(t *testing.T) {
	t.Parallel()
	for name, k := range map[string][]byte{"plain": nil, "encrypted": key} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDisk(1)
			cfg := Config{MaxBytes: MinBytes, Key: k, files: d}
			l, _ := mustOpen(t, cfg)
			last := around(t, l, d)
			if got, want := l.Usage().Bytes, d.used()-slots*slotSize; got != want {
				t.Errorf("%d bytes are told of %d", got, want)
			}
			acked := l.active.base - 1
			l.Ack(acked, nil)
			if err := l.Save(); err != nil {
				t.Fatal(err)
			}
			d.crash(false)
			segs, err := list(d)
			if err != nil {
				t.Fatal(err)
			}
			s := segs[len(segs)-1]
			if got, err := look(d, s, true, true, k); err != nil || got.End != last+1 || got.Missing > 0 || got.Torn != (got.Broken > 0) {
				t.Errorf("%+v, %v", got, err)
			}

			l, rec := mustOpen(t, cfg)
			if rec.Acked < acked || rec.Pending != last-rec.Acked {
				t.Errorf("%+v, %d were appended", rec, last)
			}
			if got := d.used() - slots*slotSize; rec.Bytes != got || got > cfg.segmentBytes()/2 {
				t.Errorf("%d bytes are told of %d", rec.Bytes, got)
			}
			came, missing, counted := readAll(t, l)
			inOrder(t, came, rec.Acked+1, last)
			if missing+counted != 0 {
				t.Errorf("%d are missing, %d counted", missing, counted)
			}
			mustAppend(t, l, last+1, last+10)
			l.Ack(last+10, nil)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if d.files[spareName] != nil {
				t.Error("the spare file stays")
			}
		})
	}
}

// TestSpareMakesRoom has a full spool of which a segment is acknowledged while the last one is not full: its file goes rather
// than being spare.
func TestSpareMakesRoom(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	l, _ := mustOpen(t, Config{MaxBytes: MinBytes, Refuse: true, files: d})
	last := around(t, l, d)
	fill := func() (n int) {
		for ; ; n++ {
			_, lost, err := l.Append(payloads(last+1, last+10))
			if got := d.used() - slots*slotSize; got > MinBytes || got != l.Usage().Bytes || lost > 0 {
				t.Fatalf("%d bytes, and %d are told; %d were lost", got, l.Usage().Bytes, lost)
			}
			if errors.Is(err, ErrFull) {
				return n
			} else if err != nil {
				t.Fatal(err)
			}
			last += 10
		}
	}
	fill()
	if l.active == nil {
		t.Fatal("the last segment is full as well")
	}
	readAll(t, l)
	l.Ack(l.segs[1].base-1, nil)
	if fill() == 0 || d.files[spareName] != nil {
		t.Error("the spare file keeps records out")
	}
}

// TestFailedSegmentIsNoSpare has an fsync that fails: the file is not trusted again.
func TestFailedSegmentIsNoSpare(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	l, _ := mustOpen(t, Config{MaxBytes: MinBytes, files: d})
	mustAppend(t, l, 1, 10)
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	bad := fileOf(l, d)
	mustAppend(t, l, 11, 20)
	d.failSync = 1
	if err := l.Sync(); err != nil || l.Usage().Poisoned != 1 {
		t.Fatalf("%v, %+v", err, l.Usage())
	}
	l.Ack(20, nil)
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	if !bad.gone || d.files[spareName] != nil {
		t.Error("the file of a segment that failed is kept")
	}
}
