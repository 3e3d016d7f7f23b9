// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// free returns addresses that nobody listens on.
func free(t *testing.T) (all [4]netip.AddrPort) {
	t.Helper()
	for i := range all {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		all[i] = netip.MustParseAddrPort(l.Addr().String())
	}
	return all
}

// proxy does the job, but for what a test spoils.
type proxy struct {
	at       Place
	turn     atomic.Uint64
	noTurns  bool
	noID     bool
	noTime   bool
	noRoutes bool
	noHost   bool
	noKeep   bool
	noBody   bool
	noHTTP2  bool // to the upstreams

	transport http.Transport
	edit      func(*http.Response) error
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := p.at.Other
	switch {
	case r.Host == checkHost && strings.HasPrefix(r.URL.Path, "/api/v1") || p.noRoutes:
		if n := p.turn.Add(1); !p.noTurns {
			host = p.at.Upstreams[n%2]
		} else {
			host = p.at.Upstreams[0]
		}
	case r.Host == checkHost && strings.HasPrefix(r.URL.Path, "/api/v2"), r.Host == "svc-b.mesh.local":
	default:
		http.NotFound(w, r)
		return
	}
	rp := httputil.ReverseProxy{
		Transport: &p.transport, ErrorLog: log.New(io.Discard, "", 0), // the check tells
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", host.String()
			if p.noHost {
				r.Out.Host = ""
			}
			if !p.noID {
				r.Out.Header.Set("X-Request-Id", "1")
			}
			r.Out.Close = p.noKeep
			if p.noBody {
				r.Out.Body, r.Out.ContentLength = http.NoBody, 0
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if !p.noTime {
				r.Header.Set("X-Envoy-Upstream-Service-Time", "0")
			}
			if p.edit != nil {
				return p.edit(r)
			}
			return nil
		},
	}
	rp.ServeHTTP(w, r)
}

// noStatus takes the trailers off.
func noStatus(r *http.Response) error {
	b, err := io.ReadAll(r.Body)
	r.Body, r.Trailer = io.NopCloser(bytes.NewReader(b)), nil
	return err
}

// The check passes what does the job, and names each thing that is left out of it.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(*proxy)
		want  string
	}{
		{"all", func(*proxy) {}, ""},
		{"no turns", func(p *proxy) { p.noTurns = true }, "do not take turns"},
		{"no request id", func(p *proxy) { p.noID = true }, "x-request-id is missing"},
		{"no time", func(p *proxy) { p.noTime = true }, "x-envoy-upstream-service-time"},
		{"one route", func(p *proxy) { p.noRoutes = true }, "the second cluster was reached: false"},
		{"another host", func(p *proxy) { p.noHost = true }, "the request is changed"},
		{"no pools", func(p *proxy) { p.noKeep = true }, "so they are not kept"},
		{"no upload", func(p *proxy) { p.noBody = true }, "arrived whole 0 times"},
		{"another body", func(p *proxy) {
			p.edit = func(r *http.Response) error {
				r.Body = io.NopCloser(strings.NewReader("{\"answer\": 43}"))
				return nil
			}
		}, "the answer is changed"},
		{"no ETag", func(p *proxy) {
			p.edit = func(r *http.Response) error {
				r.Header.Del("Etag")
				return nil
			}
		}, "the answer is changed"},
		{"no keep-alive", func(p *proxy) {
			p.edit = func(r *http.Response) error {
				r.Close = true
				r.Header.Set("Connection", "close")
				return nil
			}
		}, "the connection to the client is not kept"},
		{"HTTP/2 down", func(p *proxy) { p.at.Wire = Wire{Down2: true} }, ""},
		{"HTTP/2 up", func(p *proxy) { p.at.Wire = Wire{Up2: true} }, ""},
		{"HTTP/1.1 up instead", func(p *proxy) { p.at.Wire, p.noHTTP2 = Wire{Down2: true, Up2: true}, true }, "status 502"},
		{"calls", func(p *proxy) { p.at.Wire = Wire{Down2: true, Up2: true, GRPC: true} }, ""},
		{"calls without a status", func(p *proxy) { p.at.Wire, p.edit = Wire{Down2: true, Up2: true, GRPC: true}, noStatus }, `grpc-status ""`},
		{"streams", func(p *proxy) { p.at.Wire = Wire{Down2: true, Up2: true, GRPC: true, Streaming: true} }, ""},
		{"streams of one message", func(p *proxy) {
			p.at.Wire = Wire{Down2: true, Up2: true, GRPC: true, Streaming: true}
			p.edit = func(r *http.Response) error {
				r.Body = struct {
					io.Reader
					io.Closer
				}{io.LimitReader(r.Body, int64(len(streamMessage))), r.Body}
				return nil
			}
		}, "message 1 of a stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ports := free(t)
			p := &proxy{at: Place{Listen: ports[0], Upstreams: [2]netip.AddrPort{ports[1], ports[2]}, Other: ports[3]}}
			tt.spoil(p)
			l, err := net.Listen("tcp", ports[0].String())
			if err != nil {
				t.Fatal(err)
			}
			p.transport.Protocols = protocols(p.at.Up2 && !p.noHTTP2)
			defer p.transport.CloseIdleConnections()
			s := &http.Server{Handler: p, Protocols: protocols(p.at.Down2)}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = s.Serve(l)
			}()
			defer func() { _ = s.Close(); <-done }()
			err = Check(t.Context(), p.at)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("want %q in: %v", tt.want, err)
			}
		})
	}
}
