// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"errors"
	"net/http"
	"runtime/debug"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"
)

// request is what an endpoint gets to see.
type request struct {
	query query
	// accept is the Accept header.
	accept string
}

// endpoint is one path.
type endpoint struct {
	path, help string
	params     []param
	// changes says that it changes something: it needs POST and a local caller.
	changes bool
	// places bounds the answers that are written at a time; nil where they are short.
	places chan struct{}
	serve  func(*request) (*answer, error)
}

// handle answers a request. It is the root of each: what panics below ends the connection and not the process.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	defer func() {
		if p := recover(); p != nil {
			s.deps.Log.Error("the admin server panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			ctx.Response.Reset()
			s.send(ctx, &answer{status: http.StatusInternalServerError, contentType: typeText, body: []byte("internal error; the log has the reason\n")})
			ctx.Response.SetConnectionClose()
		}
	}()
	c := ctx.Conn().(*conn)
	if c.hurried {
		ctx.Response.SetConnectionClose()
	}
	a, err := s.answer(ctx, c)
	if err != nil {
		a = s.failure(err)
	}
	s.send(ctx, a)
}

// refuse answers what fasthttp could not read.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, err error) {
	status := http.StatusBadRequest
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &small):
		status = http.StatusRequestHeaderFieldsTooLarge
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		status = http.StatusRequestEntityTooLarge
	}
	s.send(ctx, text(status, http.StatusText(status)+"\n"))
}

// answer finds the endpoint, checks that it may be called, and calls it.
func (s *Server) answer(ctx *fasthttp.RequestCtx, c *conn) (*answer, error) {
	h := &ctx.Request.Header
	if !h.IsHTTP11() {
		return nil, &Error{http.StatusUpgradeRequired, "Upgrade Required"}
	}
	// The path is taken as it came: neither decoded nor cleaned, so that there is one way to write each.
	path, rawQuery, _ := bytes.Cut(h.RequestURI(), []byte("?"))
	if len(path) == 0 || path[0] != '/' {
		return nil, badRequest("the request target has to begin with /\n")
	}
	e := s.routes[string(path)]
	if e == nil {
		return nil, &Error{http.StatusNotFound, "invalid path. " + s.help}
	}
	if a := checkMethod(e, string(h.Method())); a != nil {
		return a, nil
	}
	if e.changes {
		if err := checkCaller(h, c.LocalAddr(), s.config.Address); err != nil {
			return nil, err
		}
	}
	q, err := parseQuery(rawQuery, h, ctx.PostBody())
	if err != nil {
		return nil, err
	}
	if e.places == nil {
		return e.serve(&request{query: q, accept: string(h.Peek("Accept"))})
	}
	return e.serveLong(&request{query: q, accept: string(h.Peek("Accept"))}, c)
}

// serveLong takes a place for the answer, which gives it back when it is written.
func (e *endpoint) serveLong(r *request, c *conn) (*answer, error) {
	if c.hurried {
		return nil, busy("the server has hardly any connection left")
	}
	select {
	case e.places <- struct{}{}:
	default:
		return nil, busy("as many answers of this kind as allowed are being written")
	}
	a, err := e.serve(r)
	if err != nil || a.write == nil {
		<-e.places
		return a, err
	}
	a.release = func() { <-e.places }
	return a, nil
}

func busy(why string) *Error { return &Error{http.StatusServiceUnavailable, why + "; try again\n"} }

// checkMethod returns the answer to a method that the endpoint does not take.
func checkMethod(e *endpoint, method string) *answer {
	allow, want := "GET, HEAD, POST", "GET or POST"
	ok := method == http.MethodGet || method == http.MethodHead || method == http.MethodPost
	if e.changes {
		allow, want = "POST", "POST"
		ok = method == http.MethodPost
	}
	if ok {
		return nil
	}
	a := text(http.StatusMethodNotAllowed, "Method "+clean(method)+" not allowed, "+want+" required.")
	a.header = map[string]string{"Allow": allow}
	return a
}

// failure turns an error into an answer.
func (s *Server) failure(err error) *answer {
	var e *Error
	if errors.As(err, &e) {
		a := text(e.Status, e.Msg)
		if e.Status == http.StatusServiceUnavailable {
			a.header = map[string]string{"Retry-After": "1"}
		}
		return a
	}
	s.deps.Log.Error("an admin view failed", zap.Error(err))
	return text(http.StatusInternalServerError, "internal error; the log has the reason\n")
}

// send puts an answer into the response.
func (s *Server) send(ctx *fasthttp.RequestCtx, a *answer) {
	h := &ctx.Response.Header
	h.SetStatusCode(a.status)
	h.SetContentType(a.contentType)
	h.Set("Cache-Control", "no-cache, max-age=0")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	for k, v := range a.header {
		h.Set(k, v)
	}
	if a.write == nil {
		ctx.Response.SetBodyRaw(a.body)
		return
	}
	if ctx.IsHead() { // fasthttp would end a body that it does not send
		h.SetContentLength(-1)
		a.done()
		return
	}
	if a.stream {
		ctx.Response.SetConnectionClose()
		ctx.Response.ImmediateHeaderFlush = true
	}
	ctx.Response.SetBodyStream(&body{answer: a, server: s, conn: ctx.Conn().(*conn)}, -1)
}
