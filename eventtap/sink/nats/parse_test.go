// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"flag"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests see to testdata")

// TestParse reads each .in of testdata/parse.txtar, a meshtap.tap.v1.NatsSink, and compares with the .out behind it.
func TestParse(t *testing.T) {
	t.Parallel()
	sink.Parse(t, Rows()[0], &tapv1.NatsSink{}, func(config any) string {
		c := config.(Config)
		out := ""
		if c.TLS != nil {
			out += fmt.Sprintf("\nTLS %+v", *c.TLS)
		}
		if c.Create != nil {
			out += fmt.Sprintf("\nCreate %+v", *c.Create)
		}
		c.TLS, c.Create = nil, nil
		return fmt.Sprintf("%+v", c) + out
	}, *rewrite)
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
