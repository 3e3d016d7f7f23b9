// SPDX-License-Identifier: Apache-2.0

// Package xds is the way in for configuration. Its Manager runs the sources (a control plane over ADS, over a stream for each
// type or by polls, files, look-ups by discovery), decodes what they bring (xds/resource), lets the graph decide what goes into force when (xds/graph), and
// hands snapshots and endpoints to the proxy.
//
// Beside snapshots it hands on what changes by itself: endpoints, secrets, and the configurations of filters and of the
// event tap. It watches the files that secrets are read from.
//
// Layers of the runtime (RTDS) go beside the graph, into xds/layered: nothing depends on them, and everything else is asked
// for once they are there.
//
// One goroutine, the one in Run, owns the graph and does everything in order: it decodes, steps, applies, acknowledges.
// Sources feed it through unbuffered channels, so a source that is faster than the proxy waits. Run starts the goroutines of
// each source and joins them.
package xds
