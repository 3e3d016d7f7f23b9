// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net"

	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/meshtap/meshtap/internal/tlsconf"
)

// credentials returns how connections of proxies begin.
func (s *Server) credentials() credentials.TransportCredentials {
	if s.tls == nil {
		return insecure.NewCredentials()
	}
	return secured{credentials.NewTLS(s.tls), s.log}
}

// secured is TLS that tells why a handshake failed: gRPC keeps that to itself.
type secured struct {
	credentials.TransportCredentials
	log *zap.Logger
}

// ServerHandshake implements credentials.TransportCredentials.
func (s secured) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := s.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		_, why := tlsconf.Explain(err)
		s.log.Warn("a connection is refused in its TLS handshake", zap.Stringer("address", raw.RemoteAddr()), zap.String("reason", clean(why)))
	}
	return c, info, err
}

// Clone implements credentials.TransportCredentials.
func (s secured) Clone() credentials.TransportCredentials {
	return secured{s.TransportCredentials.Clone(), s.log}
}
