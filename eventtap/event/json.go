// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/binary"
	"strconv"
	"time"
	"unicode/utf8"
)

// The media types of the encodings, for a bus that labels its messages.
const (
	TypeJSON       = "application/cloudevents+json"
	TypeJSONBatch  = "application/cloudevents-batch+json"
	TypeProto      = "application/cloudevents+protobuf"
	TypeProtoBatch = "application/cloudevents-batch+protobuf"
)

// AppendJSON appends the event in the CloudEvents JSON format, on one line and without a line break. Control,
// formatting and bidirectional characters are escaped, so that the text is safe to show, and so are <, > and &.
func (e *Event) AppendJSON(dst []byte) []byte {
	return e.appendJSONTail(e.appendJSONHead(dst))
}

// appendJSONHead appends what all events of a kind have in common.
func (e *Event) appendJSONHead(dst []byte) []byte {
	m := &messages[e.Kind]
	dst = append(dst, `{"specversion":"1.0","type":`...)
	if e.Kind == Unknown {
		dst = appendQuoted(dst, e.Type)
	} else {
		dst = append(append(append(dst, '"'), m.typ...), '"')
	}
	dst = append(dst, `,"source":`...)
	dst = appendQuoted(dst, e.Source)
	dst = appendMember(dst, `,"bootid":`, e.BootID)
	if e.Kind == Unknown {
		return dst
	}
	dst = append(dst, `,"datacontenttype":"application/json","dataschema":"`...)
	return append(append(dst, m.schema...), '"')
}

func (e *Event) appendJSONTail(dst []byte) []byte {
	dst = appendQuoted(append(dst, `,"id":`...), e.ID)
	dst = appendMember(dst, `,"subject":`, e.Subject)
	dst = append(dst, `,"time":"`...)
	dst = time.Unix(0, e.Time).UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, '"')
	if e.Sequence != 0 {
		dst = appendDigits(append(dst, `,"sequence":"`...), e.Sequence)
		dst = append(dst, '"')
	}
	if e.StreamSeq != 0 {
		dst = appendDigits(append(dst, `,"streamseq":"`...), e.StreamSeq)
		dst = append(dst, '"')
	}
	if e.SampledRate > 1 {
		dst = strconv.AppendUint(append(dst, `,"sampledrate":`...), uint64(e.SampledRate), 10)
	}
	dst = appendMember(dst, `,"partitionkey":`, e.PartitionKey)
	dst = appendMember(dst, `,"traceparent":`, e.TraceParent)
	if e.Kind == Unknown {
		return append(dst, '}')
	}
	return append(e.appendData(append(dst, `,"data":{`...), &messages[e.Kind]), `}}`...)
}

// AppendStreamSeqJSON adds the extension "streamseq" to the event in the JSON format at the end of dst, which has none.
func AppendStreamSeqJSON(dst []byte, n uint64) []byte {
	dst = append(dst[:len(dst)-1], `,"streamseq":"`...)
	return append(appendDigits(dst, n), `"}`...)
}

// AppendSampledRateJSON adds the extension "sampledrate" in the same way.
func AppendSampledRateJSON(dst []byte, n uint32) []byte {
	dst = strconv.AppendUint(append(dst[:len(dst)-1], `,"sampledrate":`...), uint64(n), 10)
	return append(dst, '}')
}

func (e *Event) appendData(dst []byte, m *message) []byte {
	dst, first := appendObject(dst, m.fields, e.Texts[:], e.Numbers[:])
	if e.NumItems == 0 || m.list == nil {
		return dst
	}
	if !first {
		dst = append(dst, ',')
	}
	dst = append(append(dst, m.list.key...), '[')
	for i := range e.Items[:e.NumItems] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst, _ = appendObject(append(dst, '{'), m.list.fields, e.Items[i].Texts[:], e.Items[i].Numbers[:])
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// appendObject appends the members of an object without its braces; first tells that there are none.
func appendObject(dst []byte, fields []field, texts [][]byte, numbers []int64) (out []byte, first bool) {
	first = true
	for i := range fields {
		f := &fields[i]
		if f.form == text {
			s := texts[f.slot]
			if len(s) == 0 {
				continue
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = appendQuoted(append(dst, f.key...), s)
			continue
		}
		n := numbers[f.slot]
		if n == 0 && f.form != point || n == Absent && f.form == point {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, f.key...)
		if f.form == flag {
			dst = append(dst, "true"...)
		} else {
			dst = strconv.AppendUint(dst, uint64(n), 10)
		}
	}
	return dst, first
}

func appendMember(dst []byte, key string, s []byte) []byte {
	if len(s) == 0 {
		return dst
	}
	return appendQuoted(append(dst, key...), s)
}

// plain are the bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

func appendQuoted(dst, s []byte) []byte {
	dst = append(dst, '"')
	i := 0
	for i < len(s) && plain[s[i]] {
		i++
	}
	dst = append(dst, s[:i]...)
	if i < len(s) {
		dst = appendEscaped(dst, s[i:])
	}
	return append(dst, '"')
}

func appendEscaped(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			dst = append(dst, c)
			i++
			continue
		}
		if c == '"' || c == '\\' {
			dst = append(dst, '\\', c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, `\ufffd`...)
		case r < 0x80 || hidden(r):
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		default:
			dst = append(dst, s[i:i+n]...)
		}
		i += n
	}
	return dst
}

// hidden tells characters that a terminal or a browser acts on instead of showing them: C1 controls, bidirectional and
// zero-width formatting, and line separators. All are below U+10000.
func hidden(r rune) bool {
	return r >= 0x80 && r < 0xa0 || r == 0xad || r == 0x61c || r == 0x180e ||
		r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2060 && r <= 0x206f || r == 0xfeff
}

// AppendValid appends s with everything that is not UTF-8 replaced by U+FFFD.
func AppendValid(dst, s []byte) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		dst = utf8.AppendRune(dst, r)
		s = s[n:]
	}
	return dst
}

// Attribute tells whether s is a text that CloudEvents allows as an attribute (section 3.1, String): UTF-8 without
// control characters and noncharacters.
func Attribute(s []byte) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for len(s) >= 8 { // bytes from ' ' to '~', eight at a time; in these nothing is carried to the next byte
		if v := binary.LittleEndian.Uint64(s); (v|(v+ones)|^((v|high)-' '*ones))&high != 0 {
			break
		}
		s = s[8:]
	}
	for i, c := range s {
		if c < ' ' || c >= 0x7f {
			return attribute(s[i:])
		}
	}
	return true
}

func attribute(s []byte) bool {
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		if disallowed(r) || r == utf8.RuneError && n == 1 {
			return false
		}
		s = s[n:]
	}
	return true
}

func disallowed(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe
}

// AppendAttribute appends s with everything that an attribute may not hold replaced by U+FFFD.
func AppendAttribute(dst, s []byte) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		if disallowed(r) {
			r = utf8.RuneError
		}
		dst = utf8.AppendRune(dst, r)
		s = s[n:]
	}
	return dst
}
