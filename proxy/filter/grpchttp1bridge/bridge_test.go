// SPDX-License-Identifier: Apache-2.0

package grpchttp1bridge

import (
	"testing"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
)

// TestRequest: which requests are bridged, and what becomes of their heads. Bodies and answers are shown in proxy, with a
// server around them.
func TestRequest(t *testing.T) {
	t.Parallel()
	all := Config{UpgradeProtobuf: true, IgnoreQuery: true}
	for _, c := range []struct {
		name        string
		cfg         Config
		protocol    mesh.Protocol
		contentType string
		path        string
		bridged     bool
		want        string // content-type, te and path
	}{
		{"gRPC", all, mesh.HTTP11, "application/grpc", "/p.S/M?x=1", true, "application/grpc trailers /p.S/M"},
		{"gRPC with its query", Config{}, mesh.HTTP11, "application/grpc+proto", "/p.S/M?x=1", true, "application/grpc+proto trailers /p.S/M?x=1"},
		{"gRPC over HTTP/2", all, mesh.HTTP2, "application/grpc", "/p.S/M?x=1", false, "application/grpc  /p.S/M?x=1"},
		{"protobuf without a body", all, mesh.HTTP11, "application/x-protobuf", "/p.S/M", true, "application/grpc trailers /p.S/M"},
		{"protobuf that is not asked for", Config{}, mesh.HTTP11, "application/x-protobuf", "/p.S/M", false, "application/x-protobuf  /p.S/M"},
		{"protobuf with a parameter", all, mesh.HTTP11, "application/x-protobuf; a=b", "/p.S/M", false, "application/x-protobuf; a=b  /p.S/M"},
		{"something else", all, mesh.HTTP11, "text/plain", "/p.S/M?x=1", false, "text/plain  /p.S/M?x=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, err := New(c.cfg, filter.Deps{Place: 1})
			if err != nil {
				t.Fatal(err)
			}
			x := &exchange.Exchange{Request: codec.Request{Protocol: c.protocol, Path: []byte(c.path)}}
			x.Request.Header.AddString("content-type", c.contentType)
			if v, _ := f.OnRequest(x); v != filter.Continue {
				t.Error("it was answered")
			}
			l := &x.Request.Header
			if got := string(l.Get("content-type")) + " " + string(l.Get("te")) + " " + string(x.Request.Path); got != c.want {
				t.Errorf("the head is %q, want %q", got, c.want)
			}
			if (x.Kept(1) != nil) != c.bridged {
				t.Errorf("bridged: %v", !c.bridged)
			}
		})
	}
}
