// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"crypto/tls"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/nearest"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// Variant is how resources are fetched.
type Variant uint8

// The variants. ADS is the one aggregated stream of the bootstrap, whatever its own variant is.
const (
	ADS Variant = iota
	GRPC
	DeltaGRPC
	REST
	File
)

// String returns the variant as configurations write it.
func (v Variant) String() string {
	return [...]string{"ADS", "GRPC", "DELTA_GRPC", "REST", "file"}[v]
}

// Source is where resources of one kind come from.
type Source struct {
	// ID tells sources apart: two that are configured alike have the same. It is "" for ADS.
	ID      string
	Variant Variant
	Kind    mesh.ResourceKind
	// FetchTimeout is how long the first answer is waited for (initial_fetch_timeout); 0 waits for ever. It does not make
	// another source.
	FetchTimeout time.Duration

	// Cluster is the static cluster that a stream or a poll goes to, or Target the address for a gRPC client; one of them
	// is "".
	Cluster, Target string
	// Authority is the :authority header of the stream, "" for the default.
	Authority string
	// NodeOnFirstOnly sends the node in the first request of a stream only.
	NodeOnFirstOnly bool
	// Metadata is added to the stream's headers.
	Metadata []Header
	// Secure says how TLS is spoken to Target, nil for plain text. Tokens are headers that say who we are, nil for none. Both
	// read the files of the credentials anew with each call.
	Secure func() (*tls.Config, error)
	Tokens func() ([]Header, error)
	// MaxMessageBytes bounds a response; 0 leaves it to the default.
	MaxMessageBytes int
	// RefreshDelay is the time between two polls, and RequestTimeout bounds one. They are of REST.
	RefreshDelay, RequestTimeout time.Duration

	// Stats is the name that Envoy gives the numbers of the source: that of the first resource that came from it.
	Stats string

	// Path is the file that is read, and Watched the directory that is watched for its changes, "" for the file's own.
	Path, Watched string
}

// Header is one header of a stream.
type Header struct{ Name, Value string }

// String says for a person where resources come from.
func (s Source) String() string {
	if s.Variant == ADS {
		return s.Variant.String()
	}
	return s.Variant.String() + " " + s.To()
}

// To is the cluster, the target or the file that a source leads to.
func (s Source) To() string { return s.Cluster + s.Target + s.Path }

const (
	defaultFetchTimeout   = 15 * time.Second
	defaultRequestTimeout = time.Second
)

// from reads where a resource that another one names comes from. It returns the key of the resource, and notes the source
// where it is one of its own. stats is what Envoy calls the numbers of the resource.
func (s *scope) from(p *at, kind mesh.ResourceKind, name, stats string, c *corev3.ConfigSource) string {
	src, ok := s.source(p, kind, c)
	if !ok {
		return name
	}
	src.Stats = stats
	key := sourcekey.Join(name, src.ID)
	if src.FetchTimeout != defaultFetchTimeout {
		if s.timeouts == nil {
			s.timeouts = map[string]time.Duration{}
		}
		s.timeouts[key] = src.FetchTimeout
	}
	if src.ID != "" && !slices.ContainsFunc(s.sources, func(o Source) bool { return o.ID == src.ID }) {
		s.sources = append(s.sources, src)
	}
	return key
}

// source reads a config source. It returns false where it cannot be used.
func (s *scope) source(p *at, kind mesh.ResourceKind, c *corev3.ConfigSource) (src Source, ok bool) {
	if v := c.GetResourceApiVersion(); v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
		s.errorf(p.field("resource_api_version"), "%s is not supported; supported: V3", v)
	}
	src.Kind = kind
	switch x := c.GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Ads:
		if ok = !s.d.opt.NoADS; !ok {
			s.errorf(p.field("ads"), "needs dynamic_resources.ads_config in the bootstrap, which says where the control plane is")
		}
	case *corev3.ConfigSource_ApiConfigSource:
		ok = s.api(p.field("api_config_source"), &src, x.ApiConfigSource)
	case *corev3.ConfigSource_PathConfigSource:
		src.Watched = x.PathConfigSource.GetWatchedDirectory().GetPath()
		ok = s.file(p.field("path_config_source").field("path"), &src, x.PathConfigSource.GetPath())
	case *corev3.ConfigSource_Path:
		ok = s.file(p.field("path"), &src, x.Path)
	case nil:
		s.errorf(p, "needs a source; write ads: {}")
	}
	if src.Variant != ADS {
		src.ID = strings.Join([]string{src.Kind.String(), src.String(), fingerprint(c)}, " ")
	}
	src.FetchTimeout = s.durationOr(p, "initial_fetch_timeout", c.GetInitialFetchTimeout(), defaultFetchTimeout)
	return src, ok
}

// fingerprint is a number for what is configured, without what does not make another source.
func fingerprint(c *corev3.ConfigSource) string {
	c = proto.CloneOf(c)
	c.InitialFetchTimeout, c.ResourceApiVersion = nil, corev3.ApiVersion_AUTO
	h := fnv.New32a()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err == nil {
		_, _ = h.Write(b)
	}
	return strconv.FormatUint(uint64(h.Sum32()), 36)
}

// file reads a source that is a file.
func (s *scope) file(p *at, src *Source, path string) bool {
	src.Variant, src.Path = File, path
	if path == "" {
		s.errorf(p, "must not be empty")
		return false
	}
	return true
}

// api reads a source that is a stream, or is polled. It is also that of ads_config.
func (s *scope) api(p *at, src *Source, m *corev3.ApiConfigSource) bool {
	before := len(s.errs)
	switch m.GetApiType() {
	case corev3.ApiConfigSource_GRPC:
		src.Variant = GRPC
	case corev3.ApiConfigSource_DELTA_GRPC:
		src.Variant = DeltaGRPC
	case corev3.ApiConfigSource_REST:
		src.Variant = REST
	default:
		s.errorf(p.field("api_type"), "%s is not supported; supported: GRPC, DELTA_GRPC, REST", m.GetApiType())
		return false
	}
	if m.GetTransportApiVersion() == corev3.ApiVersion_V2 {
		s.errorf(p.field("transport_api_version"), "V2 is not supported; supported: V3")
	}
	src.NodeOnFirstOnly = m.GetSetNodeOnFirstMessageOnly()
	if src.Variant == REST {
		s.rest(p, src, m)
	} else {
		s.grpc(p, src, m)
	}
	return len(s.errs) == before
}

func (s *scope) rest(p *at, src *Source, m *corev3.ApiConfigSource) {
	if len(m.GetGrpcServices()) > 0 {
		s.errorf(p.field("grpc_services"), "is for gRPC; REST goes to cluster_names")
	}
	if n := len(m.GetClusterNames()); n != 1 {
		s.errorf(p.field("cluster_names"), "must have exactly 1 item for REST, not %d", n)
		return
	}
	src.Cluster = m.GetClusterNames()[0]
	s.controlPlane(p.item("cluster_names", 0), src.Cluster)
	src.RefreshDelay = s.duration(p, "refresh_delay", m.GetRefreshDelay())
	if src.RefreshDelay <= 0 {
		s.errorf(p.field("refresh_delay"), "is required for REST, and must be more than 0s")
	}
	src.RequestTimeout = s.durationOr(p, "request_timeout", m.GetRequestTimeout(), defaultRequestTimeout)
}

func (s *scope) grpc(p *at, src *Source, m *corev3.ApiConfigSource) {
	if len(m.GetClusterNames()) > 0 {
		s.errorf(p.field("cluster_names"), "is for REST; gRPC goes to grpc_services")
	}
	if m.GetRefreshDelay() != nil {
		s.notef(p.field("refresh_delay"), "no effect: it is for REST")
	}
	if m.GetRequestTimeout() != nil {
		s.notef(p.field("request_timeout"), "no effect: it is for REST")
	}
	if n := len(m.GetGrpcServices()); n != 1 {
		s.errorf(p.field("grpc_services"), "must have exactly 1 item, not %d", n)
		return
	}
	g := m.GetGrpcServices()[0]
	gp := p.item("grpc_services", 0)
	for i, h := range g.GetInitialMetadata() {
		value := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			value = string(h.GetRawValue())
		}
		if strings.Contains(value, "%") {
			s.notef(gp.item("initial_metadata", i), "the value is sent as it is: it is not a format")
		}
		src.Metadata = append(src.Metadata, Header{strings.ToLower(h.GetKey()), value})
	}
	if g.GetGoogleGrpc() != nil {
		src.Target = g.GetGoogleGrpc().GetTargetUri()
		s.credentials(gp.field("google_grpc"), src, g.GetGoogleGrpc())
		return
	}
	src.Cluster = g.GetEnvoyGrpc().GetClusterName()
	src.Authority = g.GetEnvoyGrpc().GetAuthority()
	src.MaxMessageBytes = int(g.GetEnvoyGrpc().GetMaxReceiveMessageLength().GetValue())
	s.controlPlane(gp.field("envoy_grpc").field("cluster_name"), src.Cluster)
}

// controlPlane checks that the cluster of a control plane is one that is there from the start. The bootstrap, which has
// better words for it, checks its own sources.
func (s *scope) controlPlane(p *at, name string) {
	if name == "" || s.report.kind == mesh.KindBootstrap || slices.Contains(s.d.opt.ControlPlane, name) {
		return
	}
	meant := ""
	if near := nearest.Name(name, s.d.opt.ControlPlane); near != "" {
		meant = fmt.Sprintf("; did you mean %q?", near)
	}
	s.errorf(p, "names the cluster %q, which is none of those that the bootstrap has, with their addresses: %s%s", name, orNone(s.d.opt.ControlPlane), meant)
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "there are none"
	}
	return strings.Join(names, ", ")
}

// Source reads a config source of resources of a kind; ok is false where it cannot be used.
func (c *Scope) Source(path string, kind mesh.ResourceKind, m *corev3.ConfigSource) (src Source, ok bool) {
	return c.s.source(place(path), kind, m)
}

// Stream reads where a stream goes that is not for one type of resource alone, and how.
func (c *Scope) Stream(path string, m *corev3.ApiConfigSource) (src Source, ok bool) {
	ok = c.s.api(place(path), &src, m)
	if src.Variant == REST {
		c.s.errorf(place(path).field("api_type"), "REST is for resources of one type; supported here: GRPC, DELTA_GRPC")
		return src, false
	}
	return src, ok
}

// addSourceFields states what is honoured of config sources.
func addSourceFields(t *protofields.Table) {
	t.Add(&corev3.ConfigSource{},
		protofields.Honour("ads", "resource_api_version", "api_config_source", "path", "path_config_source", "initial_fetch_timeout"),
		protofields.Refuse("write ads: {} where the resource comes over the aggregated stream", "self"),
		protofields.Refuse("xdstp:// authorities are not supported", "authorities"))
	t.Add(&corev3.AggregatedConfigSource{})
	t.Add(&corev3.PathConfigSource{}, protofields.Honour("path", "watched_directory"))
	t.Add(&corev3.WatchedDirectory{}, protofields.Honour("path"))
	t.Add(&corev3.ApiConfigSource{},
		protofields.Honour("api_type", "transport_api_version", "grpc_services", "cluster_names", "refresh_delay",
			"request_timeout", "set_node_on_first_message_only"),
		protofields.Ignore("a broken stream is opened again with growing pauses", "rate_limit_settings"),
		protofields.Refuse("validators are not supported", "config_validators"))
	addGRPCFields(t)
}

func addGRPCFields(t *protofields.Table) {
	const again = "a broken stream is opened again with growing pauses"
	t.Add(&corev3.GrpcService{}, protofields.Honour("envoy_grpc", "google_grpc", "initial_metadata"),
		protofields.Ignore("the stream stays open, as in Envoy", "timeout=0s"),
		protofields.Ignore(again, "retry_policy"))
	t.Add(&corev3.GrpcService_EnvoyGrpc{},
		protofields.Honour("cluster_name", "authority", "max_receive_message_length"),
		protofields.Ignore(again, "retry_policy"),
		protofields.Ignore("no x-envoy-* headers are sent", "skip_envoy_headers"))
	t.Add(&corev3.GrpcService_GoogleGrpc{},
		protofields.Honour("target_uri", "channel_credentials", "call_credentials", "credentials_factory_name"),
		protofields.Ignore("there are no statistics by gRPC client", "stat_prefix"),
		protofields.Ignore("gRPC's own limits apply", "per_stream_buffer_limit_bytes", "channel_args"),
		protofields.Refuse("plugins of credentials are not supported; use channel_credentials and call_credentials",
			"channel_credentials_plugin", "call_credentials_plugin", "config"))
	addCredentialFields(t)
}
