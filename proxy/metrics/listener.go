// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// The numbers of a listener, listener.<address>.*. All are moved by listener.
const (
	// ListenerDownstreamCxTotal: a connection was accepted, or handed over by another listener.
	ListenerDownstreamCxTotal = iota
	// ListenerDownstreamCxActive is the connections that are open and past the listener filters.
	ListenerDownstreamCxActive
	// ListenerDownstreamCxDestroy: a connection was closed.
	ListenerDownstreamCxDestroy
	// ListenerDownstreamPreCxActive is the connections that listener filters look at.
	ListenerDownstreamPreCxActive
	// ListenerDownstreamPreCxTimeout: listener filters took too long with a connection.
	ListenerDownstreamPreCxTimeout
	// ListenerDownstreamCxOverflow: the listener's limit refused a connection.
	ListenerDownstreamCxOverflow
	// ListenerDownstreamGlobalCxOverflow: the limit of the process refused a connection.
	ListenerDownstreamGlobalCxOverflow
	// ListenerDownstreamListenerFilterRemoteClose: the client left while listener filters looked.
	ListenerDownstreamListenerFilterRemoteClose
	// ListenerDownstreamListenerFilterError: reading failed while listener filters looked.
	ListenerDownstreamListenerFilterError
	// ListenerNoFilterChainMatch: no filter chain matched a connection.
	ListenerNoFilterChainMatch
	// ListenerTransportSocketConnectTimeout: the handshake with a client took too long.
	ListenerTransportSocketConnectTimeout
	// ListenerExtensionConfigMissing: a connection came before the configuration of a listener filter.
	ListenerExtensionConfigMissing
	// ListenerNetworkExtensionConfigMissing: a connection came before the configuration of a network filter.
	ListenerNetworkExtensionConfigMissing
)

// ListenerDownstreamCxLengthMs is the histogram of a listener: the age of a connection at its end. By listener.
const ListenerDownstreamCxLengthMs = 0

var listenerSchema = &stats.Schema{
	Name: "listener",
	Defs: []stats.Def{
		ListenerDownstreamCxTotal:                   {Name: "downstream_cx_total"},
		ListenerDownstreamCxActive:                  {Name: "downstream_cx_active", Kind: stats.Gauge},
		ListenerDownstreamCxDestroy:                 {Name: "downstream_cx_destroy"},
		ListenerDownstreamPreCxActive:               {Name: "downstream_pre_cx_active", Kind: stats.Gauge},
		ListenerDownstreamPreCxTimeout:              {Name: "downstream_pre_cx_timeout"},
		ListenerDownstreamCxOverflow:                {Name: "downstream_cx_overflow"},
		ListenerDownstreamGlobalCxOverflow:          {Name: "downstream_global_cx_overflow"},
		ListenerDownstreamListenerFilterRemoteClose: {Name: "downstream_listener_filter_remote_close"},
		ListenerDownstreamListenerFilterError:       {Name: "downstream_listener_filter_error"},
		ListenerNoFilterChainMatch:                  {Name: "no_filter_chain_match"},
		ListenerTransportSocketConnectTimeout:       {Name: "downstream_cx_transport_socket_connect_timeout"},
		ListenerExtensionConfigMissing:              {Name: "extension_config_missing"},
		ListenerNetworkExtensionConfigMissing:       {Name: "network_extension_config_missing"},
	},
	Histograms: []stats.HistDef{ListenerDownstreamCxLengthMs: {Name: "downstream_cx_length_ms"}},
}

// Listener is the numbers of one listener.
type Listener struct{ *stats.Group }

// ListenerName returns the name of a listener in metrics: its stat_prefix, or else its address.
func ListenerName(l *mesh.Listener) string {
	if l.StatPrefix != "" {
		return l.StatPrefix
	}
	return l.Address.String()
}

// NewListener returns the numbers of the listener with this name (see ListenerName). Release gives them back.
func NewListener(reg *stats.Registry, name string) *Listener {
	name = StatName(name)
	return &Listener{reg.Group(listenerSchema, "listener."+name, stats.Tag{Name: tagListener, Value: name})}
}

// The numbers of the set of listeners, listener_manager.*. All are moved by the server when it applies a snapshot, drains
// and starts.
const (
	// ListenerAdded, ListenerModified and ListenerRemoved: a snapshot brought, changed or took a listener.
	ListenerAdded = iota
	ListenerModified
	ListenerRemoved
	// ListenerStopped: a listener stopped to accept because of a drain.
	ListenerStopped
	// ListenerCreateSuccess and ListenerCreateFailure: a listener was bound, or could not be.
	ListenerCreateSuccess
	ListenerCreateFailure
	// ListenerInPlaceUpdated: a listener changed its filter chains and kept its socket.
	ListenerInPlaceUpdated
	// TotalListenersActive, TotalListenersWarming and TotalListenersDraining are the listeners in each state.
	TotalListenersActive
	TotalListenersWarming
	TotalListenersDraining
	// TotalFilterChainsDraining is the filter chains that are gone but for their connections.
	TotalFilterChainsDraining
	// WorkersStarted is 1 once the proxy accepts connections.
	WorkersStarted
)

var listenerManagerSchema = &stats.Schema{
	Name: "listener_manager",
	Defs: []stats.Def{
		ListenerAdded:             {Name: "listener_added"},
		ListenerModified:          {Name: "listener_modified"},
		ListenerRemoved:           {Name: "listener_removed"},
		ListenerStopped:           {Name: "listener_stopped"},
		ListenerCreateSuccess:     {Name: "listener_create_success"},
		ListenerCreateFailure:     {Name: "listener_create_failure"},
		ListenerInPlaceUpdated:    {Name: "listener_in_place_updated"},
		TotalListenersActive:      {Name: "total_listeners_active", Kind: stats.Gauge},
		TotalListenersWarming:     {Name: "total_listeners_warming", Kind: stats.Gauge},
		TotalListenersDraining:    {Name: "total_listeners_draining", Kind: stats.Gauge},
		TotalFilterChainsDraining: {Name: "total_filter_chains_draining", Kind: stats.Gauge},
		WorkersStarted:            {Name: "workers_started", Kind: stats.Gauge},
	},
}

// The numbers of the set of listeners for which Envoy has no name, meshtap_listener_*. All are moved by listener.
const (
	// ListenerLoops: a connection was closed because it went in a circle.
	ListenerLoops = iota
	// ListenerAcceptPauses: accepting paused because there were no descriptors or no memory.
	ListenerAcceptPauses
	// ListenerPanics: the handler of a connection panicked, which closed the connection.
	ListenerPanics
)

var listenerOwnSchema = &stats.Schema{
	Own: true,
	Defs: []stats.Def{
		ListenerLoops:        {Name: "meshtap_listener_loops_total"},
		ListenerAcceptPauses: {Name: "meshtap_listener_accept_pauses_total"},
		ListenerPanics:       {Name: "meshtap_listener_panics_total"},
	},
}

// ListenerOwn is the numbers of the set of listeners for which Envoy has no name.
type ListenerOwn struct{ *stats.Group }

// NewListenerOwn returns the numbers of the set of listeners for which Envoy has no name.
func NewListenerOwn(reg *stats.Registry) *ListenerOwn {
	return &ListenerOwn{reg.Group(listenerOwnSchema, "")}
}

// ListenerManager is the numbers of the set of listeners.
type ListenerManager struct{ *stats.Group }

// NewListenerManager returns the numbers of the set of listeners.
func NewListenerManager(reg *stats.Registry) *ListenerManager {
	return &ListenerManager{reg.Group(listenerManagerSchema, "listener_manager")}
}
