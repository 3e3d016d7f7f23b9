// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/spool"
)

// Drain reads the events that wait in the spool of a sink, for a person whose proxy does not come back. One goroutine
// uses it.
type Drain struct {
	log     *spool.Log
	recs    []spool.Record
	ev      event.Event
	out     []byte
	at      place
	missing uint64
}

// OpenDrain opens the spool of one sink, which no proxy may have open. key is nil where it is not encrypted.
func OpenDrain(dir string, key []byte) (*Drain, error) {
	// Nothing is appended, so the bound does not matter, nor do the other settings.
	log, rec, err := spool.Open(spool.Config{Dir: dir, MaxBytes: 1 << 50, Key: key})
	if err != nil {
		return nil, fmt.Errorf("eventtap: %w", err)
	}
	return &Drain{log: log, at: placeOf(rec.Acked, rec.Note)}, nil
}

// Next returns the next event in JSON, which is valid until the call after; io.EOF where there is none.
func (d *Drain) Next() ([]byte, error) {
	for {
		for len(d.recs) == 0 {
			var err error
			if d.recs, err = d.log.Read(d.recs[:0]); err != nil {
				return nil, err
			}
			if len(d.recs) == 0 {
				return nil, io.EOF
			}
		}
		r := d.recs[0]
		d.recs = d.recs[1:]
		if r.Missing > 0 {
			d.missing += r.Missing
			continue
		}
		_, b, ok := split(r.Payload)
		if !ok {
			d.missing++
			continue
		}
		n := numberOf(b)
		d.at = place{r.Seq, r.Tag, n.stream}
		return d.render(b, n)
	}
}

func (d *Drain) render(b []byte, n number) ([]byte, error) {
	_, body, _ := parts(b)
	if b[atForm] == formJSON {
		d.out = append(d.out[:0], body...)
	} else {
		if err := d.ev.DecodeProto(body); err != nil {
			return nil, err
		}
		d.out = d.ev.AppendJSON(d.out[:0])
	}
	d.out = event.AppendStreamSeqJSON(d.out, n.stream)
	if rate := binary.LittleEndian.Uint32(b[atRate:]); rate > 1 {
		d.out = event.AppendSampledRateJSON(d.out, rate)
	}
	return d.out, nil
}

// Missing counts the events that cannot be read, so far.
func (d *Drain) Missing() uint64 { return d.missing }

// Taken takes what Next has returned out of the spool.
func (d *Drain) Taken() error {
	d.log.Ack(d.at.seq, d.at.note())
	return d.log.Save()
}

// Close gives the spool back.
func (d *Drain) Close() error {
	if err := d.log.Close(); err != nil {
		return errors.Join(errors.New("eventtap: the spool did not close"), err)
	}
	return nil
}
