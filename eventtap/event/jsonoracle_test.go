// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"testing"
)

// decodeByMaps is DecodeJSON by encoding/json and maps: slower by far, and the oracle of what is accepted and read.
func (e *Event) decodeByMaps(b []byte) error {
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
			ok = e.parseTime([]byte(s))
		default:
			ok = e.setAttribute(name, []byte(s))
		}
		if !ok {
			return fmt.Errorf("event: %s has no valid value", name)
		}
	}
	data, ok := attributes["data"]
	return e.finish(spec, func() bool { return !ok || e.dataByMaps(data) == nil })
}

func (e *Event) dataByMaps(b []byte) error {
	m := &messages[e.Kind]
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	if m.list != nil {
		if err := e.listByMaps(m.list, members[m.list.name]); err != nil {
			return err
		}
	}
	return membersByMaps(members, m.fields, e.Texts[:], e.Numbers[:])
}

func (e *Event) listByMaps(l *list, b []byte) error {
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
		if err := membersByMaps(members, l.fields, it.Texts[:], it.Numbers[:]); err != nil {
			return err
		}
	}
	return nil
}

func membersByMaps(members map[string]json.RawMessage, fields []field, texts [][]byte, numbers []int64) error {
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
				return errors.New("a flag is true or false")
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

// sameAsMaps compares DecodeJSON with its oracle.
func sameAsMaps(t *testing.T, b []byte) {
	t.Helper()
	var e, want Event
	err, wantErr := e.DecodeJSON(b), want.decodeByMaps(b)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%v, and by maps %v\n%q", err, wantErr, b)
	}
	if err != nil {
		return
	}
	if err := Equal(&e, &want); err != nil {
		t.Fatalf("%v\n%q", err, b)
	}
}

// odd are texts that parsers of JSON see in different ways.
var odd = []string{
	"null", " null ", "true", "0", "-0", "01", "1e5", "1E+5", "1.", "-", "+1", ".5", "1e", `"a`, `"\u00e9"`, `"\u00"`, `"\x"`, `"\ud800"`, "\"\xff\"",
	`"é"`, `"\/"`, "\"\x01\"", "\"\t\"", `[]`, `[1,]`, `[,1]`, `{}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":1 "b":2}`, `[{}`, `{"a":[}]}`, "tru", "nul",
	"", " ", "\x00", "18446744073709551615", "18446744073709551616", `"00000000000000000007"`, `[[[[]]]]`, `[null,{},null]`, `[{},{},{},{},7]`,
	`[{"host":"x","host":7}]`, `[{"status":"7","status":7}]`,
}

// TestDecodeJSONAgainstMaps has oddities in every place, members twice, and escaped names.
func TestDecodeJSONAgainstMaps(t *testing.T) {
	t.Parallel()
	const head = `{"specversion":"1.0","id":"1","source":"/s","type":"io.meshtap.outcome.v1"`
	for _, x := range odd {
		for _, in := range []string{
			x, head + "," + x + "}", head + `,"color":` + x + "}", head + `,"id":` + x + "}", head + `,"subject":` + x + ` }`,
			head + `,"sequence":` + x + "}", head + `,"sampledrate":` + x + "}", head + `,"time":` + x + "}", head + `,"data":` + x + "}\n",
			head + `,"data":{"meshtap.fallback":` + x + `}}`, head + `,"data":{"meshtap.tries":` + x + `}}`,
			head + `,"data":{"http.response.status_code":` + x + `}}`, head + `,"data":{"http.route":` + x + `,"http.request.method":"GET"}}`,
			head + `,"data":{"http.route":` + x + `,"http.route":"/"}}`, head + `,"data":{"meshtap.request_end_ns":` + x + `}}`,
			head + `,"s\u0075bject":` + x + `}`, head + `,"data":{"http.r\u006fute":` + x + "}}", head + "}" + x, x + head + "}",
			head + `,"data":` + x + `,"data":{}}`, head + `,` + x + `:1}`, "[" + x + "]",
		} {
			sameAsMaps(t, []byte(in))
		}
	}
	for i := range uint64(2000) {
		sameAsMaps(t, Random(i).AppendJSON(nil))
	}
}

func FuzzDecodeJSONAgainstMaps(f *testing.F) {
	for i := range uint64(16) {
		f.Add(Random(i).AppendJSON(nil))
	}
	f.Fuzz(sameAsMaps)
}

// TestSplitJSON compares Split with encoding/json.
func TestSplitJSON(t *testing.T) {
	t.Parallel()
	for _, x := range odd {
		for _, in := range []string{x, "[" + x + "]", "[1, " + x + " ,2]"} {
			var want []json.RawMessage
			wantErr := json.Unmarshal([]byte(in), &want)
			got, err := Split(TypeJSONBatch, []byte(in))
			if (err == nil) != (wantErr == nil) || len(got) != len(want) {
				t.Fatalf("%q: %q, %v; want %q, %v", in, got, err, want, wantErr)
			}
			for i := range got {
				if string(got[i]) != string(want[i]) {
					t.Errorf("%q: entry %d is %q, want %q", in, i, got[i], want[i])
				}
			}
		}
	}
	deep := bytes.Repeat([]byte("["), maxDepth+1)
	deep = append(deep, bytes.Repeat([]byte("]"), maxDepth+1)...)
	for _, b := range [][]byte{deep, deep[1 : len(deep)-1]} {
		if _, err := Split(TypeJSONBatch, b); (err == nil) != json.Valid(b) {
			t.Errorf("%d levels: %v", len(b)/2, err)
		}
	}
}
