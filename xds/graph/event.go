// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// Resource is one decoded resource. It is immutable once it was handed to Step.
type Resource struct {
	Name string
	// Value is a *mesh.Listener, *mesh.RouteTable, *mesh.Cluster, *mesh.EndpointSet, *mesh.Secret, *mesh.Extension, *mesh.Scope or
	// *mesh.VirtualHost. A scope names its table without where that comes from.
	Value any
	// Raw is what Value was decoded from. Equal bytes are the same resource, and keep the Value they had.
	Raw []byte
	// Version is the version_info the resource came with, and At the time it came at.
	Version string
	At      time.Time
	// Clusters are the clusters that a listener or a route table names; RouteTables are the keys of the tables that a
	// listener wants by RDS.
	Clusters, RouteTables []string
	// Parts are the secrets, and the configurations of filters, that a listener or a cluster names.
	Parts []mesh.PartRef
	// Scopes are the keys of the sets of scopes that a listener chooses among, HostSet is that of the virtual hosts that come
	// to a route table; "" for none.
	Scopes  []string
	HostSet string
	// NoEffect says which fields are set and change nothing here, as "path: why".
	NoEffect []string
	// Timeouts are how long the tables, or the endpoints, of a key are waited for where that is not Options.FetchTimeout; 0
	// is for ever.
	Timeouts map[string]time.Duration
}

// Event is something that happened outside.
type Event interface{ event() }

// Start brings the configuration of the bootstrap. It is the first event, and comes once.
type Start struct {
	// Static holds listeners, clusters and secrets that no control plane can change.
	Static []*Resource
	// Parts name what the process itself needs, from its start to its end.
	Parts []*Resource
	// Listeners and Clusters say whether a control plane is to be asked for all listeners (LDS) and clusters (CDS).
	Listeners, Clusters bool
	// Sources are where they come from, "" being the aggregated stream, and Timeouts how long the first answer is waited
	// for where that is not Options.FetchTimeout; 0 is for ever.
	Sources  map[mesh.ResourceKind]string
	Timeouts map[mesh.ResourceKind]time.Duration
}

// Response is what a control plane sent of one type.
type Response struct {
	Kind mesh.ResourceKind
	// Source is where it came from. The names of route tables and of endpoints, below, are keys; see internal/sourcekey.
	Source  string
	Version string
	// Nonce is given back in the Ack or Nack that answers the response.
	Nonce string
	At    time.Time
	// Resources were decoded; Bad were not.
	Resources []*Resource
	Bad       []Bad
	// Full says that Resources are all there are of the type, as in a state-of-the-world LDS or CDS response: what is
	// left out is removed. Removed names what an incremental response removes.
	Full    bool
	Removed []string
	// Aliases are the keys under which resources that came answer as well, by their own.
	Aliases map[string][]string
	// Absent are resources that the control plane says it cannot send, with its reason.
	Absent []Absent
	// Note, where it is not "", is said to observers although the response is accepted.
	Note string
}

// Bad is a resource that cannot be used.
type Bad struct {
	// Name is "" where not even the name could be read.
	Name string
	// Reason is what a person reads in the NACK: the field and what is allowed.
	Reason string
	Raw    []byte
}

// Absent is a resource that the control plane reports an error for, in place of the resource.
type Absent struct{ Name, Reason string }

// Endpoints is an answer to a Watch. Set is nil where the look-up failed; Err says why.
type Endpoints struct {
	Watch WatchID
	Set   *mesh.EndpointSet
	Err   string
}

// Expired says that resources have outlived the time that their source gave them.
type Expired struct {
	Kind   mesh.ResourceKind
	Source string
	Names  []string
}

// Connected says that a source can answer: a stream is open and every subscription was sent on it.
type Connected struct{ Source string }

// Disconnected says that it cannot.
type Disconnected struct{ Source string }

// Fired says that a timer started by StartTimer has run out. One that was stopped meanwhile is ignored.
type Fired struct{ Timer TimerID }

// Applied is the proxy's verdict on the last Apply. It follows before any other event.
type Applied struct{ Rejected []mesh.Rejection }

// Demand says that a request needs a virtual host that is not there. Set is the key of the virtual hosts of its table (HostSet),
// Host the host in lower case. Answered follows: at once, or when it is known what comes of it.
type Demand struct{ Set, Host string }

func (Demand) event()       {}
func (Start) event()        {}
func (Response) event()     {}
func (Endpoints) event()    {}
func (Expired) event()      {}
func (Connected) event()    {}
func (Disconnected) event() {}
func (Fired) event()        {}
func (Applied) event()      {}
