// SPDX-License-Identifier: Apache-2.0

// Command reverseproxy is the peer that anyone can write: the standard library's ReverseProxy with the job of the others.
package main

import (
	"crypto/rand"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

func main() {
	listen := flag.String("listen", "", "`address` to listen on")
	v1 := flag.String("v1", "", "`addresses` of the first cluster, separated by commas")
	v2 := flag.String("v2", "", "`address` of the second cluster")
	down2 := flag.Bool("down2", false, "listen for HTTP/2 without TLS")
	up2 := flag.Bool("up2", false, "speak HTTP/2 without TLS to the clusters")
	identity := flag.String("identity", "", "`file` with key and certificate; empty listens without TLS")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	h := router(cluster(*up2, strings.Split(*v1, ",")...), cluster(*up2, *v2))
	l, err := net.Listen("tcp", *listen)
	if err == nil {
		err = serve(server(h, *down2), l, *identity)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reverseproxy:", err)
		os.Exit(1)
	}
}

// serve serves, over TLS where there is a file with key and certificate.
func serve(s *http.Server, l net.Listener, identity string) error {
	if identity == "" {
		return s.Serve(l)
	}
	http2 := s.Protocols.UnencryptedHTTP2()
	s.Protocols.SetUnencryptedHTTP2(false)
	s.Protocols.SetHTTP2(http2)
	return s.ServeTLS(l, identity, identity)
}

func server(h http.Handler, http2 bool) *http.Server {
	return &http.Server{
		Handler: h, Protocols: protocols(http2),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Hour,
	}
}

// protocols are HTTP/1.1, or HTTP/2 with prior knowledge.
func protocols(http2 bool) *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(!http2)
	p.SetUnencryptedHTTP2(http2)
	return p
}

// router chooses by host and prefix.
func router(v1, v2 http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host == "svc-a.mesh.local" && strings.HasPrefix(r.URL.Path, "/api/v1"):
			v1.ServeHTTP(w, r)
		case r.Host == "svc-a.mesh.local" && strings.HasPrefix(r.URL.Path, "/api/v2"), r.Host == "svc-b.mesh.local":
			v2.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// cluster forwards to the hosts in turn.
func cluster(http2 bool, hosts ...string) http.Handler {
	var turn atomic.Uint64
	return &httputil.ReverseProxy{
		Transport: &timed{http.Transport{
			DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
			MaxIdleConnsPerHost: 4096, IdleConnTimeout: time.Minute, DisableCompression: true,
			ResponseHeaderTimeout: 15 * time.Second, Protocols: protocols(http2),
		}},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", hosts[turn.Add(1)%uint64(len(hosts))]
			r.Out.Header.Set("X-Request-Id", rand.Text())
		},
	}
}

// timed tells how long the upstream took.
type timed struct{ http.Transport }

func (t *timed) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	resp, err := t.Transport.RoundTrip(r)
	if err == nil {
		resp.Header.Set("X-Envoy-Upstream-Service-Time", strconv.FormatInt(time.Since(began).Milliseconds(), 10))
	}
	return resp, err
}
