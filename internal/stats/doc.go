// SPDX-License-Identifier: Apache-2.0

// Package stats holds the counters, gauges and histograms of a proxy and the registry that lists them. Every room counts
// here; proxy/metrics says what is counted, proxy/admin prints it.
//
// Request goroutines count on a shard, a small number that differs between goroutines that run at the same time
// (socket.Worker.Shard), so that no cache line is shared between cores. Reading adds the shards up: a sum is exact once
// the counting has ended, and while it goes on it lies between the sums before and after.
//
// The numbers of a Group live in cells: pages of 16 numbers, 128 bytes, that are allocated when a shard first writes to
// one of them. A schema names its busiest numbers first, so that a request touches one or two pages of each group, and a
// cluster that nobody calls costs no pages at all. Cells only ever grow, except those of gauges: reset_counters and
// histogram intervals remember what was there and subtract it.
//
// Counting takes no lock and allocates nothing after a shard's first write to a page. The registry's lock is taken to
// add, release and list groups.
package stats
