// SPDX-License-Identifier: Apache-2.0

package fakexds

import (
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcppb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
)

// FilterConfig returns the configuration of a filter, as it comes by ECDS.
func FilterConfig(name string, m proto.Message) *corepb.TypedExtensionConfig {
	return &corepb.TypedExtensionConfig{Name: name, TypedConfig: mustAny(m)}
}

// DiscoverFilter puts a filter whose configuration comes from a source first into a listener that is from Listener. What
// it may be is said by m's type. It changes the listener.
func DiscoverFilter(l *listenerpb.Listener, c *corepb.ConfigSource, name string, m proto.Message) *listenerpb.Listener {
	f := l.GetFilterChains()[0].GetFilters()[0]
	hcm := &hcmpb.HttpConnectionManager{}
	if err := f.GetTypedConfig().UnmarshalTo(hcm); err != nil {
		panic(err) // only of listeners that are not from Listener
	}
	hcm.HttpFilters = append([]*hcmpb.HttpFilter{{Name: name, ConfigType: &hcmpb.HttpFilter_ConfigDiscovery{
		ConfigDiscovery: &corepb.ExtensionConfigSource{ConfigSource: c, TypeUrls: []string{mustAny(m).GetTypeUrl()}},
	}}}, hcm.GetHttpFilters()...)
	f.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: mustAny(hcm)}
	return l
}

// DiscoverListenerFilter puts a listener filter whose configuration comes from a source into a listener. What it may be is
// said by m's type. It changes the listener.
func DiscoverListenerFilter(l *listenerpb.Listener, c *corepb.ConfigSource, name string, m proto.Message) *listenerpb.Listener {
	l.ListenerFilters = append(l.ListenerFilters, &listenerpb.ListenerFilter{Name: name, ConfigType: &listenerpb.ListenerFilter_ConfigDiscovery{
		ConfigDiscovery: &corepb.ExtensionConfigSource{ConfigSource: c, TypeUrls: []string{mustAny(m).GetTypeUrl()}},
	}})
	return l
}

// DiscoverChain makes the end of the chain of a listener that is from Listener come from a source, as a connection manager or a TCP
// proxy, and returns what it was. It changes the listener.
func DiscoverChain(l *listenerpb.Listener, c *corepb.ConfigSource, name string) *corepb.TypedExtensionConfig {
	f := l.GetFilterChains()[0].GetFilters()[0]
	was := &corepb.TypedExtensionConfig{Name: name, TypedConfig: f.GetTypedConfig()}
	f.Name = name
	f.ConfigType = &listenerpb.Filter_ConfigDiscovery{ConfigDiscovery: &corepb.ExtensionConfigSource{
		ConfigSource: c, TypeUrls: []string{was.GetTypedConfig().GetTypeUrl(), mustAny(&tcppb.TcpProxy{}).GetTypeUrl()},
	}}
	return was
}

// DiscoverRouter makes the router of a listener that is from Listener come from a source. It changes the listener.
func DiscoverRouter(l *listenerpb.Listener, c *corepb.ConfigSource, name string) *listenerpb.Listener {
	f := l.GetFilterChains()[0].GetFilters()[0]
	hcm := &hcmpb.HttpConnectionManager{}
	if err := f.GetTypedConfig().UnmarshalTo(hcm); err != nil {
		panic(err) // only of listeners that are not from Listener
	}
	router := hcm.GetHttpFilters()[len(hcm.GetHttpFilters())-1]
	router.Name = name
	router.ConfigType = &hcmpb.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corepb.ExtensionConfigSource{
		ConfigSource: c, TypeUrls: []string{router.GetTypedConfig().GetTypeUrl()},
	}}
	f.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: mustAny(hcm)}
	return l
}
