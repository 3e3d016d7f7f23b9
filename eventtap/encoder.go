// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"encoding/binary"
	"strconv"

	"github.com/meshtap/meshtap/eventtap/event"
)

// The bounds of a batch beside MaxBatch, in bytes.
const (
	bodyBytes = 64 << 10
	bodyFull  = bodyBytes - event.MaxSize
	nameBytes = 16 << 10
	maxNames  = 1 << 10 // those of one event
	// flightBytes is what one batch takes of a sink's memory.
	flightBytes = bodyBytes + nameBytes
)

// The layout of a record in a sink's queue: streamseq, sequence, the rate at which it was sampled, kind, form, the length
// of the key, the key, and the event in the sink's form without its streamseq and its rate.
const (
	atRate   = 16
	atKind   = 20
	atForm   = 21
	atKeyLen = 22
	sinkHead = 24
)

// The forms of an event in a record.
const (
	formProto = iota
	formJSON
)

func putSinkRecord(b []byte, stream uint64, rate uint32, e *encoded, json bool, key, body []byte) int {
	le := binary.LittleEndian
	le.PutUint64(b, stream)
	le.PutUint64(b[8:], e.seq)
	le.PutUint32(b[atRate:], rate)
	b[atKind], b[atForm] = byte(e.kind), formProto
	if json {
		b[atForm] = formJSON
	}
	le.PutUint16(b[atKeyLen:], uint16(len(key)))
	n := sinkHead + copy(b[sinkHead:], key)
	return n + copy(b[n:], body)
}

// numberOf returns the numbers of a record.
func numberOf(b []byte) number {
	return number{seq: binary.LittleEndian.Uint64(b[8:]), stream: binary.LittleEndian.Uint64(b)}
}

// parts takes a record apart. ok is false where it is none, which the disk of a spool can do.
func parts(b []byte) (key, body []byte, ok bool) {
	if len(b) < sinkHead {
		return nil, nil, false
	}
	end := sinkHead + int(binary.LittleEndian.Uint16(b[atKeyLen:]))
	if end > len(b) || len(b)-end > event.MaxSize || end > sinkHead+maxNames || event.Kind(b[atKind]) >= event.NumKinds {
		return nil, nil, false
	}
	return b[sinkHead:end], b[end:], true
}

// encoder lays out the records of a sink's queue as the sink asked for.
type encoder struct {
	caps               Caps
	json               bool // the form of the records
	name, boot, source []byte
	ev                 event.Event
	tmp                []byte
}

// number names an event in both of its sequences. old is the boot of an event of an earlier run, which a spool has kept.
type number struct {
	seq, stream uint64
	old         []byte
}

// flight is a batch on its way, with the memory for its bytes.
type flight struct {
	batch   Batch
	body    []byte
	names   []byte   // ids and keys
	numbers []number // of the batch's events; a lost event has none
	events  uint64   // those that have
	stored  uint64   // those of them that the spool has
	before  place    // in the spool, of what comes before the batch
	sent    bool     // and done was not called yet
	settled bool     // it has landed, and one before it has not
	done    func(error)
}

func (f *flight) reset() {
	if f.body == nil {
		f.body, f.names = make([]byte, 0, bodyBytes), make([]byte, 0, nameBytes)
	}
	f.batch.Events, f.batch.Body = f.batch.Events[:0], nil
	f.body, f.names, f.numbers, f.events, f.stored = f.body[:0], f.names[:0], f.numbers[:0], 0, 0
}

func (f *flight) full() bool {
	return len(f.batch.Events) == MaxBatch || len(f.body) > bodyFull || len(f.names) > nameBytes-maxNames
}

// add appends a record, or tells of a loss.
func (c *encoder) add(f *flight, it *item) {
	var n number
	var ev Event
	var body []byte
	rate := uint32(0)
	if it.loss.count > 0 {
		ev = Event{Kind: event.Lost, Key: noKey}
		body = c.lost(&it.loss, c.bootOf(it))
	} else {
		n = numberOf(it.b)
		n.old = it.old
		key, b, _ := parts(it.b)
		ev = Event{Kind: event.Kind(it.b[atKind]), Sequence: n.seq, Key: f.keep(key)}
		body, rate = b, binary.LittleEndian.Uint32(it.b[atRate:])
		if c.json != (it.b[atForm] == formJSON) {
			body = c.translate(body)
		}
		f.events++
		if it.stored {
			f.stored++
		}
	}
	if !c.caps.Keyed {
		ev.Key = nil
	}
	if c.caps.Encoding.separate() || len(f.batch.Events) == 0 {
		ev.ID = c.id(f, c.bootOf(it), n.seq, &it.loss)
	}
	ev.Body = c.body(f, body, n.stream, rate)
	f.numbers = append(f.numbers, n)
	f.batch.Events = append(f.batch.Events, ev)
}

// bootOf returns the boot of an item.
func (c *encoder) bootOf(it *item) []byte {
	if it.old != nil {
		return it.old
	}
	return c.boot
}

// translate returns an event in the sink's form that is in the other one: it was spooled before the sink was changed. An
// event that cannot be read is returned as it is, for the bus to refuse.
func (c *encoder) translate(body []byte) []byte {
	if c.json {
		if c.ev.DecodeProto(body) != nil {
			return body
		}
		c.tmp = c.ev.AppendJSON(c.tmp[:0])
	} else {
		if c.ev.DecodeJSON(body) != nil {
			return body
		}
		c.tmp = c.ev.AppendProto(c.tmp[:0])
	}
	return c.tmp
}

// body appends an event, with its streamseq and rate where it has them, and what the encoding puts around it.
func (c *encoder) body(f *flight, body []byte, stream uint64, rate uint32) []byte {
	size := len(body)
	if stream != 0 {
		size += event.StreamSeqSize
	}
	if rate > 1 {
		size += event.SampledRateSize(rate)
	}
	switch c.caps.Encoding {
	case JSONBatch:
		sep := byte(',')
		if len(f.body) == 0 {
			sep = '['
		}
		f.body = append(f.body, sep)
	case ProtoBatch:
		f.body = event.AppendProtoBatchHead(f.body, size)
	case ProtoDelimited:
		f.body = binary.AppendUvarint(f.body, uint64(size))
	}
	lo := len(f.body)
	f.body = append(f.body, body...)
	if stream != 0 && c.json {
		f.body = event.AppendStreamSeqJSON(f.body, stream)
	} else if stream != 0 {
		f.body = event.AppendStreamSeq(f.body, stream)
	}
	if rate > 1 && c.json {
		f.body = event.AppendSampledRateJSON(f.body, rate)
	} else if rate > 1 {
		f.body = event.AppendSampledRate(f.body, rate)
	}
	hi := len(f.body)
	if c.caps.Encoding == JSONLines {
		f.body = append(f.body, '\n')
	}
	return f.body[lo:hi:hi]
}

// end completes the batch.
func (c *encoder) end(f *flight) {
	switch c.caps.Encoding {
	case JSONBatch:
		f.body = append(f.body, ']')
		f.batch.Body = f.body
	case JSONLines, ProtoDelimited, ProtoBatch:
		f.batch.Body = f.body
	}
}

func (f *flight) keep(b []byte) []byte {
	at := len(f.names)
	f.names = append(f.names, b...)
	return f.names[at:len(f.names):len(f.names)]
}

// id returns the id of an event, or of the lost event that tells of a loss.
func (c *encoder) id(f *flight, boot []byte, seq uint64, l *loss) []byte {
	at := len(f.names)
	f.names = c.appendID(f.names, boot, seq, l)
	return f.names[at:len(f.names):len(f.names)]
}

func (c *encoder) appendID(dst, boot []byte, seq uint64, l *loss) []byte {
	dst = append(append(dst, boot...), '-')
	if seq != 0 {
		return strconv.AppendUint(dst, seq, 10)
	}
	dst = append(append(dst, c.name...), '-')
	dst = append(append(dst, l.reason.String()...), '-')
	return strconv.AppendUint(dst, l.firstStream, 10)
}

// lost returns the event that tells of a loss, in the sink's form, until the next call.
func (c *encoder) lost(l *loss, boot []byte) []byte {
	e := &c.ev
	e.Reset(event.Lost)
	origin := c.name
	if l.reason.early() {
		origin = ringName
	}
	e.ID = c.appendID(nil, boot, 0, l)
	e.Source, e.BootID, e.PartitionKey, e.Time = c.source, boot, noKey, l.lastTime
	e.Texts[event.Reason], e.Texts[event.Origin] = []byte(l.reason.String()), origin
	for n, v := range map[event.Number]uint64{
		event.Count: l.count, event.FirstSequence: l.firstSeq, event.LastSequence: l.lastSeq,
		event.FirstStreamSeq: l.firstStream, event.LastStreamSeq: l.lastStream,
		event.FirstTime: uint64(l.firstTime), event.LastTime: uint64(l.lastTime),
	} {
		e.Numbers[n] = int64(v)
	}
	if c.json {
		c.tmp = e.AppendJSON(c.tmp[:0])
	} else {
		c.tmp = e.AppendProto(c.tmp[:0])
	}
	return c.tmp
}

var ringName = []byte("ring")
