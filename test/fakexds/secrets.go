// SPDX-License-Identifier: Apache-2.0

package fakexds

import (
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
)

// Certificate returns a secret with a certificate and its key, in PEM.
func Certificate(name string, chain, key []byte) *tlspb.Secret {
	return &tlspb.Secret{Name: name, Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
		CertificateChain: inline(chain), PrivateKey: inline(key),
	}}}
}

// CertificateFiles returns a secret whose certificate and key are in files below a directory that is to be watched.
func CertificateFiles(name, chain, key, watched string) *tlspb.Secret {
	file := func(path string) *corepb.DataSource {
		return &corepb.DataSource{Specifier: &corepb.DataSource_Filename{Filename: path}}
	}
	return &tlspb.Secret{Name: name, Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
		CertificateChain: file(chain), PrivateKey: file(key), WatchedDirectory: &corepb.WatchedDirectory{Path: watched},
	}}}
}

// Authorities returns a secret with the authorities that others are verified by, in PEM.
func Authorities(name string, bundle []byte) *tlspb.Secret {
	return &tlspb.Secret{Name: name, Type: &tlspb.Secret_ValidationContext{
		ValidationContext: &tlspb.CertificateValidationContext{TrustedCa: inline(bundle)},
	}}
}

func inline(b []byte) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: b}}
}

// SecureListener makes a listener speak TLS with a certificate that is a secret of a source. It changes the listener.
func SecureListener(l *listenerpb.Listener, c *corepb.ConfigSource, certificate string) *listenerpb.Listener {
	for _, chain := range l.GetFilterChains() {
		chain.TransportSocket = socket(&tlspb.DownstreamTlsContext{CommonTlsContext: &tlspb.CommonTlsContext{
			TlsCertificateSdsSecretConfigs: []*tlspb.SdsSecretConfig{{Name: certificate, SdsConfig: c}},
		}})
	}
	return l
}

// SecureCluster makes a cluster speak TLS and verify its hosts by a secret of a source. It changes the cluster.
func SecureCluster(r *clusterpb.Cluster, c *corepb.ConfigSource, authorities string) *clusterpb.Cluster {
	r.TransportSocket = socket(&tlspb.UpstreamTlsContext{CommonTlsContext: &tlspb.CommonTlsContext{
		ValidationContextType: &tlspb.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlspb.SdsSecretConfig{Name: authorities, SdsConfig: c},
		},
	}})
	return r
}

func socket(m proto.Message) *corepb.TransportSocket {
	return &corepb.TransportSocket{
		Name: "envoy.transport_sockets.tls", ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: mustAny(m)},
	}
}
