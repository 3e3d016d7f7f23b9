// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"net"
)

// Dial connects to a host of a cluster in force, for a client of HTTP/2 that is none of a request's; see upstream.Cluster.
func (s *Server) Dial(ctx context.Context, cluster string) (net.Conn, error) {
	c := s.live.Load().clusters[cluster]
	if c == nil {
		return nil, fmt.Errorf("there is no cluster %q", cluster)
	}
	return c.Dial(ctx)
}
