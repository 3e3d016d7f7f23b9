// SPDX-License-Identifier: Apache-2.0

package grpcweb

import (
	webpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/proxy/filter"
)

const typeURL = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"

// Rows returns the filter for the table of extensions.
func Rows() []registry.Row[filter.Builder] {
	return []registry.Row[filter.Builder]{{
		Info: registry.Info{
			Category: registry.HTTPFilter, Name: "envoy.filters.http.grpc_web", TypeURLs: []string{typeURL},
			Status: registry.Alpha, Posture: "untrusted", Example: "grpc-web.yaml", ChainOnly: true,
		},
		Parse: parse,
		Build: New,
	}}
}

// fields says which fields of the message are honoured: it has none.
var fields = func() *protofields.Table {
	t := protofields.New()
	t.Add(&webpb.GrpcWeb{})
	return t
}()

// Fields returns the table of the fields that the filter honours, for documents and for tests.
func Fields() *protofields.Table { return fields }

func parse(_ string, b []byte) (registry.Parsed, error) {
	return fields.Decode(b, &webpb.GrpcWeb{})
}
