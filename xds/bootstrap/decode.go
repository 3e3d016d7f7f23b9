// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"os"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	regexv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/regex_engines/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds/resource"
)

// decode reads the parts of the message. The order matters: resources are decoded with what the runtime and the
// control plane's name say.
func (l *loader) decode() {
	c, b := l.config, l.config.Bootstrap
	opt := resource.Options{
		Parsers:             l.opt.Parsers,
		RejectUnknown:       l.opt.RejectUnknownDynamicFields,
		AcceptObservational: l.opt.AcceptObservational,
		AddFields:           addFields,
		ReadFile:            l.opt.ReadFile,
		LookupEnv:           l.opt.LookupEnv,
	}
	s := resource.New(opt).Scope(mesh.KindBootstrap, "")
	l.check(s, b)
	c.Connections = l.overload(s, b.GetOverloadManager())
	l.runtime(s, b)
	opt.Runtime = c.Runtime
	if c.Connections == 0 {
		c.ConnectionsRuntime = c.Runtime.Key(connectionsKey)
	}
	c.Stats, c.StatsInterval = naming(s, b.GetStatsConfig(), l.opt.StatsTags), b.GetStatsFlushInterval().AsDuration()
	l.logForm(s, b.GetApplicationLogConfig().GetLogFormat())
	l.node(s, b)
	l.admin(s, b.GetAdmin())
	c.Dynamic = l.dynamic(s, b)
	l.rtds(s, b.GetLayeredRuntime())
	opt.ControlPlane = l.controlPlanes()
	opt.Secrets = secretTypes(b.GetStaticResources().GetSecrets())
	opt.NoADS = c.Dynamic == nil || c.Dynamic.ADS == nil
	opt.DeltaADS = !opt.NoADS && c.Dynamic.ADS.Variant == resource.DeltaGRPC
	if r := b.GetTypedDnsResolverConfig(); r != nil {
		opt.DNS = s.Resolver("typed_dns_resolver_config", r)
	}
	if e := b.GetDefaultRegexEngine(); e != nil {
		s.Message("default_regex_engine.typed_config", e.GetTypedConfig(), &regexv3.GoogleRE2{})
	}
	for i, e := range b.GetBootstrapExtensions() {
		path := fmt.Sprintf("bootstrap_extensions[%d].typed_config", i)
		if resource.IsDiscovered(e.GetTypedConfig()) {
			l.discovered(s, path, e)
		} else if ext, ok := s.Extension(path, registry.Bootstrap, e.GetName(), e.GetTypedConfig()); ok {
			c.Extensions = append(c.Extensions, ext)
		}
	}
	l.take("", s)
	c.Resource = opt
	c.Resource.AddFields = nil
	l.static(opt, b.GetStaticResources())
	l.together()
}

// check applies the general rules to everything but the static resources, which are checked one by one.
func (l *loader) check(s *resource.Scope, b *bootstrapv3.Bootstrap) {
	static := b.StaticResources
	b.StaticResources = nil
	s.Check("", b)
	b.StaticResources = static
}

// take moves what a scope found to the report, with its places. prefix is the path of what the scope read.
func (l *loader) take(prefix string, s *resource.Scope) {
	errs, notes := s.Result()
	l.found(prefix, errs, notes)
}

func (l *loader) found(prefix string, errs resource.Errors, notes []string) {
	for _, e := range errs {
		path := joinPaths(prefix, e.Path)
		if l.doc.followsFrom(path, e.Msg) {
			continue
		}
		l.report.fail(l.doc.place(path), path, sentence(path, e.Msg), l.doc.hints[path])
	}
	for _, n := range notes {
		path, why := resource.SplitNote(n)
		path = joinPaths(prefix, path)
		l.report.warn(l.doc.place(path), path, sentence(path, why))
	}
}

func joinPaths(prefix, path string) string {
	if prefix == "" || path == "" {
		return prefix + path
	}
	return prefix + "." + path
}

// verbs begin messages that go on after the name of a field.
var verbs = []string{
	"must", "is", "has", "holds", "excludes", "needs", "goes", "may", "does", "cannot", "compiles", "matches", "stands",
	"never", "names", "takes",
}

// sentence puts a field's name before what is said of it.
func sentence(path, msg string) string {
	if path == "" {
		return msg
	}
	if first, _, _ := strings.Cut(msg, " "); slices.Contains(verbs, first) {
		return label(path) + " " + msg
	}
	return label(path) + ": " + msg
}

// clientFeatures tell a control plane what it may send: times to live, and resources in the wrapper that carries them.
var clientFeatures = []string{"xds.config.supports-resource-ttl", "xds.config.resource-in-sotw"}

func (l *loader) node(s *resource.Scope, b *bootstrapv3.Bootstrap) {
	n := &corev3.Node{}
	if b.GetNode() != nil {
		n = proto.Clone(b.GetNode()).(*corev3.Node)
	}
	n.Id = orElse(l.opt.NodeID, n.GetId())
	n.Cluster = orElse(l.opt.NodeCluster, n.GetCluster())
	if l.opt.NodeZone != "" {
		if n.Locality == nil {
			n.Locality = &corev3.Locality{}
		}
		n.Locality.Zone = l.opt.NodeZone
	}
	if n.GetUserAgentName() == "" {
		n.UserAgentName = "meshtap"
		n.UserAgentVersionType = &corev3.Node_UserAgentVersion{UserAgentVersion: l.opt.Version}
	}
	for _, f := range clientFeatures {
		if !slices.Contains(n.GetClientFeatures(), f) {
			n.ClientFeatures = append(n.ClientFeatures, f)
		}
	}
	for _, info := range l.opt.Parsers.All() {
		n.Extensions = append(n.Extensions, &corev3.Extension{
			Name: info.Name, Category: string(info.Category), TypeUrls: info.TypeURLs,
		})
	}
	l.config.NodeProto = n
	l.config.Node = mesh.Node{ID: n.GetId(), Cluster: n.GetCluster(), Locality: resource.Locality(n.GetLocality())}
	if b.GetDynamicResources() == nil {
		return
	}
	if n.GetId() == "" {
		s.Fail("node.id", "is required where there are dynamic_resources: the control plane knows this proxy by it; it "+
			"may also come from --service-node")
	}
	if n.GetCluster() == "" {
		s.Note("node.cluster", "is empty; Envoy requires it where there are dynamic_resources, and a control plane may, "+
			"too (--service-cluster)")
	}
}

func orElse(v, otherwise string) string {
	if v != "" {
		return v
	}
	return otherwise
}

func (l *loader) admin(s *resource.Scope, m *bootstrapv3.Admin) {
	if m.GetAddress() == nil {
		return
	}
	l.config.Admin.Address = s.Address("admin.address", m.GetAddress())
	if pipe := m.GetAddress().GetPipe(); pipe != nil {
		l.config.Admin.Mode = os.FileMode(pipe.GetMode()) & os.ModePerm
	}
	if m.GetAddress().GetEnvoyInternalAddress() != nil {
		s.Fail("admin.address.envoy_internal_address", "internal listeners are not supported")
	}
}

// discovered reads an extension whose configuration comes from a control plane, beginning with a default.
func (l *loader) discovered(s *resource.Scope, path string, e *corev3.TypedExtensionConfig) {
	c := l.config
	ext, refs, ok := s.Discovered(path, registry.Bootstrap, e.GetName(), e.GetTypedConfig())
	if !ok {
		return
	}
	path += ".config_source"
	for _, src := range refs.Sources {
		l.clusterOf(s, path+".api_config_source", src)
	}
	if len(refs.Sources) == 0 && (c.Dynamic == nil || c.Dynamic.ADS == nil) {
		s.Fail(path+".ads", "needs dynamic_resources.ads_config, which says where the control plane is")
	}
	c.Extensions, c.Discovered = append(c.Extensions, ext), append(c.Discovered, refs)
}

// static decodes the static resources.
func (l *loader) static(opt resource.Options, m *bootstrapv3.Bootstrap_StaticResources) {
	opt.Static = true
	d := resource.New(opt)
	for i, r := range m.GetSecrets() {
		path := fmt.Sprintf("static_resources.secrets[%d]", i)
		l.config.Secrets = append(l.config.Secrets, l.resource(d, path, resource.SecretType, r))
	}
	for i, r := range m.GetClusters() {
		path := fmt.Sprintf("static_resources.clusters[%d]", i)
		l.config.Clusters = append(l.config.Clusters, l.resource(d, path, resource.ClusterType, r))
	}
	for i, r := range m.GetListeners() {
		path := fmt.Sprintf("static_resources.listeners[%d]", i)
		l.config.Listeners = append(l.config.Listeners, l.resource(d, path, resource.ListenerType, r))
	}
}

// secretTypes returns what the secrets of the bootstrap are, by name.
func secretTypes(list []*tlsv3.Secret) map[string]mesh.SecretType {
	out := map[string]mesh.SecretType{}
	for _, m := range list {
		out[m.GetName()] = mesh.SecretCertificate
		if m.GetValidationContext() != nil {
			out[m.GetName()] = mesh.SecretValidation
		}
	}
	return out
}

func (l *loader) resource(d *resource.Decoder, path, typeURL string, m proto.Message) Static {
	out := Static{TypeURL: typeURL}
	var err error
	if out.Raw, err = (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil {
		l.report.fail(l.doc.place(path), path, err.Error(), "")
		return out
	}
	out.Decoded, err = d.Decode(typeURL, out.Raw, "")
	errs, _ := err.(resource.Errors)
	l.found(path, errs, out.NoEffect)
	return out
}
