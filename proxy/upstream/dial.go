// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"

	"github.com/meshtap/meshtap/lb"
)

// Dial connects to one of the cluster's hosts, over TLS where the cluster speaks it, for a client of HTTP/2 that is none of
// a request's: what a log is written with. It takes no part in limits, circuits and statistics of requests.
func (c *Cluster) Dial(ctx context.Context) (net.Conn, error) {
	st := c.now.Load()
	i, _ := st.set.Pick(&lb.Request{Rand: rand.Uint64()})
	if i < 0 {
		return nil, fmt.Errorf("cluster %q has no healthy host", c.Config.Name)
	}
	if c.Config.TLS != nil && c.client == nil {
		return nil, errInsecure
	}
	ctx, cancel := context.WithTimeout(ctx, c.Config.ConnectTimeout)
	defer cancel()
	d := &net.Dialer{}
	h := st.hosts[i]
	if c.Config.BindSource.IsValid() && h.Address.Pipe == "" {
		d.LocalAddr = net.TCPAddrFromAddrPort(c.Config.BindSource)
	}
	conn, err := d.DialContext(ctx, h.Address.Network(), h.Address.String())
	if err != nil || c.client == nil {
		return conn, err
	}
	secured, err := c.client.WithALPN([]string{"h2"}).Conn(ctx, conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}
