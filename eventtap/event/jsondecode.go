// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

var errJSON = errors.New("event: not a CloudEvent in JSON")

// attributes are those that DecodeJSON reads, in the order in which AppendJSON writes them.
var attributes = [...]string{"specversion", "type", "source", "bootid", "id", "subject", "time", "sequence", "streamseq", "sampledrate",
	"partitionkey", "traceparent", "data"}

// maxFields is at least how many fields a kind has.
const maxFields = 64

// DecodeJSON reads one event in the CloudEvents JSON format into e, which owns its bytes afterwards. What it passes over
// and refuses is as in DecodeProto; "data" must be an object. Of several members with one name the last one counts.
func (e *Event) DecodeJSON(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("event: %d bytes, at most %d are allowed", len(b), MaxSize)
	}
	e.Reset(Unknown)
	var found [len(attributes)][]byte
	last := -1
	var r jsonReader
	for r.open(append([]byte(nil), b...), '{'); r.next(true); {
		key := unquote(r.key)
		for i := range attributes { // nearly always it is the next one, or the one behind that
			if n := (last + 1 + i) % len(attributes); attributes[n] == string(key) {
				found[n], last = r.val, n
				break
			}
		}
	}
	if r.bad {
		return errJSON
	}
	var spec, data []byte
	for i, raw := range found {
		switch name := attributes[i]; {
		case raw == nil:
		case name == "data":
			data = raw
		case name == "specversion" && isText(raw):
			spec = unquote(raw)
		case !e.parseAttribute(name, raw):
			return fmt.Errorf("event: %s has no valid value", name)
		}
	}
	return e.finish(spec, func() bool { return data == nil || e.parseData(data) })
}

func (e *Event) parseAttribute(name string, raw []byte) (ok bool) {
	if name == "sampledrate" {
		n, err := strconv.ParseUint(string(raw), 10, 31)
		e.SampledRate = rate(n)
		return err == nil && n > 0
	}
	if !isText(raw) {
		return false
	}
	s := unquote(raw)
	switch name {
	case "id":
		e.ID = s
	case "source":
		e.Source = s
	case "type":
		e.Type = s
	case "time":
		return e.parseTime(s)
	default:
		return e.setAttribute(name, s)
	}
	return true
}

// isText tells whether a value is a string, or null, which counts as an empty one.
func isText(raw []byte) bool { return raw[0] == '"' || raw[0] == 'n' }

// unquote returns what a string says, from the same memory where nothing in it is escaped; of null, nothing.
func unquote(raw []byte) []byte {
	if raw[0] != '"' {
		return nil
	}
	for _, c := range raw {
		if c == '\\' || c >= 0x80 {
			var s string
			_ = json.Unmarshal(raw, &s) // the reader has checked that it is a string
			return []byte(s)
		}
	}
	return raw[1 : len(raw)-1 : len(raw)-1]
}

func (e *Event) parseTime(s []byte) bool {
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil || t.Unix() < -maxSeconds || t.Unix() > maxSeconds {
		return false
	}
	e.Time = t.UnixNano()
	return true
}

func (e *Event) parseData(b []byte) bool {
	m := &messages[e.Kind]
	tries, ok := parseMembers(b, m.fields, m.list, e.Texts[:], e.Numbers[:])
	return ok && (tries == nil || e.parseList(m.list, tries))
}

func (e *Event) parseList(l *list, b []byte) bool {
	var r jsonReader
	for r.open(b, '['); r.next(false); {
		if it := e.AddItem(); it == nil {
			if c := r.val[0]; c != '{' && c != 'n' {
				return false
			}
		} else if _, ok := parseMembers(r.val, l.fields, nil, it.Texts[:], it.Numbers[:]); !ok {
			return false
		}
	}
	return !r.bad
}

// parseMembers reads the members of an object, or null, that are in the schema. It returns the value of the list's member, if
// there is one.
func parseMembers(b []byte, fields []field, l *list, texts [][]byte, numbers []int64) (entries []byte, ok bool) {
	var found [maxFields][]byte
	last := -1
	var r jsonReader
	for r.open(b, '{'); r.next(true); {
		key := unquote(r.key)
		if l != nil && l.name == string(key) {
			entries = r.val
			continue
		}
		for i := range fields { // nearly always it is the next one, or one of those behind
			n := last + 1 + i
			if n >= len(fields) {
				n -= len(fields)
			}
			if fields[n].name == string(key) {
				found[n], last = r.val, n
				break
			}
		}
	}
	for i := range fields {
		if found[i] != nil && !fields[i].parse(found[i], texts, numbers) {
			return nil, false
		}
	}
	return entries, !r.bad
}

// parse stores a value. It returns false where it is of another type.
func (f *field) parse(raw []byte, texts [][]byte, numbers []int64) bool {
	switch f.form {
	case text:
		if !isText(raw) {
			return false
		}
		texts[f.slot] = unquote(raw)
	case flag:
		numbers[f.slot] = 0
		if raw[0] == 't' {
			numbers[f.slot] = 1
		}
		return raw[0] == 't' || raw[0] == 'f'
	default:
		n, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil {
			return false
		}
		if f.form == point {
			n = min(n, math.MaxInt64)
		}
		numbers[f.slot] = int64(n)
	}
	return true
}
