// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/meshtap/meshtap/internal/sys"
)

// Report is what Inspect has found in a folder.
type Report struct {
	// InUse says that a process has the spool open; what it is just writing may look broken.
	InUse bool
	// Acked is the last record that is acknowledged, Note what came with it; CursorLost says that neither is known.
	Acked      uint64
	Note       []byte
	CursorLost bool
	Segments   []SegmentReport
}

// SegmentReport is one segment. Records, Missing and Broken are filled by a deep look only.
type SegmentReport struct {
	Name string
	// Base is the number of the first record, End the one behind the last.
	Base, End uint64
	Bytes     int64
	Encrypted bool
	Tag       []byte
	// Records counts those that can be read, Missing those between them that cannot, Broken the bytes that are no record.
	Records, Missing uint64
	Broken           int64
	// Torn says that broken bytes are at the end of the last segment, where a crash leaves them, or a file that is being
	// written over has them.
	Torn bool
	// Err says why nothing of it can be read.
	Err error
}

// Pending counts the records that are not acknowledged.
func (r *Report) Pending() (n uint64) {
	for _, s := range r.Segments {
		if from := max(s.Base, r.Acked+1); s.End > from {
			n += s.End - from
		}
	}
	return n
}

// readOnly is a folder that is only looked at.
type readOnly struct{ folder }

func (d readOnly) open(name string, _ bool) (file, error) {
	return os.Open(filepath.Join(string(d.folder), name))
}

// Inspect looks at a spool without changing it, also while a process uses it. A deep look reads every record; key may be
// nil where nothing is encrypted.
func Inspect(dir string, deep bool, key []byte) (*Report, error) {
	d := readOnly{folder(dir)}
	r := &Report{InUse: inUse(dir)}
	f, err := d.open(cursorName, false)
	if err == nil {
		var p position
		p, r.CursorLost, err = readCursor(f)
		r.Acked, r.Note = p.acked, p.note
		err = errors.Join(err, f.Close())
	} else if errors.Is(err, fs.ErrNotExist) {
		r.CursorLost, err = true, nil
	}
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	segs, err := list(d)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	for i, s := range segs {
		last := i+1 == len(segs)
		if !last {
			s.end = segs[i+1].base
		}
		out, err := look(d, s, last, deep || last, key)
		if err != nil {
			return nil, fmt.Errorf("spool: %s: %w", s.name, err)
		}
		if !deep {
			out.Records, out.Missing, out.Broken, out.Torn = 0, 0, 0, false
		}
		r.Segments = append(r.Segments, out)
	}
	return r, nil
}

// inUse tells whether a process holds the spool's lock.
func inUse(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false
	}
	defer f.Close()
	return sys.Locked(f)
}

// look reads a segment.
func look(d files, s *segment, last, deep bool, key []byte) (SegmentReport, error) {
	out := SegmentReport{Name: s.name, Base: s.base, End: s.end, Bytes: s.size}
	if s.head == nil {
		out.Err = errors.New("the head is broken")
		return out, nil
	}
	out.Encrypted, out.Tag = s.head.encrypted(), s.head.tag
	if !deep {
		return out, nil
	}
	f, err := d.open(s.name, false)
	if err != nil {
		return out, err
	}
	defer f.Close()
	aead, err := s.head.cipher(key)
	if err != nil {
		out.Err = err // the frames can be looked at without it
	}
	var w walker
	w.start(f, headSize, s.size)
	for next, torn := s.base, int64(0); ; {
		fr, skipped, err := w.next(true)
		out.Broken += skipped
		if torn += skipped; err == nil && fr.seq >= s.base { // older ones are left of what the file held before
			torn = 0
		}
		if errors.Is(err, io.EOF) {
			out.Torn = last && torn > 0
			if last {
				out.End = next
			} else if out.End > next {
				out.Missing += out.End - next
			}
			return out, nil
		}
		if err != nil {
			return out, err
		}
		if fr.seq < next || !last && fr.seq >= out.End {
			continue
		}
		if aead != nil {
			if _, err := fr.open(aead, s.head); err != nil {
				continue
			}
		}
		out.Missing += fr.seq - next
		out.Records++
		next = fr.seq + 1
	}
}
