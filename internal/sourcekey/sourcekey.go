// SPDX-License-Identifier: Apache-2.0

// Package sourcekey makes one key of a resource's name and of where it comes from, so that two resources of one name from
// two sources are two. What comes over the one aggregated xDS stream has its name alone as its key.
//
// xds/resource makes the keys when it decodes, xds/graph keeps resources by them, and package xds splits them to ask the
// source.
package sourcekey

import "strings"

// separator stands in no name that a control plane can send: gRPC and YAML carry it, but nobody types it.
const separator = "\x00"

// Static is the source of what stands in the bootstrap and is named like what a control plane sends. No other source has
// that ID.
const Static = "static"

// Join returns the key of a name from a source; source is "" for the aggregated stream.
func Join(name, source string) string {
	if source == "" {
		return name
	}
	return name + separator + source
}

// Scope returns the key that a scope has in a set. The set's own key joins where the tables of its scopes come from with
// where the scopes do.
func Scope(name, set string) string {
	tables, source := Split(set)
	return name + separator + tables + separator + source
}

// Shown returns what a person knows a key by: the name, without all that was joined to it.
func Shown(key string) string {
	name, _, _ := strings.Cut(key, separator)
	return name
}

// Split returns the name and the source of a key.
func Split(key string) (name, source string) {
	if i := strings.LastIndex(key, separator); i >= 0 {
		return key[:i], key[i+1:]
	}
	return key, ""
}

// Name returns the name of a key.
func Name(key string) string {
	name, _ := Split(key)
	return name
}

// Source returns the source of a key.
func Source(key string) string {
	_, source := Split(key)
	return source
}
