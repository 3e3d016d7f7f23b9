// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/codec/h2"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// http2Asker asks over HTTP/2, with the sockets and the codec of the pools: one connection, and one stream at a time. It
// belongs to the checker's goroutine; the connection's turns and the stream run on workers of the engine.
type http2Asker struct {
	engine           *socket.Engine
	dialer           socket.Dialer
	network, address string
	cfg              h2.Config
	reuse            bool

	request codec.Request // the same each time
	invalid bool          // it cannot be sent
	body    []byte        // of the request
	judge   func(*reply) answer

	conn *http2Conn     // nil where there is none
	open sync.WaitGroup // connections whose socket is open
}

// reply is an answer as it came.
type reply struct {
	head     codec.Response
	body     []byte
	long     bool // there is more of it
	trailers *header.List
}

// newHTTP2Asker returns what an HTTP/2 check has in common with one over gRPC. The caller fills in what is asked.
func newHTTP2Asker(cfg *mesh.HealthCheck, t *Target, d *Deps) *http2Asker {
	a := &http2Asker{
		engine: d.Engine, network: t.Address.Network(), address: address(cfg, t), cfg: d.HTTP2, reuse: cfg.ReuseConnection,
		dialer: socket.Dialer{Source: d.Source, Secure: d.Layer},
	}
	a.cfg.PingInterval = 0 // the checks ask whether the host is there
	a.request.Scheme = []byte("http")
	if d.Layer != nil {
		a.request.Scheme = []byte("https")
	}
	return a
}

// httpAsker2 returns how an HTTP check asks over HTTP/2.
func httpAsker2(cfg *mesh.HealthCheck, t *Target, d *Deps) *http2Asker {
	a, h := newHTTP2Asker(cfg, t, d), cfg.HTTP
	host := checkHost(t, h.Host)
	q := &a.request
	q.Method, q.Path, q.Authority = []byte(h.Method), []byte(h.Path), []byte(host)
	addHeaders(&q.Header, h.Remove, h.Add)
	a.invalid = !sendable(&q.Header, h.Path, host)
	a.judge = func(r *reply) answer {
		l := &r.head.Header
		return judge(h, d, r.head.Status, l.Has(degradedHeader), string(l.Get(serviceHeader)))
	}
	return a
}

// ask makes one check. Where the host ends a connection that had been kept, or takes no more requests on it, before it has
// answered, that is no failure: the check is made again, on a new one.
func (a *http2Asker) ask(ctx context.Context) answer {
	if a.invalid {
		return answer{verdict: unreachable, reason: unsendable}
	}
	for {
		st, err := a.stream(ctx)
		if err != nil {
			return answer{verdict: unreachable, reason: reason("connect", err)}
		}
		c := a.conn
		reused := c.used
		c.used = true
		x := &call{ctx: ctx, asker: a, stream: st, done: make(chan struct{})}
		a.engine.Go(x)
		<-x.done
		if x.panicked != "" {
			panic(x.panicked)
		}
		ended := c.h2.Draining()
		if ended || !a.reuse || !x.keeps() {
			a.drop()
		}
		switch {
		case x.err == nil:
			return a.judge(&x.reply)
		case reused && ended && !x.answered && ctx.Err() == nil:
		default:
			return answer{verdict: unreachable, reason: streamReason(x.err)}
		}
	}
}

// stream takes a stream on the connection that was kept, or on a new one.
func (a *http2Asker) stream(ctx context.Context) (*h2.ClientStream, error) {
	if a.conn != nil {
		if st, ok := a.conn.h2.Reserve(); ok {
			return st, nil
		}
		a.drop()
	}
	if err := a.connect(ctx); err != nil {
		return nil, err
	}
	st, ok := a.conn.h2.Reserve()
	if !ok {
		a.drop()
		return nil, net.ErrClosed // it has gone away again already
	}
	return st, nil
}

func (a *http2Asker) connect(ctx context.Context) error {
	link, err := a.engine.Connect(ctx, &a.dialer, a.network, a.address)
	if err != nil {
		return err
	}
	c := &http2Conn{open: &a.open}
	sock, err := link.Conn(c)
	if err != nil {
		return err
	}
	a.open.Add(1)
	c.h2.Init(sock, sock.Bufs(), &a.cfg, c)
	if err := sock.Start(true); err != nil {
		sock.Close()
		return err
	}
	a.conn = c
	return nil
}

// drop closes the connection, a little later.
func (a *http2Asker) drop() {
	if a.conn != nil {
		a.conn.end()
		a.conn = nil
	}
}

// shut closes the connection and waits until all that there were are closed.
func (a *http2Asker) shut() {
	a.drop()
	a.open.Wait()
}

// http2Conn is a connection. Its codec is told of the end by end, and the socket is closed by its own turn.
type http2Conn struct {
	h2   h2.Client
	open *sync.WaitGroup
	over atomic.Bool
	used bool // a stream was opened; the checker's goroutine
}

func (c *http2Conn) end() {
	c.over.Store(true)
	c.h2.SetExpire(1)
}

// Ready implements socket.Handler.
func (c *http2Conn) Ready(w *socket.Worker, sock *socket.Conn) (open bool) {
	sock.Expired()
	if err := c.h2.Turn(w, mono.Now()); err != nil {
		return false
	}
	if c.over.Load() {
		c.h2.Close(w, h2.NoError)
		return false
	}
	return true
}

// Closed implements socket.Handler.
func (c *http2Conn) Closed(*socket.Conn) { c.open.Done() }

// Capacity implements h2.Owner: nobody waits for a stream.
func (c *http2Conn) Capacity(*h2.Client) {}

// Draining implements h2.Owner: the next check finds out.
func (c *http2Conn) Draining(*h2.Client) {}

// call is one request and its answer, on a worker.
type call struct {
	ctx    context.Context // of the check, which waits for done
	asker  *http2Asker
	stream *h2.ClientStream
	done   chan struct{} // closed when the worker has finished

	// These can be read once done is closed.
	reply    reply
	err      error
	answered bool // anything came
	panicked string
}

// Run implements socket.Runner.
func (x *call) Run(w *socket.Worker) {
	defer close(x.done)
	defer func() {
		if p := recover(); p != nil {
			x.panicked = fmt.Sprintf("%v\n%s", p, debug.Stack()) // the checker's goroutine goes on with it
		}
	}()
	w.Own(x)
	defer context.AfterFunc(x.ctx, w.Interrupt)()
	x.err = x.exchange(w)
	x.answered = x.stream.Answered()
	if x.err == nil && !x.reply.long {
		x.stream.Release()
	} else {
		x.stream.Abort()
	}
}

// Interrupted implements socket.Owner.
func (x *call) Interrupted() error { return x.ctx.Err() }

func (x *call) exchange(w *socket.Worker) error {
	r := &x.reply
	err := x.stream.Call(w, &x.asker.request, x.asker.body, &r.head)
	for err == nil && r.head.Status/100 == 1 {
		err = x.stream.Answer(w, &r.head)
	}
	if err != nil {
		return err
	}
	for body := x.stream.Body(); ; {
		p, end, err := body.Next(w)
		if err != nil {
			return err
		}
		if len(r.body)+p.Len() > maxBody {
			r.long = true
			return nil
		}
		r.body = append(r.body, p.Bytes()...)
		if end {
			if t := body.Trailers(); t != nil {
				r.trailers = new(header.List)
				r.trailers.CopyFrom(t)
			}
			return nil
		}
	}
}

// keeps reports whether the connection can serve after this. One on which a check took too long is given up: nothing may
// be coming through there any more.
func (x *call) keeps() bool {
	var reset *codec.ResetError
	return x.err == nil || errors.As(x.err, &reset)
}

// streamReason puts the failure of a stream into words without addresses.
func streamReason(err error) string {
	var reset *codec.ResetError
	var fault *codec.ProtocolError
	switch {
	case errors.As(err, &reset) && reset.Unprocessed && !reset.Remote:
		return "the connection ended before the request was sent"
	case errors.As(err, &reset), errors.As(err, &fault):
		return err.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = io.EOF
	}
	return reason("read", err)
}
