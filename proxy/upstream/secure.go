// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"net"
	"slices"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/health"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/transport"
)

// secure makes the connections of a cluster whose hosts speak TLS do so. Where that cannot be, none is made: there is no
// way to plain text.
func (c *Cluster) secure(name string) {
	if c.Config.TLS == nil {
		return
	}
	c.numbers.tls = metrics.NewClusterTLS(c.deps.Stats, name)
	client, err := transport.NewClient(c.Config.TLS, c.deps.Secrets, c.numbers.tls)
	if err != nil {
		c.deps.Log.Error("no connection to the cluster can be made", zap.String("cluster", c.Config.Name), zap.Error(err))
		c.pools.Dialer.Secure = insecure{err}
		return
	}
	if c.Config.TLS.Validation == nil && c.Config.TLS.ValidationSecret == "" {
		c.deps.Log.Warn("the certificates of a cluster's hosts are not verified: it has no trusted_ca",
			zap.String("cluster", c.Config.Name))
	}
	c.client, c.pools.Dialer.Secure = client, client
}

// insecure refuses every connection.
type insecure struct{ err error }

func (i insecure) Secure(context.Context, net.Conn) (socket.Layer, error) { return nil, i.err }

// secureCheck says how the connections of active checks are made secure, where they are.
func (c *Cluster) secureCheck(d *health.Deps) {
	if c.Config.TLS == nil {
		return
	}
	if c.client == nil {
		d.Layer = c.pools.Dialer.Secure
		d.Secure = func(context.Context, net.Conn) (net.Conn, error) { return nil, errInsecure }
		return
	}
	client := c.client.WithALPN(checkALPN(&c.Config.HealthChecks[0], c.Config.TLS.ALPN))
	d.Layer, d.Secure = client, client.Conn
}

var errInsecure = errors.New("upstream: TLS cannot be spoken to the hosts of this cluster")

// checkALPN returns what a check offers of a cluster whose requests offer these. A check speaks one protocol, whatever
// requests speak. HTTP/2 is always offered where it is that (Envoy offers what the cluster does, or nothing, and then
// speaks HTTP/2 all the same, which servers of gRPC refuse).
func checkALPN(check *mesh.HealthCheck, requests []string) []string {
	switch {
	case len(check.ALPN) > 0:
		return check.ALPN
	case check.TCP != nil:
		return requests
	case check.GRPC != nil || check.HTTP.HTTP2:
		return []string{"h2"}
	case slices.Contains(requests, "http/1.1"):
		return []string{"http/1.1"}
	}
	return nil
}
