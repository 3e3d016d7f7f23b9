// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	cloudeventsv1 "github.com/meshtap/meshtap/api/io/cloudevents/v1"
	_ "github.com/meshtap/meshtap/api/meshtap/event/v1"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/test/conformance/sink/cloudevents"
)

// TestJSON holds the JSON form against the CloudEvents specification, against the generated types, and against itself.
func TestJSON(t *testing.T) {
	t.Parallel()
	for i := range 2000 {
		e := event.Random(uint64(i))
		b := e.AppendJSON(nil)
		if err := cloudevents.CheckJSON(b); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		var back event.Event
		if err := back.DecodeJSON(b); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if err := event.Equal(e, &back); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		sameData(t, e, b)
	}
}

// sameData reads the data with protojson, which knows the json_names of the .proto file, and with the protobuf form.
func sameData(t *testing.T, e *event.Event, b []byte) {
	t.Helper()
	var ce cloudeventsv1.CloudEvent
	if err := proto.Unmarshal(e.AppendProto(nil), &ce); err != nil {
		t.Fatal(err)
	}
	want, err := ce.GetProtoData().UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	var members struct{ Data json.RawMessage }
	if err := json.Unmarshal(b, &members); err != nil {
		t.Fatal(err)
	}
	got := want.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal(members.Data, got); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if !proto.Equal(got, want) {
		t.Fatalf("JSON says %v, protobuf %v", got, want)
	}
}

func TestJSONUnknownKind(t *testing.T) {
	t.Parallel()
	var e event.Event
	in := `{"specversion":"1.0","id":"1","source":"/s","type":"io.meshtap.outcome.v9","time":"2026-01-02T03:04:05.6Z","data":{"x":1}}`
	if err := e.DecodeJSON([]byte(in)); err != nil {
		t.Fatal(err)
	}
	if e.Kind != event.Unknown || string(e.Type) != "io.meshtap.outcome.v9" {
		t.Fatalf("kind %v, type %s", e.Kind, e.Type)
	}
	b := e.AppendJSON(nil)
	if err := cloudevents.CheckJSON(b); err != nil || !strings.Contains(string(b), "outcome.v9") {
		t.Fatalf("%v\n%s", err, b)
	}
}

func TestJSONEscapes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"plain":              {"outbound|80||a.b", "outbound|80||a.b"},
		"quote":              {`a"b\c`, `a\"b\\c`},
		"markup":             {"<a>&", `\u003ca\u003e\u0026`},
		"escape sequence":    {"\x1b[31mred", `\u001b[31mred`},
		"line break":         {"a\r\nb", `a\u000d\u000ab`},
		"delete":             {"\x7f", `\u007f`},
		"C1":                 {"\u009b31m", `\u009b31m`},
		"bidi override":      {"\u202etxt", `\u202etxt`},
		"line separator":     {"\u2028", `\u2028`},
		"zero width":         {"a\u200bb\ufeff", `a\u200bb\ufeff`},
		"letters stay":       {"é世😀", "é世😀"},
		"broken UTF-8":       {"a\xffb\xc3", `a\ufffdb\ufffd`},
		"the surrogates too": {"\xed\xa0\x80", `\ufffd\ufffd\ufffd`},
	} {
		var e event.Event
		e.Reset(event.Circuit)
		e.ID, e.Source = []byte("1"), []byte("/s")
		e.Texts[event.Reason] = []byte(c.in)
		b := string(e.AppendJSON(nil))
		if !strings.HasSuffix(b, `"data":{"meshtap.reason":"`+c.want+`"}}`) {
			t.Errorf("%s: %s", name, b)
		}
		if err := cloudevents.CheckJSON([]byte(b)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeJSONRefuses(t *testing.T) {
	t.Parallel()
	const head = `{"specversion":"1.0","id":"1","source":"/s","type":"io.meshtap.outcome.v1"`
	for name, c := range map[string]struct {
		in string
		ok bool
	}{
		"least":                  {head + `}`, true},
		"unknown attribute":      {head + `,"color":7}`, true},
		"unknown member of data": {head + `,"data":{"color":[{}]}}`, true},
		"not JSON":               {head, false},
		"an array":               {`[]`, false},
		"no id":                  {`{"specversion":"1.0","source":"/s","type":"x"}`, false},
		"id is a number":         {`{"specversion":"1.0","id":1,"source":"/s","type":"x"}`, false},
		"another specversion":    {`{"specversion":"0.3","id":"1","source":"/s","type":"x"}`, false},
		"no time":                {head + `,"time":"yesterday"}`, false},
		"a time out of range":    {head + `,"time":"9999-01-01T00:00:00Z"}`, false},
		"data is text":           {head + `,"data":"x"}`, false},
		"status is text":         {head + `,"data":{"http.response.status_code":"200"}}`, false},
		"status is negative":     {head + `,"data":{"http.response.status_code":-1}}`, false},
		"fallback is a number":   {head + `,"data":{"meshtap.fallback":1}}`, false},
		"tries is no list":       {head + `,"data":{"meshtap.tries":{}}}`, false},
		"more tries than kept":   {head + `,"data":{"meshtap.tries":[{},{},{},{},{},{}]}}`, true},
		"too big":                {head + `,"color":"` + strings.Repeat("x", event.MaxSize) + `"}`, false},
	} {
		if err := new(event.Event).DecodeJSON([]byte(c.in)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for i := range 16 {
		f.Add(event.Random(uint64(i)).AppendJSON(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again event.Event
		if e.DecodeJSON(b) != nil {
			return
		}
		out := e.AppendJSON(nil)
		if len(out) > event.MaxSize {
			return
		}
		if err := again.DecodeJSON(out); err != nil {
			t.Fatalf("accepted, and refused when written again: %v\n%s", err, out)
		}
		if err := event.Equal(&e, &again); err != nil {
			t.Fatal(err)
		}
	})
}
