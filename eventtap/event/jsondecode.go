// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// DecodeJSON reads one event in the CloudEvents JSON format into e, which owns its bytes afterwards. What it passes over
// and refuses is as in DecodeProto; "data" must be an object.
func (e *Event) DecodeJSON(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("event: %d bytes, at most %d are allowed", len(b), MaxSize)
	}
	e.Reset(Unknown)
	var attributes map[string]json.RawMessage
	if err := json.Unmarshal(b, &attributes); err != nil {
		return fmt.Errorf("event: not a CloudEvent in JSON: %w", err)
	}
	var spec []byte
	for name, raw := range attributes {
		var s string
		switch name {
		case "data":
			continue
		case "sampledrate":
			n, err := strconv.ParseUint(string(raw), 10, 31)
			if err != nil || n == 0 {
				return errors.New("event: sampledrate must be an integer above 0")
			}
			e.SampledRate = rate(n)
			continue
		case "specversion", "id", "source", "type", "time", "subject", "partitionkey", "bootid", "traceparent", "sequence", "streamseq":
			if err := json.Unmarshal(raw, &s); err != nil {
				return fmt.Errorf("event: %s must be a string", name)
			}
		default:
			continue
		}
		ok := true
		switch name {
		case "specversion":
			spec = []byte(s)
		case "id":
			e.ID = []byte(s)
		case "source":
			e.Source = []byte(s)
		case "type":
			e.Type = []byte(s)
		case "time":
			ok = e.parseTime(s)
		default:
			ok = e.setAttribute([]byte(name), []byte(s))
		}
		if !ok {
			return fmt.Errorf("event: %s has no valid value", name)
		}
	}
	data, ok := attributes["data"]
	return e.finish(spec, func() bool { return !ok || e.parseData(data) == nil })
}

func (e *Event) parseTime(s string) bool {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Unix() < -maxSeconds || t.Unix() > maxSeconds {
		return false
	}
	e.Time = t.UnixNano()
	return true
}

func (e *Event) parseData(b []byte) error {
	m := &messages[e.Kind]
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	if m.list != nil {
		if err := e.parseList(m.list, members[m.list.name]); err != nil {
			return err
		}
	}
	return parseMembers(members, m.fields, e.Texts[:], e.Numbers[:])
}

func (e *Event) parseList(l *list, b []byte) error {
	if b == nil {
		return nil
	}
	var entries []map[string]json.RawMessage
	if err := json.Unmarshal(b, &entries); err != nil {
		return err
	}
	for _, members := range entries {
		it := e.AddItem()
		if it == nil {
			return nil
		}
		if err := parseMembers(members, l.fields, it.Texts[:], it.Numbers[:]); err != nil {
			return err
		}
	}
	return nil
}

var errMember = errors.New("event: a member of data has the wrong type")

func parseMembers(members map[string]json.RawMessage, fields []field, texts [][]byte, numbers []int64) error {
	for i := range fields {
		f := &fields[i]
		raw, ok := members[f.name]
		if !ok {
			continue
		}
		switch f.form {
		case text:
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return err
			}
			texts[f.slot] = []byte(s)
		case flag:
			numbers[f.slot] = 0
			if bytes.Equal(raw, []byte("true")) {
				numbers[f.slot] = 1
			} else if !bytes.Equal(raw, []byte("false")) {
				return errMember
			}
		default:
			n, err := strconv.ParseUint(string(raw), 10, 64)
			if err != nil {
				return err
			}
			if f.form == point {
				n = min(n, math.MaxInt64)
			}
			numbers[f.slot] = int64(n)
		}
	}
	return nil
}
