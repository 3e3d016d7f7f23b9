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

// grpcServer starts grpc-go's interop server and returns its port. The server cannot choose a port itself, and another process may
// take the one that was free: then it ends, and is tried on another.
func grpcServer(t testing.TB) (port string) {
	var log bytes.Buffer
	for range 5 {
		port = free(t)
		log.Reset()
		cmd := peer(t, "server", "--port", port)
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
		if listens(t, port, ended) {
			return port
		}
		<-ended
	}
	t.Fatalf("the interop server does not listen:\n%s", &log)
	return ""
}

// listens waits until a server listens on a port, and returns false where it ended before.
func listens(t testing.TB, port string, ended <-chan struct{}) bool {
	for deadline := time.Now().Add(sidecar.Hang); ; {
		select {
		case <-ended:
			return false
		case <-time.After(10 * time.Millisecond):
		}
		if c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			c.Close()
			select {
			case <-ended: // it was another process that answered
				return false
			case <-time.After(100 * time.Millisecond):
				return true
			}
		} else if time.Now().After(deadline) {
			t.Fatalf("nothing listens on port %s: %v", port, err)
		}
	}
}
