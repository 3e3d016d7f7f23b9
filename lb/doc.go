// SPDX-License-Identifier: Apache-2.0

// Package lb chooses hosts: step 10 of a request's way, between the circuit breaker that admits it and the pool that
// connects it.
//
// A Picker is one policy over one list of hosts, one file per policy. A Set is the whole cluster: it shares load between
// priorities by their health and owns one Picker for each part of the hosts that gets any. Both are immutable but for
// atomic counters: proxy/upstream builds a new Set whenever membership, weights or health change and swaps a pointer.
//
// Everything here is a pure decision. There is no clock, no socket, no goroutine and no random source: a request brings
// the seed of its own random sequence, so the same seeds give the same hosts. Pick is safe for concurrent use and does
// not allocate.
package lb
