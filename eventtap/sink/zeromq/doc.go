// SPDX-License-Identifier: Apache-2.0

// Package zeromq is the event sink that speaks to ZeroMQ peers, over ZMTP 3.1 of our own (internal/zmtp). There is no broker
// and no memory in between, so what a pattern promises is what its peers do:
//
//   - PUB: an event counts as delivered when it was offered to whoever subscribed to its topic, be that nobody. What a slow
//     subscriber has no room for is dropped for it; the drops are counted and logged, and the subscriber sees the gap in
//     streamseq.
//   - PUSH: an event counts as delivered when it was written to the connection of one peer. What is in the system's buffers
//     when that peer dies is lost, and nobody knows.
//   - DEALER: an event counts as delivered when the peer acknowledged it: at least once, in order.
//
// # Messages
//
// A message has three parts: the topic <prefix>.<class>.<partition key>, the media type, and the event. A SUB peer
// subscribes to a beginning of the topic.
//
// # Logins
//
// Peers log in with PLAIN, or both sides prove who they are with CURVE, which encrypts what follows. The side that binds is
// the server of either. A frame that is queued for a peer is encrypted when it is written.
//
// # Acknowledgements
//
// A DEALER's message has two parts more before these: the session, 8 random bytes that are new with every connection, and
// the message's number in it, 8 bytes, the first byte the highest, from 1 without gaps. A ROUTER (which sees the identity
// first) or DEALER at the other end acknowledges with a message of two parts, the session and a number: all messages up to
// that one are taken. It may acknowledge each, or every few, but within ack_timeout. An empty part before them is allowed,
// an acknowledgement of another session is ignored, and one of a number that was not sent ends the connection.
//
// Events go to one peer at a time, that which has been there longest; others stand by. When it goes, what it did not
// acknowledge goes to the next, or to the same one when it is back, with a new session and new numbers. The peer drops
// repeats by the event's id.
package zeromq
