// SPDX-License-Identifier: Apache-2.0

package spool

import "testing"

// TestCursorFlushFails has an fsync of the cursor fail that drops what it should have written: the next one, which says that
// all is well, does not make the spool remove what the cursor on the disk does not know to be acknowledged.
func TestCursorFlushFails(t *testing.T) {
	t.Parallel()
	d := newDisk(3)
	d.forgets = true
	cfg := Config{MaxBytes: MinBytes, files: d}
	l, _ := mustOpen(t, cfg)
	mustAppend(t, l, 1, 100)
	if err := l.retire(); err != nil {
		t.Fatal(err)
	}
	l.Ack(100, []byte("note"))
	d.failSync = 1
	if err := l.Save(); err == nil {
		t.Error("nobody is told that the cursor is not on the disk")
	}
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	d.crash(true)
	l, rec := mustOpen(t, cfg)
	defer l.Close()
	if rec.Acked != 100 || string(rec.Note) != "note" || rec.Pending != 0 || rec.CursorLost {
		t.Errorf("%+v", rec)
	}
}

// TestFirstCursor has the power go before anything was acknowledged, and a first write that failed: there is a cursor.
func TestFirstCursor(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		d := newDisk(seed)
		d.failWrite = int(seed % 2)
		cfg := Config{MaxBytes: MinBytes, files: d}
		l, _ := mustOpen(t, cfg)
		mustAppend(t, l, 1, 100)
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		d.crash(true)
		l, rec := mustOpen(t, cfg)
		if rec.CursorLost || rec.Pending != 100 {
			t.Errorf("seed %d: %+v", seed, rec)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
