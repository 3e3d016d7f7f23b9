// SPDX-License-Identifier: Apache-2.0

// Package health checks hosts actively: it asks a host again and again whether it is well, over HTTP, gRPC or TCP,
// and tells proxy/upstream, which owns the hosts and decides what their health means for the picking of a host.
//
// A Checker is one host and one check. Its goroutine sleeps, asks, and reports; whoever started it ends and joins it with
// Stop. The parts:
//
//   - state.go is pure: what a finding does to the host's health, and how long to wait until the next check.
//   - health.go is the shell around it: the goroutine, its time, its numbers.
//   - conn.go is the connection for HTTP/1.1 and TCP, which outlives a check where the configuration says so; http.go and
//     tcp.go are what is said on it, and how the answer is judged.
//   - http2.go is the same for HTTP/2, with the codec and the sockets of the pools; grpc.go is what is said on it.
//
// The semantics are those of Envoy (config.core.v3.HealthCheck, "Health checking" in its documentation); where text and
// program differ, those of Envoy 1.40 as it runs. Hosts are not trusted: an answer is bounded in time and in bytes, and
// none of it reaches logs or events.
package health
