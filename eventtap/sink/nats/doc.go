// SPDX-License-Identifier: Apache-2.0

// Package nats is the event sink that publishes to a NATS JetStream stream. An event counts as delivered when the stream
// has acknowledged it: as safe as the stream's storage is. A stream on disk is flushed every two minutes by default, so
// a server that loses its power may lose what it acknowledged since.
//
// The subject is <prefix>.<class>.<key>, so a consumer can choose classes and services, and JetStream keeps the order of
// all. The message id is the event's id: what is published again after a lost acknowledgement is dropped by the stream
// within its duplicate window. While the connection is down nothing is buffered in the client; batches fail and their
// runner keeps them, and nothing is published on a new connection before it is known what became of what went out on the
// last one. Events that the server refuses, or loses without a word, as in a change of leader, may come behind later ones that
// were in flight with them; a batch per message and one message in flight excludes that.
package nats
