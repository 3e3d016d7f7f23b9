// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// fates are the numbers of what becomes of entries.
var fates = [...]int{
	als.Written: metrics.ServiceLogsWritten, als.Dropped: metrics.ServiceLogsDropped,
	als.Flushed: metrics.ServiceLogsFlushed, als.Failed: metrics.ServiceLogsFailed,
}

// makeServices makes what access loggers reach their services with. They find the clusters of the server, which comes
// later.
func (a *App) makeServices() error {
	node, err := proto.Marshal(a.cfg.NodeProto)
	if err != nil {
		return err
	}
	numbers := sync.OnceValue(func() *metrics.ServiceLogs { return metrics.NewServiceLogs(a.stats) }) // as Envoy: none unused
	a.logs = als.NewClients(als.Deps{
		Dial: func(ctx context.Context, cluster string) (net.Conn, error) { return a.server.Dial(ctx, cluster) },
		Node: node, Count: func(f als.Fate, n int64) { numbers().Add(0, fates[f], n) }, Log: a.log.Named("accesslog"), Random: rand.Float64,
	})
	return nil
}
