// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/transport"
)

// Dials are the dials under way of all pools of a proxy, the HTTP/2 connections that are open, and the closing of idle
// connections. They outlive the requests that asked for them, and so have an owner of their own.
type Dials struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// NewDials returns the owner of dials. Close ends it.
func NewDials() *Dials {
	ctx, cancel := context.WithCancel(context.Background())
	return &Dials{ctx: ctx, cancel: cancel}
}

// Close ends the dials that are under way, and waits for them and until the connections are closed. Their pools have been
// drained, and no new request may use a pool any more.
func (d *Dials) Close() {
	d.cancel()
	d.wg.Wait()
}

// dial opens one connection and gives it, or the failure, to the first who waits.
func (p *Pool) dial(res *circuit.Resources) {
	c := &Conn{pool: p, res: res, born: p.begin()}
	peer, err := p.engine.Dial(p.dials.ctx, &p.cfg.Dialer, p.addr.Network(), p.addr.String(), func(*socket.Peer) { c.hungUp() })
	p.stats.Observe(0, metrics.UpstreamCxConnectMs, mono.Now()-c.born)
	if err == nil && !p.enter(peer.LocalAddr()) {
		peer.Close()
		err = errCircle
	}
	if err != nil {
		p.failed(res, p.connectFailure(err))
		return
	}
	p.mu.Lock()
	c.Peer, c.born = peer, mono.Now()
	p.dialing--
	p.open++
	kept := p.place(c)
	p.mu.Unlock()
	switch {
	case !kept:
		c.close(local)
	case peer.HungUp(): // before the news could find it
		c.hungUp()
	}
}

// begin counts a connection that is to be opened.
func (b *base) begin() (at int64) {
	b.tried.Add(1)
	b.stats.Inc(0, metrics.UpstreamCxTotal)
	b.stats.Inc(0, metrics.UpstreamCxActive)
	return mono.Now()
}

// errCircle ends a connection that a redirect rule has brought back to us.
var errCircle = errors.New("the connection came back to this proxy: exclude its own traffic from the redirect rules")

// enter tells the guard of a new connection.
func (b *base) enter(local netip.AddrPort) (ok bool) {
	return b.cfg.Guard == nil || b.addr.Pipe != "" || b.cfg.Guard.Dialed(local, b.addr.IP)
}

// ended counts the end of a connection that was open since born.
func (b *base) ended(shard uint32, by closer, local netip.AddrPort, born int64) {
	if b.cfg.Guard != nil && b.addr.Pipe == "" {
		b.cfg.Guard.Gone(local, b.addr.IP)
	}
	b.stats.Dec(shard, metrics.UpstreamCxActive)
	if by == remote {
		b.stats.Inc(shard, metrics.UpstreamCxDestroyRemote)
	} else {
		b.stats.Inc(shard, metrics.UpstreamCxDestroyLocal)
	}
	b.stats.Observe(shard, metrics.UpstreamCxLengthMs, mono.Now()-born)
}

// connectFailure counts and names why a connection could not be opened.
func (b *base) connectFailure(err error) *mesh.Failure {
	b.stats.Dec(0, metrics.UpstreamCxActive)
	b.stats.Inc(0, metrics.UpstreamCxDestroyRemote)
	b.missed.Add(1)
	b.stats.Inc(0, metrics.UpstreamCxConnectFail)
	f := &mesh.Failure{Kind: mesh.ConnectFailure, Side: mesh.SideUpstream, Retry: mesh.RetryAlways}
	var sys *os.SyscallError
	var secure *transport.Error
	switch {
	case os.IsTimeout(err):
		b.stats.Inc(0, metrics.UpstreamCxConnectTimeout)
		f.Kind, f.Detail = mesh.ConnectTimeout, "connection timeout"
	case err == errCircle:
		f.Detail = err.Error()
	case errors.As(err, &secure):
		f.Detail = secure.Reason
	case errors.As(err, &sys):
		f.Detail = sys.Syscall + ": " + sys.Err.Error()
	default:
		f.Detail = "connection failure"
	}
	return f
}

// failed tells the first who waits that there is no connection. Where there is no other connection either, that goes for
// all who have no dial of their own, as in Envoy: nothing would come free for them.
func (p *Pool) failed(res *circuit.Resources, f *mesh.Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialing--
	res.Release(circuit.Connections)
	p.fail(0, f)
	for p.open == 0 && len(p.waiting) > p.dialing {
		p.fail(p.dialing, f)
	}
	p.feed()
}
