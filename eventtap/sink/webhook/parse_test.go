// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"flag"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests see to testdata")

// TestParse reads each .in of testdata/parse.txtar, a meshtap.tap.v1.WebhookSink, and compares with the .out behind it.
func TestParse(t *testing.T) {
	t.Parallel()
	sink.Parse(t, Rows()[0], &tapv1.WebhookSink{}, func(config any) string {
		c, out := config.(Config), ""
		if c.TLS != nil {
			out = fmt.Sprintf("\nTLS %+v", *c.TLS)
		}
		c.TLS = nil
		return fmt.Sprintf("%+v", c) + out
	}, *rewrite)
}

func FuzzParse(f *testing.F) {
	b, err := proto.Marshal(&tapv1.WebhookSink{Url: "http://127.0.0.1/x?y", DeadLetterUrl: "https://a.example"})
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
		if c.Target.Address == "" || c.Target.Path == "" || c.Timeout < minTimeout || c.MaxRetryAfter > maxRetryAfter || c.Proto && c.Mode == Binary {
			t.Errorf("accepted: %+v", c)
		}
	})
}
