// SPDX-License-Identifier: Apache-2.0

// Package rabbitmq is the event sink that publishes to an exchange of RabbitMQ over AMQP 0-9-1, one persistent message for
// each event. An event counts as delivered when the broker has confirmed it, which it does when all queues that the message
// was routed to have it: a quorum queue when a majority has it on disk, a classic one when its node has.
//
// Messages are mandatory: what no queue takes comes back, and counts as refused, as does what is larger than the broker
// allows. Where there is a dead letter exchange, such events are published there.
//
// Nothing is buffered while the connection is down. What was published and not confirmed is sent again on the next one, so
// an event may be there twice, with the same message id. The order of all holds, but where the broker refuses a message in
// a way that passes (basic.nack, as from a full queue) and takes a later one: the first is sent again and comes behind.
//
// Messages follow the CloudEvents AMQP binding 1.0, as RabbitMQ maps its headers to application properties: the binary mode
// has the attributes as headers cloudEvents_* and the data as body, the structured mode has the whole event as body.
package rabbitmq
