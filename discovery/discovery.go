// SPDX-License-Identifier: Apache-2.0

// Package discovery is the shape of what finds endpoints by itself, beside a control plane: one Source for each way to
// look them up. The configuration graph says which clusters need one; package xds runs the watches and hands what they
// find on. Sources live in folders of their own below this one.
package discovery

import (
	"context"

	"github.com/meshtap/meshtap/mesh"
)

// Update is the outcome of looking a cluster up. Exactly one field is set.
type Update struct {
	// Set is all endpoints of the cluster, in force at once. It is immutable.
	Set *mesh.EndpointSet
	// Err says why nothing was found the first time. Later failures are not told: the last good set stays.
	Err error
}

// Source finds the endpoints of clusters and notices when they change.
type Source interface {
	// Watch looks the endpoints of a cluster up, again and again, until ctx ends. It calls emit with the first outcome and
	// then with each set that differs from the one before, never from two goroutines at a time; emit may block. All
	// goroutines of the watch have ended when Watch returns. It returns nil when ctx has ended, and an error where the
	// cluster is none that the source can look up.
	Watch(ctx context.Context, cluster *mesh.Cluster, emit func(Update)) error
}
