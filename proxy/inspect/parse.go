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
	if m.MaxClientHelloSize != nil {
		n := m.MaxClientHelloSize.Value
		if n < 256 || n > MaxClientHello {
			return registry.Parsed{}, registry.Errorf("max_client_hello_size", "%d is not in 256 ... %d", n, MaxClientHello)
		}
		c.MaxBytes = int(n)
	}
	p.Config = c
	return p, nil
}
