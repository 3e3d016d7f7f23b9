// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/lb"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/filter/cors"
	"github.com/meshtap/meshtap/proxy/filter/fault"
	"github.com/meshtap/meshtap/proxy/inspect"
)

// all is every request.
var all = fault.Share{Fraction: mesh.Fraction{Numerator: 100, Denominator: 100}}

// none is no bound.
const none = math.MaxUint64

// filterRig is a server with the filters fault and cors, over one upstream, and the registry.
func filterRig(t testing.TB, h http.HandlerFunc, m *mesh.HTTPManager, routes []*mesh.Route, cfg *fault.Config) (*rig, *stats.Registry) {
	rec, reg := newRecorder(), stats.NewRegistry(stats.Options{})
	s, err := New(Config{DrainTime: time.Millisecond}, Deps{
		Log: zap.NewNop(), Stats: reg, Notifier: rec, Observers: []mesh.Observer{rec},
		ListenerFilters: registry.Builders(inspect.Rows()), Policies: registry.Builders(lb.Rows()),
		HTTPFilters: registry.Builders(append([]registry.Row[filter.Builder](fault.Rows(nil)), cors.Rows(nil)...)),
		Logs:        func([]mesh.AccessLog) (Logs, error) { return noLogs{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r := &rig{Server: s, t: t, rec: rec}
	m.Filters = []mesh.Extension{
		{Name: "fault", TypeURL: "envoy.extensions.filters.http.fault.v3.HTTPFault", Config: cfg},
		{Name: "cors", TypeURL: "envoy.extensions.filters.http.cors.v3.Cors"},
	}
	r.serve(m, routes, cluster("c", backend(t, h)))
	return r, reg
}

func gauge(reg *stats.Registry, name string) (v int64) {
	reg.Each(func(k stats.Kind) bool { return k == stats.Gauge }, func(m *stats.Metric) bool {
		if string(m.AppendName(nil)) == name {
			v = m.Value
		}
		return true
	})
	return v
}

// untilActive waits until so many requests have a fault.
func untilActive(t testing.TB, reg *stats.Registry, n int64) {
	t.Helper()
	for deadline := time.Now().Add(hang); gauge(reg, "http.in.fault.active_faults") != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d faults are active, want %d", gauge(reg, "http.in.fault.active_faults"), n)
		}
	}
}

// TestDelayEnds: a request that waits for an hour ends with its client, in both versions of HTTP, with a deadline, with its
// listener, and with the server.
func TestDelayEnds(t *testing.T) {
	t.Parallel()
	hour := &fault.Config{Delay: &fault.Delay{Share: all, Millis: 3_600_000}, MaxActive: none}
	never := func(http.ResponseWriter, *http.Request) { t.Error("the request went on") }
	routes := []*mesh.Route{prefix("/", to("c"))}
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	t.Run("the client goes", func(t *testing.T) {
		t.Parallel()
		r, reg := filterRig(t, never, manager(), routes, hour)
		c, _ := httpDial(t, r.addr)
		fmt.Fprint(c, get)
		untilActive(t, reg, 1)
		c.Close()
		o := r.rec.wait(t, 1)[0]
		if o.Failure != mesh.DownstreamClosed || o.Flags != mesh.FlagDI|mesh.FlagDC {
			t.Errorf("%v, flags %s", o.Failure, o.Flags)
		}
		untilActive(t, reg, 0)
	})
	t.Run("the client resets its stream", func(t *testing.T) {
		t.Parallel()
		r, reg := filterRig(t, never, manager(), routes, hour)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		q, err := http.NewRequestWithContext(ctx, "GET", "http://"+r.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		var p http.Protocols
		p.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: &p}
		defer tr.CloseIdleConnections()
		ended := make(chan error, 1)
		go func() {
			resp, err := tr.RoundTrip(q)
			if err == nil {
				resp.Body.Close()
			}
			ended <- err
		}()
		untilActive(t, reg, 1)
		cancel()
		if err := <-ended; err == nil {
			t.Error("there was an answer")
		}
		if o := r.rec.wait(t, 1)[0]; o.Failure != mesh.DownstreamClosed || o.Flags&mesh.FlagDI == 0 {
			t.Errorf("%v, flags %s", o.Failure, o.Flags)
		}
		untilActive(t, reg, 0)
	})
	t.Run("its time is over", func(t *testing.T) {
		t.Parallel()
		m := manager()
		m.MaxStreamDuration = 20 * time.Millisecond
		r, _ := filterRig(t, never, m, routes, hour)
		c, br := httpDial(t, r.addr)
		fmt.Fprint(c, get)
		if line, err := br.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 504") {
			t.Error(line, err)
		}
		if o := r.rec.wait(t, 1)[0]; o.Failure != mesh.MaxDuration {
			t.Errorf("%v", o.Failure)
		}
	})
	t.Run("its listener is removed", func(t *testing.T) {
		t.Parallel()
		r, reg := filterRig(t, never, manager(), routes, hour)
		c, br := httpDial(t, r.addr)
		fmt.Fprint(c, get)
		untilActive(t, reg, 1)
		if rej := r.Apply(&mesh.Snapshot{ID: 2}); len(rej) > 0 {
			t.Fatal(rej)
		}
		if _, err := br.ReadByte(); err == nil {
			t.Error("there was an answer")
		}
		r.rec.wait(t, 1)
	})
	t.Run("the server is closed", func(t *testing.T) {
		t.Parallel()
		r, reg := filterRig(t, never, manager(), routes, hour)
		c, _ := httpDial(t, r.addr)
		fmt.Fprint(c, get)
		untilActive(t, reg, 1)
		r.Close()
		r.rec.wait(t, 1)
	})
}

// TestDelayIsNotTheClients: the time in which a client has to send its request does not run while it waits.
func TestDelayIsNotTheClients(t *testing.T) {
	t.Parallel()
	m := manager()
	m.RequestTimeout = 20 * time.Millisecond
	short := &fault.Config{Delay: &fault.Delay{Share: all, Millis: 60}, MaxActive: none}
	r, _ := filterRig(t, func(http.ResponseWriter, *http.Request) {}, m, []*mesh.Route{prefix("/", to("c"))}, short)
	for _, body := range []string{"", "hello"} {
		resp, err := client.Post("http://"+r.addr+"/", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("with body %q: %s", body, resp.Status)
		}
	}
}

// TestFaultOverflow: as many requests as there may be have a fault at a time, and the others have none.
func TestFaultOverflow(t *testing.T) {
	t.Parallel()
	one := &fault.Config{Delay: &fault.Delay{Share: all, Millis: 3_600_000}, MaxActive: 1}
	r, reg := filterRig(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }, manager(), []*mesh.Route{prefix("/", to("c"))}, one)
	c, _ := httpDial(t, r.addr)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	untilActive(t, reg, 1)
	for range 3 {
		resp, err := client.Get("http://" + r.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	got := counters(reg, "http.in.fault.")
	if got["faults_overflow"] != 3 || got["delays_injected"] != 1 {
		t.Errorf("%v", got)
	}
	c.Close()
	untilActive(t, reg, 0)
}

// TestLimitedAnswer: an answer that is slowed down is whole, with its trailers, whatever pieces it comes in; one of our own
// is not slowed down.
func TestLimitedAnswer(t *testing.T) {
	t.Parallel()
	slow := &fault.Config{Limit: &fault.Limit{Share: all, KiB: 256}, MaxActive: none}
	m := manager()
	m.EnableTrailers = true
	direct := &mesh.Route{Match: mesh.RouteMatch{Path: "/direct"}, Direct: &mesh.DirectResponse{Status: 200, Body: []byte(strings.Repeat("d", 4096))}}
	r, reg := filterRig(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Trailer", "X-End")
		w.WriteHeader(200)
		for range 5 {
			io.WriteString(w, strings.Repeat(q.URL.Path[1:], 8<<10))
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("X-End", "yes")
	}, m, []*mesh.Route{direct, prefix("/", to("c"))}, slow)
	for path, want := range map[string]string{"/x": strings.Repeat("x", 40<<10), "/direct": strings.Repeat("d", 4096)} {
		resp, err := client.Get("http://" + r.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != want || (path == "/x") != (resp.Trailer.Get("X-End") == "yes") {
			t.Errorf("%s: %d bytes, %v, trailers %v", path, len(b), err, resp.Trailer)
		}
	}
	if got := counters(reg, "http.in.fault."); got["response_rl_injected"] != 2 {
		t.Errorf("%v", got)
	}
	untilActive(t, reg, 0)
}

// TestOlderCORS: the older fields count, the route's before the virtual host's, where no place has the filter by its name.
func TestOlderCORS(t *testing.T) {
	t.Parallel()
	says := func(key string, p *cors.Policy) map[string]mesh.Extension {
		return map[string]mesh.Extension{key: {Config: p}}
	}
	any := []mesh.StringMatch{{Value: "*"}}
	older := prefix("/older", to("c"))
	older.PerFilter = says(mesh.CORSKey, &cors.Policy{Origins: any, ExposeHeaders: "older"})
	both := prefix("/both", to("c"))
	both.PerFilter = says(mesh.CORSKey, &cors.Policy{Origins: any, ExposeHeaders: "older"})
	both.PerFilter["cors"] = mesh.Extension{Config: &cors.Policy{Origins: any, ExposeHeaders: "newer"}}
	off := prefix("/off", to("c"))
	off.PerFilter = says(mesh.CORSKey, &cors.Policy{Origins: any})
	off.PerFilter["cors"] = mesh.Extension{Disabled: true}
	redirect := &mesh.Route{Match: mesh.RouteMatch{Path: "/redirect"}, Redirect: &mesh.Redirect{Status: 301}, PerFilter: older.PerFilter}
	r, _ := filterRig(t, func(http.ResponseWriter, *http.Request) {}, manager(), []*mesh.Route{older, both, off, redirect, prefix("/", to("c"))}, &fault.Config{MaxActive: none})
	for path, want := range map[string]string{"/older": "a.example older", "/both": "a.example newer", "/off": " ", "/redirect": " ", "/": " "} {
		q, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+r.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Origin", "a.example")
		resp, err := client.Transport.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Access-Control-Allow-Origin") + " " + resp.Header.Get("Access-Control-Expose-Headers"); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
