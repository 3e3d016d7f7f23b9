// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// The cursor's file has two slots that are written in turn: a crash in the middle of one leaves the other. Writing it
// takes no new room, so that it works on a full disk. A slot holds a magic number, how often the cursor was saved, the
// number up to which everything is acknowledged, the length of the note, the note, and a CRC-32C.
const (
	slotSize = 128
	slots    = 2
	atTurn   = 8
	atAcked  = 16
	atNote   = 24
	// MaxNote is the size of the longest note, in bytes.
	MaxNote = slotSize - atNote - 1 - 4
)

var slotMagic = []byte("MTCURSR1")

// position is up to where everything is acknowledged, and what whoever acknowledged it wants to know when it comes back.
type position struct {
	turn, acked uint64
	note        []byte
}

func (p *position) append(dst []byte) []byte {
	b := make([]byte, slotSize)
	copy(b, slotMagic)
	binary.LittleEndian.PutUint64(b[atTurn:], p.turn)
	binary.LittleEndian.PutUint64(b[atAcked:], p.acked)
	b[atNote] = byte(len(p.note))
	copy(b[atNote+1:], p.note)
	binary.LittleEndian.PutUint32(b[slotSize-4:], crc32.Checksum(b[:slotSize-4], castagnoli))
	return append(dst, b...)
}

func parseSlot(b []byte) (p position, ok bool) {
	if string(b[:8]) != string(slotMagic) || int(b[atNote]) > MaxNote ||
		binary.LittleEndian.Uint32(b[slotSize-4:]) != crc32.Checksum(b[:slotSize-4], castagnoli) {
		return position{}, false
	}
	p.turn, p.acked = binary.LittleEndian.Uint64(b[atTurn:]), binary.LittleEndian.Uint64(b[atAcked:])
	p.note = append([]byte(nil), b[atNote+1:atNote+1+int(b[atNote])]...)
	return p, true
}

// readCursor returns the later of the two slots. broken says that there is a cursor and neither slot can be read.
func readCursor(f io.ReaderAt) (p position, broken bool, err error) {
	var b [slots * slotSize]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return position{}, false, err
	}
	found := false
	for i := range slots {
		if s, ok := parseSlot(b[i*slotSize:][:slotSize]); ok && (!found || s.turn > p.turn) {
			p, found = s, true
		}
	}
	return p, !found && n > 0, nil
}

// writeCursor writes the slot whose turn it is.
func writeCursor(f io.WriterAt, p *position) error {
	_, err := f.WriteAt(p.append(nil), int64(p.turn%slots)*slotSize)
	return err
}
