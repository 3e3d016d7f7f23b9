// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"strings"

	"github.com/meshtap/meshtap/mesh"
)

// info keeps of a connection's state what others want to know, under OpenSSL's names.
func info(cs *tls.ConnectionState) *mesh.TLSInfo {
	i := &mesh.TLSInfo{
		Version: versionName(cs.Version), Cipher: cipherName(cs.CipherSuite), Group: groupName(cs.CurveID),
		ALPN: cs.NegotiatedProtocol, ServerName: strings.ToLower(cs.ServerName), Resumed: cs.DidResume,
	}
	if len(cs.PeerCertificates) > 0 {
		i.Peer = cs.PeerCertificates[0]
	}
	return i
}

func versionName(v uint16) string {
	switch v {
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(v)
}

func cipherName(id uint16) string {
	switch id {
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:
		return "ECDHE-ECDSA-AES128-GCM-SHA256"
	case tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:
		return "ECDHE-ECDSA-AES256-GCM-SHA384"
	case tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return "ECDHE-ECDSA-CHACHA20-POLY1305"
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:
		return "ECDHE-RSA-AES128-GCM-SHA256"
	case tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
		return "ECDHE-RSA-AES256-GCM-SHA384"
	case tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
		return "ECDHE-RSA-CHACHA20-POLY1305"
	}
	return tls.CipherSuiteName(id) // those of TLS 1.3 have one name
}

func groupName(id tls.CurveID) string {
	switch id {
	case tls.X25519:
		return "X25519"
	case tls.CurveP256:
		return "P-256"
	case tls.CurveP384:
		return "P-384"
	case tls.CurveP521:
		return "P-521"
	case tls.X25519MLKEM768:
		return "X25519MLKEM768"
	}
	return ""
}
