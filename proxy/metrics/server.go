// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"runtime/metrics"
	"time"

	"github.com/meshtap/meshtap/internal/stats"
)

// The numbers of the process, server.*. Those without a word on who moves them are computed when they are read.
const (
	// ServerState is 0 live, 1 draining, 2 before, 3 during initialization. By app.
	ServerState = iota
	// ServerLive is 1, but 0 while the proxy drains. By app.
	ServerLive
	// ServerUptime is in seconds.
	ServerUptime
	// ServerConcurrency is the processors that the proxy uses. By app.
	ServerConcurrency
	// ServerVersion is the first 24 bits of the revision. By app.
	ServerVersion
	// ServerMemoryAllocated, ServerMemoryHeapSize and ServerMemoryPhysicalSize are those of Memory, in bytes.
	ServerMemoryAllocated
	ServerMemoryHeapSize
	ServerMemoryPhysicalSize
	// ServerTotalConnections is the downstream connections that are open. By app.
	ServerTotalConnections
	// ServerHotRestartEpoch is what --restart-epoch says. By app.
	ServerHotRestartEpoch
	// ServerStaticUnknownFields and ServerDynamicUnknownFields: the bootstrap, or an xDS resource, held a field that is not
	// known. By app.
	ServerStaticUnknownFields
	ServerDynamicUnknownFields
)

// ServerInitializationTime is the histogram of the process: the time from its start until it was live. By app, once.
const ServerInitializationTime = 0

var serverSchema = &stats.Schema{
	Name: "server",
	Defs: []stats.Def{
		ServerState:                {Name: "state", Kind: stats.Gauge},
		ServerLive:                 {Name: "live", Kind: stats.Gauge},
		ServerUptime:               {Name: "uptime", Kind: stats.Gauge},
		ServerConcurrency:          {Name: "concurrency", Kind: stats.Gauge},
		ServerVersion:              {Name: "version", Kind: stats.Gauge},
		ServerMemoryAllocated:      {Name: "memory_allocated", Kind: stats.Gauge},
		ServerMemoryHeapSize:       {Name: "memory_heap_size", Kind: stats.Gauge},
		ServerMemoryPhysicalSize:   {Name: "memory_physical_size", Kind: stats.Gauge},
		ServerTotalConnections:     {Name: "total_connections", Kind: stats.Gauge},
		ServerHotRestartEpoch:      {Name: "hot_restart_epoch", Kind: stats.Gauge},
		ServerStaticUnknownFields:  {Name: "static_unknown_fields"},
		ServerDynamicUnknownFields: {Name: "dynamic_unknown_fields"},
	},
	Histograms: []stats.HistDef{ServerInitializationTime: {Name: "initialization_time_ms"}},
}

// Server is the numbers of the process.
type Server struct{ *stats.Group }

// NewServer returns the numbers of the process. uptime is called when they are read.
func NewServer(reg *stats.Registry, uptime func() time.Duration) *Server {
	s := &Server{reg.Group(serverSchema, "server")}
	s.SetFunc(ServerUptime, func() int64 { return int64(uptime() / time.Second) })
	s.SetFunc(ServerMemoryAllocated, func() int64 { return int64(ReadMemory().Allocated) })
	s.SetFunc(ServerMemoryHeapSize, func() int64 { return int64(ReadMemory().HeapSize) })
	s.SetFunc(ServerMemoryPhysicalSize, func() int64 { return int64(ReadMemory().Physical) })
	return s
}

// The numbers of the configuration for which Envoy has no name: the bootstrap, or an xDS resource, held a field that changes
// nothing here. Both are moved by app.
const (
	ConfigStaticIdleFields = iota
	ConfigDynamicIdleFields
)

var configSchema = &stats.Schema{
	Own: true,
	Defs: []stats.Def{
		ConfigStaticIdleFields:  {Name: "meshtap_config_static_fields_without_effect_total"},
		ConfigDynamicIdleFields: {Name: "meshtap_config_dynamic_fields_without_effect_total"},
	},
}

// Config is the numbers of the configuration for which Envoy has no name.
type Config struct{ *stats.Group }

// NewConfig returns the numbers of the configuration.
func NewConfig(reg *stats.Registry) *Config { return &Config{reg.Group(configSchema, "")} }

// Memory is what the Go runtime holds, in bytes, under the names of Envoy's /memory.
type Memory struct {
	// Allocated is what live and not yet swept objects take.
	Allocated uint64
	// HeapSize is the heap without what was given back to the system.
	HeapSize uint64
	// Unmapped was given back; Free is held and unused.
	Unmapped, Free uint64
	// ThreadCache is what the runtime keeps for itself: stacks and its own structures.
	ThreadCache uint64
	// Physical is all that is mapped and was not given back.
	Physical uint64
}

// ReadMemory asks the runtime.
func ReadMemory() Memory {
	s := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/total:bytes"},
	}
	metrics.Read(s)
	v := func(i int) uint64 { return s[i].Value.Uint64() }
	heap := v(0) + v(1) + v(2)
	return Memory{
		Allocated:   v(0),
		HeapSize:    heap,
		Unmapped:    v(3),
		Free:        v(2),
		ThreadCache: v(4) - v(3) - heap,
		Physical:    v(4) - v(3),
	}
}
