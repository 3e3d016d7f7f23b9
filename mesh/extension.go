// SPDX-License-Identifier: Apache-2.0

package mesh

// Extension is a typed configuration that only its own factory understands. Config is what the factory's Parse made of
// it; everyone else carries it unopened.
type Extension struct {
	// Name is the name the configuration gives this instance (for an HTTP filter, the key of per-route overrides).
	Name string
	// TypeURL is the type of the message it was parsed from, with TypedStruct and wrappers already removed.
	TypeURL string
	// Config is the parsed, immutable configuration. Its type belongs to the factory registered for TypeURL.
	Config any
	// Discovery is set for an HTTP filter whose configuration comes by itself; TypeURL and Config are empty then.
	Discovery *FilterDiscovery
	// Disabled says that the extension is off unless a more specific place turns it on.
	Disabled bool
}

// Locality is where a proxy or an endpoint runs.
type Locality struct {
	Region, Zone, SubZone string
}

// Node is who this proxy is towards a control plane and in events.
type Node struct {
	ID, Cluster string
	Locality    Locality
}
