// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

var errProto = errors.New("event: not a CloudEvent in protobuf")

// DecodeProto reads an io.cloudevents.v1.CloudEvent into e, whose bytes are then borrowed from b. Fields and attributes
// that it does not know are passed over, as is the data of a type that it does not know. It refuses more than MaxSize
// bytes, text that is not UTF-8, and an event without the attributes that CloudEvents requires.
func (e *Event) DecodeProto(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("event: %d bytes, at most %d are allowed", len(b), MaxSize)
	}
	e.Reset(Unknown)
	var spec, data []byte
	r := reader{b: b}
	for r.next() {
		switch r.tag {
		case tagID:
			e.ID = r.text()
		case tagSource:
			e.Source = r.text()
		case tagSpec:
			spec = r.text()
		case tagType:
			e.Type = r.text()
		case tagAttribute:
			r.bad = !e.decodeAttribute(r.val) || r.bad
		case tagProtoData:
			data = r.val
		}
	}
	if r.bad {
		return errProto
	}
	return e.finish(spec, func() bool { return data == nil || e.decodeAny(data) })
}

// finish checks what CloudEvents requires and, once the kind is known, reads the data.
func (e *Event) finish(spec []byte, data func() bool) error {
	switch {
	case string(spec) != specVersion:
		return fmt.Errorf("event: specversion %q, must be %q", clip(spec), specVersion)
	case len(e.ID) == 0 || len(e.Source) == 0 || len(e.Type) == 0:
		return errors.New("event: id, source and type must not be empty")
	}
	if e.Kind = kindOf(e.Type); e.Kind != Unknown && !data() {
		return fmt.Errorf("event: the data is not a %s", messages[e.Kind].schema)
	}
	return nil
}

func clip(b []byte) []byte { return b[:min(len(b), 16)] }

func (e *Event) decodeAttribute(b []byte) bool {
	var key, val []byte
	r := reader{b: b}
	for r.next() {
		switch r.tag {
		case tagKey:
			key = r.text()
		case tagValue:
			val = r.val
		}
	}
	if r.bad {
		return false
	}
	r = reader{b: val}
	for r.next() {
		switch r.tag {
		case tagString:
			r.bad = !e.setAttribute(string(key), r.text()) || r.bad
		case tagInteger:
			if string(key) == "sampledrate" {
				r.bad = r.num == 0 || r.num > math.MaxInt32 || r.bad
				e.SampledRate = rate(r.num)
			}
		case tagTimestamp:
			if string(key) == "time" {
				r.bad = !e.decodeTime(r.val) || r.bad
			}
		}
	}
	return !r.bad
}

// setAttribute sets an attribute that is a text in both encodings. Unknown ones are passed over.
func (e *Event) setAttribute(key string, s []byte) (ok bool) {
	switch key {
	case "subject":
		e.Subject = s
	case "partitionkey":
		e.PartitionKey = s
	case "bootid":
		e.BootID = s
	case "traceparent":
		e.TraceParent = s
	case "sequence":
		e.Sequence, ok = parseDigits(s)
		return ok
	case "streamseq":
		e.StreamSeq, ok = parseDigits(s)
		return ok
	}
	return true
}

// rate returns a sampling rate as Event has it.
func rate(n uint64) uint32 {
	if n == 1 {
		return 0
	}
	return uint32(n)
}

func parseDigits(s []byte) (n uint64, ok bool) {
	if len(s) == 0 || len(s) > digits {
		return 0, false
	}
	for _, c := range s {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// maxSeconds bounds times to those that nanoseconds since 1970 can express, in whole seconds.
const maxSeconds = math.MaxInt64/1_000_000_000 - 1

func (e *Event) decodeTime(b []byte) bool {
	var sec, nano int64
	r := reader{b: b}
	for r.next() {
		switch r.tag {
		case tagSeconds:
			sec = int64(r.num)
		case tagNanos:
			nano = int64(r.num)
		}
	}
	if r.bad || sec < -maxSeconds || sec > maxSeconds || nano < 0 || nano >= 1e9 {
		return false
	}
	e.Time = sec*1e9 + nano
	return true
}

func (e *Event) decodeAny(b []byte) bool {
	m := &messages[e.Kind]
	var url, val []byte
	r := reader{b: b}
	for r.next() {
		switch r.tag {
		case tagAnyURL:
			url = r.text()
		case tagAnyValue:
			val = r.val
		}
	}
	return !r.bad && string(url) == m.any && e.decodeData(m, val)
}

func (e *Event) decodeData(m *message, b []byte) bool {
	r := reader{b: b}
	for r.next() {
		if m.list != nil && r.tag == uint64(m.list.num)<<3|2 {
			it := e.AddItem()
			if it == nil {
				continue
			}
			ir := reader{b: r.val}
			for ir.next() {
				ir.field(m.list.fields, &m.list.byNum, it.Texts[:], it.Numbers[:])
			}
			r.bad = r.bad || ir.bad
			continue
		}
		r.field(m.fields, &m.byNum, e.Texts[:], e.Numbers[:])
	}
	return !r.bad
}

// reader walks the fields of one message. A malformed field ends the walk and sets bad.
type reader struct {
	b   []byte
	tag uint64
	num uint64 // of a varint
	val []byte // of a length-delimited field
	bad bool
}

func (r *reader) next() bool {
	if r.bad || len(r.b) == 0 {
		return false
	}
	r.tag = r.varint()
	switch r.tag & 7 {
	case 0:
		r.num = r.varint()
	case 1:
		r.val = r.take(8)
	case 2:
		r.val = r.take(r.varint())
	case 5:
		r.val = r.take(4)
	default: // groups are not part of proto3
		r.bad = true
	}
	if r.tag>>3 == 0 || r.tag>>3 > 1<<29-1 {
		r.bad = true
	}
	return !r.bad
}

func (r *reader) varint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := uint64(r.b[0])
		r.b = r.b[1:]
		return v
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, n = true, len(r.b)
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// text returns the value of a string field.
func (r *reader) text() []byte {
	if !utf8.Valid(r.val) {
		r.bad = true
	}
	return r.val
}

// field stores the current field where the schema has it.
func (r *reader) field(fields []field, at *index, texts [][]byte, numbers []int64) {
	num := r.tag >> 3
	if num >= uint64(len(at)) || at[num] == 0 {
		return
	}
	f := &fields[at[num]-1]
	if f.form == text {
		if r.tag&7 != 2 {
			r.bad = true
			return
		}
		texts[f.slot] = r.text()
		return
	}
	if r.tag&7 != 0 {
		r.bad = true
		return
	}
	switch f.form {
	case flag:
		numbers[f.slot] = 0
		if r.num != 0 {
			numbers[f.slot] = 1
		}
	case point:
		numbers[f.slot] = int64(min(r.num, math.MaxInt64))
	default:
		numbers[f.slot] = int64(r.num)
	}
}
