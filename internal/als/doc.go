// SPDX-License-Identifier: Apache-2.0

// Package als speaks Envoy's gRPC access log service (envoy.service.accesslog.v3). It makes entries of outcomes (Append),
// sends them over a stream (Stream), and gathers those of many requests, which never wait for the service (Clients). The
// access loggers of proxy/accesslog and the event sink of that name are built on it.
//
// The protocol has no acknowledgements: what was given to a connection that then broke is gone, and nobody knows. What
// this side drops itself is counted.
package als
