// SPDX-License-Identifier: Apache-2.0

package resource

import "strconv"

// at is a place in a resource: a chain from a field up to the resource, which is nil. It becomes text only when there
// is something to say about the field, so that naming places costs a good resource nothing.
type at struct {
	up   *at
	name string
	// index is the list index, or negative; key is the map key where keyed is set.
	index int
	key   string
	keyed bool
}

func (a *at) field(name string) *at       { return &at{up: a, name: name, index: -1} }
func (a *at) item(name string, i int) *at { return &at{up: a, name: name, index: i} }
func (a *at) entry(name, key string) *at {
	return &at{up: a, name: name, index: -1, key: key, keyed: true}
}
func (a *at) String() string { return string(a.append(nil)) }
func (a *at) append(b []byte) []byte {
	if a == nil {
		return b
	}
	b = a.up.append(b)
	if len(b) > 0 {
		b = append(b, '.')
	}
	b = append(b, a.name...)
	switch {
	case a.keyed:
		b = append(strconv.AppendQuote(append(b, '['), a.key), ']')
	case a.index >= 0:
		b = append(strconv.AppendInt(append(b, '['), int64(a.index), 10), ']')
	}
	return b
}

// join appends a relative path to a place.
func (a *at) join(path string) string {
	b := a.append(nil)
	if len(b) > 0 && path != "" && path[0] != '[' {
		b = append(b, '.')
	}
	return string(append(b, path...))
}
