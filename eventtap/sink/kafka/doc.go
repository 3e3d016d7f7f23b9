// SPDX-License-Identifier: Apache-2.0

// Package kafka is the event sink that writes to Kafka topics, one record for each event, keyed by the event's partition
// key. An event counts as delivered when all in-sync replicas have acknowledged it (acks=all). As with every Kafka
// producer that means that they have it in memory; they write it to their disks when they see fit.
//
// The producer is idempotent: what the client itself sends again after a lost acknowledgement is stored once. It repeats
// for as long as the cluster is away, and its runner keeps the rest, so a batch fails only where the cluster says no, or
// the sink is closed. Then the client is made anew, and what it had not heard of is sent again: such events may be there
// twice, with the same id.
//
// Order within a key holds over lost connections, lost acknowledgements and new leaders. Where the cluster refuses a batch for
// another reason that may pass (the right to write was taken away, say), the client has sent the next ones already, and they may
// be stored before it: after such a refusal, which is logged and counted, streamseq tells the order.
//
// Records follow the CloudEvents Kafka protocol binding 1.0: the binary mode has the attributes as headers ce_* and the
// data as value, the structured mode has the whole event as value.
package kafka
