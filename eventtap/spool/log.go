// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
)

// Commit says when records are flushed to the disk.
type Commit uint8

// The commit modes.
const (
	// Interval flushes when Sync is called, which the writer does every so often: a loss of power costs that time.
	Interval Commit = iota
	// Batch flushes each Append before its records can be read.
	Batch
	// None leaves it to the system: a crash of the process loses nothing, a loss of power what the system had not written.
	None
)

// Config is what a spool is.
type Config struct {
	// Dir is the folder, which is made with the mode 0700 where it is not there.
	Dir string
	// MaxBytes bounds the segments and the spare file, in bytes; at least MinBytes.
	MaxBytes int64
	// Refuse makes Append fail with ErrFull where there is no room; otherwise the oldest segment goes.
	Refuse bool
	Commit Commit
	// Key encrypts what is appended: KeySize bytes, or nil.
	Key []byte
	// Tag goes with all records of this run; at most MaxTag bytes.
	Tag []byte
	// Groups is in how many pieces of memory the newest records stay, one for each call of Append: that which is being
	// written and that which Read has returned are two of them, and what is in the others Read does not take from the
	// disk. Below 2 it takes everything from there. A piece is as large as the largest Append, rounded up to a power of 2.
	Groups int
	// OnFlush, where it is not nil, is called before each flush of what was appended or acknowledged: a test is a slow disk.
	OnFlush func()

	files files // of a test
}

const (
	// MinBytes is the least that a spool needs, in bytes.
	MinBytes = 1 << 20
	// A spool has so many segments when it is full: what is dropped at once, at most.
	minSegments = 16
	maxSegment  = 64 << 20
)

func (c *Config) segmentBytes() int64 { return min(c.MaxBytes/minSegments, maxSegment) }

// ErrFull says that a record would take the spool over its bound.
var ErrFull = errors.New("the spool is full")

// Log is an open spool.
type Log struct {
	// Immutable.
	cfg   Config
	files files
	held  io.Closer // the lock

	// Owned by the writer.
	active *segment // nil before the first record
	out    file     // the active segment
	sealed []byte   // what is written where records are encrypted
	cursor file
	saved  position // in the cursor's file
	marked bool     // and not flushed
	doubt  bool     // a flush has failed: what was written may be gone

	mu sync.Mutex
	// Guarded by mu. Segments are in order, and the last may be the active one.
	segs    []*segment
	next    uint64 // the number of the next record
	read    uint64 // up to here Read has returned everything
	gone    uint64 // up to here everything that was not read is gone, and was counted
	acked   uint64
	note    []byte
	spare   int64    // the length of the spare file, 0 where there is none
	window  []*group // the newest records that nobody has read, in order
	free    []*group
	made    int    // groups
	poison  uint64 // segments that are not trusted any more
	unsafe  uint64 // flushes that failed for good
	evicted uint64 // records that went for want of room and had not been read

	reader reader
}

// segment is one file. Its records have the numbers from head.base up to, and without, end; some may be missing.
type segment struct {
	name   string
	head   *head // nil where it cannot be read
	base   uint64
	end    uint64
	size   int64
	length int64  // of the file, where it was written before and is longer than size; 0 otherwise
	whole  bool   // no write and no flush of it has failed
	synced int64  // bytes known to be on the disk; owned by the writer
	safe   uint64 // records before this one are among them; owned by the writer
}

// Recovery is what Open has found.
type Recovery struct {
	// Acked is the last record that is acknowledged, with the note that came with it; 0 where there is none.
	Acked uint64
	Note  []byte
	// Pending counts the records that are not acknowledged, the missing ones among them included.
	Pending uint64
	// Torn counts the bytes that were cut from the end: what a crash has torn, or the rest of what the file held before it
	// was written over.
	Torn int64
	// CursorLost says that the cursor could not be read, so that what was acknowledged comes again.
	CursorLost bool
	// Bytes is the size of the segments.
	Bytes int64
}

// Open opens a spool, and makes one where there is none. It takes the folder for this process until Close.
func Open(cfg Config) (*Log, Recovery, error) {
	if err := cfg.validate(); err != nil {
		return nil, Recovery{}, err
	}
	l := &Log{cfg: cfg, files: cfg.files}
	if l.files == nil {
		d := folder(cfg.Dir)
		if err := d.make(); err != nil {
			return nil, Recovery{}, fmt.Errorf("spool: %w", err)
		}
		l.files = d
	}
	var err error
	if l.held, err = l.files.lock(); err != nil {
		return nil, Recovery{}, fmt.Errorf("spool %s: %w", cfg.Dir, err)
	}
	rec, err := l.recover()
	if err != nil {
		l.release()
		return nil, Recovery{}, fmt.Errorf("spool %s: %w", cfg.Dir, err)
	}
	return l, rec, nil
}

func (c *Config) validate() error {
	switch {
	case c.MaxBytes < MinBytes:
		return fmt.Errorf("spool: %d bytes, at least %d are needed", c.MaxBytes, MinBytes)
	case c.Key != nil && len(c.Key) != KeySize:
		return fmt.Errorf("spool: a key of %d bytes, it must have %d", len(c.Key), KeySize)
	case len(c.Tag) > MaxTag:
		return fmt.Errorf("spool: a tag of %d bytes, at most %d are allowed", len(c.Tag), MaxTag)
	}
	return nil
}

// recover reads the cursor, and every segment from there on.
func (l *Log) recover() (rec Recovery, err error) {
	if l.cursor, err = l.files.open(cursorName, true); err != nil {
		return rec, err
	}
	if l.saved, rec.CursorLost, err = readCursor(l.cursor); err != nil {
		return rec, err
	}
	l.acked, l.note = l.saved.acked, l.saved.note
	if err := l.makeSlots(rec.CursorLost); err != nil {
		return rec, err
	}
	if err := l.files.remove(spareName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return rec, err
	}
	if l.segs, err = list(l.files); err != nil {
		return rec, err
	}
	for i, s := range l.segs {
		if i+1 < len(l.segs) {
			s.end = l.segs[i+1].base
		}
		last := i+1 == len(l.segs)
		if !last && s.end <= l.acked+1 {
			continue // nothing of it will be read; Save removes it
		}
		torn, err := l.examine(s, last)
		if err != nil {
			return rec, fmt.Errorf("%s: %w", s.name, err)
		}
		rec.Torn += torn
	}
	l.next = l.acked + 1
	for _, s := range l.segs {
		l.next = max(l.next, s.end)
	}
	if len(l.segs) > 0 {
		// What is missing before the first segment went for want of room, and was counted then.
		l.gone = max(l.segs[0].base, 1) - 1
	}
	l.read = l.acked
	rec.Acked, rec.Note, rec.Bytes = l.acked, slices.Clone(l.note), l.bytes()
	rec.Pending = l.next - 1 - max(l.acked, l.gone)
	return rec, nil
}

// makeSlots writes both slots of a cursor that does not have them, so that saving needs no room. Where that fails, Save tells.
func (l *Log) makeSlots(lost bool) error {
	info, err := l.cursor.Stat()
	if err != nil || !lost && info.Size() >= slots*slotSize {
		return err
	}
	for range slots {
		l.saved.turn++
		_ = writeCursor(l.cursor, &l.saved)
	}
	if l.cfg.Commit != None {
		l.doubt = l.cursor.Sync() != nil
	}
	l.marked = true
	return nil
}

// list returns the segments of a folder, in order, with their heads.
func list(d files) ([]*segment, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	var segs []*segment
	for _, name := range names {
		base, ok := isSegment(name)
		if !ok {
			continue
		}
		s := &segment{name: name, base: base, end: base}
		f, err := d.open(name, false)
		if err != nil {
			return nil, err
		}
		b := make([]byte, headSize)
		_, err = f.ReadAt(b, 0)
		if err == nil {
			// A head that cannot be read makes the segment a hole.
			if h, bad := parseHead(b); bad == nil && h.base == base {
				s.head = h
			}
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
		if info, bad := f.Stat(); bad == nil {
			s.size = info.Size()
		} else {
			err = cmp.Or(err, bad)
		}
		if err = cmp.Or(err, f.Close()); err != nil {
			return nil, err
		}
		segs = append(segs, s)
	}
	return segs, nil
}

// examine finds the end of a segment. Of the last one it cuts off what a crash has torn.
func (l *Log) examine(s *segment, last bool) (torn int64, err error) {
	if s.head != nil {
		if _, err := s.head.cipher(l.cfg.Key); err != nil {
			return 0, err
		}
	}
	f, err := l.files.open(s.name, false)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	end := int64(headSize)
	var w walker
	w.start(f, headSize, s.size)
	limit := uint64(1<<64 - 1)
	if !last {
		limit = s.end
	}
	for {
		fr, _, err := w.next(true)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		// Behind an fsync that failed, records may be in the next segment as well; behind the end of a segment in a file
		// that was written before, older ones are left.
		if s.base <= fr.seq && fr.seq < limit {
			end = w.at
			if last {
				s.end = max(s.end, fr.seq+1)
			}
		}
	}
	if torn = max(s.size-end, 0); torn > 0 && last && s.head != nil {
		if err := f.Truncate(end); err != nil {
			return 0, err
		}
	}
	if last && s.head != nil {
		s.size = end
		return torn, nil
	}
	return 0, nil
}

// Position returns the last record that was appended, the last that was read and the last that was acknowledged.
func (l *Log) Position() (appended, read, acked uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next - 1, l.read, l.acked
}

// Usage is how full a spool is, and what has gone wrong with it since it was opened.
type Usage struct {
	// Bytes is the size of the files: the segments, and the spare one.
	Bytes int64
	// Poisoned counts the segments that are not trusted any more, after a write or an fsync that failed.
	Poisoned uint64
	// Unsafe counts those of them whose records could not be written elsewhere either: a loss of power may cost them.
	Unsafe uint64
	// Evicted counts the records that went for want of room before they were read.
	Evicted uint64
}

// Usage returns how full the spool is.
func (l *Log) Usage() Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Usage{l.bytes(), l.poison, l.unsafe, l.evicted}
}

// bytes returns how long the files are together. mu must be held.
func (l *Log) bytes() int64 {
	n := l.spare
	for _, s := range l.segs {
		n += max(s.size, s.length)
	}
	return n
}

// Ack takes note that everything up to a record is done with. Save writes that down, with the note of the latest call,
// which may have MaxNote bytes. A number below that of an earlier call changes nothing.
func (l *Log) Ack(seq uint64, note []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq >= l.acked && len(note) <= MaxNote {
		l.acked, l.note = seq, append(l.note[:0], note...)
	}
}

// release gives back what Open has taken.
func (l *Log) release() error {
	var errs []error
	for _, c := range []io.Closer{l.out, l.cursor, l.reader.f, l.held} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	l.out, l.cursor, l.reader.f, l.held = nil, nil, nil, nil
	return errors.Join(errs...)
}
