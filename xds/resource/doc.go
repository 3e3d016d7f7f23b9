// SPDX-License-Identifier: Apache-2.0

// Package resource reads configuration: serialized Envoy v3 messages in, the immutable nouns of package mesh out. It is
// the first thing that looks at a resource, whether a control plane sent it or the bootstrap holds it, and the last
// that sees a proto message.
//
// A resource passes four stations: the wire format; the rules written in Envoy's proto files (protoc-gen-validate); the
// table of fields that Meshtap honours, which stands below each decoder; and the decoder itself, which sets defaults,
// compiles what can be compiled and refuses what Meshtap cannot do. All errors of a resource are reported together,
// each with the path of its field, and what is accepted without effect is reported too.
//
// The package starts no goroutine and keeps no state: a Decoder may be used by many goroutines. It reads files and
// environment variables only through the functions its Options carry.
package resource
