// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// Append writes records behind those that are there, all or none. It returns the number of the first, and how many
// older records went to make room before anyone had read them. On an error nothing was appended, and the same records
// may be given again.
func (l *Log) Append(records [][]byte) (first, lost uint64, err error) {
	return l.AppendParts(nil, records)
}

// AppendParts is Append for records in two parts: heads[i] comes before tails[i]. No heads are empty ones.
func (l *Log) AppendParts(heads, tails [][]byte) (first, lost uint64, err error) {
	var size int64
	for i := range tails {
		n := len(tails[i])
		if heads != nil {
			n += len(heads[i])
		}
		if n > MaxRecord {
			return 0, 0, fmt.Errorf("spool: a record of %d bytes, at most %d are allowed", n, MaxRecord)
		}
		size += int64(n + Overhead)
	}
	if size > l.cfg.segmentBytes()-headSize {
		return 0, 0, fmt.Errorf("spool: %d bytes at once, at most %d are allowed", size, l.cfg.segmentBytes()-headSize)
	}
	if l.active != nil && l.active.size+size > l.cfg.segmentBytes() {
		if err := l.retire(); err != nil {
			return 0, 0, err
		}
		_ = l.Save() // so that a file is spare; where the cursor cannot be saved, the next call tries again, and tells
	}
	if lost, err = l.makeRoom(size); err != nil {
		return 0, lost, err
	}
	if l.active == nil {
		if err := l.begin(l.upcoming()); err != nil {
			return 0, lost, err
		}
	}
	first, err = l.write(heads, tails, int(size))
	return first, lost, err
}

// upcoming is the number of the next record. Only the writer changes it.
func (l *Log) upcoming() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

func (l *Log) write(heads, tails [][]byte, size int) (first uint64, err error) {
	s := l.active
	aead, err := s.head.cipher(l.cfg.Key)
	if err != nil {
		return 0, err
	}
	first = l.upcoming()
	g := l.blank(size)
	g.fill(s, first, heads, tails)
	out := g.buf
	if aead != nil {
		l.sealed = g.seal(l.sealed[:0], aead)
		out = l.sealed
	}
	_, err = l.out.WriteAt(out, s.size)
	if err == nil && l.cfg.Commit == Batch {
		if err = l.flush(l.out); err == nil {
			s.synced, s.safe = s.size+int64(len(out)), g.end
		}
	}
	if err != nil {
		l.putBack(g)
		// What of it is on the disk is not known, and a number of an encrypted record is not used twice: no more of this
		// segment.
		l.abandon()
		return 0, fmt.Errorf("spool: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g.at, g.till = s.size, s.size+int64(len(out))
	s.size, s.end, l.next = g.till, g.end, g.end
	l.publish(g)
	return first, nil
}

func segmentName(base uint64) string { return fmt.Sprintf("%020d%s", base, extension) }

// begin starts a segment.
func (l *Log) begin(base uint64) error {
	h, err := newHead(base, l.cfg.Tag, l.cfg.Key)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s := &segment{name: segmentName(base), head: h, base: base, end: base, safe: base, size: headSize, whole: true}
	f, err := l.create(s)
	if err == nil && l.cfg.Commit != None {
		if err = l.files.sync(); err != nil {
			_ = f.Close()
			_ = l.files.remove(s.name)
		}
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	l.out, l.active = f, s
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segs = dropName(l.segs, s.name)
	l.segs = append(l.segs, s)
	return nil
}

// create makes the file of a segment, with its head: of the spare one where there is one.
func (l *Log) create(s *segment) (file, error) {
	if f := l.reuse(s); f != nil {
		return f, nil
	}
	f, err := l.files.open(s.name, true)
	if err != nil {
		return nil, err
	}
	// A file of this name can be there: one that was begun, and failed or had nothing in it when the process ended.
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(s.head.raw, 0)
	}
	if err != nil {
		_ = f.Close()
		_ = l.files.remove(s.name)
		return nil, err
	}
	return f, nil
}

func dropName(segs []*segment, name string) []*segment {
	if n := len(segs); n > 0 && segs[n-1].name == name {
		return segs[:n-1]
	}
	return segs
}

// retire ends the active segment, flushed.
func (l *Log) retire() error {
	if l.active == nil {
		return nil
	}
	if err := l.Sync(); err != nil {
		return err
	}
	if l.active == nil {
		return nil
	}
	if l.active.length > 0 {
		l.trim(l.active)
	}
	err := l.out.Close()
	l.out, l.active = nil, nil
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// trim cuts the file of the active segment off behind its last record.
func (l *Log) trim(s *segment) {
	if err := l.out.Truncate(s.size); err != nil {
		return // what stays counts, and its records are too old to be taken for new ones
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.length = 0
}

// abandon ends the active segment behind the last record that was appended.
func (l *Log) abandon() {
	s := l.active
	s.whole = false
	l.trim(s) // so that nobody finds a record there that does not count
	l.poisoned()
	if err := l.Sync(); err == nil && l.active != nil {
		_ = l.out.Close()
		l.out, l.active = nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.segs); n > 0 && l.segs[n-1] == s && s.end == s.base {
		l.segs = l.segs[:n-1]
	}
}

// Sync flushes what was appended. Where that fails, the segment is given up: what was not flushed of it is read back and
// written to a new segment, which is flushed; the error is then only told of in Usage. An error says that this failed
// as well: the records can still be read, and may not survive a loss of power.
func (l *Log) Sync() error {
	s := l.active
	if s == nil || l.cfg.Commit == None || s.synced == s.size {
		return nil
	}
	err := l.flush(l.out)
	if err == nil {
		s.synced, s.safe = s.size, s.end
		return nil
	}
	if again := l.move(s); again != nil {
		l.mu.Lock()
		l.unsafe++
		l.mu.Unlock()
		return fmt.Errorf("spool: %w; and again in a new segment: %w", err, again)
	}
	return nil
}

func (l *Log) flush(f file) error {
	if l.cfg.OnFlush != nil {
		l.cfg.OnFlush()
	}
	return f.Sync()
}

// move writes the records of the active segment that are not known to be on the disk to a new one.
func (l *Log) move(s *segment) error {
	records, seqs, err := l.notSafe(s)
	l.poisoned()
	old := l.out
	l.out, l.active = nil, nil
	defer old.Close()
	if err != nil || len(records) == 0 {
		return err
	}
	h, err := newHead(s.safe, l.cfg.Tag, l.cfg.Key)
	if err != nil {
		return err
	}
	f, n, err := l.rewrite(h, records, seqs)
	if err != nil {
		return err
	}
	l.mu.Lock()
	to := &segment{name: segmentName(h.base), head: h, base: h.base, end: s.end, size: n, synced: n, safe: s.end}
	s.end, s.size, s.length, s.whole = h.base, max(s.synced, headSize), 0, false
	cut := s.size
	if s.base == h.base {
		l.segs = l.segs[:len(l.segs)-1] // it has the same name
	}
	l.segs = append(l.segs, to)
	l.mu.Unlock()
	l.out, l.active = f, to
	if s.base != h.base {
		_ = old.Truncate(cut) // recovery passes over what stays
	}
	return nil
}

func (l *Log) poisoned() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.poison++
}

// notSafe reads back the records that are not known to be on the disk. What cannot be read any more is left out: it is a
// hole, which the reader finds.
func (l *Log) notSafe(s *segment) (records [][]byte, seqs []uint64, err error) {
	aead, err := s.head.cipher(l.cfg.Key)
	if err != nil {
		return nil, nil, err
	}
	var w walker
	w.start(l.out, max(s.synced, headSize), s.size)
	for {
		fr, _, err := w.next(true)
		if err != nil {
			return records, seqs, nil // the end, or as far as it can be read
		}
		if p, err := fr.open(aead, s.head); err == nil && fr.seq >= s.safe {
			records, seqs = append(records, append([]byte(nil), p...)), append(seqs, fr.seq)
		}
	}
}

// rewrite writes a whole segment and flushes it. A file of the same name is replaced by it only as a whole.
func (l *Log) rewrite(h *head, records [][]byte, seqs []uint64) (f file, n int64, err error) {
	name := segmentName(h.base)
	_ = l.files.remove(name) // the poisoned one where nothing of it was safe; its open file goes on being read
	if f, err = l.files.open(name, true); err != nil {
		return nil, 0, err
	}
	var aead cipher.AEAD
	if aead, err = h.cipher(l.cfg.Key); err == nil {
		b := append([]byte(nil), h.raw...)
		for i, r := range records {
			b = appendRecord(b, seqs[i], r, aead, h)
		}
		n = int64(len(b))
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.files.sync()
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, n, nil
}

// MaxAppend is how many bytes Append takes at once, with Overhead for each record.
func (l *Log) MaxAppend() int { return int(l.cfg.segmentBytes() - headSize) }

// Overhead is what a record takes beside its own bytes, at most.
const Overhead = frameSize + sealSize

// makeRoom removes what is acknowledged, and then the oldest segments, until there is room. It returns how many records
// were lost by that.
func (l *Log) makeRoom(size int64) (lost uint64, err error) {
	for !l.fits(size) {
		if err := l.Save(); err != nil {
			return lost, err
		}
		if l.fits(size) || l.dropSpare() && l.fits(size) {
			break
		}
		if l.cfg.Refuse {
			return lost, ErrFull
		}
		n, ok := l.evict()
		if !ok {
			return lost, ErrFull
		}
		lost += n
	}
	return lost, nil
}

// evict removes the oldest segment.
func (l *Log) evict() (lost uint64, ok bool) {
	l.mu.Lock()
	if len(l.segs) == 0 || l.segs[0] == l.active {
		l.mu.Unlock()
		return 0, false
	}
	s := l.segs[0]
	l.segs = l.segs[1:]
	if from := max(s.base, l.read+1, l.gone+1); s.end > from {
		lost = s.end - from
	}
	l.gone = max(l.gone, s.end-1)
	l.evicted += lost
	l.mu.Unlock()
	_ = l.files.remove(s.name) // a file that stays is removed after the next start
	return lost, true
}

// Mark writes the cursor down without flushing it: a process that is killed afterwards comes back behind what it had
// acknowledged.
func (l *Log) Mark() error {
	l.mu.Lock()
	p := position{turn: l.saved.turn + 1, acked: l.acked, note: append([]byte(nil), l.note...)}
	l.mu.Unlock()
	if p.acked == l.saved.acked && bytes.Equal(p.note, l.saved.note) && !l.doubt {
		return nil
	}
	if err := writeCursor(l.cursor, &p); err != nil {
		return fmt.Errorf("spool: the cursor: %w", err)
	}
	l.saved, l.marked, l.doubt = p, true, false
	return nil
}

// Save writes the cursor down and flushes it, and removes the segments that are acknowledged as a whole.
func (l *Log) Save() error {
	if err := l.Mark(); err != nil {
		return err
	}
	if l.marked && l.cfg.Commit != None {
		if err := l.flush(l.cursor); err != nil {
			l.doubt = true // the next flush may say that all is well
			return fmt.Errorf("spool: the cursor: %w", err)
		}
	}
	l.marked = false
	for _, s := range l.finished() {
		if l.keepSpare(s) {
			continue
		}
		if err := l.files.remove(s.name); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	return nil
}

// finished takes the segments out whose records are all acknowledged in the saved cursor.
func (l *Log) finished() (segs []*segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.segs) > 0 && l.segs[0] != l.active && l.segs[0].end <= l.saved.acked+1 {
		segs = append(segs, l.segs[0])
		l.gone = max(l.gone, l.segs[0].end-1)
		l.segs = l.segs[1:]
	}
	return segs
}

// Close flushes, saves the cursor and gives the folder back. The reader must have returned.
func (l *Log) Close() error {
	err := errors.Join(l.retire(), l.Save())
	l.dropSpare()
	return errors.Join(err, l.release())
}
