// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"slices"
	"strings"
	"testing"

	httppb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	dstpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/internal/registry"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		typeURL  string
		m        proto.Message
		raw      string
		want     any
		noEffect []string
		err      string
	}{
		{name: "original_dst", typeURL: typeOriginalDst, m: &dstpb.OriginalDst{}},
		{name: "http_inspector", typeURL: typeHTTPInspector, m: &httppb.HttpInspector{}},
		{name: "tls defaults", typeURL: typeTLSInspector, m: &tlspb.TlsInspector{}, want: TLSConfig{MaxBytes: MaxClientHello}},
		{
			name: "tls limit", typeURL: typeTLSInspector,
			m:    &tlspb.TlsInspector{MaxClientHelloSize: wrapperspb.UInt32(4096), CloseConnectionOnClientHelloParsingErrors: true},
			want: TLSConfig{MaxBytes: 4096, OnlyTLS: true},
		},
		{
			name: "tls limit too high", typeURL: typeTLSInspector,
			m:   &tlspb.TlsInspector{MaxClientHelloSize: wrapperspb.UInt32(MaxClientHello + 1)},
			err: "max_client_hello_size: must be more than 255 and at most 16384",
		},
		{
			name: "tls limit too low", typeURL: typeTLSInspector,
			m:   &tlspb.TlsInspector{MaxClientHelloSize: wrapperspb.UInt32(255)},
			err: "max_client_hello_size: must be more than 255",
		},
		{
			name: "without effect", typeURL: typeTLSInspector,
			m: &tlspb.TlsInspector{
				InitialReadBufferSize:   wrapperspb.UInt32(512),
				EnableJa3Fingerprinting: wrapperspb.Bool(true),
				EnableJa4Fingerprinting: wrapperspb.Bool(false),
			},
			want:     TLSConfig{MaxBytes: MaxClientHello},
			noEffect: []string{"enable_ja3_fingerprinting", "initial_read_buffer_size"},
		},
		{name: "unknown field", typeURL: typeHTTPInspector, raw: "\xa0\x06\x01", err: "1 fields that this version of envoy.extensions.filters.listener.http_inspector.v3.HttpInspector does not have"},
		{name: "not a message", typeURL: typeOriginalDst, raw: "\xff", err: "not a valid envoy.extensions.filters.listener.original_dst.v3.OriginalDst"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := registry.NewParsers()
			registry.AddAll(p, Rows())
			b := []byte(tc.raw)
			if tc.m != nil {
				var err error
				if b, err = proto.Marshal(tc.m); err != nil {
					t.Fatal(err)
				}
			}
			got, _, ok, err := p.Parse(registry.ListenerFilter, tc.typeURL, b)
			if !ok {
				t.Fatal("no such filter")
			}
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got error %v, want %q", err, tc.err)
				}
				return
			}
			slices.Sort(got.NoEffect)
			if err != nil || got.Config != tc.want || !slices.Equal(got.NoEffect, tc.noEffect) {
				t.Fatalf("got %+v, %v; want %+v, without effect %q", got, err, tc.want, tc.noEffect)
			}
			if f := registry.Builders(Rows())[tc.typeURL](got.Config); (f.Peeker == nil) == (f.Opener == nil) {
				t.Fatalf("built %+v, want one of the two", f)
			}
		})
	}
}
