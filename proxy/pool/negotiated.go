// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"sync/atomic"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Negotiated is the connections to one address that speak what the upstream chooses by ALPN. HTTP/2 is tried first; an
// upstream that does not choose it is spoken to in HTTP/1.1 from then on. That costs one connection for each host.
type Negotiated struct {
	mux   *Mux
	pool  *Pool
	first atomic.Bool // it speaks HTTP/1.1
}

// NewNegotiated returns the connections that are of mux or of pool. Those of mux offer both protocols.
func NewNegotiated(mux *Mux, pool *Pool) *Negotiated {
	mux.negotiates = true
	return &Negotiated{mux: mux, pool: pool}
}

// errNotHTTP2 is given to all who wait for a connection that turns out not to speak HTTP/2.
var errNotHTTP2 = &mesh.Failure{Kind: mesh.ConnectFailure, Side: mesh.SideUpstream, Retry: mesh.RetryAlways, Detail: "HTTP/2 was not negotiated"}

// Stream implements Streams.
func (n *Negotiated) Stream(w *socket.Worker, res *circuit.Resources, fresh bool) (Stream, error) {
	if !n.first.Load() {
		s, err := n.mux.Stream(w, res, fresh)
		if !errors.Is(err, errNotHTTP2) {
			return s, err
		}
		n.first.Store(true)
		n.mux.Drain() // others may wait there still, and are told in their turn
	}
	return n.pool.Stream(w, res, fresh)
}

// Drain implements Streams.
func (n *Negotiated) Drain() {
	n.mux.Drain()
	n.pool.Drain()
}

// SetHealthy implements Streams.
func (n *Negotiated) SetHealthy(healthy bool) {
	n.mux.SetHealthy(healthy)
	n.pool.SetHealthy(healthy)
}

// Predict implements Streams.
func (n *Negotiated) Predict(res *circuit.Resources, ratio float64) (opened bool) {
	if n.first.Load() {
		return n.pool.Predict(res, ratio)
	}
	return n.mux.Predict(res, ratio)
}

// CloseIdle implements Streams.
func (n *Negotiated) CloseIdle() {
	n.mux.CloseIdle()
	n.pool.CloseIdle()
}

// Open implements Streams.
func (n *Negotiated) Open() int { return n.mux.Open() + n.pool.Open() }

// Tried implements Streams.
func (n *Negotiated) Tried() (all, failed int64) {
	all, failed = n.mux.Tried()
	a, f := n.pool.Tried()
	return all + a, failed + f
}

var _ Streams = (*Negotiated)(nil)
