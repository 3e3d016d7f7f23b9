// SPDX-License-Identifier: Apache-2.0

package cloudevent

import (
	"encoding/json"
	"fmt"
	"testing"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	s := NewSplitter("ce_")
	for _, c := range []struct{ name, in, want string }{
		{"nothing", `{}`, ""},
		{"attributes", `{"id":"1","source":"/a"}`, `ce_id=1 ce_source=/a `},
		{"data among them", `{"id":"1","datacontenttype":"application/json","data":{"a":[1,{"b":"}\"]"}],"c":","},"streamseq":"7"}`,
			`ce_id=1 ce_streamseq=7 application/json {"a":[1,{"b":"}\"]"}],"c":","}`},
		{"escapes", `{"id":"\u003cx\"\\\/\u003e"}`, `ce_id=<x"\/> `},
		{"data that is no object", `{"data":12,"id":"1"}`, `ce_id=1  12`},
		{"the one that is a number", `{"id":"1","data":{},"sampledrate":16}`, `ce_id=1 ce_sampledrate=16  {}`},
		{"data at the end", `{"data":[]}`, ` []`},
	} {
		if err := s.Split([]byte(c.in)); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := ""
		for _, a := range s.Attributes {
			got += a.Name + "=" + string(a.Value) + " "
		}
		if got += string(s.ContentType); s.Data != nil {
			got += " " + string(s.Data)
		}
		if got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	t.Parallel()
	s := NewSplitter("")
	for _, in := range []string{"", "{", "[]", `{"id"}`, `{"id":}`, `{"id":"}`, `{"id":1}`, `{"id":"1"`, `{id:"1"}`, `{"data":{}`, `{"data":"\`} {
		if err := s.Split([]byte(in)); err == nil {
			t.Errorf("%q was accepted", in)
		}
	}
}

func TestSplitAllocates(t *testing.T) {
	s := NewSplitter("ce_")
	in := []byte(`{"id":"1","source":"/a","datacontenttype":"application/json","data":{"a":1},"streamseq":"7"}`)
	if n := testing.AllocsPerRun(100, func() { _ = s.Split(in) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSplit writes events of any texts with encoding/json, and reads them back; and has it read anything at all.
func FuzzSplit(f *testing.F) {
	f.Add("1", "/a", "{\"x\":[1,\"]\"]}", []byte(`{"a":"b",}`))
	f.Fuzz(func(t *testing.T, id, source, data string, any []byte) {
		s := NewSplitter("")
		_ = s.Split(any)
		text, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		in, err := json.Marshal(struct {
			ID     string          `json:"id"`
			Data   json.RawMessage `json:"data"`
			Source string          `json:"source"`
		}{id, json.RawMessage(fmt.Sprintf(`{"a":[%s,{"b":%s}]}`, text, text)), source})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Split(in); err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		valid := func(v string) string { return string([]rune(v)) }
		if len(s.Attributes) != 2 || string(s.Attributes[0].Value) != valid(id) || string(s.Attributes[1].Value) != valid(source) {
			t.Errorf("%s: %q", in, s.Attributes)
		}
		if !json.Valid(s.Data) {
			t.Errorf("%s: data %s", in, s.Data)
		}
	})
}
