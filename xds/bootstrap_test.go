// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

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

func TestStreamConfig(t *testing.T) {
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
		},
	}
	if _, ok, err := StreamConfig(b); ok || err != nil {
		t.Errorf("without a control plane: %v, error %v", ok, err)
	}
	tests := []struct {
		name   string
		stream bootstrap.Stream
		want   string
	}{
		{"static", bootstrap.Stream{Cluster: "static"}, "[{tcp 127.0.0.1:1} {unix /run/cp.sock}]"},
		{"names", bootstrap.Stream{Cluster: "names"}, "[{tcp cp:7} {tcp [::1]:8}]"},
		{"target", bootstrap.Stream{Target: "dns:///cp:9"}, "[{tcp cp:9}]"},
		{"empty", bootstrap.Stream{Cluster: "empty"}, "error"},
		{"bad target", bootstrap.Stream{Target: "cp"}, "error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.stream.Metadata = []bootstrap.Header{{Name: "k", Value: "v"}}
			b.Dynamic = &bootstrap.Dynamic{Stream: tt.stream, Listeners: true}
			cfg, ok, err := StreamConfig(b)
			if got := show(cfg.Targets); !ok || err == nil && got != tt.want || err != nil && tt.want != "error" {
				t.Errorf("got %s, ok %v, error %v, want %s", got, ok, err, tt.want)
			}
			if strings.Join(cfg.Metadata, "=") != "k=v" || len(cfg.Types) != 4 {
				t.Errorf("config %+v", cfg)
			}
		})
	}
	if cfg := FromBootstrap(b); !cfg.Listeners || cfg.Clusters || len(cfg.Static) != 4 || cfg.FetchTimeout != DefaultFetchTimeout {
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
