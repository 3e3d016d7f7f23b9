// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	httppb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	dstpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
)

const (
	typeOriginalDst   = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
	typeTLSInspector  = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
	typeHTTPInspector = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"
)

// fields says which fields of the three messages are honoured.
var fields = coverage()

// Fields returns the table of the fields that the filters honour, for documents and for tests.
func Fields() *protofields.Table { return fields }

func coverage() *protofields.Table {
	t := protofields.New()
	t.Add(&dstpb.OriginalDst{})
	t.Add(&httppb.HttpInspector{})
	t.Add(&tlspb.TlsInspector{},
		protofields.Honour("max_client_hello_size", "close_connection_on_client_hello_parsing_errors"),
		protofields.Ignore("buffers are pooled; nothing is allocated per connection", "initial_read_buffer_size"),
		protofields.Ignore("fingerprints are not computed", "enable_ja3_fingerprinting=false", "enable_ja4_fingerprinting=false"))
	return t
}

func parseOriginalDst(_ string, b []byte) (registry.Parsed, error) {
	return fields.Decode(b, &dstpb.OriginalDst{})
}

func parseHTTPInspector(_ string, b []byte) (registry.Parsed, error) {
	return fields.Decode(b, &httppb.HttpInspector{})
}

func parseTLSInspector(_ string, b []byte) (registry.Parsed, error) {
	var m tlspb.TlsInspector
	p, err := fields.Decode(b, &m)
	if err != nil {
		return p, err
	}
	c := TLSConfig{MaxBytes: MaxClientHello, OnlyTLS: m.CloseConnectionOnClientHelloParsingErrors}
	if n := m.GetMaxClientHelloSize(); n != nil {
		c.MaxBytes = int(n.GetValue()) // at most MaxClientHello, by the rules of the proto file
	}
	p.Config = c
	return p, nil
}
