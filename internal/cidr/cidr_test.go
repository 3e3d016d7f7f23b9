// SPDX-License-Identifier: Apache-2.0

package cidr

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	var tab Table[string]
	for _, p := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "2001:db8::/32", "fe80::/10"} {
		*tab.At(netip.MustParsePrefix(p)) = p
	}
	for _, tc := range []struct{ ip, want string }{
		{"10.1.2.3", "10.1.2.3/32"},
		{"10.1.2.4", "10.1.0.0/16"},
		{"10.2.0.1", "10.0.0.0/8"},
		{"192.168.0.1", "0.0.0.0/0"},
		{"::ffff:10.1.2.3", "10.1.2.3/32"},
		{"2001:db8::1", "2001:db8::/32"},
		{"2001:db9::1", "::/0"},
		{"fe80::1%lo", "fe80::/10"},
	} {
		t.Run(tc.ip, func(t *testing.T) {
			t.Parallel()
			got := tab.Lookup(netip.MustParseAddr(tc.ip))
			if got == nil || *got != tc.want {
				t.Fatalf("got %v, want %s", got, tc.want)
			}
		})
	}
	if tab.Lookup(netip.Addr{}) != nil {
		t.Error("the zero address is in a prefix")
	}
}

func TestSamePrefixWrittenDifferently(t *testing.T) {
	t.Parallel()
	var tab Table[int]
	*tab.At(netip.MustParsePrefix("10.9.8.7/8"))++
	*tab.At(netip.MustParsePrefix("10.0.0.0/8"))++
	*tab.At(netip.MustParsePrefix("::ffff:10.0.0.0/104"))++
	if tab.Len() != 1 || *tab.Lookup(netip.MustParseAddr("10.0.0.1")) != 3 {
		t.Fatalf("%d prefixes, want one", tab.Len())
	}
}

func TestEmptyTable(t *testing.T) {
	t.Parallel()
	var tab Table[int]
	if tab.Lookup(netip.MustParseAddr("10.0.0.1")) != nil {
		t.Fatal("an empty table has an answer")
	}
}

// The table agrees with a look at every prefix.
func TestLookupAgreesWithNaive(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	addr := func() netip.Addr {
		if r.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(3)), byte(r.IntN(8))})
		}
		return netip.AddrFrom16([16]byte{0: 0x20, 1: byte(r.IntN(3)), 7: byte(r.IntN(3)), 15: byte(r.IntN(8))})
	}
	for round := range 200 {
		var tab Table[netip.Prefix]
		var all []netip.Prefix
		for range r.IntN(20) {
			a := addr()
			p := netip.PrefixFrom(a, r.IntN(a.BitLen()+1)).Masked()
			*tab.At(p) = p
			all = append(all, p)
		}
		for range 50 {
			ip := addr()
			want := netip.Prefix{}
			for _, p := range all {
				if p.Contains(ip) && p.Bits() >= want.Bits() {
					want = p
				}
			}
			got := netip.Prefix{}
			if v := tab.Lookup(ip); v != nil {
				got = *v
			}
			if got != want {
				t.Fatalf("round %d, %v: got %v, want %v of %v", round, ip, got, want, all)
			}
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	var tab Table[int]
	tab.At(netip.MustParsePrefix("10.0.0.0/8"))
	tab.At(netip.MustParsePrefix("10.1.0.0/16"))
	ip := netip.MustParseAddr("10.2.3.4")
	if n := testing.AllocsPerRun(100, func() { tab.Lookup(ip) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
