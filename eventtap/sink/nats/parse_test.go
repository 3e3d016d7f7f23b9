// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests see to testdata")

// TestParse reads each .in of testdata/parse.txtar, a meshtap.tap.v1.NatsSink, and compares with the .out behind it.
func TestParse(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "parse.txtar")
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ar.Files {
		in := &ar.Files[i]
		name, ok := strings.CutSuffix(in.Name, ".in")
		if !ok {
			continue
		}
		var m tapv1.NatsSink
		if err := prototext.Unmarshal(in.Data, &m); err != nil {
			t.Fatalf("%s: %v", in.Name, err)
		}
		b, err := proto.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		got := describe(b)
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

func describe(b []byte) string {
	p, err := Rows()[0].Parse(TypeURL, b)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	c := p.Config.(Config)
	tls, create := c.TLS, c.Create
	c.TLS, c.Create = nil, nil
	out := fmt.Sprintf("%+v\n", c)
	if tls != nil {
		out += fmt.Sprintf("TLS %+v\n", *tls)
	}
	if create != nil {
		out += fmt.Sprintf("Create %+v\n", *create)
	}
	return out
}

func FuzzParse(f *testing.F) {
	b, err := proto.Marshal(&tapv1.NatsSink{Urls: []string{"nats://127.0.0.1"}, Stream: "S", CreateStream: &tapv1.CreateStream{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Rows()[0].Parse(TypeURL, b)
		if err != nil {
			return
		}
		c := p.Config.(Config)
		if len(c.URLs) == 0 || c.Stream == "" || c.Prefix == "" || c.InFlight < 1 || c.AckTimeout < minAckTimeout {
			t.Errorf("accepted: %+v", c)
		}
	})
}
