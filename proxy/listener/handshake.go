// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"cmp"
	"io"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
	"github.com/meshtap/meshtap/proxy/transport"
)

// handshake is a connection's way through the handshake of its chain.
type handshake struct {
	place    transport.Place
	deadline int64  // mono
	failure  string // why it failed, in words
}

// beginHandshake starts the clock and returns when the time is over.
func (x *conn) beginHandshake() (deadline int64) {
	if x.secure == nil {
		x.setLooking(nil)
		x.activate()
		timeout := cmp.Or(x.chain.HandshakeTimeout, mesh.DefaultHandshakeTimeout)
		x.secure = &handshake{deadline: mono.Now() + int64(timeout)}
	}
	return x.secure.deadline
}

// shake makes the handshake, on w from its first to its last byte. Until the client begins, and while there are as many
// handshakes under way as there may be, the connection waits without a goroutine.
func (x *conn) shake(w *socket.Worker) state {
	deadline := x.beginHandshake()
	x.c.Expired() // what counts is the clock
	if mono.Now() >= deadline {
		x.count(metrics.ListenerTransportSocketConnectTimeout)
		return x.unshaken(mesh.RequestReadTimeout, "transport_socket_connect_timeout", "")
	}
	if why := x.chain.tls.Unready(); why != nil {
		return x.unshaken(mesh.DownstreamProtocolError, "secrets_not_ready", x.chain.tls.Refuse(w.Shard, why).Reason)
	}
	var one [1]byte
	switch _, err := x.c.Peek(one[:]); err {
	case nil:
	case socket.ErrWouldBlock:
		x.c.SetExpire(deadline)
		return wait
	case io.EOF:
		return x.unshaken(mesh.DownstreamClosed, "closed_before_handshake", "")
	default:
		return x.unshaken(mesh.DownstreamClosed, "reset_before_handshake", "")
	}
	gate := x.listener.set.gate
	if !gate.Enter(&x.secure.place, x.c) {
		x.c.SetExpire(deadline)
		return wait
	}
	x.c.SetExpire(0)
	info, err := x.chain.tls.Handshake(w, x.c, deadline)
	gate.Leave(&x.secure.place)
	switch {
	case err == nil:
	case err.TimedOut:
		x.count(metrics.ListenerTransportSocketConnectTimeout)
		return x.unshaken(mesh.RequestReadTimeout, "transport_socket_connect_timeout", err.Reason)
	case err.Closed:
		return x.unshaken(mesh.DownstreamClosed, "closed_during_handshake", err.Reason)
	default:
		return x.unshaken(mesh.DownstreamProtocolError, "handshake_failed", err.Reason)
	}
	hello := x.info.Greet()
	x.info.Transport, hello.TLS = inspect.TLS, info
	if hello.ServerName == "" {
		hello.ServerName = info.ServerName
	}
	x.secure = nil
	return serve
}

// unshaken ends a connection without a handshake.
func (x *conn) unshaken(kind mesh.FailureKind, details, reason string) state {
	x.secure.failure = reason
	return x.failed(kind, details)
}
