// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/sys"
)

// payload is a record that can be told from all others; the length follows from the number.
func payload(n uint64) []byte {
	return []byte(fmt.Sprintf("record %d ", n) + strings.Repeat("x", int(n*37%400)))
}

func payloads(from, to uint64) (out [][]byte) {
	for ; from <= to; from++ {
		out = append(out, payload(from))
	}
	return out
}

var key = bytes.Repeat([]byte("k"), KeySize)

func mustOpen(t testing.TB, cfg Config) (*Log, Recovery) {
	t.Helper()
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 64 << 20
	}
	l, rec, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, rec
}

func mustAppend(t testing.TB, l *Log, from, to uint64) (lost uint64) {
	t.Helper()
	for from <= to {
		n := min(to, from+9)
		first, gone, err := l.Append(payloads(from, n))
		if err != nil {
			t.Fatal(err)
		}
		if first != from {
			t.Fatalf("the first number is %d, not %d", first, from)
		}
		from, lost = n+1, lost+gone
	}
	return lost
}

// readAll reads what there is, and returns the numbers of the records, whose content it checks, and of the missing.
func readAll(t testing.TB, l *Log) (came []uint64, missing, counted uint64) {
	t.Helper()
	for {
		recs, err := l.Read(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			return came, missing, counted
		}
		for _, r := range recs {
			switch {
			case r.Missing > 0 && r.Counted:
				counted += r.Missing
			case r.Missing > 0:
				missing += r.Missing
			case !bytes.Equal(r.Payload, payload(r.Seq)):
				t.Fatalf("record %d is %q", r.Seq, r.Payload)
			default:
				came = append(came, r.Seq)
			}
		}
	}
}

// inOrder checks that the numbers rise by one from the first to the last.
func inOrder(t testing.TB, came []uint64, first, last uint64) {
	t.Helper()
	for i, n := range came {
		if n != first+uint64(i) {
			t.Fatalf("number %d at place %d, the first is %d", n, i, first)
		}
	}
	if want := last + 1 - first; uint64(len(came)) != want {
		t.Fatalf("%d records came of %d to %d", len(came), first, last)
	}
}

func TestAppendAndRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"plain", Config{}},
		{"batch", Config{Commit: Batch}},
		{"never flushed", Config{Commit: None}},
		{"encrypted", Config{Key: key}},
		{"small segments", Config{MaxBytes: 2 << 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.cfg.Dir, c.cfg.Tag = filepath.Join(t.TempDir(), "a", "b"), []byte("one")
			l, rec := mustOpen(t, c.cfg)
			if rec.Pending != 0 || rec.Acked != 0 || rec.CursorLost {
				t.Errorf("%+v", rec)
			}
			if recs, err := l.Read(nil); err != nil || len(recs) > 0 {
				t.Errorf("an empty spool gives %v, %v", recs, err)
			}
			const n = 5000
			mustAppend(t, l, 1, n/2)
			came, _, _ := readAll(t, l)
			inOrder(t, came, 1, n/2)
			mustAppend(t, l, n/2+1, n)
			came, _, _ = readAll(t, l)
			inOrder(t, came, n/2+1, n)
			l.Ack(1234, []byte("a note"))
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}

			c.cfg.Tag = []byte("two")
			l, rec = mustOpen(t, c.cfg)
			if rec.Acked != 1234 || string(rec.Note) != "a note" || rec.Pending != n-1234 || rec.Torn != 0 {
				t.Errorf("%+v", rec)
			}
			mustAppend(t, l, n+1, n+100)
			came, missing, counted := readAll(t, l)
			inOrder(t, came, 1235, n+100)
			if missing+counted != 0 {
				t.Errorf("%d are missing", missing+counted)
			}
			l.Ack(n+100, nil)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			checkModes(t, c.cfg.Dir)
			if names, _ := folder(c.cfg.Dir).names(); len(names) > 2+1 {
				t.Errorf("everything is acknowledged, and there is still %q", names)
			}
		})
	}
}

// checkModes holds that nobody else can read the spool.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(fileMode)
		if d.IsDir() {
			want = dirMode
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir()}
	for run := range uint64(3) {
		cfg.Tag = fmt.Appendf(nil, "run %d", run)
		l, _ := mustOpen(t, cfg)
		mustAppend(t, l, run*10+1, run*10+10)
		recs, err := l.Read(nil)
		for err == nil && len(recs) < int(run+1)*10 {
			recs, err = l.Read(recs)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if want := fmt.Sprintf("run %d", (r.Seq-1)/10); string(r.Tag) != want {
				t.Errorf("record %d has the tag %q, want %q", r.Seq, r.Tag, want)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), MaxBytes: MinBytes}
	l, _ := mustOpen(t, cfg)
	if _, _, err := Open(cfg); !errors.Is(err, sys.ErrLocked) {
		t.Errorf("a second process got %v", err)
	}
	if r, err := Inspect(cfg.Dir, true, nil); err != nil || !r.InUse {
		t.Errorf("%+v, %v", r, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, _ = mustOpen(t, cfg)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := Inspect(cfg.Dir, true, nil); err != nil || r.InUse {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, cfg := range map[string]Config{
		"too small":    {Dir: dir, MaxBytes: MinBytes - 1},
		"a short key":  {Dir: dir, MaxBytes: MinBytes, Key: []byte("short")},
		"a long tag":   {Dir: dir, MaxBytes: MinBytes, Tag: make([]byte, MaxTag+1)},
		"not a folder": {Dir: filepath.Join("/dev/null", "x"), MaxBytes: MinBytes},
	} {
		if l, _, err := Open(cfg); err == nil {
			t.Errorf("%s: it opened", name)
			l.Close()
		}
	}
	l, _ := mustOpen(t, Config{Dir: dir, MaxBytes: MinBytes})
	defer l.Close()
	if _, _, err := l.Append([][]byte{make([]byte, MaxRecord+1)}); err == nil {
		t.Error("a record that is too large was taken")
	}
	if _, _, err := l.Append([][]byte{make([]byte, MaxRecord), make([]byte, MaxRecord)}); err == nil {
		t.Error("more than a segment was taken")
	}
	l.Ack(1, make([]byte, MaxNote+1))
	if _, _, acked := l.Position(); acked != 0 {
		t.Error("a note that is too long was taken")
	}
}

// TestKey has the wrong key, none, and records of before there was one.
func TestKey(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), MaxBytes: MinBytes}
	l, _ := mustOpen(t, cfg)
	mustAppend(t, l, 1, 10)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Key = key
	l, _ = mustOpen(t, cfg)
	mustAppend(t, l, 11, 20)
	came, _, _ := readAll(t, l)
	inOrder(t, came, 1, 20)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "*"+extension))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[1])
	if err != nil || bytes.Contains(b, []byte("record")) {
		t.Errorf("the text can be read: %v", err)
	}
	for name, k := range map[string][]byte{"none": nil, "another": bytes.Repeat([]byte("w"), KeySize)} {
		cfg.Key = k
		if _, _, err := Open(cfg); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Records that change places are no records: the number and the head are part of the seal.
	lo, n := HeadSize, FrameSize+len(payload(11))+sealSize
	one := bytes.Clone(b[lo : lo+n])
	copy(one[12:], b[lo+n+12:lo+n+20]) // the number of the next
	closeFrame(one)
	copy(b[lo:], one)
	if err := os.WriteFile(files[1], b, fileMode); err != nil {
		t.Fatal(err)
	}
	cfg.Key = key
	l, _ = mustOpen(t, cfg)
	defer l.Close()
	came, missing, _ := readAll(t, l)
	if missing != 1 || len(came) != 19 {
		t.Errorf("%d are missing, %d came", missing, len(came))
	}
}

// TestCap fills a spool that nobody reads, and one that somebody does.
func TestCap(t *testing.T) {
	t.Parallel()
	t.Run("the oldest go", func(t *testing.T) {
		t.Parallel()
		l, _ := mustOpen(t, Config{Dir: t.TempDir(), MaxBytes: MinBytes})
		defer l.Close()
		const n = 20000
		mustAppend(t, l, 1, 100)
		before, _, _ := readAll(t, l)
		inOrder(t, before, 1, 100)
		lost := mustAppend(t, l, 101, n)
		came, missing, counted := readAll(t, l)
		if lost == 0 || counted < lost || missing != 0 || uint64(len(came))+lost != n-100 {
			t.Errorf("lost %d, counted %d, missing %d, came %d", lost, counted, missing, len(came))
		}
		inOrder(t, came, n+1-uint64(len(came)), n)
		if u := l.Usage(); u.Bytes > MinBytes || u.Evicted != lost || u.Bytes < MinBytes/2 {
			t.Errorf("%+v", u)
		}
	})
	t.Run("the newest are refused", func(t *testing.T) {
		t.Parallel()
		l, _ := mustOpen(t, Config{Dir: t.TempDir(), MaxBytes: MinBytes, Refuse: true})
		defer l.Close()
		var n uint64
		fill := func() {
			for {
				if _, _, err := l.Append(payloads(n+1, n+1)); errors.Is(err, ErrFull) {
					return
				} else if err != nil {
					t.Fatal(err)
				}
				n++
			}
		}
		fill()
		came, _, _ := readAll(t, l)
		inOrder(t, came, 1, n)
		full := n
		l.Ack(n/2, nil)
		fill()
		if n < full+full/4 {
			t.Errorf("after half was acknowledged, %d more were taken", n-full)
		}
		came, missing, counted := readAll(t, l)
		inOrder(t, came, full+1, n)
		if missing+counted != 0 {
			t.Errorf("%d are missing", missing+counted)
		}
	})
	t.Run("what is read is not lost", func(t *testing.T) {
		t.Parallel()
		l, _ := mustOpen(t, Config{Dir: t.TempDir(), MaxBytes: MinBytes})
		defer l.Close()
		var lost, total uint64
		for from := uint64(1); from < 20000; from += 100 {
			lost += mustAppend(t, l, from, from+99)
			came, missing, counted := readAll(t, l)
			total += uint64(len(came))
			if missing+counted != 0 {
				t.Fatalf("%d are missing", missing+counted)
			}
		}
		if lost != 0 || total != 20000 {
			t.Errorf("lost %d, came %d", lost, total)
		}
	})
}

// TestTornAtEveryByte cuts the last segment at every byte: what is before the cut comes, and nothing else.
func TestTornAtEveryByte(t *testing.T) {
	t.Parallel()
	for _, k := range [][]byte{nil, key} {
		cfg := Config{Dir: t.TempDir(), MaxBytes: MinBytes, Key: k, Commit: None}
		l, _ := mustOpen(t, cfg)
		const n = 6
		mustAppend(t, l, 1, n)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(cfg.Dir, segmentName(1))
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for cut := range len(whole) + 1 {
			for _, junk := range []bool{false, true} {
				b := bytes.Clone(whole[:cut])
				if junk {
					b = append(b, make([]byte, 100)...) // a file system may have grown the file and not have written it
					if cut < len(whole) && whole[cut] == 0 {
						b[cut] = 1 // it would have been what was torn off
					}
				}
				if err := os.WriteFile(path, b, fileMode); err != nil {
					t.Fatal(err)
				}
				want := intact(whole, cut)
				l, rec := mustOpen(t, cfg)
				came, missing, _ := readAll(t, l)
				if uint64(len(came)) != want || missing != 0 || cut >= HeadSize && rec.Pending != want {
					t.Fatalf("cut at %d: %d came and %d are missing, want %d; %+v", cut, len(came), missing, want, rec)
				}
				first, _, err := l.Append(payloads(want+1, want+1))
				if err != nil || first != want+1 {
					t.Fatalf("cut at %d: number %d, %v", cut, first, err)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				for _, name := range mustNames(t, cfg.Dir) {
					if name != filepath.Base(path) && name != lockName {
						if err := os.Remove(filepath.Join(cfg.Dir, name)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
	}
}

func mustNames(t testing.TB, dir string) []string {
	t.Helper()
	names, err := folder(dir).names()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// intact counts the frames of a segment that end before a place.
func intact(b []byte, cut int) (n uint64) {
	for at := HeadSize; at < len(b); n++ {
		f, err := parseFrame(b[at:])
		if err != nil {
			panic(err)
		}
		if at += f.size; at > cut {
			break
		}
	}
	if cut < HeadSize {
		return 0
	}
	return n
}

// TestFlippedBits turns a bit at every byte of a segment that is not the last: at most the record that it is in is
// missing, and counted.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	for _, k := range [][]byte{nil, key} {
		cfg := Config{Dir: t.TempDir(), MaxBytes: MinBytes, Key: k, Commit: None}
		const n = 6
		for run := range uint64(2) {
			l, _ := mustOpen(t, cfg)
			mustAppend(t, l, run*n+1, run*n+n)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(cfg.Dir, segmentName(1))
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := range whole {
			b := bytes.Clone(whole)
			b[at] ^= 1 << (at % 8)
			if err := os.WriteFile(path, b, fileMode); err != nil {
				t.Fatal(err)
			}
			l, rec := mustOpen(t, cfg)
			came, missing, _ := readAll(t, l)
			wantMissing := uint64(1)
			if at < HeadSize {
				wantMissing = n
			}
			if missing != wantMissing || uint64(len(came))+missing != 2*n || rec.Pending != 2*n {
				t.Fatalf("byte %d: %d came and %d are missing; %+v", at, len(came), missing, rec)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := Inspect(cfg.Dir, true, k)
			if err != nil || at >= HeadSize && r.Segments[0].Missing != 1 || at < HeadSize && r.Segments[0].Err == nil {
				t.Fatalf("byte %d: %+v, %v", at, r, err)
			}
			for _, name := range mustNames(t, cfg.Dir) {
				if base, ok := isSegment(name); ok && base > 2*n {
					t.Fatal("a segment was made without need:", name)
				}
			}
		}
	}
}

// TestCursorIsSafe flips and tears the cursor: the slot before takes over, and with both gone everything comes again.
func TestCursorIsSafe(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), MaxBytes: MinBytes}
	l, _ := mustOpen(t, cfg)
	mustAppend(t, l, 1, 100)
	for _, n := range []uint64{10, 20, 30} {
		l.Ack(n, fmt.Appendf(nil, "note %d", n))
		if err := l.Save(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, cursorName)
	whole, err := os.ReadFile(path)
	if err != nil || len(whole) != slots*slotSize {
		t.Fatal(len(whole), err)
	}
	latest := 3 % slots * slotSize
	for at := range slotSize {
		b := bytes.Clone(whole)
		b[latest+at] ^= 0x10
		if p, broken, err := readCursor(bytes.NewReader(b)); p.acked != 20 || string(p.note) != "note 20" || broken || err != nil {
			t.Fatalf("byte %d: %+v, %v, %v", at, p, broken, err)
		}
	}
	if err := os.WriteFile(path, make([]byte, slots*slotSize), fileMode); err != nil {
		t.Fatal(err)
	}
	l, rec := mustOpen(t, cfg)
	defer l.Close()
	if !rec.CursorLost || rec.Pending != 100 {
		t.Errorf("%+v", rec)
	}
	came, _, _ := readAll(t, l)
	inOrder(t, came, 1, 100)
}

// TestFailedFlush has an fsync that fails: the segment is not used again, and what was in it is flushed elsewhere.
func TestFailedFlush(t *testing.T) {
	t.Parallel()
	for _, k := range [][]byte{nil, key} {
		d := newDisk(1)
		l, _ := mustOpen(t, Config{Commit: Interval, Key: k, files: d})
		mustAppend(t, l, 1, 100)
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, 101, 150)
		came, _, _ := readAll(t, l)
		inOrder(t, came, 1, 150)
		mustAppend(t, l, 151, 200)
		d.failSync = 1
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		if u := l.Usage(); u.Poisoned != 1 {
			t.Errorf("%+v", u)
		}
		mustAppend(t, l, 201, 300)
		came, missing, _ := readAll(t, l)
		inOrder(t, came, 151, 300)
		if missing != 0 {
			t.Errorf("%d are missing", missing)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		d.crash(true)
		l, rec := mustOpen(t, Config{Key: k, files: d})
		came, missing, _ = readAll(t, l)
		inOrder(t, came, 1, 300)
		if rec.Pending != 300 || missing != 0 {
			t.Errorf("%+v, %d are missing", rec, missing)
		}
		names, _ := d.names()
		if !strings.Contains(strings.Join(names, " "), segmentName(101)) {
			t.Errorf("there is no new segment: %q", names)
		}
	}
}

// TestFailedTwice has the new segment fail as well: it is told, and writing goes on.
func TestFailedTwice(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	l, _ := mustOpen(t, Config{files: d})
	mustAppend(t, l, 1, 100)
	d.failSync = 2
	if err := l.Sync(); !errors.Is(err, errIO) {
		t.Errorf("%v", err)
	}
	mustAppend(t, l, 101, 200)
	if err := l.Sync(); err != nil {
		t.Error(err)
	}
	came, missing, _ := readAll(t, l)
	inOrder(t, came, 1, 200)
	if missing != 0 {
		t.Errorf("%d are missing", missing)
	}
}

// TestFullDisk has a disk that is full: nothing is lost that was taken, and it goes on when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	d := newDisk(1)
	l, _ := mustOpen(t, Config{files: d})
	d.room = 100 << 10
	var n uint64
	for {
		if _, _, err := l.Append(payloads(n+1, n+5)); err != nil {
			break
		}
		n += 5
	}
	for range 5 {
		if _, _, err := l.Append(payloads(n+1, n+5)); err == nil {
			t.Fatal("a full disk takes records")
		}
	}
	came, missing, _ := readAll(t, l)
	inOrder(t, came, 1, n)
	l.Ack(n, nil)
	if err := l.Save(); err != nil {
		t.Errorf("the cursor needs room: %v", err)
	}
	mustAppend(t, l, n+1, n+5)
	came, gaps, _ := readAll(t, l)
	inOrder(t, came, n+1, n+5)
	if missing+gaps != 0 {
		t.Errorf("%d are missing", missing+gaps)
	}
}

// TestNoReorder appends and reads at the same time, with a bound that makes the oldest go.
func TestNoReorder(t *testing.T) {
	t.Parallel()
	l, _ := mustOpen(t, Config{Dir: t.TempDir(), MaxBytes: MinBytes})
	const n = 60000
	wrote := make(chan uint64)
	go func() {
		var lost uint64
		for from := uint64(1); from <= n; from += 10 {
			_, gone, err := l.Append(payloads(from, from+9))
			if err != nil {
				t.Error(err)
			}
			lost += gone
			if from%1000 == 1 {
				if err := errors.Join(l.Sync(), l.Save()); err != nil {
					t.Error(err)
				}
			}
		}
		wrote <- lost
	}()
	var next, came, counted uint64 = 1, 0, 0
	var lost uint64
	for done := false; !done || next <= n; {
		select {
		case lost = <-wrote:
			done = true
		default:
		}
		recs, err := l.Read(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if r.Seq != next || r.Missing > 0 && !r.Counted {
				t.Fatalf("%d, and %d are missing, after %d", r.Seq, r.Missing, next-1)
			}
			if r.Missing > 0 {
				next, counted = next+r.Missing, counted+r.Missing
				continue
			}
			if !bytes.Equal(r.Payload, payload(r.Seq)) {
				t.Fatalf("record %d is %q", r.Seq, r.Payload)
			}
			next, came = next+1, came+1
			if came%500 == 0 {
				l.Ack(r.Seq, nil)
			}
		}
	}
	if came+lost != n || counted != lost {
		t.Errorf("%d came, %d were lost and %d were told, of %d", came, lost, counted, n)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzSegment(f *testing.F) {
	b := newTestSegment(f)
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add(b[HeadSize:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDisk(1)
		h, _ := d.open(segmentName(1), true)
		if _, err := h.WriteAt(b, 0); err != nil && len(b) > 0 {
			t.Fatal(err)
		}
		l, rec, err := Open(Config{MaxBytes: MinBytes, files: d})
		if err != nil {
			return
		}
		var n uint64
		for n < 1000 {
			recs, err := l.Read(nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(recs) == 0 {
				break
			}
			for _, r := range recs {
				n += max(r.Missing, 1)
			}
		}
		if rec.Pending < 1000 && n != rec.Pending {
			t.Fatalf("%d come of %d", n, rec.Pending)
		}
		if rec.Pending < 1<<60 {
			if _, _, err := l.Append([][]byte{b[:min(len(b), 100)]}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func newTestSegment(t testing.TB) []byte {
	d := newDisk(1)
	l, _ := mustOpen(t, Config{files: d})
	mustAppend(t, l, 1, 5)
	return d.files[segmentName(1)].now
}

// BenchmarkAppend is a record of 300 bytes, in batches of 512 that are flushed each.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name   string
		commit Commit
		key    []byte
	}{{"flushed", Batch, nil}, {"not flushed", None, nil}, {"encrypted", None, key}} {
		b.Run(c.name, func(b *testing.B) {
			l, _ := mustOpen(b, Config{Dir: b.TempDir(), Commit: c.commit, Key: c.key, MaxBytes: 256 << 20})
			defer l.Close()
			rec := make([][]byte, 512)
			for i := range rec {
				rec[i] = bytes.Repeat([]byte("e"), 300)
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				first, _, err := l.Append(rec)
				if err != nil {
					b.Fatal(err)
				}
				n += len(rec)
				l.Ack(first, nil)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
