// SPDX-License-Identifier: Apache-2.0

// Package event is the form of Meshtap's events: CloudEvents 1.0 in two encodings, both appended by hand without
// allocating, and read back with limits.
//
// The protobuf encoding (io.cloudevents.v1.CloudEvent with a message of meshtap.event.v1 as data) is what the tap's
// queues hold and what protobuf subscribers get. The JSON encoding is made from it at the edge, with flat OpenTelemetry
// names. schema.go is the one table from which both are written and read; tests hold it against the .proto files.
//
// An Event borrows its bytes. Package eventtap fills one from an outcome or a notice; sinks, the hub and the CLI decode
// one. Nothing here knows of queues, buses or time.
package event
