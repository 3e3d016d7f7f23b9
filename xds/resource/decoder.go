// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// The type URLs of the resources that a Decoder reads.
const (
	ListenerType  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType     = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ClusterType   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointsType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ScopeType     = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
	HostType      = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
	RuntimeType   = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
	SecretType    = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	ExtensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
)

// KindOf returns the kind of resource with this type URL; ok is false where a Decoder does not read it.
func KindOf(typeURL string) (kind mesh.ResourceKind, ok bool) {
	switch typeURL {
	case ListenerType:
		return mesh.KindListener, true
	case RouteType:
		return mesh.KindRouteTable, true
	case ClusterType:
		return mesh.KindCluster, true
	case EndpointsType:
		return mesh.KindEndpoints, true
	case ScopeType:
		return mesh.KindScope, true
	case HostType:
		return mesh.KindVirtualHost, true
	case SecretType:
		return mesh.KindSecret, true
	case ExtensionType:
		return mesh.KindExtension, true
	case RuntimeType:
		return mesh.KindRuntime, true
	}
	return 0, false
}

// Options says what a Decoder may rely on and what it refuses.
type Options struct {
	// Parsers reads extensions. Required.
	Parsers *registry.Parsers
	// Limits are the limits of resources that set none. A zero field takes the value of DefaultLimits.
	Limits Limits
	// Static marks what is decoded as part of the bootstrap.
	Static bool
	// RejectUnknown refuses resources with fields that this version of Envoy's API does not have; otherwise they are
	// counted.
	RejectUnknown bool
	// AcceptObservational accepts what only affects what can be seen of traffic and that Meshtap does not do, such as
	// tracing, and reports it as without effect.
	AcceptObservational bool
	// Runtime gives the keys that resources name, and those that they have without naming them; nil leaves all values as they
	// are written.
	Runtime mesh.Runtime
	// Secrets are those of the bootstrap, by name.
	Secrets map[string]mesh.SecretType
	// ControlPlane are the clusters that a config source may name: those whose endpoints the bootstrap holds.
	ControlPlane []string
	// NoADS says that there is no aggregated stream, so that nothing can come over it.
	NoADS bool
	// DeltaADS says that the aggregated stream is incremental.
	DeltaADS bool
	// DNS says whom DNS clusters ask that do not say it themselves: of its fields, Resolvers, UseTCP and NoSearch count.
	DNS mesh.DNS
	// AddFields adds to the table of fields, for messages that only the caller reads.
	AddFields func(*protofields.Table)
	// ReadFile and LookupEnv serve data sources. nil means os.ReadFile bounded by max, and os.LookupEnv.
	ReadFile  func(name string, max int) ([]byte, error)
	LookupEnv func(name string) (string, bool)
}

// Decoder reads resources. It is immutable and may be used by many goroutines.
type Decoder struct {
	opt    Options
	fields *protofields.Table
	// regex is the runtime's limit of regular expressions, nil without a runtime.
	regex mesh.RuntimeKey
}

// Decoded is one accepted resource.
type Decoded struct {
	Kind mesh.ResourceKind
	Name string
	// Value is a *mesh.Listener, *mesh.RouteTable, *mesh.Cluster or *mesh.EndpointSet, by Kind, and for a layer of the
	// runtime a map[string]layered.Value.
	Value any
	// Refs are the resources that it names.
	Refs Refs
	// NoEffect says which fields are set without effect, as "path: why".
	NoEffect []string
	// Unknown counts fields that this version of Envoy's API does not have.
	Unknown int
}

// Refs are names of other resources, sorted, each once. Those of route tables and of endpoints are keys; see
// internal/sourcekey.
type Refs struct {
	// Sources are where the keys lead to, without ADS, and Timeouts how long those are waited for that do not wait 15 s; 0
	// is for ever.
	Sources  []Source
	Timeouts map[string]time.Duration
	// RouteTables come from connection managers that take their routes by name.
	RouteTables []string
	// Clusters come from routes, TCP proxies and extensions. Names that a request header holds are not among them.
	Clusters []string
	// Endpoints is the name of the endpoints of an EDS cluster, "" for other clusters.
	Endpoints string
	// Parts come from transport sockets and from filters with config_discovery.
	Parts []mesh.PartRef
	// Scopes are the keys of the sets of scopes that connection managers choose among, and HostSet that of the virtual hosts
	// that come to a route table; "" for none.
	Scopes  []string
	HostSet string
}

// New returns a Decoder.
func New(opt Options) *Decoder {
	opt.Limits = opt.Limits.withDefaults()
	if opt.ReadFile == nil {
		opt.ReadFile = readFile
	}
	if opt.LookupEnv == nil {
		opt.LookupEnv = os.LookupEnv
	}
	d := &Decoder{opt: opt, fields: Fields()}
	if opt.Runtime != nil {
		d.regex = opt.Runtime.Key(regexKey)
	}
	if opt.AddFields != nil {
		opt.AddFields(d.fields)
	}
	return d
}

// Fields returns the table of the fields that a Decoder honours, for documents and for tests.
func Fields() *protofields.Table {
	t := protofields.New()
	addCommonFields(t)
	addSourceFields(t)
	addHeaderFields(t)
	addListenerFields(t)
	addHTTPFields(t)
	addTCPFields(t)
	addTLSFields(t)
	addTLSValidationFields(t)
	addSecretFields(t)
	addDiscoveredFields(t)
	addScopeFields(t)
	addHostFields(t)
	addAccessLogFields(t)
	addRouteFields(t)
	addRetryFields(t)
	addMatchFields(t)
	addClusterFields(t)
	addDiscoveryFields(t)
	addPolicyFields(t)
	addProtectionFields(t)
	addHealthCheckFields(t)
	addUpstreamHTTPFields(t)
	addHTTP2Fields(t)
	addDNSFields(t)
	addEndpointFields(t)
	addPerFilterFields(t)
	addOwnFields(t)
	addRuntimeFields(t)
	return t
}

// Decode reads the serialized resource of the given type URL. version is the control plane's version_info, "" for
// static resources. The error is Errors: everything that is wrong with the resource. b is not kept.
func (d *Decoder) Decode(typeURL string, b []byte, version string) (Decoded, error) {
	kind, ok := KindOf(typeURL)
	if !ok {
		return Decoded{}, fmt.Errorf("resource: type %q is not supported; supported: %s", typeURL,
			strings.Join([]string{ListenerType, RouteType, ClusterType, EndpointsType, ScopeType, HostType, SecretType, ExtensionType, RuntimeType}, ", "))
	}
	s := &scope{d: d.now(), version: version, report: report{kind: kind, name: Name(b)}}
	if max := d.opt.Limits.ResourceBytes; len(b) > max {
		s.fail("", fmt.Sprintf("%d bytes are more than the %d allowed for one resource", len(b), max))
		return Decoded{Kind: kind, Name: s.name}, s.err()
	}
	value := s.resource(kind, b)
	out := Decoded{Kind: kind, Name: s.name, Unknown: s.unknown, NoEffect: s.noEffect()}
	if err := s.err(); err != nil {
		return out, err
	}
	out.Value = value
	out.Refs = Refs{
		RouteTables: unique(s.tables), Clusters: unique(s.clusters), Endpoints: s.eds, Sources: s.sources, Timeouts: s.timeouts,
		Parts: uniqueParts(s.parts), Scopes: unique(s.scopes), HostSet: s.hostSet,
	}
	return out, nil
}

func (s *scope) resource(kind mesh.ResourceKind, b []byte) any {
	switch kind {
	case mesh.KindListener:
		m := &listenerv3.Listener{}
		if s.read(nil, b, m) {
			l := s.listener(m)
			l.Static = s.d.opt.Static
			return l
		}
	case mesh.KindRouteTable:
		m := &routev3.RouteConfiguration{}
		if s.read(nil, b, m) {
			t := s.routeTable(nil, m)
			if m.GetName() == "" {
				s.errorf((*at)(nil).field("name"), "must not be empty")
			}
			return t
		}
	case mesh.KindCluster:
		m := &clusterv3.Cluster{}
		if s.read(nil, b, m) {
			c := s.cluster(m)
			c.Static = s.d.opt.Static
			return c
		}
	case mesh.KindEndpoints:
		if set, ok := s.plainEndpoints(b); ok {
			return set
		}
		m := &endpointv3.ClusterLoadAssignment{}
		if s.read(nil, b, m) {
			return s.endpoints(nil, m)
		}
	case mesh.KindRuntime:
		m := &runtimev3.Runtime{}
		if s.read(nil, b, m) {
			return s.runtimeLayer(m)
		}
	case mesh.KindScope:
		m := &routev3.ScopedRouteConfiguration{}
		if s.read(nil, b, m) {
			return s.scopedRoute(nil, m)
		}
	case mesh.KindVirtualHost:
		m := &routev3.VirtualHost{}
		if s.read(nil, b, m) {
			return s.host(m)
		}
	case mesh.KindSecret:
		m := &tlsv3.Secret{}
		if s.read(nil, b, m) {
			return s.secret(m)
		}
	case mesh.KindExtension:
		m := &corev3.TypedExtensionConfig{}
		if s.read(nil, b, m) {
			return s.filterOf(m)
		}
	}
	return nil
}

// Name reads the name of a serialized resource without reading the rest, "" where there is none. In all types it is
// field 1.
func Name(b []byte) (name string) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return name
		}
		b = b[n:]
		if num == 1 && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return name
			}
			name, b = string(v), b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return name
		}
		b = b[n:]
	}
	return name
}

// scope is the decoding of one resource.
type scope struct {
	d       *Decoder
	version string
	report
	unknown          int
	tables, clusters []string
	eds              string
	parts            []mesh.PartRef
	scopes           []string
	hostSet          string
	// clientCerts says that the filter chain asks clients for certificates.
	clientCerts bool
	// loaded is a digest of what data sources read from elsewhere; nil where they read nothing.
	loaded   []byte
	sources  []Source
	timeouts map[string]time.Duration
}

func (s *scope) errorf(p *at, format string, args ...any) {
	if s.full() {
		return
	}
	s.fail(p.String(), fmt.Sprintf(format, args...))
}

func (s *scope) notef(p *at, format string, args ...any) {
	s.note(p.String(), fmt.Sprintf(format, args...))
}

// read unmarshals a message and lets the rules of the proto files and the field table have their say. It returns false where
// there is nothing to decode; true does not mean that there were no errors.
func (s *scope) read(p *at, b []byte, m proto.Message) bool {
	err := proto.UnmarshalOptions{RecursionLimit: maxDepth}.Unmarshal(b, m)
	if err != nil {
		s.errorf(p, "not a valid %s message: %s", m.ProtoReflect().Descriptor().FullName(), protoText(err))
		return false
	}
	s.check(p, m)
	return true
}

// check applies the rules of the proto files and the field table to a message.
func (s *scope) check(p *at, m proto.Message) {
	s.validate(p, m)
	s.unknown += s.d.fields.Walk(m, func(f protofields.Finding) {
		switch {
		case f.Class == protofields.NoEffect,
			f.Class == protofields.Observational && s.d.opt.AcceptObservational:
			s.note(p.join(f.Path), "no effect: "+f.Why)
		case f.Class == protofields.Observational:
			s.fail(p.join(f.Path), f.Why+"; start with --accept-observational to run without it")
		default:
			s.fail(p.join(f.Path), refusal(f.Why))
		}
	})
	if s.unknown > 0 && s.d.opt.RejectUnknown {
		s.errorf(p, "%d fields are not known to this version of Envoy's API, and unknown fields are rejected", s.unknown)
	}
}

// refusal makes sure that a reason also says what is the matter.
func refusal(why string) string {
	if strings.Contains(why, "not supported") {
		return why
	}
	return "not supported: " + why
}

// protoText is what a protobuf error says, without the library's name and its unstable space.
func protoText(err error) string {
	return strings.TrimSpace(strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0"))
}

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
