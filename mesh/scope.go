// SPDX-License-Identifier: Apache-2.0

package mesh

import "encoding/binary"

// ScopedRoutes picks a route table for each request, by a key that is made of the request's headers.
type ScopedRoutes struct {
	Name string
	// Fragments make the key: one part each, in order. A request that lacks one of them has no key and no table.
	Fragments []ScopeFragment
	// Set is the key of a set of the snapshot, unless the scopes are written here (Scopes).
	Set    string
	Scopes *ScopeSet
}

// ScopeFragment takes one part of a scope's key from the first value of a header.
type ScopeFragment struct {
	// Header is the name, in lower case.
	Header string
	// Separator splits the value into elements; "" leaves it whole.
	Separator string
	// Index selects an element by its place, unless ByKey selects the first one that is ElementKey, KeySeparator and the part.
	Index                    int
	ByKey                    bool
	ElementKey, KeySeparator string
}

// ScopeSet is the scopes among which a connection manager chooses, sorted by name. No two have the same key.
type ScopeSet struct{ Scopes []*Scope }

// Scope gives the requests with one key their route table.
type Scope struct {
	Name string
	// Fragments are the parts of the key.
	Fragments []string
	// RouteTable is the key of a table of the snapshot, unless the table is written here (Routes).
	RouteTable string
	Routes     *RouteTable
}

// HostSet is virtual hosts that belong to one route table beside its own, sorted by the names of their resources.
type HostSet struct{ Hosts []*VirtualHost }

// Key returns the whole key as one string: two scopes of a set have the same key exactly where these are equal.
func (s *Scope) Key() string {
	var b []byte
	for _, f := range s.Fragments {
		b = AppendScopeFragment(b, f)
	}
	return string(b)
}

// AppendScopeFragment adds a part to a key. Parts carry their length, so that no two lists of parts make the same key.
func AppendScopeFragment[T string | []byte](key []byte, part T) []byte {
	key = binary.AppendUvarint(key, uint64(len(part)))
	return append(key, part...)
}
