// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"math"
	"net/netip"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/meshtap/meshtap/mesh"
)

// maxPriority is what the rules of the proto file allow.
const maxPriority = 128

// plainEndpoints reads a load assignment that says what most of them do: addresses with their weights, their health and their
// localities. It reads the wire itself, which takes a tenth of the time. ok is false where anything else is in there, or
// something is wrong: then the resource is read as all others are, where there are words for it.
func (s *scope) plainEndpoints(b []byte) (set *mesh.EndpointSet, ok bool) {
	set = &mesh.EndpointSet{Version: s.version, Overprovisioning: defaultOverprovisioning}
	p, named := plain{}, false
	ok = p.fields(b, 2, func(f wire) bool {
		switch f.tag {
		case bytesTag(1): // cluster_name
			named = len(f.b) > 0 && utf8.Valid(f.b)
			return named
		case bytesTag(2): // endpoints
			l, ok := p.locality(f.b)
			set.Localities = append(set.Localities, l)
			return ok
		}
		return false
	})
	// Where this sum is within the limit of each of its parts, they all are.
	return set, ok && named && p.weights <= math.MaxUint32
}

// plain is the reading of one load assignment. weights is the sum of all of them.
type plain struct{ weights uint64 }

func (p *plain) locality(b []byte) (l mesh.LocalityEndpoints, ok bool) {
	ok = p.fields(b, 2, func(f wire) (ok bool) {
		switch f.tag {
		case bytesTag(1): // locality
			return p.place(f.b, &l.Locality)
		case bytesTag(2): // lb_endpoints
			if l.Endpoints == nil {
				const head = 2 // the tag and the length; endpoints are mostly of one size
				l.Endpoints = make([]mesh.Endpoint, 0, len(b)/(head+len(f.b)))
			}
			e, ok := p.lbEndpoint(f.b)
			l.Endpoints = append(l.Endpoints, e)
			return ok
		case bytesTag(3): // load_balancing_weight
			l.Weight, ok = p.weight(f.b)
			return ok
		case varintTag(5): // priority
			l.Priority = uint32(min(f.n, maxPriority))
			return f.n <= maxPriority
		}
		return false
	})
	return l, ok
}

func (p *plain) place(b []byte, to *mesh.Locality) bool {
	return p.fields(b, 0, func(f wire) bool {
		switch f.tag {
		case bytesTag(1):
			to.Region = string(f.b)
		case bytesTag(2):
			to.Zone = string(f.b)
		case bytesTag(3):
			to.SubZone = string(f.b)
		default:
			return false
		}
		return utf8.Valid(f.b)
	})
}

func (p *plain) lbEndpoint(b []byte) (e mesh.Endpoint, ok bool) {
	weighted := false
	ok = p.fields(b, 0, func(f wire) (ok bool) {
		switch f.tag {
		case bytesTag(1): // endpoint
			return p.only(f.b, func(b []byte) bool { // address
				return p.only(b, func(b []byte) bool { // socket_address
					e.Address.IP, ok = p.socketAddress(b)
					return ok
				})
			})
		case varintTag(2): // health_status
			e.Health = mesh.HealthStatus(min(f.n, uint64(mesh.HealthDegraded)))
			return f.n <= uint64(mesh.HealthDegraded)
		case bytesTag(4): // load_balancing_weight
			e.Weight, weighted = p.weight(f.b)
			return weighted
		}
		return false
	})
	if !weighted {
		e.Weight = 1
		p.weights++
	}
	return e, ok && e.Address.IP.IsValid()
}

func (p *plain) socketAddress(b []byte) (netip.AddrPort, bool) {
	var ip netip.Addr
	var port uint16
	ok := p.fields(b, 0, func(f wire) bool {
		switch f.tag {
		case varintTag(1): // protocol: TCP
			return f.n == 0
		case bytesTag(2): // address
			var err error
			ip, err = netip.ParseAddr(string(f.b))
			return err == nil && ip.Zone() == ""
		case varintTag(3): // port_value
			port = uint16(min(f.n, math.MaxUint16))
			return f.n <= math.MaxUint16
		}
		return false
	})
	return netip.AddrPortFrom(ip, port), ok && port != 0
}

// weight reads an UInt32Value, which must not be 0.
func (p *plain) weight(b []byte) (n uint32, ok bool) {
	ok = p.fields(b, 0, func(f wire) bool {
		n = uint32(min(f.n, math.MaxUint32))
		return f.tag == varintTag(1) && f.n <= math.MaxUint32
	})
	p.weights += uint64(n)
	return n, ok && n > 0
}

// wire is one field of a message: its number and type, and its value by that.
type wire struct {
	tag uint64
	n   uint64
	b   []byte
}

func bytesTag(num protowire.Number) uint64  { return protowire.EncodeTag(num, protowire.BytesType) }
func varintTag(num protowire.Number) uint64 { return protowire.EncodeTag(num, protowire.VarintType) }

// fields calls take with the fields of a message, and returns false where that does, or where one comes twice that is not
// repeated: later ones would add to it or replace it.
func (p *plain) fields(b []byte, repeated protowire.Number, take func(wire) bool) bool {
	seen := uint32(0)
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 || num >= 32 || num != repeated && seen&(1<<num) != 0 {
			return false
		}
		seen |= 1 << num
		b = b[n:]
		f := wire{tag: protowire.EncodeTag(num, kind)}
		switch kind {
		case protowire.BytesType:
			f.b, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			f.n, n = protowire.ConsumeVarint(b)
		default:
			return false
		}
		if n < 0 || !take(f) {
			return false
		}
		b = b[n:]
	}
	return true
}

// only calls take with the field 1 of a message that has no other.
func (p *plain) only(b []byte, take func([]byte) bool) bool {
	return p.fields(b, 0, func(f wire) bool { return f.tag == bytesTag(1) && take(f.b) })
}
