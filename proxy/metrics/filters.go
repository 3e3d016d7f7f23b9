// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"sync"

	"github.com/meshtap/meshtap/internal/stats"
)

// The numbers of the filter cors, http.<stat_prefix>.cors.*: a request had an origin that is allowed, or one that is not.
const (
	CORSOriginValid = iota
	CORSOriginInvalid
)

var corsSchema = &stats.Schema{
	Name: "http.cors",
	Defs: []stats.Def{CORSOriginValid: {Name: "origin_valid"}, CORSOriginInvalid: {Name: "origin_invalid"}},
}

// CORS is the numbers of the filter cors.
type CORS struct{ *stats.Group }

// NewCORS returns the numbers of the filter in managers with this stat_prefix. Release gives them back.
func NewCORS(reg *stats.Registry, statPrefix string) *CORS {
	p := StatName(statPrefix)
	return &CORS{reg.Group(corsSchema, "http."+p+".cors", stats.Tag{Name: tagHTTP, Value: p})}
}

// The numbers of the filter fault, http.<stat_prefix>.fault.*.
const (
	// FaultDelays, FaultAborts and FaultLimits: a request was delayed, was answered in place of the upstream, had its answer
	// slowed down.
	FaultDelays = iota
	FaultAborts
	FaultLimits
	// FaultOverflow: a fault was left out, since there were as many as there may be.
	FaultOverflow
	// FaultActive is the requests with a fault that have not ended.
	FaultActive
)

var faultSchema = &stats.Schema{
	Name: "http.fault",
	Defs: []stats.Def{
		FaultDelays:   {Name: "delays_injected"},
		FaultAborts:   {Name: "aborts_injected"},
		FaultLimits:   {Name: "response_rl_injected"},
		FaultOverflow: {Name: "faults_overflow"},
		FaultActive:   {Name: "active_faults", Kind: stats.Gauge},
	},
}

// faultPeerSchema has those that are counted by the cluster that clients say they come from, by FaultDelays and
// FaultAborts.
var faultPeerSchema = &stats.Schema{
	Name: "http.fault.downstream_cluster",
	Defs: []stats.Def{FaultDelays: {Name: "delays_injected", Lazy: true}, FaultAborts: {Name: "aborts_injected", Lazy: true}},
}

// MaxFaultPeers is how many clusters of clients are counted apart: names that clients send must not fill the memory. Faults
// of the others are in the sums alone.
const MaxFaultPeers = 256

const tagFaultPeer = "envoy.fault_downstream_cluster"

// Faults is the numbers of the filter fault.
type Faults struct {
	*stats.Group
	reg    *stats.Registry
	prefix string

	mu    sync.Mutex
	peers map[string]*stats.Group // guarded by mu
}

// NewFaults returns the numbers of the filter in managers with this stat_prefix. Release gives them back.
func NewFaults(reg *stats.Registry, statPrefix string) *Faults {
	p := StatName(statPrefix)
	return &Faults{
		Group: reg.Group(faultSchema, "http."+p+".fault", stats.Tag{Name: tagHTTP, Value: p}),
		reg:   reg, prefix: p, peers: map[string]*stats.Group{},
	}
}

// IncPeer counts FaultDelays or FaultAborts for the cluster that a client says it comes from; "" for none.
func (f *Faults) IncPeer(shard uint32, i int, cluster string) {
	if cluster == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.peers[cluster]
	if g == nil {
		if len(f.peers) == MaxFaultPeers {
			return
		}
		name := StatName(cluster)
		g = f.reg.Group(faultPeerSchema, "http."+f.prefix+".fault."+name,
			stats.Tag{Name: tagHTTP, Value: f.prefix}, stats.Tag{Name: tagFaultPeer, Value: name})
		f.peers[cluster] = g
	}
	g.Inc(shard, i)
}

// Release gives the numbers back.
func (f *Faults) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.peers {
		g.Release()
	}
	clear(f.peers)
	f.Group.Release()
}
