// SPDX-License-Identifier: Apache-2.0

// Package eventtap turns every outcome and notice of the proxy into a CloudEvent on the sinks of the user's choice, and
// loses none without saying so.
//
//	Observe -> ring (by key) --+                            +-> sink queue -> runner -> Sink -> bus
//	Observe -> ring (by key) --+-> batcher: number, encode -+-> sink queue -> runner -> Sink -> bus
//	Notify  -> ring of its own +                            +-> sink queue -> runner -> the hub
//
// Observe and Notify copy what they are given into a ring and return; they never wait for anything but the ring's lock,
// which is held for as long as a copy takes. One goroutine, the batcher, takes the records from the rings in slices,
// numbers them with one sequence, encodes them once, and hands them to the queue of every sink. Each sink has a runner,
// one goroutine that sends, repeats what failed, and counts what was acknowledged. Tap owns these goroutines; Close
// joins them.
//
// Before a record is made, a Policy says whether there is to be an event at all, and for how many it stands. A sink with a
// kind in the mode Spool has a disk between its queue and its runner, with a goroutine of its own:
//
//	sink queue -> keep -> spool -> runner -> Sink
//
// All memory is fixed: rings and queues take chunks from pools that do not grow. A queue that is full drops the newest
// event, or what the Mode of its kind says. The drop is counted by reason, its number is skipped, and before the next
// event that finds room goes a "lost" event that says how many are missing: in the stream of each sink, a gap of the
// extension "streamseq" is exactly the loss. At any moment, produced = acknowledged + pending + dropped, for each sink;
// see Account. Reconfigure changes nearly everything while the tap runs.
//
// Order: events with the same partition key, which is the upstream service, keep theirs, since a key has one ring. A
// notice comes after every outcome that was observed before it; outcomes that were observed shortly after it may come
// first.
package eventtap
