// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"context"
	"errors"
	"net"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

func TestParseService(t *testing.T) {
	t.Setenv("MESHTAP_TEST_STAGE", "blue")
	const cluster = `"grpcService":{"envoyGrpc":{"clusterName":"c"}}`
	base := als.Config{Kind: als.HTTP, LogName: "l", Cluster: "c", FlushInterval: time.Second, BufferBytes: 16 << 10}
	with := func(f func(*als.Config)) als.Config {
		c := base
		f(&c)
		return c
	}
	for _, c := range []struct {
		name, in string
		tcp      bool
		want     ServiceConfig
		noEffect []string
		refused  string
	}{
		{name: "defaults", in: `{"commonConfig":{"logName":"l",` + cluster + `}}`, want: ServiceConfig{Config: base}},
		{name: "of connections", tcp: true, in: `{"commonConfig":{"logName":"l",` + cluster + `}}`, want: ServiceConfig{Config: with(func(c *als.Config) { c.Kind = als.TCP })}},
		{
			name: "everything",
			in: `{"commonConfig":{"logName":"l","transportApiVersion":"V3","bufferFlushInterval":"0.5s","bufferSizeBytes":0,
				"grpcService":{"envoyGrpc":{"clusterName":"c","authority":"a"},"initialMetadata":[{"key":"X-A","value":"1"},{"key":"b","value":""}]},
				"customTags":[{"tag":"l","literal":{"value":"v"}},{"tag":"e","environment":{"name":"MESHTAP_TEST_STAGE"}},
					{"tag":"n","environment":{"name":"MESHTAP_TEST_NONE","defaultValue":"d"}},{"tag":"h","requestHeader":{"name":"X-User","defaultValue":"u"}}],
				"grpcStreamRetryPolicy":{"numRetries":3}},
				"additionalRequestHeadersToLog":["X-R"],"additionalResponseHeadersToLog":["X-S"],"additionalResponseTrailersToLog":["x-t"]}`,
			want: ServiceConfig{
				Config: with(func(c *als.Config) {
					c.FlushInterval, c.BufferBytes, c.Authority, c.Metadata = 500*time.Millisecond, 0, "a", "x-a\n1\nb\n\n"
				}),
				Extra: als.Extra{
					RequestHeaders: []string{"x-r"}, ResponseHeaders: []string{"x-s"}, ResponseTrailers: []string{"x-t"},
					Tags: []als.Tag{{Name: "l", Value: "v"}, {Name: "e", Value: "blue"}, {Name: "n", Value: "d"}, {Name: "h", Header: "x-user", Value: "u"}},
				},
			},
			noEffect: []string{"common_config.grpc_stream_retry_policy"},
		},
		{
			name: "an address", in: `{"commonConfig":{"logName":"l","grpcService":{"googleGrpc":{"targetUri":"dns:///h:1","statPrefix":"s"}}}}`,
			want:     ServiceConfig{Config: with(func(c *als.Config) { c.Cluster, c.Address = "", "dns:///h:1" })},
			noEffect: []string{"common_config.grpc_service.google_grpc.stat_prefix"},
		},
		{name: "nothing", in: `{}`, refused: "common_config: is required"},
		{name: "no name", in: `{"commonConfig":{` + cluster + `}}`, refused: "common_config.log_name: must not be empty"},
		{name: "no service", in: `{"commonConfig":{"logName":"l"}}`, refused: "common_config.grpc_service: is required"},
		{name: "no time", in: `{"commonConfig":{"logName":"l","bufferFlushInterval":"0s",` + cluster + `}}`, refused: "common_config.buffer_flush_interval: must be more than 0s"},
		{name: "version 2", in: `{"commonConfig":{"logName":"l","transportApiVersion":"V2",` + cluster + `}}`, refused: "common_config.transport_api_version: V2 is not supported; supported: V3"},
		{
			name: "credentials", in: `{"commonConfig":{"logName":"l","grpcService":{"googleGrpc":{"targetUri":"h:1","statPrefix":"s","channelCredentials":{"sslCredentials":{}}}}}}`,
			refused: "common_config.grpc_service.google_grpc.channel_credentials: credentials are not supported here; use envoy_grpc and a cluster with TLS",
		},
		{
			name: "filter state", in: `{"commonConfig":{"logName":"l","filterStateObjectsToLog":["x"],` + cluster + `}}`,
			refused: "common_config.filter_state_objects_to_log: there are no filter state objects",
		},
		{
			name: "metadata", in: `{"commonConfig":{"logName":"l","customTags":[{"tag":"x","metadata":{}}],` + cluster + `}}`,
			refused: "common_config.custom_tags[0].metadata: there is no metadata",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			row := rowOf(t, "HttpGrpcAccessLogConfig")
			if c.tcp {
				row = rowOf(t, "TcpGrpcAccessLogConfig")
			}
			p, err := row.Parse(row.TypeURLs[0], wire(t, row.TypeURLs[0], []byte(c.in)))
			if c.refused != "" {
				if err == nil || err.Error() != c.refused {
					t.Errorf("refused with %v, want %q", err, c.refused)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(p.Config, c.want) || !slices.Equal(p.NoEffect, c.noEffect) {
				t.Errorf("%+v, %v, without effect %q", p.Config, err, p.NoEffect)
			}
		})
	}
}

// TestService: a logger hands outcomes to the client that its configuration shares, behind its filter, and gives it back.
func TestService(t *testing.T) {
	t.Parallel()
	var written int64
	services := als.NewClients(als.Deps{
		Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody is there") },
		Count: func(f als.Fate, n int64) {
			if f == als.Written {
				written += n // by the goroutine of the test alone
			}
		},
		Log: zap.NewNop(), Random: func() float64 { return 0 },
	})
	cfg := ServiceConfig{Config: als.Config{Kind: als.HTTP, Cluster: "c", FlushInterval: time.Hour, BufferBytes: 1 << 20}}
	log := mesh.AccessLog{
		Extension: mesh.Extension{TypeURL: typeHTTPService, Config: cfg},
		Filter:    &mesh.LogFilter{Status: &mesh.Comparison{Op: '>', Value: 500}},
	}
	l, err := New([]mesh.AccessLog{log}, registry.Builders(Rows()), Deps{Services: services})
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{200, 500, 503} {
		l.Observe(&mesh.Outcome{Status: status})
	}
	l.Close()
	services.Close()
	if written != 2 {
		t.Errorf("%d entries, want 2", written)
	}
	if _, err := New([]mesh.AccessLog{log}, registry.Builders(Rows()), Deps{}); err == nil {
		t.Error("a logger without services was built")
	}
}
