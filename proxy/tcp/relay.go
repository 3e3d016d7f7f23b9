// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/socket"
)

// relay moves bytes both ways until both have ended, or one breaks.
func (t *conn) relay() *mesh.Failure {
	t.upward.start(t)
	err := t.down()
	if err == nil {
		// The upstream has ended its side; the client may go on, until the upstream does not even listen any more.
		t.up.Peer.WatchBreak(t.worker)
		err = t.upward.await(t.worker)
	}
	if err != nil {
		return failureOf(err)
	}
	return nil
}

// down moves what the upstream says.
func (t *conn) down() error {
	w, bufs := t.worker, t.c.Bufs()
	for {
		b, err := t.up.Peer.Recv(w, nil)
		switch {
		case err == io.EOF:
			t.o.UpstreamEnd = mono.Now() - t.info.Accepted
			return t.c.CloseWrite()
		case err != nil:
			return upstreamError(err)
		}
		t.touch()
		n := int64(b.Len())
		if t.o.UpstreamFirst < 0 {
			t.o.UpstreamFirst = mono.Now() - t.info.Accepted
		}
		t.o.BytesSent += n
		t.p.numbers.Add(w.Shard, metrics.TCPDownstreamCxTxBytesTotal, n)
		t.cluster.Stats.Add(w.Shard, metrics.UpstreamCxRxBytesTotal, n)
		err = t.c.Write(w, b.Bytes())
		bufs.Put(b)
		if err != nil {
			return err
		}
	}
}

// upward moves what the client says, on a worker of its own. The zero value has not started.
type upward struct {
	t       *conn
	worker  atomic.Pointer[socket.Worker]
	halt    atomic.Bool
	ended   atomic.Bool
	failure atomic.Pointer[mesh.Failure] // why it ended before its time
	done    chan struct{}                // one place

	received int64 // bytes; read after join
}

var errHalted = errors.New("tcp: the other direction has ended")

func (u *upward) start(t *conn) {
	u.t, u.done = t, make(chan struct{}, 1)
	t.worker.Go(u)
}

// join ends the direction, in whatever it is, and waits until it has ended. It does nothing where it has not started.
func (u *upward) join() {
	if u.done == nil {
		return
	}
	u.halt.Store(true)
	if w := u.worker.Load(); w != nil {
		w.Interrupt()
	}
	<-u.done
	u.done = nil
}

// await sleeps until the direction has ended in order.
func (u *upward) await(w *socket.Worker) error {
	for !u.ended.Load() {
		if err := w.Sleep(); err != nil {
			return err
		}
	}
	return nil
}

// Interrupted implements socket.Owner.
func (u *upward) Interrupted() error {
	if u.halt.Load() {
		return errHalted
	}
	return nil
}

// Run implements socket.Runner.
func (u *upward) Run(w *socket.Worker) {
	w.Own(u)
	u.worker.Store(w)
	defer func() {
		if r := recover(); r != nil {
			u.t.panicked(r)
			u.failure.Store(internalError())
		}
		u.ended.Store(u.failure.Load() == nil)
		u.worker.Store(nil)
		u.t.worker.Interrupt()
		u.done <- struct{}{}
	}()
	if err := u.move(w); err != nil && err != errHalted {
		u.failure.Store(failureOf(err))
	}
}

func (u *upward) move(w *socket.Worker) error {
	t := u.t
	bufs := t.c.Bufs()
	for !u.halt.Load() {
		if err := t.c.AwaitRead(w); err != nil {
			return err
		}
		b := bufs.Get()
		n, err := t.c.TryRead(b.Free())
		if err == nil {
			t.touch()
			u.received += int64(n)
			t.p.numbers.Add(w.Shard, metrics.TCPDownstreamCxRxBytesTotal, int64(n))
			t.cluster.Stats.Add(w.Shard, metrics.UpstreamCxTxBytesTotal, int64(n))
			err = upstreamError(t.up.Peer.Write(w, b.Free()[:n]))
		}
		bufs.Put(b)
		switch {
		case err == io.EOF:
			_ = t.up.Peer.CloseWrite() // where it has gone altogether, the other direction knows
			t.awaitReset()
			return nil
		case err == socket.ErrWouldBlock:
		case err != nil:
			return err
		}
	}
	return errHalted
}

// errUpstream marks an error of the upstream's side.
type errUpstream struct{ error }

func upstreamError(err error) error {
	var own *mesh.Failure
	if err == nil || errors.As(err, &own) || err == errHalted {
		return err
	}
	return errUpstream{err}
}

// failureOf names why a connection ended before its time.
func failureOf(err error) *mesh.Failure {
	var own *mesh.Failure
	var up errUpstream
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &up):
		return upstreamClosed()
	}
	return &mesh.Failure{Kind: mesh.DownstreamClosed, Side: mesh.SideDownstream}
}

func upstreamClosed() *mesh.Failure {
	return &mesh.Failure{Kind: mesh.UpstreamClosed, Side: mesh.SideUpstream, Detail: "connection reset"}
}

// Interface guards.
var (
	_ socket.Handler = (*conn)(nil)
	_ socket.Owner   = (*conn)(nil)
	_ socket.Owner   = (*upward)(nil)
	_ socket.Runner  = (*upward)(nil)
)
