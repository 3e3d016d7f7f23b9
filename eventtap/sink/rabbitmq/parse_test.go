// SPDX-License-Identifier: Apache-2.0

package rabbitmq

import (
	"flag"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests see to testdata")

// TestParse reads each .in of testdata/parse.txtar, a meshtap.tap.v1.RabbitmqSink, and compares with the .out behind it.
func TestParse(t *testing.T) {
	t.Parallel()
	sink.Parse(t, Rows()[0], &tapv1.RabbitmqSink{}, func(config any) string {
		c := config.(Config)
		out := ""
		if c.TLS != nil {
			out += fmt.Sprintf("\nTLS %+v", *c.TLS)
		}
		if c.Declare != nil {
			out += fmt.Sprintf("\nDeclare %+v", *c.Declare)
		}
		c.TLS, c.Declare = nil, nil
		return fmt.Sprintf("%+v", c) + out
	}, *rewrite)
}

func FuzzParse(f *testing.F) {
	b, err := proto.Marshal(&tapv1.RabbitmqSink{Urls: []string{"amqp://127.0.0.1"}, RoutingKey: "a.{key}", Declare: &tapv1.DeclareQueue{}})
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
		if len(c.Servers) == 0 || c.Exchange == "" || c.InFlight < 1 || c.AckTimeout < minAck || c.Proto && !c.Structured {
			t.Errorf("accepted: %+v", c)
		}
		for _, k := range []string{"", "a.b", string(make([]byte, 300))} {
			if key := newSink(c).keyOf(event1(k)); len(key) > maxKey {
				t.Errorf("%q: a key of %d bytes", c.RoutingKey, len(key))
			}
		}
	})
}
