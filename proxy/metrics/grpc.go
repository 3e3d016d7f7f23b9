// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strconv"
	"sync"

	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/internal/stats"
)

// The numbers of gRPC calls, cluster.<name>.grpc.<service>.<method>.*, and cluster.<name>.grpc.* for calls whose names are
// not kept. For gRPC-Web it is grpc-web in place of grpc. Each appears with its first use, as in Envoy.
const (
	// GRPCSuccess and GRPCFailure: an answer had grpc-status 0, another one. By the filters grpcstats and grpcweb.
	GRPCSuccess = iota
	GRPCFailure
	// GRPCRequestMessages and GRPCResponseMessages: messages came. By grpcstats.
	GRPCRequestMessages
	GRPCResponseMessages
	// GRPCTotal: an answer had a grpc-status. By the filters grpcstats and grpcweb.
	GRPCTotal
	// GRPCCode and the numbers behind it: an answer had this grpc-status. By the filters grpcstats and grpcweb.
	GRPCCode
)

// GRPCUpstreamTime is the histogram of the time from the request's last byte to the answer's. By grpcstats.
const GRPCUpstreamTime = 0

// The protocols whose calls are counted apart, as they stand in names.
const (
	GRPC    = "grpc"
	GRPCWeb = "grpc-web"
)

// grpcSchemas are those of calls with names and without: a schema's groups have the same tags.
type grpcSchemas struct{ named, plain *stats.Schema }

var (
	schemasOfGRPC    = newGRPCSchemas(GRPC)
	schemasOfGRPCWeb = newGRPCSchemas(GRPCWeb)
)

func newGRPCSchemas(protocol string) grpcSchemas {
	defs := []stats.Def{
		GRPCSuccess:          {Name: "success", Lazy: true},
		GRPCFailure:          {Name: "failure", Lazy: true},
		GRPCRequestMessages:  {Name: "request_message_count", Lazy: true},
		GRPCResponseMessages: {Name: "response_message_count", Lazy: true},
		GRPCTotal:            {Name: "total", Lazy: true},
	}
	for code := range grpcwire.NumCodes {
		defs = append(defs, stats.Def{Name: strconv.Itoa(code), Lazy: true})
	}
	schema := func() *stats.Schema {
		return &stats.Schema{Name: "cluster." + protocol, Defs: defs, Histograms: []stats.HistDef{{Name: "upstream_rq_time", Lazy: true}}}
	}
	return grpcSchemas{schema(), schema()}
}

// GRPCCall is the numbers of one method at one cluster.
type GRPCCall struct{ *stats.Group }

// Ended counts a call by its grpc-status, which is what its answer had. A status that gRPC does not define is a failure
// without a number of its own, since it would be one that an upstream names.
func (c *GRPCCall) Ended(shard uint32, status []byte) {
	code := grpcwire.Status(status)
	if code >= 0 && code < int64(grpcwire.NumCodes) {
		c.Inc(shard, GRPCCode+int(code))
	}
	if code == grpcwire.OK {
		c.Inc(shard, GRPCSuccess)
	} else {
		c.Inc(shard, GRPCFailure)
	}
	c.Inc(shard, GRPCTotal)
}

// MaxGRPCMethods is how many methods are counted apart that the configuration does not name: names that clients send must
// not fill the memory. The calls of others are counted without their names.
const MaxGRPCMethods = 256

// GRPCCalls are the numbers of the calls through one filter.
type GRPCCalls struct {
	reg      *stats.Registry
	protocol string
	schemas  grpcSchemas

	mu    sync.RWMutex
	calls map[callKey]*GRPCCall // guarded by mu
	named int                   // guarded by mu: those with names that clients sent
}

// callKey is a cluster, and a service and a method, both "" for calls that are counted without.
type callKey struct{ cluster, service, method string }

// NewGRPCCalls returns the numbers of calls of a protocol, GRPC or GRPCWeb. Release gives them back.
func NewGRPCCalls(reg *stats.Registry, protocol string) *GRPCCalls {
	s := schemasOfGRPC
	if protocol == GRPCWeb {
		s = schemasOfGRPCWeb
	}
	return &GRPCCalls{reg: reg, protocol: protocol, schemas: s, calls: map[callKey]*GRPCCall{}}
}

// Of returns the numbers of a method at the cluster with this stat name; without service and method, those of calls that
// are counted without. known says that the configuration names the method. The strings are kept.
func (g *GRPCCalls) Of(cluster, service, method string, known bool) *GRPCCall {
	k := callKey{cluster, service, method}
	g.mu.RLock()
	c := g.calls[k]
	if c == nil && !known && g.named >= MaxGRPCMethods {
		k.service, k.method = "", ""
		c = g.calls[k]
	}
	g.mu.RUnlock()
	if c != nil {
		return c
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if c = g.calls[k]; c != nil {
		return c
	}
	if !known && k.service != "" {
		g.named++ // by a few too many at most, where several are new at once
	}
	c = g.group(k)
	g.calls[k] = c
	return c
}

func (g *GRPCCalls) group(k callKey) *GRPCCall {
	cluster := StatName(k.cluster)
	prefix := "cluster." + cluster + "." + g.protocol
	tag := stats.Tag{Name: tagCluster, Value: cluster}
	if k.service == "" {
		return &GRPCCall{g.reg.Group(g.schemas.plain, prefix, tag)}
	}
	service, method := StatName(k.service), StatName(k.method)
	return &GRPCCall{g.reg.Group(g.schemas.named, prefix+"."+service+"."+method, tag,
		stats.Tag{Name: tagService, Value: service}, stats.Tag{Name: tagMethod, Value: method})}
}

// The tags of methods, as Envoy names them.
const (
	tagService = "envoy.grpc_bridge_service"
	tagMethod  = "envoy.grpc_bridge_method"
)

// Release gives the numbers back.
func (g *GRPCCalls) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		c.Release()
	}
	clear(g.calls)
	g.named = 0
}
