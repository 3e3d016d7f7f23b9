// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// TimerID names a timer. Each start has an ID of its own.
type TimerID uint64

// WatchID names a look-up of endpoints by discovery.
type WatchID uint64

// Wildcard is the name that subscribes to all resources of a type.
const Wildcard = "*"

// Action is something to be done outside, at once and in order.
type Action interface{ action() }

// Subscribe changes what is asked for of one type. The names are sorted; those of route tables and of endpoints are keys.
type Subscribe struct {
	Kind        mesh.ResourceKind
	Add, Remove []string
}

// Refresh sends the subscriptions of a type once more: something in it was not answered in time.
type Refresh struct {
	Kind   mesh.ResourceKind
	Source string
}

// Ack accepts the response with the nonce.
type Ack struct {
	Kind                   mesh.ResourceKind
	Source, Nonce, Version string
}

// Nack refuses resources of the response with the nonce; Detail names each one and why. It can follow an Ack of the same
// response, when a resource that was held back turned out to be unusable in the proxy.
type Nack struct {
	Kind                  mesh.ResourceKind
	Source, Nonce, Detail string
	// Names are the resources that are refused; the others of the response are taken.
	Names []string
}

// Watch starts to look up the endpoints of a cluster; Unwatch ends that.
type Watch struct {
	Watch   WatchID
	Cluster *mesh.Cluster
}

// Unwatch ends a Watch.
type Unwatch struct{ Watch WatchID }

// SetEndpoints puts a set into force for a cluster that is in force, or that the next Apply brings.
type SetEndpoints struct {
	Cluster string
	Set     *mesh.EndpointSet
}

// Apply puts a snapshot into force. It is the last action of a step, and Applied must be the next event.
type Apply struct{ Snapshot *mesh.Snapshot }

// StartTimer asks for Fired after a time; StopTimer takes that back.
type StartTimer struct {
	Timer TimerID
	After time.Duration
}

// StopTimer stops a timer.
type StopTimer struct{ Timer TimerID }

// Notify tells observers; Kind is NoticeConfigAccepted, NoticeConfigRejected or NoticeConfigTimeout.
type Notify struct {
	Kind   mesh.NoticeKind
	Config mesh.ConfigNotice
}

// Ready says, once, that start-up is over: the static configuration is in force, LDS and CDS were answered where they
// are asked for, and what they brought first is in force. Waits that ran out count as answered.
type Ready struct{}

// Answered says that a Demand is over: what has come of it is in force.
type Answered struct{ Set, Host string }

func (Answered) action()     {}
func (Subscribe) action()    {}
func (Refresh) action()      {}
func (Ack) action()          {}
func (Nack) action()         {}
func (Watch) action()        {}
func (Unwatch) action()      {}
func (SetEndpoints) action() {}
func (Apply) action()        {}
func (StartTimer) action()   {}
func (StopTimer) action()    {}
func (Notify) action()       {}
func (Ready) action()        {}
