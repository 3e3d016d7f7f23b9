// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"errors"
	"io"
)

// bufSize is the buffer of a walker, in bytes: more than the largest frame.
const bufSize = 128 << 10

// walker reads the frames of a segment in order, and finds its way again behind what is broken.
type walker struct {
	f    io.ReaderAt
	at   int64 // of buf[lo] in the file
	size int64 // where the file ends
	// buf[lo:hi] is read and not yet taken.
	buf    []byte
	lo, hi int
}

// start begins at a place of a file.
func (w *walker) start(f io.ReaderAt, at, size int64) {
	if w.buf == nil {
		w.buf = make([]byte, bufSize)
	}
	w.f, w.at, w.size, w.lo, w.hi = f, at, size, 0, 0
}

// errMore says that the next frame is not in the buffer.
var errMore = errors.New("read on")

// next returns the next frame, and how many bytes before it are none. io.EOF comes with what is left behind the last.
// The payload is valid until the buffer is filled again, which next does itself where fill is set and otherwise leaves
// to the caller by returning errMore.
func (w *walker) next(fill bool) (f frame, skipped int64, err error) {
	for {
		f, err = parseFrame(w.buf[w.lo:w.hi])
		end := w.at+int64(w.hi-w.lo) >= w.size
		switch {
		case err == nil:
			w.skip(f.size)
			return f, skipped, nil
		case w.lo == w.hi && end:
			return frame{}, skipped, io.EOF
		case w.lo == w.hi, errors.Is(err, errShort) && !end:
			if !fill {
				return frame{}, skipped, errMore
			}
			if err := w.fill(); err != nil {
				return frame{}, skipped, err
			}
			continue
		}
		n := w.broken()
		skipped += int64(n)
		w.skip(n)
	}
}

func (w *walker) skip(n int) { w.lo, w.at = w.lo+n, w.at+int64(n) }

// broken returns how far it is to where a frame may begin next.
func (w *walker) broken() int {
	rest := w.buf[w.lo+1 : w.hi]
	if i := bytes.Index(rest, frameMagic); i >= 0 {
		return 1 + i
	}
	// The magic may begin in the last bytes.
	return 1 + max(len(rest)-len(frameMagic)+1, 0)
}

// fill reads on behind what is left in the buffer.
func (w *walker) fill() error {
	left := copy(w.buf, w.buf[w.lo:w.hi])
	w.lo, w.hi = 0, left
	want := min(int64(len(w.buf)-left), w.size-w.at-int64(left))
	if want <= 0 {
		return nil
	}
	n, err := w.f.ReadAt(w.buf[left:left+int(want)], w.at+int64(left))
	w.hi += n
	if n > 0 {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		w.size = w.at + int64(left) // the file is shorter than it was
		return nil
	}
	return err
}
