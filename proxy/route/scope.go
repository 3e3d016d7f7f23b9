// SPDX-License-Identifier: Apache-2.0

package route

import (
	"bytes"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
)

// ScopeKey makes the key of a request by which its scope is found, as Envoy does from the same fragments.
type ScopeKey struct{ fragments []fragment }

// fragment is a mesh.ScopeFragment with its texts as bytes.
type fragment struct {
	header                       string
	separator, key, keySeparator []byte
	index                        int
	byKey                        bool
}

// NewScopeKey compiles the fragments of a key.
func NewScopeKey(list []mesh.ScopeFragment) *ScopeKey {
	k := &ScopeKey{}
	for _, f := range list {
		k.fragments = append(k.fragments, fragment{
			header: f.Header, separator: []byte(f.Separator), key: []byte(f.ElementKey), keySeparator: []byte(f.KeySeparator),
			index: f.Index, byKey: f.ByKey,
		})
	}
	return k
}

// Scopes finds scopes by their keys.
type Scopes struct {
	places  map[string]int
	longest int
}

// NewScopes compiles a set. Of scopes with the same key, which decoding does not let through, the last counts.
func NewScopes(set *mesh.ScopeSet) *Scopes {
	s := &Scopes{places: make(map[string]int, len(set.Scopes))}
	for i, scope := range set.Scopes {
		key := scope.Key()
		s.places[key] = i
		s.longest = max(s.longest, len(key))
	}
	return s
}

// Find returns the place of a request's scope in the set; ok is false where it has none. It allocates nothing unless a key
// of the set has more than 512 bytes.
func (s *Scopes) Find(k *ScopeKey, r *codec.Request) (place int, ok bool) {
	var buf [512]byte
	key := buf[:0]
	for i := range k.fragments {
		part, there := k.fragments[i].of(r)
		if !there || len(key)+len(part) > s.longest {
			return 0, false
		}
		key = mesh.AppendScopeFragment(key, part)
	}
	place, ok = s.places[string(key)]
	return place, ok
}

// of takes a part of the key from a request. Of a field that is there several times, the first counts.
func (f *fragment) of(r *codec.Request) (part []byte, ok bool) {
	value, pseudo := control(r, f.header)
	if !pseudo {
		value = r.Header.Get(f.header)
	}
	if value == nil {
		return nil, false
	}
	for i, more := 0, true; more; i++ {
		element := value
		more = false
		if len(f.separator) > 0 {
			element, value, more = bytes.Cut(value, f.separator)
		}
		if !f.byKey {
			if i == f.index {
				return element, true
			}
			continue
		}
		if key, part, _ := bytes.Cut(element, f.keySeparator); bytes.Equal(key, f.key) {
			return part, true
		}
	}
	return nil, false
}
