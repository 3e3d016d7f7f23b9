// SPDX-License-Identifier: Apache-2.0

package grpchttp1bridge

import (
	"testing"

	bridgepb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_http1_bridge/v3"
	"google.golang.org/protobuf/proto"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, in := range []*bridgepb.Config{{}, {UpgradeProtobufToGrpc: true}, {IgnoreQueryParameters: true}} {
		b, err := proto.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parse(typeURL, b)
		if want := (Config{UpgradeProtobuf: in.UpgradeProtobufToGrpc, IgnoreQuery: in.IgnoreQueryParameters}); err != nil || p.Config != want {
			t.Errorf("%+v, %v, want %+v", p.Config, err, want)
		}
	}
	for _, in := range [][]byte{{0x18, 1}, {0xff}} {
		if _, err := parse(typeURL, in); err == nil {
			t.Errorf("%x is taken", in)
		}
	}
}
