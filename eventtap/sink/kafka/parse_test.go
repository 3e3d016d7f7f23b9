// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"flag"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests see to testdata")

// TestParse reads each .in of testdata/parse.txtar, a meshtap.tap.v1.KafkaSink, and compares with the .out behind it.
func TestParse(t *testing.T) {
	t.Parallel()
	sink.Parse(t, Rows()[0], &tapv1.KafkaSink{}, func(config any) string {
		c := config.(Config)
		out := ""
		if c.SASL != nil {
			out += fmt.Sprintf("\nSASL %+v", *c.SASL)
		}
		if c.TLS != nil {
			out += fmt.Sprintf("\nTLS %+v", *c.TLS)
		}
		if c.Create != nil {
			out += fmt.Sprintf("\nCreate %+v", *c.Create)
		}
		c.SASL, c.TLS, c.Create = nil, nil, nil
		return fmt.Sprintf("%+v", c) + out
	}, *rewrite)
}

func FuzzParse(f *testing.F) {
	b, err := proto.Marshal(&tapv1.KafkaSink{Brokers: []string{"127.0.0.1:9092"}, Topic: "x.{class}", Sasl: &tapv1.Sasl{}})
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
		if len(c.Brokers) == 0 || c.Topic == "" || c.InFlight < 1 || c.AckTimeout < minAck || c.Linger > maxLinger || c.Proto && !c.Structured {
			t.Errorf("accepted: %+v", c)
		}
		if _, err := newSink(c).options(); err != nil && c.SASL == nil && c.TLS == nil {
			t.Errorf("%+v: %v", c, err)
		}
	})
}
