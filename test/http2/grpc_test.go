// SPDX-License-Identifier: Apache-2.0

//go:build http2

package http2_test

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// cases are grpc-go's interop cases that need no credentials of a cloud.
var cases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
	"special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "orca_per_rpc", "orca_oob",
}

// retries are on: they must not change what a call means.
const retries = `, retry_policy: {retry_on: "connect-failure,refused-stream,reset-before-request,unavailable,reset", num_retries: 2}`

// Grpc-go's interop client and server understand each other through the proxy.
func TestGRPCInterop(t *testing.T) {
	server := grpcServer(t)
	p, port := listen(t, bootstrap("AUTO", server, retries))
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			args := []string{"--server_host", "127.0.0.1", "--server_port", port, "--test_case", name}
			if name == "orca_per_rpc" || name == "orca_oob" {
				args = append(args, "--service_config_json", `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`)
			}
			if out, err := peer(t, "client", args...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, p.Log())
			}
		})
	}
	if s := p.Admin().Stats(); s["cluster.server.upstream_cx_http2_total"] == 0 || s["cluster.server.upstream_rq_total"] < 16 {
		t.Errorf("the calls did not go through: %d connections, %d requests", s["cluster.server.upstream_cx_http2_total"],
			s["cluster.server.upstream_rq_total"])
	}
}

// grpcServer starts grpc-go's interop server and returns its port.
func grpcServer(t testing.TB) (port string) {
	port = free(t)
	var log bytes.Buffer
	cmd := peer(t, "server", "--port", port)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(sidecar.Hang); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			c.Close()
			return port
		}
		if time.Now().After(deadline) {
			t.Fatalf("the interop server does not listen: %v\n%s", err, &log)
		}
	}
}
