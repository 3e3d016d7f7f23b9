// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Toy is a service of the demo: it works for a moment, calls the next service, if there is one, and answers with JSON.
type Toy struct {
	Name string
	// Next is the service to call, "" for none, and Outbound the address of the sidecar's listener for calls.
	Next, Outbound string
	// Work is how long an answer takes at least, and half of it more by chance.
	Work time.Duration
}

// callTime bounds a call to the next service; the mesh's own timeout is shorter.
const callTime = 10 * time.Second

// Run serves on ln until ctx ends. It takes faults from commands, one as a line of JSON, and says "ok" on answers for each
// that is in force. The end of commands is the end of the service.
func (t Toy) Run(ctx context.Context, ln net.Listener, commands io.Reader, answers io.Writer) error {
	s := &toy{Toy: t}
	s.fault.Store(&Fault{})
	s.client = fasthttp.Client{
		Dial:                func(string) (net.Conn, error) { return net.DialTimeout("tcp", t.Outbound, callTime) },
		MaxConnsPerHost:     256,
		ReadTimeout:         callTime,
		MaxResponseBodySize: 64 << 10,
	}
	server := &fasthttp.Server{
		Handler: s.handle, Name: t.Name, Logger: quiet{}, Concurrency: 1024, ReadTimeout: time.Minute, IdleTimeout: time.Minute,
		CloseOnShutdown: true,
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The goroutine ends with commands, which the parent closes; nobody waits for it, since a read cannot be called off.
	go func() {
		defer cancel()
		s.obey(commands, answers)
	}()
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer stop()
	if err := server.ShutdownWithContext(end); err != nil {
		return nil // whoever is left is cut off
	}
	ln.Close() // a server that has only begun does not know its listener yet
	<-served   //nolint:errcheck // it was told to end
	return nil
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

type toy struct {
	Toy
	client fasthttp.Client
	fault  atomic.Pointer[Fault]
}

// obey takes faults until there are no more.
func (s *toy) obey(commands io.Reader, answers io.Writer) {
	for lines := bufio.NewScanner(commands); lines.Scan(); {
		f := &Fault{}
		if err := json.Unmarshal(lines.Bytes(), f); err != nil {
			fmt.Fprintln(answers, "error:", err)
			continue
		}
		s.fault.Store(f)
		fmt.Fprintln(answers, "ok")
	}
}

func chance(percent float64) bool { return percent > 0 && rand.Float64()*100 < percent }

func (s *toy) handle(ctx *fasthttp.RequestCtx) {
	f := s.fault.Load()
	if f.DelayMS > 0 && chance(f.DelayPercent) {
		time.Sleep(time.Duration(f.DelayMS) * time.Millisecond)
	}
	if chance(f.ResetPercent) {
		cut(ctx.Conn())
		return
	}
	ctx.SetContentType("application/json")
	if chance(f.AbortPercent) {
		ctx.SetStatusCode(f.AbortStatus)
		fmt.Fprintf(ctx, `{"service":%q,"error":"a fault was asked for"}`+"\n", s.Name)
		return
	}
	time.Sleep(s.Work + rand.N(s.Work/2+1))
	if s.Next == "" {
		fmt.Fprintf(ctx, `{"service":%q,"path":%q}`+"\n", s.Name, ctx.Path())
		return
	}
	s.callNext(ctx)
}

// cut ends a connection with a reset.
func cut(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0) // the close that follows is what matters
	}
	c.Close()
}

// passedOn are the headers that belong to the request as a whole and go on with each call.
var passedOn = []string{"X-Request-Id", "Traceparent", "Tracestate"}

// callNext calls the next service by its name through the sidecar and puts its answer into this one's.
func (s *toy) callNext(ctx *fasthttp.RequestCtx) {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.Header.SetMethodBytes(ctx.Method())
	req.SetRequestURI("http://" + s.Next + string(ctx.Path()))
	for _, name := range passedOn {
		if v := ctx.Request.Header.Peek(name); len(v) > 0 {
			req.Header.SetBytesV(name, v)
		}
	}
	err := s.client.DoTimeout(req, resp, callTime)
	switch {
	case err != nil:
		ctx.SetStatusCode(fasthttp.StatusBadGateway)
		fmt.Fprintf(ctx, `{"service":%q,"error":%q}`+"\n", s.Name, err.Error())
	case resp.StatusCode() >= 500:
		ctx.SetStatusCode(fasthttp.StatusBadGateway)
		fmt.Fprintf(ctx, `{"service":%q,"error":"%s answered %d"}`+"\n", s.Name, s.Next, resp.StatusCode())
	default:
		body := resp.Body()
		if !json.Valid(body) {
			body = []byte("null")
		}
		fmt.Fprintf(ctx, `{"service":%q,%q:%s}`+"\n", s.Name, s.Next, trim(body))
	}
}

func trim(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b
}
