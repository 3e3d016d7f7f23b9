// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"
)

// Issue writes a new key on P-256 and its certificate for checkHost, which it signs itself, into one file.
func Issue(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{checkHost}, NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
	return os.WriteFile(file, text, 0o600)
}

// trust is how the check speaks TLS to a peer with this identity. The rows are measured with the same version, and the
// cipher that is chosen here.
func trust(file string) (*tls.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("no certificate is in " + file)
	}
	return &tls.Config{RootCAs: pool, ServerName: checkHost, MinVersion: tls.VersionTLS13}, nil
}

// sealed looks whether a connection is as all peers' are to be: the costs of ciphers differ.
func sealed(s *tls.ConnectionState) error {
	if s == nil {
		return errors.New("the connection has no TLS")
	}
	if s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 || s.CurveID != tls.X25519MLKEM768 && s.CurveID != tls.X25519 {
		return fmt.Errorf("TLS with %s and %v", tls.CipherSuiteName(s.CipherSuite), s.CurveID)
	}
	return nil
}
