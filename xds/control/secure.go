// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net"
	"sync"
	"time"

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
	return secured{credentials.NewTLS(s.tls), &refusals{log: s.log}}
}

// secured is TLS that tells why a handshake failed: gRPC keeps that to itself.
type secured struct {
	credentials.TransportCredentials
	refusals *refusals
}

// maxRefusals is how many handshakes that failed are logged in a second: anybody who reaches the port can make them fail.
const maxRefusals = 10

// refusals logs handshakes that failed.
type refusals struct {
	log *zap.Logger

	mu sync.Mutex
	// Guarded by mu: when the second began that counts now, how many there were in it, and how many of them and of earlier
	// ones were not logged and not told of.
	began         time.Time
	count, untold int
}

func (r *refusals) tell(now time.Time, from net.Addr, why string) {
	r.mu.Lock()
	if now.Sub(r.began) >= time.Second {
		r.began, r.count = now, 0
	}
	r.count++
	if r.count > maxRefusals {
		r.untold++
		r.mu.Unlock()
		return
	}
	untold := r.untold
	r.untold = 0
	r.mu.Unlock()
	fields := []zap.Field{zap.Stringer("address", from), zap.String("reason", why)}
	if untold > 0 {
		fields = append(fields, zap.Int("not_logged", untold))
	}
	r.log.Warn("a connection is refused in its TLS handshake", fields...)
}

// ServerHandshake implements credentials.TransportCredentials.
func (s secured) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := s.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		_, why := tlsconf.Explain(err)
		s.refusals.tell(time.Now(), raw.RemoteAddr(), clean(why))
	}
	return c, info, err
}

// Clone implements credentials.TransportCredentials.
func (s secured) Clone() credentials.TransportCredentials {
	return secured{s.TransportCredentials.Clone(), s.refusals}
}
