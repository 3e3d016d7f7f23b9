// SPDX-License-Identifier: Apache-2.0

package resource

import (
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/meshtap/meshtap/mesh"
)

// ReadFile is how data sources are read where the options do not say.
func ReadFile(name string, max int) ([]byte, error) { return readFile(name, max) }

// PlainEndpoints reads a load assignment from the wire, where that can be done.
func (d *Decoder) PlainEndpoints(b []byte) (*mesh.EndpointSet, bool) {
	return (&scope{d: d}).plainEndpoints(b)
}

// WholeEndpoints reads a load assignment as all other resources are read. notes says whether there is something to tell of it.
func (d *Decoder) WholeEndpoints(b []byte) (set *mesh.EndpointSet, notes bool, err error) {
	s := &scope{d: d}
	m := &endpointv3.ClusterLoadAssignment{}
	if s.read(nil, b, m) {
		set = s.endpoints(nil, m)
	}
	return set, len(s.noEffect()) > 0 || s.unknown > 0, s.err()
}
