// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/route"
	"github.com/meshtap/meshtap/proxy/upstream"
)

// holding is the sign by which a manager holds requests.
type holding struct{}

func (holding) HoldsRequests() {}
func (holding) OnRequest(*exchange.Exchange) (v filter.Verdict, b []byte) {
	return filter.Continue, nil
}
func (holding) OnResponse(*exchange.Exchange) {}

// later is a state with other tables than the rig's.
type later struct {
	tables map[string]*Table
	scopes *Scopes
}

func (l later) Cluster(string) *upstream.Cluster { return nil }
func (l later) Table(name string) *Table         { return l.tables[name] }
func (l later) Scopes(string) *Scopes            { return l.scopes }
func (l later) Versions() mesh.Versions          { return mesh.Versions{Routes: "later"} }

// tableFor answers for some domains, each with its name.
func tableFor(t testing.TB, name string, domains ...string) *Table {
	cfg := &mesh.RouteTable{Name: name, HostSet: "set"}
	for _, d := range domains {
		cfg.Hosts = append(cfg.Hosts, &mesh.VirtualHost{Name: d, Domains: []string{d}, Routes: []*mesh.Route{{
			Match: mesh.RouteMatch{Path: "/"}, Direct: &mesh.DirectResponse{Status: 200, Body: []byte(name + " " + d)},
		}}})
	}
	c, err := route.Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &Table{cfg, c}
}

// holder is a rig whose requests may be held; what is asked for goes to asked.
func holder(t *testing.T, filters []mesh.Extension) (r *rig, asked chan string) {
	asked = make(chan string, 2*maxHeld)
	r = start(t, setup{
		manager: mesh.HTTPManager{Filters: filters},
		filters: map[string]filter.Builder{"hold": func(any, filter.Deps) (filter.Filter, error) { return holding{}, nil }},
		demands: NewDemands(func(set, host string) bool { asked <- set + " " + host; return true }),
	})
	r.now.Store(&pin{later{tables: map[string]*Table{"routes": tableFor(t, "first", "known.example")}}})
	return r, asked
}

// fetch makes a request on a connection of its own.
func (r *rig) fetch(ctx context.Context, host string) (string, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr+"/", nil)
	if err != nil {
		return "", err
	}
	q.Host = host
	a, err := c.Do(q)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	b := make([]byte, 100)
	n, _ := a.Body.Read(b)
	return fmt.Sprint(a.StatusCode, " ", string(b[:n])), nil
}

// waitHeld waits until so many requests are held.
func (r *rig) waitHeld(n int) {
	r.t.Helper()
	d := r.deps.Demands
	for deadline := time.Now().Add(hang); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		now := d.held
		d.mu.Unlock()
		if now == n {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%d requests are held, want %d", now, n)
		}
	}
}

var holdFilter = []mesh.Extension{{Name: "od", TypeURL: "hold"}}

// A request for a host that is not there is held until what came of it is in force; others are not. One question is asked,
// however many wait.
func TestDemand(t *testing.T) {
	t.Parallel()
	r, asked := holder(t, holdFilter)
	answers := make(chan string, 3)
	var wg sync.WaitGroup
	for _, host := range []string{"New.example", "new.EXAMPLE", "new.example"} {
		wg.Go(func() {
			a, err := r.fetch(t.Context(), host)
			answers <- fmt.Sprint(a, err)
		})
	}
	if got := <-asked; got != "set new.example" {
		t.Errorf("asked for %q", got)
	}
	if a, err := r.fetch(t.Context(), "known.example"); a != "200 first known.example" || err != nil {
		t.Errorf("meanwhile: %q %v", a, err)
	}
	r.waitHeld(3)
	r.now.Store(&pin{later{tables: map[string]*Table{"routes": tableFor(t, "second", "new.example")}}})
	r.deps.Demands.Answered("set", "new.example")
	wg.Wait()
	for range 3 {
		if a := <-answers; a != "200 second new.example<nil>" {
			t.Errorf("held: %q", a)
		}
	}
	if len(asked) != 0 {
		t.Errorf("asked once more for %q", <-asked)
	}
	for _, o := range r.wait(4) {
		if o.Status != 200 || o.Failure != mesh.NoFailure || o.RouteTable == "second" && (o.VirtualHost != "new.example" || o.Versions.Routes != "later") {
			t.Errorf("outcome %+v", o)
		}
	}
}

// What came of it may be nothing: then there is no route.
func TestDemandDenied(t *testing.T) {
	t.Parallel()
	r, asked := holder(t, holdFilter)
	r.deps.Demands.Answered("set", "nobody waits")
	go func() {
		<-asked
		r.deps.Demands.Answered("set", "new.example:8080")
	}()
	if a, err := r.fetch(t.Context(), "new.example:8080"); a != "404 " || err != nil {
		t.Errorf("%q %v", a, err)
	}
	if o := r.wait(1)[0]; o.Failure != mesh.NoRoute || o.Flags != mesh.FlagNR {
		t.Errorf("outcome %+v", o)
	}
}

// A client that goes is not held any longer.
func TestDemandClientGoes(t *testing.T) {
	t.Parallel()
	r, asked := holder(t, holdFilter)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if a, err := r.fetch(ctx, "new.example"); err == nil {
		t.Errorf("answered %q", a)
	}
	if o := r.wait(1)[0]; o.Failure != mesh.DownstreamClosed {
		t.Errorf("outcome %+v", o)
	}
	if d := r.deps.Demands; len(d.waiting)+d.held != 0 {
		t.Errorf("left over: %v", d.waiting)
	}
}

// Nothing is asked for where nothing can come of it.
func TestDemandNot(t *testing.T) {
	t.Parallel()
	off := []mesh.Extension{{Name: "od", TypeURL: "hold", Disabled: true}}
	for name, c := range map[string]struct {
		filters []mesh.Extension
		host    string
		change  func(*mesh.RouteTable)
	}{
		"no filter":         {nil, "new.example", nil},
		"the filter is off": {off, "new.example", nil},
		"off for the table": {holdFilter, "new.example", func(t *mesh.RouteTable) { t.PerFilter = map[string]mesh.Extension{"od": {Disabled: true}} }},
		"no VHDS":           {holdFilter, "new.example", func(t *mesh.RouteTable) { t.HostSet = "" }},
		"no such name":      {holdFilter, "new*example", nil},
		"too long":          {holdFilter, strings.Repeat("x", 300), nil},
	} {
		r, asked := holder(t, c.filters)
		if c.change != nil {
			table := tableFor(t, "first")
			c.change(table.Config)
			r.now.Store(&pin{later{tables: map[string]*Table{"routes": table}}})
		}
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n", c.host)
		b := make([]byte, 12)
		if _, err := conn.Read(b); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 4") {
			t.Errorf("%s: %q %v", name, b, err)
		}
		conn.Close()
		if len(asked) != 0 {
			t.Errorf("%s: asked for %q", name, <-asked)
		}
	}
}

// The requests that wait are bounded, and so are the questions.
func TestDemandsAreBounded(t *testing.T) {
	t.Parallel()
	asked, can := 0, true
	d := NewDemands(func(string, string) bool { asked++; return can })
	var first held
	for i := range maxHeld {
		h := &held{}
		if i == 0 {
			h = &first
		}
		if !d.join(wanted{"set", fmt.Sprint(i / 2)}, h) {
			t.Fatalf("request %d is not held", i)
		}
	}
	if d.join(wanted{"set", "0"}, &held{}) || asked != maxHeld/2 {
		t.Errorf("one more is held; asked %d times", asked)
	}
	d.leave(wanted{"set", "0"}, &first)
	d.leave(wanted{"set", "0"}, &first)
	can = false
	if d.join(wanted{"set", "new"}, &held{}) || len(d.waiting) != maxHeld/2 || d.held != maxHeld-1 {
		t.Errorf("held without a question: %d of %d", d.held, len(d.waiting))
	}
}

// A stream of HTTP/2 that is held does not hold the others of its connection.
func TestDemandHTTP2(t *testing.T) {
	t.Parallel()
	r, asked := holder(t, holdFilter)
	c := r.client2()
	get := func(host string) string {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.addr+"/", nil)
		if err != nil {
			return err.Error()
		}
		q.Host = host
		a, err := c.Do(q)
		if err != nil {
			return err.Error()
		}
		defer a.Body.Close()
		return a.Status
	}
	answer := make(chan string, 1)
	go func() { answer <- get("new.example") }()
	<-asked
	if got := get("known.example"); got != "200 OK" {
		t.Errorf("meanwhile: %s", got)
	}
	r.waitHeld(1)
	r.now.Store(&pin{later{tables: map[string]*Table{"routes": tableFor(t, "second", "new.example")}}})
	r.deps.Demands.Answered("set", "new.example")
	if got := <-answer; got != "200 OK" {
		t.Errorf("held: %s", got)
	}
}
