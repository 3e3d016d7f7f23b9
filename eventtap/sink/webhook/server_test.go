// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// key signs in tests.
var key = []byte("a key of thirty-two bytes, or so")

func keyFile(t *testing.T, keys ...[]byte) string {
	t.Helper()
	var lines []string
	for _, k := range keys {
		lines = append(lines, "whsec_"+base64.StdEncoding.EncodeToString(k))
	}
	return sink.WriteFile(t, strings.Join(lines, "\n")+"\n", 0o600)
}

// hook is a server that takes events which are signed with key. It can be killed and come back at the same address.
type hook struct {
	t    *testing.T
	addr string
	tls  *tls.Config
	srv  *http.Server
	// limit is the size from which events are refused; 0 is no limit.
	limit int
	// script, where it is not nil, answers instead of the hook if it returns true.
	script func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	stored   map[string][][]byte // by path
	requests []http.Header
}

func startHook(t *testing.T, change func(*hook)) *hook {
	t.Helper()
	h := &hook{t: t, addr: "127.0.0.1:0", stored: map[string][][]byte{}}
	if change != nil {
		change(h)
	}
	h.start(t)
	t.Cleanup(func() { h.stop(t) })
	return h
}

func (h *hook) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	if h.tls != nil {
		l = tls.NewListener(l, h.tls)
	}
	h.srv = &http.Server{Handler: h}
	go func() { _ = h.srv.Serve(l) }()
}

func (h *hook) stop(*testing.T) { h.srv.Close() }

// ServeHTTP judges a request and stores its events.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.script != nil && h.script(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sink is gone
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, r.Header.Clone())
	if !signed(r.Header, body) {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	events, err := split(r.Header, body)
	if err != nil {
		h.t.Errorf("%v", err)
	}
	for _, e := range events {
		if h.limit > 0 && len(e) > h.limit && r.URL.Path != "/dead" {
			http.Error(w, "an event is too large", http.StatusRequestEntityTooLarge)
			return
		}
	}
	h.stored[r.URL.Path] = append(h.stored[r.URL.Path], events...)
	w.WriteHeader(http.StatusAccepted)
}

// signed verifies as Standard Webhooks says, with code of its own.
func signed(h http.Header, body []byte) bool {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(h.Get("webhook-id") + "." + h.Get("webhook-timestamp") + "." + string(body)))
	want := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, s := range strings.Fields(h.Get("webhook-signature")) {
		if v, ok := strings.CutPrefix(s, "v1,"); ok && hmac.Equal([]byte(v), []byte(want)) {
			return h.Get("webhook-id") != ""
		}
	}
	return false
}

// split returns the events of a request, in the form that a structured one has.
func split(h http.Header, body []byte) ([][]byte, error) {
	if h.Get("ce-id") == "" {
		return event.Split(h.Get("content-type"), body)
	}
	parts := []string{fmt.Sprintf(`"datacontenttype":%q,"data":%s`, h.Get("content-type"), body)}
	for k := range h {
		if name, ok := strings.CutPrefix(strings.ToLower(k), "ce-"); ok {
			v, err := url.PathUnescape(h.Get(k))
			if err != nil {
				return nil, err
			}
			parts = append(parts, fmt.Sprintf("%q:%q", name, v))
		}
	}
	return [][]byte{fmt.Appendf(nil, "{%s}", strings.Join(parts, ","))}, nil
}

func (h *hook) events(path string) [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stored[path]
}

func (h *hook) config(t *testing.T) Config {
	t.Helper()
	return Config{Target: Target{Address: h.addr, Host: h.addr, Path: "/events", Secure: h.tls != nil}, Mode: Batched,
		KeyFile: keyFile(t, key), Timeout: 5 * time.Second, MaxRetryAfter: time.Minute}
}

// quickly bounds what a test waits for.
func quickly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
