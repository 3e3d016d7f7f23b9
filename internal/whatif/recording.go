// SPDX-License-Identifier: Apache-2.0

package whatif

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/mesh"
)

// Recording is the requests of one cluster, as events tell of them. The zero value is empty.
type Recording struct {
	Cluster string
	// Hosts are the addresses that answered, in the order in which they were first seen.
	Hosts []string
	// Sampled counts requests that stand for others as well (sampledrate): the recording is thinner than the traffic was.
	Sampled uint64

	requests []request
	tries    []try
	index    map[string]uint16
	routes   map[string]uint16
	names    []string // of routes
	sorted   bool
}

// request is one request as it came.
type request struct {
	arrive, took int64 // nanoseconds
	overhead     int64 // of took, what was spent outside of attempts
	first, n     uint32
	route        uint16
	status       uint16
	failure      mesh.FailureKind
	failed       bool
	idempotent   bool
}

// try is an attempt at a host as it went.
type try struct {
	at, took int64
	host     uint16
	status   uint16
	failure  mesh.FailureKind
}

// maxHosts bounds the hosts of a recording; the requests at those beyond it are left out.
const maxHosts = 1 << 14

// Add takes an event, and reports whether it is a request of the recording's cluster. It keeps nothing of the event.
func (r *Recording) Add(e *event.Event) bool {
	if e.Kind != event.Request || string(e.Texts[event.Cluster]) != r.Cluster {
		return false
	}
	if r.index == nil {
		r.index, r.routes = map[string]uint16{}, map[string]uint16{}
	}
	if e.SampledRate > 1 {
		r.Sampled++
	}
	q := request{arrive: e.Time, took: bounded(e.Numbers[event.Duration]), first: uint32(len(r.tries)), status: uint16(e.Numbers[event.Status]),
		failure: failureOf(e.Texts[event.ErrorType]), failed: e.Failed(), idempotent: circuit.Idempotent(e.Texts[event.Method]), route: r.route(e.Texts[event.RouteName])}
	at := e.Time
	for i := range e.Items[:e.NumItems] {
		it := &e.Items[i]
		at += r.try(at, string(it.Texts[event.ItemHost]), bounded(it.Numbers[event.ItemTook]), it.Numbers[event.ItemStatus], failureOf(it.Texts[event.ItemFailure]))
	}
	if host := e.Texts[event.PeerAddress]; len(host) > 0 {
		took := bounded(e.Numbers[event.UpstreamTook])
		if e.Numbers[event.UpstreamTook] == event.Absent {
			took = q.took
		}
		failure := q.failure
		if string(e.Texts[event.FailureSide]) == "internal" {
			failure = mesh.InternalError // which says nothing of the host
		}
		at = e.Time + max(q.took-took, 0)
		r.try(at, address(host, e.Numbers[event.PeerPort]), took, e.Numbers[event.Status], failure)
	}
	if q.n = uint32(len(r.tries)) - q.first; q.n == 1 {
		q.overhead = max(q.took-r.tries[q.first].took, 0)
	}
	r.requests, r.sorted = append(r.requests, q), false
	return true
}

// bounded is a time as a recording takes it, up to a day: events come from somewhere else.
func bounded(took int64) int64 { return min(max(took, 0), int64(24*time.Hour)) }

func address(host []byte, port int64) string {
	if port == 0 { // a pipe
		return string(host)
	}
	return net.JoinHostPort(string(host), strconv.FormatInt(port, 10))
}

// try adds an attempt and returns how long it took.
func (r *Recording) try(at int64, host string, took, status int64, failure mesh.FailureKind) int64 {
	i, ok := r.index[host]
	if !ok {
		if host == "" || len(r.Hosts) == maxHosts {
			return took
		}
		i = uint16(len(r.Hosts))
		r.index[host], r.Hosts = i, append(r.Hosts, host)
	}
	r.tries = append(r.tries, try{at, took, i, uint16(status), failure})
	return took
}

func (r *Recording) route(name []byte) uint16 {
	i, ok := r.routes[string(name)]
	if !ok {
		if len(r.names) == 1<<16-1 {
			return 0
		}
		i = uint16(len(r.names))
		r.routes[string(name)], r.names = i, append(r.names, string(name))
	}
	return i
}

// failureOf returns the kind of failure with a name; NoFailure where it is none, such as a status.
func failureOf(name []byte) mesh.FailureKind {
	for k := mesh.NoFailure + 1; k <= mesh.InternalError; k++ {
		if k.String() == string(name) {
			return k
		}
	}
	return mesh.NoFailure
}

// Len returns the number of requests.
func (r *Recording) Len() int { return len(r.requests) }

// sort puts the requests in the order in which they came; events come when requests end.
func (r *Recording) sort() {
	if !r.sorted {
		slices.SortStableFunc(r.requests, func(a, b request) int { return cmp.Compare(a.arrive, b.arrive) })
		r.sorted = true
	}
}

// Recorded returns what came of the requests as they were.
func (r *Recording) Recorded() Result {
	res := Result{Hosts: map[string]Load{}}
	for i := range r.requests {
		q := &r.requests[i]
		res.add(q.took, q.failed, q.failure)
		res.Attempts += uint64(q.n)
		res.Retries += uint64(max(int(q.n)-1, 0))
		for _, t := range r.tries[q.first : q.first+q.n] {
			res.attempt(r.Hosts[t.host], failedTry(t.status, t.failure))
		}
	}
	res.finish()
	return res
}

func failedTry(status uint16, failure mesh.FailureKind) bool {
	return failure != mesh.NoFailure || status >= 500
}
