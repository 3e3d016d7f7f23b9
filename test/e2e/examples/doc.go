// SPDX-License-Identifier: Apache-2.0

// Package examples serves the files of configs/ and says what each must do: a table of files, requests and answers. The
// tests of test/e2e run it through Meshtap, those of test/interop through Envoy as well.
//
// The files name fixed ports, for people. What stands behind a port is the same in all of them:
//
//	10000, 10001, 15001,
//	15006, 15090                 listeners
//	9901                         the administration interface
//	8081, 8080 and 8082          the HTTP servers a and b
//	8085, 3306 and 8086          the servers database and replica, which speak first
//	8443 and 8444                TLS servers for one.example and a.two.example
//	8445                         the HTTP server a as web.example behind TLS, for clients with a certificate
//	8089                         nobody
//	18000                        a control plane
//	4222                         NATS with JetStream
//
// Prepare replaces all of them by free ones, and files below /tmp by files of the test; those in
// /tmp/meshtap-tls are made: ca.pem has signed server.pem, for web.example, and client.pem.
package examples
