// SPDX-License-Identifier: Apache-2.0

package spool

// One file whose records are all acknowledged is kept to be written over: the system has its pages in memory and its
// blocks on the disk already, which makes a write and an fsync cost a half of what they do in a new file. Its length
// counts as used. What it still has of older records stands in frames with numbers from before the segment, and is passed
// over by whoever reads the file after a crash.

// keepSpare makes the file of a segment the spare one. It returns false where it does not, and the file is to be removed.
func (l *Log) keepSpare(s *segment) bool {
	if l.spare > 0 || !s.whole || l.files.rename(s.name, spareName) != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = max(s.size, s.length)
	return true
}

// dropSpare removes the spare file. It returns false where there is none.
func (l *Log) dropSpare() bool {
	if l.spare == 0 {
		return false
	}
	_ = l.files.remove(spareName) // a file that stays is written over by the next, or removed after the next start
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = 0
	return true
}

// reuse makes the spare file that of a new segment. It returns nil where it cannot.
func (l *Log) reuse(s *segment) file {
	if l.spare == 0 {
		return nil
	}
	f, err := l.files.open(spareName, false)
	if err != nil {
		l.dropSpare()
		return nil
	}
	// The head comes first: a file with the new name and an old head is one whose head is broken.
	if _, err = f.WriteAt(s.head.raw, 0); err == nil {
		err = l.files.rename(spareName, s.name)
	}
	if err != nil {
		_ = f.Close()
		l.dropSpare()
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.length, l.spare = l.spare, 0
	return f
}

// fits tells whether so many bytes of records keep the files within their bound.
func (l *Log) fits(size int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	grow := headSize + size - l.spare
	if s := l.active; s != nil {
		grow = s.size + size - max(s.size, s.length)
	}
	return l.bytes()+max(grow, 0) <= l.cfg.MaxBytes
}
