// SPDX-License-Identifier: Apache-2.0

package zeromq

import (
	"flag"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	tapv1 "github.com/meshtap/meshtap/api/meshtap/tap/v1"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests see to testdata")

// TestParse reads each .in of testdata/parse.txtar, a meshtap.tap.v1.ZeromqSink, and compares with the .out behind it.
func TestParse(t *testing.T) {
	t.Parallel()
	sink.Parse(t, Rows()[0], &tapv1.ZeromqSink{}, func(c any) string {
		cfg := c.(Config)
		curve := cfg.Curve
		cfg.Curve = nil
		if curve == nil {
			return fmt.Sprintf("%+v", cfg)
		}
		return fmt.Sprintf("%+v\n%s %x %x", cfg, curve.SecretFile, curve.Server, curve.Clients)
	}, *rewrite)
}

func FuzzParse(f *testing.F) {
	b, err := proto.Marshal(&tapv1.ZeromqSink{Pattern: tapv1.ZeromqSink_PUSH, Connect: []string{"tcp://127.0.0.1:1"}})
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
		if c.Pattern == "" || (c.Bind == "") == (len(c.Connect) == 0) || c.PeerBytes < minPeerBytes || c.MaxPeers < 1 || c.Heartbeat < minTime {
			t.Errorf("accepted: %+v", c)
		}
	})
}
