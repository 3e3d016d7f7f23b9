// SPDX-License-Identifier: Apache-2.0

package format

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"

	"github.com/meshtap/meshtap/mesh"
)

// noTLS stands for the handshake of plain connections.
var noTLS = &mesh.TLSInfo{}

func settled(o *mesh.Outcome) *mesh.TLSInfo {
	if o.TLS == nil {
		return noTLS
	}
	return o.TLS
}

// peerValue appends what stands in the client's certificate; several names are separated by commas. Whoever signed it may
// have signed bytes that would break a log's lines: they become "_".
func peerValue(dst []byte, op string, c *x509.Certificate) ([]byte, kind) {
	if c == nil {
		return dst, unset
	}
	at := len(dst)
	switch op {
	case "DOWNSTREAM_PEER_SUBJECT":
		dst = append(dst, c.Subject.String()...)
	case "DOWNSTREAM_PEER_ISSUER":
		dst = append(dst, c.Issuer.String()...)
	case "DOWNSTREAM_PEER_SERIAL":
		dst = hex.AppendEncode(dst, c.SerialNumber.Bytes())
	case "DOWNSTREAM_PEER_FINGERPRINT_256":
		sum := sha256.Sum256(c.Raw)
		dst = hex.AppendEncode(dst, sum[:])
	case "DOWNSTREAM_PEER_URI_SAN":
		dst = list(dst, len(c.URIs), func(i int) string { return c.URIs[i].String() })
	case "DOWNSTREAM_PEER_DNS_SAN":
		dst = list(dst, len(c.DNSNames), func(i int) string { return c.DNSNames[i] })
	case "DOWNSTREAM_PEER_IP_SAN":
		dst = list(dst, len(c.IPAddresses), func(i int) string { return c.IPAddresses[i].String() })
	case "DOWNSTREAM_PEER_EMAIL_SAN":
		dst = list(dst, len(c.EmailAddresses), func(i int) string { return c.EmailAddresses[i] })
	}
	if len(dst) == at {
		return dst, unset
	}
	for i, b := range dst[at:] {
		if b < ' ' || b == 0x7f {
			dst[at+i] = '_'
		}
	}
	return dst, text
}

func list(dst []byte, n int, item func(int) string) []byte {
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, item(i)...)
	}
	return dst
}
