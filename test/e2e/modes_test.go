// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
	"github.com/meshtap/meshtap/test/fakexds"
)

// TestEveryMode: go-control-plane's server drives the binary in every mode there is. What it says first is served, so is what
// it says next, and a bad cluster beside that is refused alone.
func TestEveryMode(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{
		"ADS GRPC", "ADS DELTA_GRPC", "GRPC", "DELTA_GRPC", "REST", "linear ADS GRPC", "linear ADS DELTA_GRPC", "linear GRPC",
		"linear DELTA_GRPC", "TLS ADS GRPC", "TLS ADS DELTA_GRPC", "TLS GRPC", "TLS DELTA_GRPC", "TLS REST",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			drive(t, mode)
		})
	}
}

func drive(t *testing.T, mode string) {
	a, b := origin.Start(t, "a", nil), origin.Start(t, "b", nil)
	var opt fakexds.Options
	var keys *planeKeys
	mode, opt.Linear = strings.CutPrefix(mode, "linear ")
	if plain, secure := strings.CutPrefix(mode, "TLS "); secure {
		mode, keys = plain, newPlaneKeys(t, t.TempDir())
		own := keys.authority.Issue(t, "control.example")
		opt.TLS = &tls.Config{Certificates: []tls.Certificate{own.Certificate}, ClientCAs: keys.authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	}
	cp := fakexds.StartWith(t, opt)
	at, api, from := cp.Addr(), "", &corepb.ConfigSource{ResourceApiVersion: corepb.ApiVersion_V3}
	switch mode {
	case "GRPC", "DELTA_GRPC":
		from = fakexds.StreamSource(corepb.ApiConfigSource_ApiType(corepb.ApiConfigSource_ApiType_value[mode]), "cp")
	case "REST":
		at, from = cp.ServeREST(), fakexds.PollSource("cp", 50*time.Millisecond)
	default:
		api = strings.TrimPrefix(mode, "ADS ")
		from.ConfigSourceSpecifier = &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}}
	}
	push := func(version, cluster string, more ...types.Resource) {
		cp.SetAll(version, map[string][]types.Resource{
			fakexds.ClusterType:  append(fakexds.From(from, fakexds.EDSCluster("a"), fakexds.EDSCluster("b")), more...),
			fakexds.EndpointType: {fakexds.Endpoints("a", a.Addr()), fakexds.Endpoints("b", b.Addr())},
			fakexds.RouteType:    {fakexds.Routes("routes", cluster)},
			fakexds.ListenerType: fakexds.From(from, fakexds.Listener("main", netip.MustParseAddrPort("127.0.0.1:0"), "routes")),
		})
	}
	push("1", "a")
	p := sidecar.Run(t, sidecar.Options{Bootstrap: drivenBy(t, at, api, from, keys), Args: []string{"--no-tap"}})
	p.Ready()
	answeredBy(t, p, "a")
	bad := fakexds.StaticCluster("bad", a.Addr())
	bad.ConnectTimeout = durationpb.New(-time.Second)
	push("2", "b", bad)
	answeredBy(t, p, "b")
	p.Admin().UntilStats(func(s sidecar.Stats) bool {
		return s["cluster_manager.cds.update_rejected"] > 0 && s["cluster_manager.active_clusters"] == 3
	})
}

// drivenBy is a bootstrap of a control plane at addr, for which api is the type of its aggregated stream, "" where there is none.
func drivenBy(t *testing.T, addr, api string, from *corepb.ConfigSource, keys *planeKeys) string {
	source, err := protojson.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	aggregated := ""
	if api != "" {
		aggregated = fmt.Sprintf("  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: cp}}]}\n", api)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`node: {id: modes, cluster: modes}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
%s  lds_config: %s
  cds_config: %[2]s
static_resources:
  clusters:
  - name: cp
    connect_timeout: 5s
    load_assignment: {cluster_name: cp, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
`, aggregated, source, host, port)
	if keys == nil {
		return text
	}
	return keys.secure(text)
}

// answeredBy waits until an origin answers what comes to the listener.
func answeredBy(t *testing.T, p *sidecar.Proxy, want string) {
	t.Helper()
	client := &http.Client{Timeout: sidecar.Hang}
	defer client.CloseIdleConnections()
	url := "http://" + p.Admin().Listeners()["main"] + "/"
	got, pace := "", time.NewTicker(10*time.Millisecond)
	defer pace.Stop()
	for end := time.Now().Add(sidecar.Hang); time.Now().Before(end); <-pace.C {
		res, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got = res.Header.Get("X-Origin"); res.StatusCode == http.StatusOK && got == want {
			return
		}
	}
	t.Fatalf("%q answers, want %q", got, want)
}
