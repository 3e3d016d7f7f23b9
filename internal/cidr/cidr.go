// SPDX-License-Identifier: Apache-2.0

// Package cidr finds the longest IP prefix that holds an address. A table is built once and then only read; it is a map
// for each prefix length in use, since configurations hold a handful of lengths however many prefixes they hold.
package cidr

import (
	"net/netip"
	"slices"
)

// Table maps prefixes to values. The zero value is empty and ready. It must not change while others read it.
type Table[V any] struct {
	m map[netip.Prefix]*V
	// The prefix lengths in use, longest first.
	bits4, bits6 []int
}

// At returns the value of exactly this prefix, a new zero value where the table has none. Bits behind the prefix length
// do not count, and an IPv4 prefix written as IPv6 (::ffff:10.0.0.0/104) is that IPv4 prefix. p must be valid.
func (t *Table[V]) At(p netip.Prefix) *V {
	p = Canonical(p)
	if v := t.m[p]; v != nil {
		return v
	}
	if t.m == nil {
		t.m = map[netip.Prefix]*V{}
	}
	v := new(V)
	t.m[p] = v
	bits := &t.bits6
	if p.Addr().Is4() {
		bits = &t.bits4
	}
	if i, ok := slices.BinarySearchFunc(*bits, p.Bits(), func(a, b int) int { return b - a }); !ok {
		*bits = slices.Insert(*bits, i, p.Bits())
	}
	return v
}

// Lookup returns the value of the longest prefix that holds ip, nil where there is none.
func (t *Table[V]) Lookup(ip netip.Addr) *V {
	ip = ip.Unmap().WithZone("")
	bits := t.bits6
	if ip.Is4() {
		bits = t.bits4
	}
	for _, n := range bits {
		p, err := ip.Prefix(n)
		if err != nil {
			return nil
		}
		if v := t.m[p]; v != nil {
			return v
		}
	}
	return nil
}

// Len returns the number of prefixes.
func (t *Table[V]) Len() int { return len(t.m) }

// Canonical returns the one form of a prefix under which equal prefixes are equal values.
func Canonical(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}
