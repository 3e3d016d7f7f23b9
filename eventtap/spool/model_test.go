// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
)

var modelSeeds = flag.Uint64("model.seeds", 100, "how many runs TestAgainstModel makes")

// TestAgainstModel appends, reads, acknowledges, crashes, cuts the power and fails at random, and holds what comes
// against what was appended.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range *modelSeeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			runModel(t, seed)
		})
	}
}

type model struct {
	t    *testing.T
	r    *rand.Rand
	d    *disk
	cfg  Config
	l    *Log
	last uint64 // appended with success
	base uint64 // of that, by earlier runs
	safe uint64 // and flushed
	read uint64 // returned by Read in this run
	ack  uint64
	held uint64 // the cursor that is saved
	// lost are counted by Append, missing and counted returned by Read, in this run.
	lost, missing, counted uint64
	hurt                   bool // a flush has failed whose records may be gone
	unsure                 bool // and no later run knows which are on the plates
	calm                   bool // runs are long enough to come round to files that were written before
}

func runModel(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	m := &model{t: t, r: r, d: newDisk(seed), cfg: Config{MaxBytes: MinBytes, Refuse: r.IntN(3) == 0, Commit: Commit(r.IntN(3))}}
	m.cfg.files = m.d
	if r.IntN(2) == 0 {
		m.cfg.Key = key
	}
	m.d.forgets, m.cfg.Groups, m.calm = r.IntN(2) == 0, r.IntN(5), r.IntN(2) == 0
	m.open()
	for range 400 {
		if n := m.l.Usage().Bytes; n > m.cfg.MaxBytes {
			t.Fatalf("%d bytes, at most %d are allowed", n, m.cfg.MaxBytes)
		}
		switch dice := r.IntN(100); {
		case dice < 45:
			m.append()
		case dice < 70:
			m.readSome()
		case dice < 80:
			m.ack = max(m.ack, m.ack+uint64(r.Int64N(int64(m.read-min(m.ack, m.read)+1))))
			m.l.Ack(m.ack, fmt.Append(nil, m.ack))
		case dice < 90:
			m.sync()
		case dice < 92:
			m.d.failSync = r.IntN(3)
		case dice < 94:
			m.d.failWrite = r.IntN(2)
		case dice < 95:
			m.d.room = []int64{0, MinBytes / 2, m.d.used() + 1000}[r.IntN(3)]
		case m.calm && r.IntN(8) > 0:
			m.drain()
			m.ack = m.read
			m.l.Ack(m.ack, fmt.Append(nil, m.ack))
		default:
			m.end(r.IntN(3))
			m.open()
		}
	}
	m.d.room, m.d.failSync, m.d.failWrite = 0, 0, 0
	m.end(0)
	m.open()
	m.drain()
	if m.l.Close() != nil {
		t.Error("it does not close")
	}
}

func (m *model) open() {
	l, rec, err := Open(m.cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	m.l = l
	if rec.CursorLost && m.cfg.Commit != None {
		m.t.Fatal("the cursor is lost")
	}
	m.ack, m.read = rec.Acked, rec.Acked
	appended, _, _ := l.Position()
	if appended < m.safe {
		m.t.Fatalf("%d were flushed, and %d are there", m.safe, appended)
	}
	m.last, m.safe, m.base = appended, appended, appended
	if m.unsure {
		m.safe = 0
	}
	m.lost, m.missing, m.counted = 0, 0, 0
}

func (m *model) append() {
	n := uint64(m.r.IntN(30) + 1)
	if m.calm {
		n *= 3
	}
	first, lost, err := m.l.Append(payloads(m.last+1, m.last+n))
	m.lost += lost
	if err != nil {
		if m.d.room == 0 && !m.cfg.Refuse && !errors.Is(err, errIO) {
			m.t.Fatal(err)
		}
		return
	}
	if first != m.last+1 {
		m.t.Fatalf("number %d after %d", first, m.last)
	}
	m.last += n
	if m.cfg.Commit == Batch {
		m.flushed()
	}
}

func (m *model) readSome() {
	recs, err := m.l.Read(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, r := range recs {
		if r.Seq != m.read+1 {
			m.t.Fatalf("number %d after %d", r.Seq, m.read)
		}
		switch {
		case r.Missing > 0 && r.Counted:
			m.counted += r.Missing
			m.read += r.Missing
		case r.Missing > 0:
			m.missing += r.Missing
			m.read += r.Missing
		default:
			if !bytes.Equal(r.Payload, payload(r.Seq)) {
				m.t.Fatalf("record %d is %q", r.Seq, r.Payload)
			}
			m.read++
		}
	}
	if len(recs) == 0 && m.read != m.last {
		m.t.Fatalf("nothing comes behind %d of %d", m.read, m.last)
	}
}

func (m *model) sync() {
	if err := m.l.Sync(); err == nil && m.cfg.Commit != None {
		m.flushed()
	}
	if err := m.l.Save(); err == nil {
		m.held = m.ack
	}
}

// flushed takes note that what this run has appended is on the plates. It says nothing of earlier runs.
func (m *model) flushed() {
	if m.last > m.base {
		m.safe, m.unsure = m.last, false
	}
}

// end ends the run: in order, by a crash of the process, or by a loss of power.
func (m *model) end(how int) {
	defer func() {
		if u := m.l.Usage(); u.Unsafe > 0 || u.Poisoned > 0 && m.d.forgets {
			m.safe, m.hurt, m.unsure = 0, true, true
		}
	}()
	m.hurt = m.hurt || how == 2
	if u := m.l.Usage(); u.Poisoned > 0 && m.d.forgets || u.Unsafe > 0 {
		m.hurt = true
	}
	switch how {
	case 0:
		if err := m.l.Close(); err == nil {
			m.held = m.ack
		}
		m.flushed()
	case 1:
		m.d.crash(false)
		m.flushed() // the system has it
	default:
		if m.cfg.Commit == None {
			m.safe, m.held, m.unsure = 0, 0, true
		}
		m.d.crash(true)
	}
	if m.missing > 0 && !m.hurt {
		m.t.Fatalf("%d were missing on a disk that keeps what it has", m.missing)
	}
}

func (m *model) drain() {
	for m.read < m.last {
		m.readSome()
	}
}
