// SPDX-License-Identifier: Apache-2.0

package grpchttp1bridge

import (
	bridgepb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_http1_bridge/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/proxy/filter"
)

const typeURL = "envoy.extensions.filters.http.grpc_http1_bridge.v3.Config"

// Rows returns the filter for the table of extensions.
func Rows() []registry.Row[filter.Builder] {
	return []registry.Row[filter.Builder]{{
		Info: registry.Info{
			Category: registry.HTTPFilter, Name: "envoy.filters.http.grpc_http1_bridge", TypeURLs: []string{typeURL},
			Status: registry.Alpha, Posture: "untrusted", Example: "grpc-bridge.yaml", ChainOnly: true,
		},
		Parse: parse,
		Build: New,
	}}
}

// fields says which fields of the message are honoured.
var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&bridgepb.Config{}, protofields.Honour("upgrade_protobuf_to_grpc", "ignore_query_parameters"))
	return t
}()

// Fields returns the table of the fields that the filter honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	m := &bridgepb.Config{}
	p, err := fields.Decode(b, m)
	if err == nil {
		p.Config = Config{UpgradeProtobuf: m.GetUpgradeProtobufToGrpc(), IgnoreQuery: m.GetIgnoreQueryParameters()}
	}
	return p, err
}
