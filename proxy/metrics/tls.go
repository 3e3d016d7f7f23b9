// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/meshtap/meshtap/internal/stats"

// The numbers of TLS, listener.<address>.ssl.* and cluster.<name>.ssl.*. All are moved by transport.
const (
	// TLSConnectionError: a handshake failed for another reason than a certificate.
	TLSConnectionError = iota
	// TLSHandshake: a handshake succeeded.
	TLSHandshake
	// TLSSessionReused: it resumed a session.
	TLSSessionReused
	// TLSNoCertificate: it did so without a certificate of the other side.
	TLSNoCertificate
	// TLSFailVerifyNoCert: a client showed no certificate and had to.
	TLSFailVerifyNoCert
	// TLSFailVerifyError: a certificate was not good.
	TLSFailVerifyError
	// TLSFailVerifySAN: its names were not those that are asked for.
	TLSFailVerifySAN
	// TLSUpdatedBySDS: a handshake was the first with a secret that is new.
	TLSUpdatedBySDS
	// TLSSecretsNotReady: a connection was closed, since a secret was not there.
	TLSSecretsNotReady

	// What was settled: TLSVersions, TLSCiphers and TLSGroups have the names, in this order.
	tlsFirstVersion
	tlsFirstCipher = tlsFirstVersion + len(TLSVersions)
	tlsFirstGroup  = tlsFirstCipher + len(TLSCiphers)
	numTLS         = tlsFirstGroup + len(TLSGroups)
)

// The names of what a handshake settles, as OpenSSL has them.
var (
	TLSVersions = [...]string{"TLSv1.2", "TLSv1.3"}
	TLSCiphers  = [...]string{
		"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
		"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
		"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305",
	}
	TLSGroups = [...]string{"X25519", "P-256", "P-384", "P-521", "X25519MLKEM768"}
)

// The tags of what was settled, as Envoy has them.
const (
	tagTLSVersion         = "envoy.ssl_version"
	tagTLSCipher          = "envoy.ssl_cipher"
	tagTLSCipherOfCluster = "envoy.ssl_cipher_suite"
	tagTLSCurve           = "envoy.ssl_curve"
)

var (
	listenerTLSSchema = tlsSchema("listener", tagTLSCipher, "server", "downstream")
	clusterTLSSchema  = tlsSchema("cluster", tagTLSCipherOfCluster, "client", "upstream")
)

func tlsSchema(of, cipherTag, role, side string) *stats.Schema {
	defs := make([]stats.Def, numTLS)
	for i, name := range []string{
		TLSConnectionError: "connection_error", TLSHandshake: "handshake", TLSSessionReused: "session_reused",
		TLSNoCertificate: "no_certificate", TLSFailVerifyNoCert: "fail_verify_no_cert",
		TLSFailVerifyError: "fail_verify_error", TLSFailVerifySAN: "fail_verify_san",
	} {
		defs[i] = stats.Def{Name: "ssl." + name}
	}
	factory := role + "_ssl_socket_factory."
	defs[TLSUpdatedBySDS] = stats.Def{Name: factory + "ssl_context_update_by_sds"}
	defs[TLSSecretsNotReady] = stats.Def{Name: factory + side + "_context_secrets_not_ready"}
	settled := func(first int, kind, tag string, names []string) {
		for i, name := range names {
			defs[first+i] = stats.Def{
				Name: "ssl." + kind + "." + name, Lazy: true,
				Prom: "ssl_" + kind, Tags: []stats.Tag{{Name: tag, Value: name}},
			}
		}
	}
	settled(tlsFirstVersion, "versions", tagTLSVersion, TLSVersions[:])
	settled(tlsFirstCipher, "ciphers", cipherTag, TLSCiphers[:])
	settled(tlsFirstGroup, "curves", tagTLSCurve, TLSGroups[:])
	return &stats.Schema{Name: of, Defs: defs}
}

// TLS is the numbers of TLS of one listener or cluster.
type TLS struct{ *stats.Group }

// NewListenerTLS returns the numbers of TLS of the listener with this name (see ListenerName). Release gives them back.
func NewListenerTLS(reg *stats.Registry, name string) *TLS {
	name = StatName(name)
	return &TLS{reg.Group(listenerTLSSchema, "listener."+name, stats.Tag{Name: tagListener, Value: name})}
}

// NewClusterTLS returns the numbers of TLS of the cluster with this name. Release gives them back.
func NewClusterTLS(reg *stats.Registry, name string) *TLS {
	name = StatName(name)
	return &TLS{reg.Group(clusterTLSSchema, "cluster."+name, stats.Tag{Name: tagCluster, Value: name})}
}

// Settled counts what a handshake has settled, by the names above; other names are not counted.
func (t *TLS) Settled(shard uint32, version, cipher, group string) {
	t.name(shard, tlsFirstVersion, TLSVersions[:], version)
	t.name(shard, tlsFirstCipher, TLSCiphers[:], cipher)
	t.name(shard, tlsFirstGroup, TLSGroups[:], group)
}

func (t *TLS) name(shard uint32, first int, names []string, name string) {
	for i, n := range names {
		if n == name {
			t.Inc(shard, first+i)
			return
		}
	}
}
