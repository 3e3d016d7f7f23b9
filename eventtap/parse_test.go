// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/registry"
)

// testRows are two sinks: one takes anything, one refuses.
func testRows() []SinkRow {
	return []SinkRow{
		{
			Info: registry.Info{Category: registry.EventSink, Name: "stdout", TypeURLs: []string{"meshtap.tap.v1.StdoutSink"}},
			Parse: func(string, []byte) (registry.Parsed, error) {
				return registry.Parsed{Config: "stdout", NoEffect: []string{"color"}}, nil
			},
		},
		{
			Info: registry.Info{Category: registry.EventSink, Name: "file", TypeURLs: []string{"meshtap.tap.v1.FileSink"}},
			Parse: func(string, []byte) (registry.Parsed, error) {
				return registry.Parsed{}, registry.Errorf("path", "must not be empty")
			},
		},
	}
}

// TestParse reads each .in of testdata/parse.txtar, a meshtap.tap.v1.Tap, and compares with the .out behind it.
func TestParse(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "parse.txtar")
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	parse := Rows(testRows())[0].Parse
	for i := range ar.Files {
		in := &ar.Files[i]
		name, ok := strings.CutSuffix(in.Name, ".in")
		if !ok {
			continue
		}
		var m tapv1.Tap
		if err := prototext.Unmarshal(in.Data, &m); err != nil {
			t.Fatalf("%s: %v", in.Name, err)
		}
		b, err := proto.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		got := describe(parse(TypeURL, b))
		out := &ar.Files[i+1]
		if out.Name != name+".out" {
			t.Fatalf("%s has no .out behind it", in.Name)
		}
		if *rewrite {
			out.Data = []byte(got)
		} else if got != string(out.Data) {
			t.Errorf("%s:\n%swant\n%s", name, got, out.Data)
		}
	}
	if *rewrite {
		if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func describe(p registry.Parsed, err error) string {
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	c := p.Config.(Config)
	var b strings.Builder
	fmt.Fprintf(&b, "memory %d: rings %d, hub %d, a sink %d\n", c.Memory, c.ringBytes(), c.HubBytes(), c.sinkBytes())
	for k, m := range c.Modes {
		if m != Default {
			fmt.Fprintf(&b, "mode %v %d\n", event.Kind(k), m)
		}
	}
	if !c.Policy.Mask.isZero() || c.Policy.Off || c.Policy.OneIn > 0 || c.Policy.Slow > 0 || c.Policy.Filter != nil {
		fmt.Fprintf(&b, "policy %+v\n", c.Policy)
	}
	for _, s := range c.Selections {
		fmt.Fprintf(&b, "selection %q %q %q %+v\n", s.Listener, s.Route, s.Cluster, *s.Policy)
	}
	if c.Key != (Key{}) {
		fmt.Fprintf(&b, "key %+v\n", c.Key)
	}
	if c.Spool != (SpoolConfig{}) {
		fmt.Fprintf(&b, "spool %+v\n", c.Spool)
	}
	fmt.Fprintf(&b, "client network %v\nsource %+v\n", c.ClientNetwork, c.Source)
	for _, s := range c.Sinks {
		fmt.Fprintf(&b, "sink %s %s %v\n", s.Name, s.TypeURL, s.Config)
		if s.Modes != nil {
			fmt.Fprintf(&b, "its modes %v\n", *s.Modes)
		}
	}
	for _, f := range p.NoEffect {
		fmt.Fprintf(&b, "no effect %s\n", f)
	}
	return b.String()
}

func TestParseRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	parse := Rows(nil)[0].Parse
	for name, b := range map[string][]byte{
		"a field of the future": protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1),
		"not a message":         {0xff},
	} {
		if p, err := parse(TypeURL, b); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	ar, err := txtar.ParseFile(filepath.Join("testdata", "parse.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, in := range ar.Files {
		var m tapv1.Tap
		if strings.HasSuffix(in.Name, ".in") && prototext.Unmarshal(in.Data, &m) == nil {
			b, err := proto.Marshal(&m)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	parse := Rows(testRows())[0].Parse
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(TypeURL, b)
		if err != nil {
			return
		}
		if c := p.Config.(Config); c.validate() != nil {
			t.Errorf("accepted, and not valid: %+v", c)
		}
	})
}
