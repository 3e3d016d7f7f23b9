// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/socket"
)

// TestGoClient has net/http's client talk to our server: bodies both ways, trailers, cancelling.
func TestGoClient(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	cfg := Defaults()
	gone := make(chan error, 100)
	addr, _ := x.listen(&cfg, func(w *socket.Worker, st *ServerStream, q *codec.Request) {
		switch string(q.Path) {
		case "/wait":
			gone <- func() error {
				for {
					if err := w.Sleep(); err != nil {
						return err
					}
				}
			}()
			return
		case "/continue":
			if err := st.Continue(w); err != nil {
				t.Error(err)
			}
		}
		body, err := readBody(w, st)
		if err != nil {
			t.Error(err)
			return
		}
		r := &codec.Response{Status: 200, Length: codec.Unknown}
		r.Header.Add("x-method", q.Method)
		if err := st.Head(w, r, bytebuf.Of(body), false); err != nil {
			t.Error(err)
		}
		var l header.List
		l.AddString("x-length", fmt.Sprint(len(body)))
		if err := st.SendTrailers(w, &l); err != nil {
			t.Error(err)
		}
	})
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &protocols}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			body := pattern(i * 5000)
			req, _ := http.NewRequest("POST", "http://"+addr+[]string{"/", "/continue"}[i%2], bytes.NewReader(body))
			if i%2 == 1 {
				req.Header.Set("Expect", "100-continue")
			}
			resp, err := hc.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, body) || resp.ProtoMajor != 2 || resp.Header.Get("X-Method") != "POST" ||
				resp.Trailer.Get("X-Length") != fmt.Sprint(len(body)) {
				t.Errorf("%d bytes of %d, %v, %v, %v", len(got), len(body), err, resp.Header, resp.Trailer)
			}
		})
	}
	waitFor(t, &wg)
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/wait", nil)
	failed := make(chan error)
	go func() {
		resp, err := hc.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case err := <-gone:
		if err != errGone {
			t.Error(err)
		}
	default: // it was cancelled before it was sent
	}
}

// TestGoServer has our client talk to net/http's server.
func TestGoServer(t *testing.T) {
	t.Parallel()
	x := newWorld(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			rw.WriteHeader(413)
			return
		}
		rw.Header().Set("Trailer", "X-Sum")
		rw.Header().Set("X-Host", r.Host)
		n, err := io.Copy(rw, r.Body)
		if err != nil {
			return
		}
		rw.Header().Set("X-Sum", fmt.Sprint(n, len(r.Trailer)))
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.Serve(ln)
	}()
	defer func() {
		srv.Close()
		<-served
	}()
	cfg := Defaults()
	c := x.dial(ln.Addr().String(), &cfg)
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Add(1)
		x.e.Go(runFunc(func(w *socket.Worker) {
			defer wg.Done()
			st, ok := c.Reserve()
			if !ok {
				t.Error("no place")
				return
			}
			defer st.Release()
			var r codec.Response
			body := pattern(i * 5000)
			if i%10 == 9 {
				if err := st.Call(w, request("POST", "/early"), body, &r); err != nil || r.Status != 413 {
					t.Errorf("%d, %v", r.Status, err)
				}
				return
			}
			q := request("POST", "/", "content-length", fmt.Sprint(len(body)))
			q.Length = int64(len(body))
			if err := st.Call(w, q, body, &r); err != nil {
				t.Error(err)
				return
			}
			got, err := readBody(w, st)
			want := fmt.Sprintf("x-sum: %d 0", len(body))
			if err != nil || !bytes.Equal(got, body) || string(r.Header.Get("x-host")) != "example.com" ||
				st.Trailers() == nil || !strings.Contains(string(st.Trailers().AppendHTTP1(nil)), want) {
				t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
			}
		}))
	}
	waitFor(t, &wg)
}
