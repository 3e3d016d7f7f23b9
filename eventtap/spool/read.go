// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// Record is what Read returns: a record, or records that are missing.
type Record struct {
	Seq uint64
	// Payload is what was appended, and Tag that of the run that did it. They are valid until the next call of Read.
	Payload, Tag []byte
	// Missing, where it is not 0, counts records that are missing from Seq on. Counted says that they went for want of
	// room, and that Append, in this run or an earlier one, has told so; otherwise they could not be read.
	Missing uint64
	Counted bool
}

// reader is the state of Read.
type reader struct {
	seg  *segment
	f    file
	aead cipher.AEAD
	w    walker
	errs int // that came one after another
	// group is what Read has returned last, nil where that came from the disk. Up to at of past everything was returned.
	group *group
	past  *segment
	at    int64
}

// maxReadErrors is how often reading may fail before the rest of a segment is given up.
const maxReadErrors = 3

// Read appends the next records to dst, none where there are no more yet. Every number is returned once, as a record or
// as missing.
func (l *Log) Read(dst []Record) ([]Record, error) {
	for {
		out, again, err := l.readSome(dst)
		if !again {
			return out, err
		}
	}
}

// readSome returns what one look gives. again says that it gave nothing and that there is more.
func (l *Log) readSome(dst []Record) (out []Record, again bool, err error) {
	s, limit, from, gap := l.where()
	if g := l.reader.group; g != nil {
		l.leave(g)
		return g.records(dst, from), false, nil
	}
	if gap.Missing > 0 {
		return append(dst, gap), false, nil
	}
	if s == nil {
		return dst, false, nil
	}
	if err := l.turnTo(s, limit.size); err != nil {
		return dst, false, err
	}
	out, last, err := l.take(dst, s, limit, from)
	if err != nil {
		return dst, false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone >= from && l.read < l.gone {
		// It went for want of room in the meantime, and was counted as not read.
		return dst, true, nil
	}
	again = last == l.read
	l.read = max(l.read, last)
	return out, again && l.hasMore(), nil
}

// extent is what of a segment may be read.
type extent struct {
	size   int64
	end    uint64
	sealed bool // nothing more will come
}

// leave turns the reader to behind what it found in memory: a segment that it left is not kept open.
func (l *Log) leave(g *group) {
	r := &l.reader
	if r.f != nil && r.seg != g.seg {
		_ = r.f.Close()
		r.seg, r.f = nil, nil
	}
	r.past, r.at = g.seg, g.till
}

// where finds the segment of the next record, and numbers that are in none. A record that is in the window it takes out, as
// reader.group.
func (l *Log) where() (s *segment, limit extent, from uint64, gap Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reader.group != nil {
		l.free, l.reader.group = append(l.free, l.reader.group), nil
	}
	from = l.read + 1
	if from <= l.gone {
		gap = Record{Seq: from, Missing: l.gone - l.read, Counted: true}
		l.read = l.gone
		return nil, extent{}, 0, gap
	}
	if g := l.recent(from); g != nil {
		l.read = g.end - 1
		return g.seg, extent{}, from, Record{}
	}
	for i, c := range l.segs {
		if c.end <= from {
			continue
		}
		if c.base > from {
			gap = Record{Seq: from, Missing: c.base - from}
			l.read = c.base - 1
			return nil, extent{}, 0, gap
		}
		limit = extent{c.size, c.end, i+1 < len(l.segs)}
		if len(l.window) > 0 && l.window[0].seg == c { // from there on it need not be read
			limit.size, limit.end = min(c.size, l.window[0].at), min(c.end, l.window[0].first)
		}
		return c, limit, from, Record{}
	}
	return nil, extent{}, 0, Record{}
}

// hasMore tells whether something was not read. mu must be held.
func (l *Log) hasMore() bool { return l.read+1 < l.next }

// turnTo opens a segment, and lets the walker see what has come to it.
func (l *Log) turnTo(s *segment, size int64) error {
	r := &l.reader
	at := int64(headSize)
	if r.past == s {
		at = r.at
	}
	if r.seg == s {
		if r.w.size = max(r.w.size, size); r.w.at < at {
			r.w.start(r.f, at, size)
		}
		return nil
	}
	if r.f != nil {
		_ = r.f.Close()
		r.f = nil
	}
	r.seg = nil
	if s.head == nil {
		r.w.start(nil, 0, 0)
		r.seg = s
		return nil
	}
	f, err := l.files.open(s.name, false)
	if err != nil {
		return l.patience(fmt.Errorf("spool: %w", err))
	}
	if r.aead, err = s.head.cipher(l.cfg.Key); err != nil {
		_ = f.Close()
		return fmt.Errorf("spool: %s: %w", s.name, err)
	}
	r.seg, r.f, r.errs = s, f, 0
	r.w.start(f, at, size)
	return nil
}

// patience returns an error that may pass by.
func (l *Log) patience(err error) error {
	l.reader.errs++
	return err
}

// take parses what one filling of the buffer holds. last is the last number that it covers.
func (l *Log) take(dst []Record, s *segment, limit extent, from uint64) (out []Record, last uint64, err error) {
	w := &l.reader.w
	if err := w.fill(); err != nil {
		if l.reader.errs++; l.reader.errs < maxReadErrors || !limit.sealed {
			return nil, 0, fmt.Errorf("spool: %w", err)
		}
		w.start(w.f, limit.size, limit.size) // the rest cannot be read
	}
	l.reader.errs = 0
	out = dst
	for {
		fr, _, err := w.next(false)
		if errors.Is(err, errMore) {
			return out, from - 1, nil
		}
		if errors.Is(err, io.EOF) {
			if limit.end > from { // all up to there was written, so it is broken
				out = append(out, Record{Seq: from, Missing: limit.end - from})
				from = limit.end
			}
			return out, from - 1, nil
		}
		if fr.seq < from || fr.seq >= limit.end {
			continue
		}
		p, err := fr.open(l.reader.aead, s.head)
		if err != nil {
			continue // it is missing
		}
		if fr.seq > from {
			out = append(out, Record{Seq: from, Missing: fr.seq - from})
		}
		out = append(out, Record{Seq: fr.seq, Payload: p, Tag: s.head.tag})
		from = fr.seq + 1
	}
}
