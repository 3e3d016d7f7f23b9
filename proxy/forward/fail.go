// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
)

// Fail answers a request that ended before it could be served, for a reason of Exchange.Interrupted.
func (r *Router) Fail(c *Call, x *exchange.Exchange, clusters Clusters, err error) {
	c.begin(r, x, clusters)
	defer c.end()
	f := &mesh.Failure{Kind: mesh.InternalError, Side: mesh.SideInternal, Detail: err.Error()}
	errors.As(err, &f)
	c.fail(f)
}
