// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/event"
)

func TestBusAddress(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]struct {
		shown string
		ok    bool
	}{
		"nats://127.0.0.1:4222":              {"127.0.0.1:4222", true},
		"tls://user:secret@bus:4222":         {"bus:4222", true},
		"nats://secret@a:1, nats://b:2":      {"a:1,b:2", true},
		"nats://user:sec@ret@bus:4222":       {"bus:4222", true},
		"127.0.0.1:4222":                     {"127.0.0.1:4222", false},
		"kafka://secret@bus:9092":            {"bus:9092", false},
		"nats://":                            {"", false},
		"nats://a:1,https://user:secret@b:2": {"a:1,b:2", false},
	} {
		c := BusConfig{URL: url}
		if got := where(url); got != want.shown {
			t.Errorf("%s: shown as %s, want %s", url, got, want.shown)
		}
		err := c.check()
		if (err == nil) != want.ok {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the password: %v", url, err)
		}
	}
	var c BusConfig
	c.setDefaults()
	if c.Stream != "MESHTAP" || c.Subject != "meshtap.events.>" {
		t.Errorf("defaults are %q and %q", c.Stream, c.Subject)
	}
}

// sample returns an event in both encodings.
func sample(id string) (asJSON, asProto []byte) {
	e := &event.Event{}
	e.Reset(event.Request)
	e.ID, e.Source, e.Time = []byte(id), []byte("/meshtap/web/-/-/web-1"), 1772355600e9
	e.Texts[event.Cluster] = []byte("orders")
	return e.AppendJSON(nil), e.AppendProto(nil)
}

// batch is a CloudEventBatch of events in protobuf, each shorter than 16 KiB.
func batch(events ...[]byte) (b []byte) {
	for _, e := range events {
		b = append(b, 1<<3|2, byte(len(e)&0x7f|0x80), byte(len(e)>>7))
		b = append(b, e...)
	}
	return b
}

func TestDecode(t *testing.T) {
	t.Parallel()
	aJSON, aProto := sample("a")
	bJSON, bProto := sample("b")
	list := fmt.Appendf(nil, "[%s, %s]", aJSON, bJSON)
	for _, c := range []struct {
		name, typ string
		data      []byte
		want      string
	}{
		{"JSON", event.TypeJSON, aJSON, "a+raw"},
		{"JSON without a label", "", aJSON, "a+raw"},
		{"JSON with a label of something else", "text/plain", aJSON, "a+raw"},
		{"JSON with a parameter", event.TypeJSON + "; charset=utf-8", aJSON, "a+raw"},
		{"protobuf", event.TypeProto, aProto, "a"},
		{"protobuf without a label", "", aProto, "a"},
		{"a batch of JSON", event.TypeJSONBatch, list, "a+raw b+raw"},
		{"a batch of JSON without a label", "", list, "a+raw b+raw"},
		{"a batch of protobuf", event.TypeProtoBatch, batch(aProto, bProto), "a b"},
		{"one that cannot be read does not hide the others", event.TypeJSONBatch, fmt.Appendf(nil, "[{}, %s]", bJSON), "bad b+raw"},
		{"one that cannot be read in protobuf", event.TypeProtoBatch, batch([]byte{0xff}, bProto), "bad b"},
		{"an empty batch", event.TypeJSONBatch, []byte("[]"), ""},
		{"no batch", event.TypeJSONBatch, []byte("[1"), "bad"},
		{"nothing", "", nil, "bad"},
		{"an unknown form of events", "application/cloudevents+xml", []byte("<event/>"), "bad"},
	} {
		var got []string
		consume.Decode(&consume.Message{Type: c.typ, Data: c.data}, func(e consume.Event) {
			word := string(e.ID)
			if e.Raw != nil {
				word += "+raw"
			}
			got = append(got, word)
			if !bytes.Contains(e.JSON(), []byte(`"meshtap.cluster":"orders"`)) {
				t.Errorf("%s: its JSON is %s", c.name, e.JSON())
			}
		}, func(error) { got = append(got, "bad") })
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

// FuzzDecode: a message does no harm, and what is read of it can be printed.
func FuzzDecode(f *testing.F) {
	aJSON, aProto := sample("a")
	for _, typ := range []string{"", event.TypeJSON, event.TypeProto, event.TypeJSONBatch, event.TypeProtoBatch, "application/cloudevents;;"} {
		f.Add(typ, aJSON)
		f.Add(typ, aProto)
		f.Add(typ, batch(aProto))
		f.Add(typ, []byte("[{},1]"))
	}
	f.Fuzz(func(t *testing.T, typ string, data []byte) {
		n := 0
		consume.Decode(&consume.Message{Type: typ, Data: data}, func(e consume.Event) {
			n++
			if len(e.JSON()) == 0 {
				t.Errorf("an event without JSON: %q", data)
			}
		}, func(err error) {
			n++
			if err == nil {
				t.Error("bad without an error")
			}
		})
		if n > len(data)+1 {
			t.Errorf("%d events in %d bytes", n, len(data))
		}
	})
}
