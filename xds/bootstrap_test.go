// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/ads"
	"github.com/meshtap/meshtap/xds/bootstrap"
	"github.com/meshtap/meshtap/xds/resource"
)

func TestParseTarget(t *testing.T) {
	t.Parallel()
	tests := []struct{ uri, want string }{
		{"cp.example:18000", "tcp cp.example:18000"},
		{"dns:cp.example:18000", "tcp cp.example:18000"},
		{"dns:///cp.example:18000", "tcp cp.example:18000"},
		{"dns://8.8.8.8/cp.example:18000", "tcp cp.example:18000"},
		{"ipv4:127.0.0.1:18000", "tcp 127.0.0.1:18000"},
		{"ipv6:[::1]:18000", "tcp [::1]:18000"},
		{"[::1]:18000", "tcp [::1]:18000"},
		{"unix:/run/cp.sock", "unix /run/cp.sock"},
		{"unix:///run/cp.sock", "unix /run/cp.sock"},
		{"unix:cp.sock", "unix cp.sock"},
		{"cp.example", "error"},
		{"xds:///cp", "error"},
		{"", "error"},
	}
	for _, tt := range tests {
		t.Run(tt.uri, func(t *testing.T) {
			t.Parallel()
			got, err := parseTarget(tt.uri)
			if text := got.Network + " " + got.Address; err == nil && text != tt.want || err != nil && tt.want != "error" {
				t.Errorf("got %s, error %v, want %s", text, err, tt.want)
			}
		})
	}
}

func static(name string, value any) bootstrap.Static {
	return bootstrap.Static{Decoded: resource.Decoded{Name: name, Value: value}, Raw: []byte(name)}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	pipe := mesh.Endpoint{Address: mesh.Address{Pipe: "/run/cp.sock"}}
	ip := mesh.Endpoint{Address: mesh.Address{IP: netip.MustParseAddrPort("127.0.0.1:1")}}
	b := &bootstrap.Config{
		Listeners: []bootstrap.Static{static("L", &mesh.Listener{})},
		Clusters: []bootstrap.Static{
			static("static", &mesh.Cluster{Endpoints: &mesh.EndpointSet{
				Localities: []mesh.LocalityEndpoints{{Endpoints: []mesh.Endpoint{ip}}, {Endpoints: []mesh.Endpoint{pipe}}},
			}}),
			static("names", &mesh.Cluster{DNS: &mesh.DNS{Targets: []mesh.DNSTarget{{Host: "cp", Port: 7}, {Host: "::1", Port: 8}}}}),
			static("empty", &mesh.Cluster{}),
			static("secure", &mesh.Cluster{TLS: &mesh.TLSContext{}, Endpoints: &mesh.EndpointSet{
				Localities: []mesh.LocalityEndpoints{{Endpoints: []mesh.Endpoint{ip}}},
			}}),
		},
	}
	streams := NewStreams(b, zap.NewNop())
	if s, err := streams.Aggregated(); s != nil || err != nil {
		t.Errorf("without a control plane: %v, error %v", s, err)
	}
	tests := []struct {
		name   string
		stream resource.Source
		want   string
	}{
		{"static", resource.Source{Cluster: "static"}, "[{tcp 127.0.0.1:1} {unix /run/cp.sock}]"},
		{"names", resource.Source{Cluster: "names"}, "[{tcp cp:7} {tcp [::1]:8}]"},
		{"target", resource.Source{Target: "dns:///cp:9"}, "[{tcp cp:9}]"},
		{"secure", resource.Source{Cluster: "secure"}, "[{tcp 127.0.0.1:1}]"},
		{"empty", resource.Source{Cluster: "empty"}, "error"},
		{"bad target", resource.Source{Target: "cp"}, "error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.stream.Metadata = []resource.Header{{Name: "k", Value: "v"}}
			tt.stream.Variant = resource.DeltaGRPC
			cfg, err := streams.config(tt.stream)
			if got := show(cfg.Targets); err == nil && got != tt.want || err != nil && tt.want != "error" {
				t.Errorf("got %s, error %v, want %s", got, err, tt.want)
			}
			if strings.Join(cfg.Metadata, "=") != "k=v" || !cfg.Delta {
				t.Errorf("config %+v", cfg)
			}
			b.Dynamic = &bootstrap.Dynamic{ADS: &tt.stream}
			if s, err := streams.Aggregated(); (s == nil) != (tt.want == "error") || (err != nil) != (tt.want == "error") {
				t.Errorf("stream %v, error %v", s, err)
			}
		})
	}
	b.Dynamic = &bootstrap.Dynamic{Listeners: &resource.Source{Kind: mesh.KindListener}}
	if cfg := FromBootstrap(b); !cfg.Listeners || cfg.Clusters || len(cfg.Static) != 5 || cfg.FetchTimeout != DefaultFetchTimeout {
		t.Errorf("config %+v", cfg)
	}
}

func show(list []ads.Target) string {
	words := make([]string, len(list))
	for i, t := range list {
		words[i] = fmt.Sprintf("{%s %s}", t.Network, t.Address)
	}
	return "[" + strings.Join(words, " ") + "]"
}
