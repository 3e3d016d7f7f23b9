// SPDX-License-Identifier: Apache-2.0

// Package http2_test drives the whole binary with other people's HTTP/2 and gRPC: h2spec's cases, grpc-go's interop client
// and server, ghz for load. They are built from the module in test/peers. `make http2` runs it, with the build tag http2.
package http2_test
