// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// maxPipe is the longest path of a unix socket on Linux, without its final zero byte.
const maxPipe = 107

// duration reads a duration that must not be negative; a missing one is 0.
func (s *scope) duration(p *at, field string, d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	if v := d.AsDuration(); v >= 0 {
		return v
	}
	s.errorf(p.field(field), "must not be negative")
	return 0
}

func (s *scope) durationOr(p *at, field string, d *durationpb.Duration, def time.Duration) time.Duration {
	if d == nil {
		return def
	}
	return s.duration(p, field, d)
}

// uint32Or returns a wrapped number, or def where there is none.
func uint32Or(w *wrapperspb.UInt32Value, def uint32) uint32 {
	if w == nil {
		return def
	}
	return w.GetValue()
}

func boolOr(w *wrapperspb.BoolValue, def bool) bool {
	if w == nil {
		return def
	}
	return w.GetValue()
}

// address reads an address that must be an IP address with a port, or a unix socket.
func (s *scope) address(p *at, a *corev3.Address) mesh.Address {
	switch x := a.GetAddress().(type) {
	case *corev3.Address_SocketAddress:
		return s.socketAddress(p.field("socket_address"), x.SocketAddress)
	case *corev3.Address_Pipe:
		return s.pipe(p.field("pipe"), x.Pipe)
	case nil:
		s.errorf(p, "is required: socket_address or pipe")
	}
	return mesh.Address{}
}

func (s *scope) socketAddress(p *at, a *corev3.SocketAddress) mesh.Address {
	port := s.port(p, a)
	ip, err := netip.ParseAddr(a.GetAddress())
	switch {
	case a.GetAddress() == "":
		s.errorf(p.field("address"), isRequired)
	case err != nil || ip.Zone() != "":
		s.errorf(p.field("address"), "%q is not an IP address%s", a.GetAddress(), instead(p, a.GetAddress()))
	}
	if a.GetIpv4Compat() && !ip.Is6() {
		s.errorf(p.field("ipv4_compat"), "needs an IPv6 address")
	}
	return mesh.Address{IP: netip.AddrPortFrom(ip, port)}
}

// instead says what to do about an address that is none, "" where that is not known.
func instead(p *at, address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
		return "; the port stands in port_value"
	}
	if path := p.String(); strings.HasPrefix(path, "load_assignment.") || strings.HasPrefix(path, "endpoints[") {
		return "; names are looked up by clusters of type STRICT_DNS and LOGICAL_DNS"
	}
	return ""
}

// port reads the port of a TCP socket address.
func (s *scope) port(p *at, a *corev3.SocketAddress) uint16 {
	if a.GetProtocol() != corev3.SocketAddress_TCP {
		s.errorf(p.field("protocol"), "%s is not supported; supported: TCP", a.GetProtocol())
	}
	if a.GetPortValue() > 65535 {
		return 0 // the rules of the proto file said so
	}
	return uint16(a.GetPortValue())
}

func (s *scope) pipe(p *at, a *corev3.Pipe) mesh.Address {
	switch path := a.GetPath(); {
	case path == "":
		s.errorf(p.field("path"), "must not be empty")
	case len(path) > maxPipe:
		s.errorf(p.field("path"), "has %d bytes; a unix socket's path has at most %d", len(path), maxPipe)
	}
	return mesh.Address{Pipe: a.GetPath()}
}

// prefixes reads CIDR ranges. Bits beyond the length are dropped, as Envoy does.
func (s *scope) prefixes(p *at, field string, list []*corev3.CidrRange) []netip.Prefix {
	var out []netip.Prefix
	for i, r := range list {
		ip, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil || ip.Zone() != "" {
			s.errorf(p.item(field, i).field("address_prefix"), "%q is not an IP address", r.GetAddressPrefix())
			continue
		}
		prefix, err := ip.Prefix(int(r.GetPrefixLen().GetValue()))
		if err != nil {
			s.errorf(p.item(field, i).field("prefix_len"), "must be at most %d", ip.BitLen())
			continue
		}
		out = append(out, prefix)
	}
	return out
}

// dataSource reads at most max bytes from wherever a data source points.
func (s *scope) dataSource(p *at, d *corev3.DataSource, max int) []byte {
	var b []byte
	switch x := d.GetSpecifier().(type) {
	case *corev3.DataSource_InlineBytes:
		b = slices.Clone(x.InlineBytes)
	case *corev3.DataSource_InlineString:
		b = []byte(x.InlineString)
	case *corev3.DataSource_Filename:
		var err error
		if b, err = s.d.opt.ReadFile(x.Filename, max); err != nil {
			s.errorf(p.field("filename"), "%v", err)
			return nil
		}
	case *corev3.DataSource_EnvironmentVariable:
		v, ok := s.d.opt.LookupEnv(x.EnvironmentVariable)
		if !ok {
			s.errorf(p.field("environment_variable"), "%s is not set", x.EnvironmentVariable)
			return nil
		}
		b = []byte(v)
	}
	if len(b) > max {
		s.errorf(p, "holds %d bytes, of which %d are allowed", len(b), max)
		return nil
	}
	switch d.GetSpecifier().(type) {
	case *corev3.DataSource_Filename, *corev3.DataSource_EnvironmentVariable:
		sum := sha256.Sum256(append(s.loaded, b...))
		s.loaded = sum[:16]
	}
	return b
}

// readFile reads a file that must not be longer than max.
func readFile(name string, max int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err == nil && len(b) > max {
		err = fmt.Errorf("%s is longer than the %d bytes allowed", name, max)
	}
	return b, err
}

// addCommonFields states what is honoured of messages that many resources use.
func addCommonFields(t *protofields.Table) {
	t.Add(&corev3.Address{}, protofields.Honour("socket_address", "pipe"),
		protofields.Refuse("internal listeners are not supported", "envoy_internal_address"))
	t.Add(&corev3.SocketAddress{}, protofields.Honour("protocol", "address", "port_value"),
		protofields.Refuse("port names are not supported; write the number in port_value", "named_port"),
		protofields.Refuse("custom resolvers are not supported", "resolver_name"),
		protofields.Refuse("an address has one family; add a second listener for IPv4", "ipv4_compat"),
		protofields.Refuse("network namespaces are not supported", "network_namespace_filepath"))
	t.Add(&corev3.Pipe{}, protofields.Honour("path"),
		protofields.Refuse("the mode of a socket file follows the process' umask", "mode"))
	t.Add(&corev3.CidrRange{}, protofields.Honour("address_prefix", "prefix_len"))
	t.Add(&corev3.Locality{}, protofields.Honour("region", "zone", "sub_zone"))
	t.Add(&corev3.DataSource{},
		protofields.Honour("filename", "inline_bytes", "inline_string", "environment_variable"),
		protofields.Refuse("files of data sources are read once; send the resource again", "watched_directory"))
	t.Add(&corev3.RuntimeUInt32{}, protofields.Honour("default_value", "runtime_key"))
	t.Add(&corev3.TransportSocket{}, protofields.Honour("name", "typed_config"))
	t.Add(&corev3.TypedExtensionConfig{}, protofields.Honour("name", "typed_config"))
	t.Add(&corev3.TcpKeepalive{}, protofields.Honour("keepalive_probes", "keepalive_time", "keepalive_interval"))
}
