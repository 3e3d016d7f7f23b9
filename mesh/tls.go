// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"crypto"
	"crypto/x509"
	"time"
)

// TLSContext says how TLS is spoken: on a filter chain to clients, on a cluster to upstreams. What it holds is parsed; no
// file is read later.
type TLSContext struct {
	// Certificates are our own, of which the first that suits the other side is shown. A filter chain has at least one, or
	// CertificateSecrets, the keys of secrets that each hold one; it never has both.
	Certificates       []*TLSCertificate
	CertificateSecrets []string
	// Validation says which certificates of the other side are good. nil on a cluster accepts any, as Envoy does; on a
	// filter chain it asks for none. ValidationSecret, where it is not "", is the key of the secret that says it; Validation
	// is what is added to that then, and may have no Roots.
	Validation       *TLSValidation
	ValidationSecret string
	// ALPN are the application protocols, in order of preference; empty does not negotiate.
	ALPN []string
	// MinVersion and MaxVersion are TLS 1.2 (0x0303) or 1.3 (0x0304).
	MinVersion, MaxVersion uint16
	// CipherSuites are those of TLS 1.2 by their IANA numbers, Groups the key exchanges likewise; empty means the default.
	CipherSuites, Groups []uint16

	// RequireClientCertificate refuses clients without a certificate; Validation or ValidationSecret is set then.
	RequireClientCertificate bool
	// NoTickets turns session resumption off for clients.
	NoTickets bool

	// SNI is the server name that is sent to upstreams; "" sends none.
	SNI string
	// SessionKeys is how many sessions with upstreams are kept to be resumed; 0 keeps none.
	SessionKeys int
}

// TLSCertificate is a certificate with its key.
type TLSCertificate struct {
	// Chain begins with the certificate itself. It is never empty.
	Chain []*x509.Certificate
	// Key belongs to the first of Chain.
	Key crypto.Signer
}

// TLSValidation says which certificates are good.
type TLSValidation struct {
	// Roots are the certificates that a chain must end at. It is never empty.
	Roots []*x509.Certificate
	// SANs are tests of the certificate's subject alternative names, of which one must hold for one name; empty tests none.
	SANs []SANMatch
}

// SANMatch is a test of the subject alternative names of one type.
type SANMatch struct {
	Type  SANType
	Match StringMatch
}

// SANType is a type of subject alternative names.
type SANType uint8

// The types of subject alternative names. SANAny stands for all of them.
const (
	SANAny SANType = iota
	SANEmail
	SANDNS
	SANURI
	SANIP
)

// Secret is key material that has a name of its own. Exactly one of Certificate and Validation is set. A TLSContext names
// it by its key: its name, with its source where that is not the aggregated stream.
type Secret struct {
	Name        string
	Certificate *TLSCertificate
	Validation  *TLSValidation
	// Files are what it was read from, other than from the resource itself, and Watched the directory whose changes make
	// them be read again, "" for their own.
	Files   []string
	Watched string
}

// Type returns the type of a secret.
func (s *Secret) Type() SecretType {
	if s.Certificate != nil {
		return SecretCertificate
	}
	return SecretValidation
}

// SecretType is what a secret holds.
type SecretType uint8

// The types of secrets.
const (
	SecretCertificate SecretType = iota
	SecretValidation
)

// String returns the type as configurations write it.
func (t SecretType) String() string {
	return [...]string{"tls_certificate", "validation_context"}[t]
}

// TLSInfo is what a handshake has settled. It does not change.
type TLSInfo struct {
	// Version is such as "TLSv1.3". Cipher is the suite by OpenSSL's name, Group the key exchange.
	Version, Cipher, Group string
	// ALPN is the application protocol, ServerName what the client asked for, in lower case; "" for none.
	ALPN, ServerName string
	// Resumed says that an earlier session went on.
	Resumed bool
	// Peer is the other side's certificate, nil where it has shown none. A client's was verified.
	Peer *x509.Certificate
}

// DefaultHandshakeTimeout bounds the handshake with a client where the configuration does not say.
const DefaultHandshakeTimeout = 10 * time.Second
