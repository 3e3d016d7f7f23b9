// SPDX-License-Identifier: Apache-2.0

package event

import "math/bits"

// The tags of io.cloudevents.v1.CloudEvent and what is in it: number<<3 | wire type.
const (
	tagID         = 1<<3 | 2
	tagSource     = 2<<3 | 2
	tagSpec       = 3<<3 | 2
	tagType       = 4<<3 | 2
	tagAttribute  = 5<<3 | 2
	tagProtoData  = 8<<3 | 2
	tagKey        = 1<<3 | 2
	tagValue      = 2<<3 | 2
	tagInteger    = 2 << 3
	tagString     = 3<<3 | 2
	tagURI        = 5<<3 | 2
	tagTimestamp  = 7<<3 | 2
	tagSeconds    = 1 << 3
	tagNanos      = 2 << 3
	tagAnyURL     = 1<<3 | 2
	tagAnyValue   = 2<<3 | 2
	tagBatchEvent = 1<<3 | 2
)

const specVersion = "1.0"

// AppendProto appends the event as an io.cloudevents.v1.CloudEvent. Its texts must be valid UTF-8. An event of an
// Unknown kind has no data.
func (e *Event) AppendProto(dst []byte) []byte {
	return e.appendProtoTail(e.appendProtoHead(dst))
}

// appendProtoHead appends what all events of a kind have in common.
func (e *Event) appendProtoHead(dst []byte) []byte {
	m := &messages[e.Kind]
	dst = appendBytes(dst, tagSource, e.Source)
	dst = appendString(dst, tagSpec, specVersion)
	dst = appendText(dst, "bootid", e.BootID)
	if e.Kind == Unknown {
		return appendBytes(dst, tagType, e.Type)
	}
	dst = appendString(dst, tagType, m.typ)
	dst = appendAttribute(dst, "dataschema", tagURI, len(m.schema))
	return append(dst, m.schema...)
}

func (e *Event) appendProtoTail(dst []byte) []byte {
	dst = appendBytes(dst, tagID, e.ID)
	dst = appendTime(dst, e.Time)
	dst = appendText(dst, "subject", e.Subject)
	dst = appendText(dst, "partitionkey", e.PartitionKey)
	dst = appendText(dst, "traceparent", e.TraceParent)
	if e.Sequence != 0 {
		dst = appendAttribute(dst, "sequence", tagString, digits)
		dst = appendDigits(dst, e.Sequence)
	}
	if e.StreamSeq != 0 {
		dst = AppendStreamSeq(dst, e.StreamSeq)
	}
	if e.SampledRate > 1 {
		dst = AppendSampledRate(dst, e.SampledRate)
	}
	if e.Kind == Unknown {
		return dst
	}
	return e.appendAny(dst, &messages[e.Kind])
}

// AppendStreamSeq appends the extension "streamseq" to an event in the protobuf encoding that has none: a message may
// be continued by appending fields to it.
func AppendStreamSeq(dst []byte, n uint64) []byte {
	dst = appendAttribute(dst, "streamseq", tagString, digits)
	return appendDigits(dst, n)
}

// StreamSeqSize is what AppendStreamSeq appends, in bytes.
const StreamSeqSize = 2 + 2 + len("streamseq") + 2 + 2 + digits

// AppendSampledRate appends the extension "sampledrate", as AppendStreamSeq does its own.
func AppendSampledRate(dst []byte, n uint32) []byte {
	value := 1 + varintLen(uint64(n))
	dst = appendVarint(append(dst, tagAttribute), uint64(2+len("sampledrate")+2+value))
	dst = appendString(dst, tagKey, "sampledrate")
	dst = append(dst, tagValue, byte(value), tagInteger)
	return appendVarint(dst, uint64(n))
}

// SampledRateSize is what AppendSampledRate appends, in bytes.
func SampledRateSize(n uint32) int { return 2 + 2 + len("sampledrate") + 2 + 1 + varintLen(uint64(n)) }

// AppendProtoBatchHead begins an event of so many bytes in an io.cloudevents.v1.CloudEventBatch; the event follows.
func AppendProtoBatchHead(dst []byte, size int) []byte {
	return appendVarint(append(dst, tagBatchEvent), uint64(size))
}

func (e *Event) appendAny(dst []byte, m *message) []byte {
	dst, outer := open(dst, tagProtoData)
	dst = appendString(dst, tagAnyURL, m.any)
	dst, inner := open(dst, tagAnyValue)
	dst = appendFields(dst, m.fields, e.Texts[:], e.Numbers[:])
	if m.list != nil {
		for i := range e.Items[:e.NumItems] {
			var at int
			dst = appendVarint(dst, uint64(m.list.tag))
			dst, at = openAt(dst)
			dst = appendFields(dst, m.list.fields, e.Items[i].Texts[:], e.Items[i].Numbers[:])
			dst = closeAt(dst, at)
		}
	}
	return closeAt(closeAt(dst, inner), outer)
}

func appendFields(dst []byte, fields []field, texts [][]byte, numbers []int64) []byte {
	for i := range fields {
		f := &fields[i]
		if f.form == text {
			if s := texts[f.slot]; len(s) > 0 {
				dst = appendVarint(dst, uint64(f.tag))
				dst = appendVarint(dst, uint64(len(s)))
				dst = append(dst, s...)
			}
			continue
		}
		n := numbers[f.slot]
		if n == 0 && f.form != point || n == Absent && f.form == point {
			continue
		}
		dst = appendVarint(dst, uint64(f.tag))
		dst = appendVarint(dst, uint64(n))
	}
	return dst
}

// open begins a nested message whose length is not known yet. It leaves room for a length below 16 KiB.
func open(dst []byte, tag byte) ([]byte, int) { return openAt(append(dst, tag)) }

func openAt(dst []byte) ([]byte, int) { return append(dst, 0, 0), len(dst) }

// closeAt writes the length of the message begun at the index, in as few bytes as it takes.
func closeAt(dst []byte, at int) []byte {
	n := len(dst) - at - 2
	switch {
	case n < 1<<7:
		dst[at] = byte(n)
		copy(dst[at+1:], dst[at+2:])
		return dst[:len(dst)-1]
	case n < 1<<14:
		dst[at], dst[at+1] = byte(n)|0x80, byte(n>>7)
		return dst
	}
	// Longer than any event: make room for the rest of the length.
	var l [10]byte
	k := len(appendVarint(l[:0], uint64(n)))
	dst = append(dst, l[:k-2]...)
	copy(dst[at+k:], dst[at+2:at+2+n])
	copy(dst[at:], l[:k])
	return dst
}

// appendBytes appends a field, which is left out where it is empty.
func appendBytes(dst []byte, tag byte, s []byte) []byte {
	if len(s) == 0 {
		return dst
	}
	dst = appendVarint(append(dst, tag), uint64(len(s)))
	return append(dst, s...)
}

func appendString(dst []byte, tag byte, s string) []byte {
	dst = appendVarint(append(dst, tag), uint64(len(s)))
	return append(dst, s...)
}

// appendAttribute begins an entry of the attribute map whose value has the tag and n bytes, which the caller appends.
func appendAttribute(dst []byte, key string, tag byte, n int) []byte {
	value := 1 + varintLen(uint64(n)) + n
	entry := 2 + len(key) + 1 + varintLen(uint64(value)) + value
	dst = appendVarint(append(dst, tagAttribute), uint64(entry))
	dst = appendString(dst, tagKey, key)
	dst = appendVarint(append(dst, tagValue), uint64(value))
	return appendVarint(append(dst, tag), uint64(n))
}

func appendText(dst []byte, key string, s []byte) []byte {
	if len(s) == 0 {
		return dst
	}
	return append(appendAttribute(dst, key, tagString, len(s)), s...)
}

// appendTime appends the attribute "time", a google.protobuf.Timestamp.
func appendTime(dst []byte, ns int64) []byte {
	sec, nano := split(ns)
	var b [2 + 2*10]byte
	s := appendVarint(append(b[:0], tagSeconds), uint64(sec))
	if nano != 0 {
		s = appendVarint(append(s, tagNanos), uint64(nano))
	}
	return append(appendAttribute(dst, "time", tagTimestamp, len(s)), s...)
}

// split returns whole seconds since 1970, rounded down, and the nanoseconds after them.
func split(ns int64) (sec, nano int64) {
	sec, nano = ns/1e9, ns%1e9
	if nano < 0 {
		sec, nano = sec-1, nano+1e9
	}
	return sec, nano
}

// digits is the length of a sequence number as text. The extension compares as text, so it is padded with zeros.
const digits = 20

func appendDigits(dst []byte, n uint64) []byte {
	dst = append(dst, "00000000000000000000"...)
	for i := len(dst) - 1; n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

func appendVarint(dst []byte, v uint64) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func varintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
