// SPDX-License-Identifier: Apache-2.0

package eventtap

import "encoding/binary"

// Reason is why an event was dropped.
type Reason uint8

// The reasons.
const (
	// RingFull: the queue between requests and the batcher had no memory.
	RingFull Reason = iota
	// SinkFull: the queue of a sink that is slow or down had no memory.
	SinkFull
	// Refused: the bus will never take the event.
	Refused
	// Shutdown: the event came after Close, or was not acknowledged when Close's deadline came.
	Shutdown
	// Internal: the tap itself failed on the event.
	Internal
	// SpoolFull: the spool of a sink had reached its bound.
	SpoolFull
	// SpoolFailed: the disk of the spool did not write, and the queue before it had no memory.
	SpoolFailed
	// SpoolCorrupt: the disk did not give back what had been written.
	SpoolCorrupt
	// Sampled: the sink's mode for the class is Sample, and the event was thinned out; others carry its weight.
	Sampled
	// Unselected: the sink's mode for the class is Off.
	Unselected
	// Filtered: the filter of the event's policy leaves it out, at every sink.
	Filtered
	NumReasons
)

// early tells whether events are dropped for the reason before they reach the sinks.
func (r Reason) early() bool { return r == RingFull || r == Internal || r == Filtered }

// String returns the reason as events and metrics spell it.
func (r Reason) String() string {
	return [...]string{"ring_full", "sink_full", "refused", "shutdown", "internal", "spool_full", "spool_failed", "spool_corrupt",
		"sampled", "unselected", "filtered"}[r]
}

// loss is a gap: count events that were dropped between two others for one reason. The numbers of a gap that has not
// reached the batcher are 0. A gap may span numbers that were lost for another reason; count is exact.
type loss struct {
	reason                  Reason
	count                   uint64
	firstSeq, lastSeq       uint64
	firstStream, lastStream uint64
	firstTime, lastTime     int64
}

const lossSize = 8 * 8

func (l *loss) put(b []byte) {
	for i, v := range [...]uint64{uint64(l.reason), l.count, l.firstSeq, l.lastSeq, l.firstStream, l.lastStream,
		uint64(l.firstTime), uint64(l.lastTime)} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
}

func getLoss(b []byte) loss {
	v := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	return loss{Reason(v(0)), v(1), v(2), v(3), v(4), v(5), int64(v(6)), int64(v(7))}
}

// losses holds one loss for each reason.
type losses struct {
	n int
	l [NumReasons]loss
}

func (s *losses) all() []loss { return s.l[:s.n] }

// add counts events that were dropped at a time, one after another.
func (s *losses) add(reason Reason, count uint64, time int64) {
	s.merge(loss{reason: reason, count: count, firstTime: time, lastTime: time})
}

// merge adds a loss that comes after those of its reason.
func (s *losses) merge(l loss) {
	for i := range s.all() {
		if have := &s.l[i]; have.reason == l.reason {
			have.count += l.count
			have.lastSeq, have.lastStream, have.lastTime = l.lastSeq, l.lastStream, l.lastTime
			return
		}
	}
	s.l[s.n] = l
	s.n++
}
