// SPDX-License-Identifier: Apache-2.0

package mesh

// PartRef names a resource that does not ride in snapshots but is handed on by itself: a secret (KindSecret), or the
// configuration of a filter (KindExtension).
type PartRef struct {
	Kind ResourceKind
	// Key is the name, with its source where that is not the aggregated stream.
	Key string
	// Types are the types that serve, separated by spaces: of secrets SecretType's, of filters the names of messages.
	Types string
	// Default says that there is something to go on with until the resource comes, so that it is not waited for.
	Default bool
}

// FilterDiscovery is where the configuration of a filter comes from while the filter runs (ECDS).
type FilterDiscovery struct {
	// Key is that of the resource, Types are the types it may have, as in PartRef.
	Key, Types string
	// Default serves until it comes; with nil, requests are answered 500, and connections closed.
	Default *Extension
}
