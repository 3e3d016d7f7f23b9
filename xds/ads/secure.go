// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/meshtap/meshtap/internal/tlsconf"
)

// The application protocols that are spoken: gRPC is HTTP/2, polls are HTTP/1.1.
const (
	protocolGRPC = "h2"
	protocolPoll = "http/1.1"
)

// handshake makes the TLS of a connection to a control plane. The error says what is wrong with the other side.
func handshake(ctx context.Context, raw net.Conn, t Target, config *tls.Config, protocol string) (*tls.Conn, error) {
	config = config.Clone()
	config.NextProtos = []string{protocol}
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil, fmt.Errorf("TLS with the control plane at %s: the handshake took too long", t)
		}
		_, why := tlsconf.Explain(err)
		return nil, fmt.Errorf("TLS with the control plane at %s: %s%s", t, why, shownBy(c))
	}
	// A server that does not negotiate speaks HTTP/1.1.
	if got := c.ConnectionState().NegotiatedProtocol; got != protocol && (protocol == protocolGRPC || got != "") {
		return nil, fmt.Errorf("TLS with the control plane at %s: it speaks %q (ALPN), and %q is needed", t, got, protocol)
	}
	return c, nil
}

// maxShown bounds the names of a certificate that an error quotes.
const maxShown = 5

// shownBy says which certificate the other side has shown, so that a person can tell whose it is.
func shownBy(c *tls.Conn) string {
	certs := c.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return ""
	}
	x := certs[0]
	return fmt.Sprintf("; its certificate is for %s, good from %s to %s, issued by %q", names(x),
		x.NotBefore.UTC().Format(time.RFC3339), x.NotAfter.UTC().Format(time.RFC3339), x.Issuer.String())
}

func names(x *x509.Certificate) string {
	var all []string
	for _, u := range x.URIs {
		all = append(all, u.String())
	}
	all = append(all, x.DNSNames...)
	for _, ip := range x.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) > maxShown {
		return fmt.Sprintf("%q and %d more", all[:maxShown], len(all)-maxShown)
	}
	return fmt.Sprintf("%q", all)
}

// channel is the TLS of gRPC's connections to one target. It remembers why the last handshake failed, which gRPC would
// wrap in words of its own.
type channel struct {
	target Target
	config *tls.Config

	mu  sync.Mutex
	err error // guarded by mu
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *channel) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, err := handshake(ctx, raw, c.target, c.config, protocolGRPC)
	if err != nil {
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		_ = raw.Close()
		return nil, nil, err
	}
	info := credentials.TLSInfo{
		State:          secured.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}
	return secured, info, nil
}

// failed returns why the last handshake failed, nil where none did.
func (c *channel) failed() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// ServerHandshake implements credentials.TransportCredentials. We are a client.
func (c *channel) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("ads: not a server")
}

// Info implements credentials.TransportCredentials.
func (c *channel) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials; what is shared does not change but for err, which is guarded.
func (c *channel) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials; the configuration says which name is asked for.
func (c *channel) OverrideServerName(string) error {
	return errors.New("ads: the server name is configured")
}

var _ credentials.TransportCredentials = (*channel)(nil)
