// SPDX-License-Identifier: Apache-2.0

// Package circuit decides what may be sent, to whom no more, and what is sent again: steps 9, 10 and 13 of a request's
// way. It holds no policy of its own; what it decides by is in mesh.Limits, mesh.Breaker, mesh.Outlier and
// mesh.RetryPolicy.
//
//   - Resources (limit.go, budget.go) counts connections, pending requests, requests and retries of a cluster exactly,
//     and says when one more would be too many.
//   - Breaker (breaker.go) opens on what requests experience and closes when probes succeed.
//   - Outlier (outlier.go) ejects single hosts and lets them back.
//   - Plan (retry.go) says after each failed attempt whether there is another, and after what wait.
//
// Everything is a pure decision with counters: no clock, no goroutine, no socket, no random source. Time comes as
// nanoseconds of one monotonic clock, randomness as a number. All types but Plan, which belongs to one request, are safe
// for concurrent use, and what every request calls does not allocate. Whoever calls tells the world: what changed is
// returned as the mesh notice to send.
package circuit
