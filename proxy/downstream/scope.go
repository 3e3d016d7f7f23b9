// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"fmt"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/route"
)

// Scopes is a set of scopes with its compiled form.
type Scopes struct {
	Config *mesh.ScopeSet
	places *route.Scopes
	// tables are those that are written in the scopes, nil for scopes that name one.
	tables []*Table
}

// NewScopes compiles a set of scopes.
func NewScopes(set *mesh.ScopeSet) (*Scopes, error) {
	s := &Scopes{Config: set, places: route.NewScopes(set), tables: make([]*Table, len(set.Scopes))}
	for i, scope := range set.Scopes {
		if scope.Routes == nil {
			continue
		}
		t, err := route.Compile(scope.Routes)
		if err != nil {
			return nil, fmt.Errorf("scope %q: %w", scope.Name, err)
		}
		s.tables[i] = &Table{scope.Routes, t}
	}
	return s, nil
}

// scoped picks the table of a request by its scope; it may be nil.
func (m *Manager) scoped(live Live, q *codec.Request) *Table {
	scopes := m.scopes
	if scopes == nil {
		scopes = live.Scopes(m.cfg.Scoped.Set)
	}
	if scopes == nil {
		return nil
	}
	i, ok := scopes.places.Find(m.scopeKey, q)
	switch {
	case !ok:
		return nil
	case scopes.tables[i] != nil:
		return scopes.tables[i]
	}
	return live.Table(scopes.Config.Scopes[i].RouteTable)
}
