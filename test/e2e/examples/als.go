// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"os"
	"slices"
	"testing"

	accesslogdata "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/test/e2e/origin"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// requestEntries returns the entries of a log of requests.
func requestEntries(messages []origin.Message, log string) (out []*accesslogdata.HTTPAccessLogEntry) {
	for _, m := range messages {
		if m.Log == log {
			out = append(out, m.GetHttpLogs().GetLogEntry()...)
		}
	}
	return out
}

func connectionEntries(messages []origin.Message) (out []*accesslogdata.TCPAccessLogEntry) {
	for _, m := range messages {
		out = append(out, m.GetTcpLogs().GetLogEntry()...)
	}
	return out
}

// serviceRequests are those that the entries are about.
var serviceRequests = []Request{
	{Name: "one", Path: "/one?q=1", Header: []string{"x-user: me", "referer: http://here/"}},
	{Name: "two", Path: "/two", Method: "POST", Body: "hello", Header: []string{"x-do: status=500"}},
	{Name: "three", Path: "/three", Method: "PURGE"},
}

// serviceLogs makes the requests and a connection, and returns the entries.
func (r *Rig) serviceLogs(t *testing.T) (requests, failures []*accesslogdata.HTTPAccessLogEntry, connections []*accesslogdata.TCPAccessLogEntry) {
	for i, q := range serviceRequests {
		r.Do(q)
		r.Collector.Until(func(m []origin.Message) bool { return len(requestEntries(m, "requests")) == i+1 })
	}
	c := r.Dial("tcp")
	greeted(t, c)
	c.Close()
	messages := r.Collector.Until(func(m []origin.Message) bool {
		return len(requestEntries(m, "failures")) == 1 && len(connectionEntries(m)) == 1
	})
	for _, m := range messages {
		id := m.GetIdentifier()
		if m.First != (id != nil) || m.First && (id.GetNode().GetId() != "sidecar-1" || id.GetNode().GetCluster() != "web") {
			t.Errorf("the first message is %v, and the identifier %v", m.First, id)
		}
		if m.Log == "requests" && !slices.Equal(m.Header.Get("x-tenant"), []string{"shop"}) {
			t.Errorf("the stream began with %v", m.Header)
		}
	}
	return requestEntries(messages, "requests"), requestEntries(messages, "failures"), connectionEntries(messages)
}

// ServiceEntries returns the entries that the access log service of als.yaml gets, the requests' before the connection's.
func (r *Rig) ServiceEntries(t *testing.T) ([]*accesslogdata.HTTPAccessLogEntry, *accesslogdata.TCPAccessLogEntry) {
	requests, _, connections := r.serviceLogs(t)
	return requests, connections[0]
}

func accessLogService(t *testing.T, r *Rig) {
	requests, failures, connections := r.serviceLogs(t)
	for i, want := range []struct {
		path, original, user string
		status               uint32
	}{{"/app/one?q=1", "/one?q=1", "me", 200}, {"/app/two", "/two", "nobody", 500}, {"/app/three", "/three", "nobody", 200}} {
		e := requests[i]
		q, a, c := e.GetRequest(), e.GetResponse(), e.GetCommonProperties()
		if q.GetPath() != want.path || q.GetOriginalPath() != want.original || c.GetCustomTags()["user"] != want.user ||
			c.GetCustomTags()["stage"] != "test" || a.GetResponseCode().GetValue() != want.status || a.GetResponseHeaders()["x-origin"] != "a" {
			t.Errorf("entry %d: %v", i, e)
		}
	}
	if got := failures[0].GetRequest().GetPath(); got != "/app/two" {
		t.Errorf("the failure is %s", got)
	}
	if c := connections[0]; c.GetConnectionProperties().GetReceivedBytes() != 21 || c.GetCommonProperties().GetUpstreamCluster() != "database" {
		t.Errorf("%v", c)
	}
	r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["access_logs.grpc_access_log.grpc_entries_flushed"] == 5 })
	if r.Envoy {
		return
	}
	// What waits at the end is sent.
	c := r.Dial("tcp")
	greeted(t, c)
	c.Close()
	r.Admin.UntilStats(func(s sidecar.Stats) bool { return s["access_logs.grpc_access_log.logs_written"] == 6 })
	r.Proxy.Signal(os.Interrupt)
	if code := r.Proxy.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	r.Collector.Until(func(m []origin.Message) bool { return len(connectionEntries(m)) == 2 })
}

// tapAccessLogService: the service gets an entry for each request, with the event in it.
func tapAccessLogService(t *testing.T, r *Rig) {
	want := r.Delivered("collector")
	var got []string
	for _, e := range requestEntries(r.Collector.Until(func(m []origin.Message) bool { return len(requestEntries(m, "events")) >= len(want) }), "events") {
		var ev event.Event
		if err := ev.Decode(e.GetCommonProperties().GetFilterStateObjects()["io.meshtap.event"].GetValue()); err != nil {
			t.Fatal(err)
		}
		method := e.GetRequest().GetRequestMethod().String()
		if string(ev.Texts[event.Method]) != method {
			t.Errorf("an entry is of %s, and its event of %s", method, ev.Texts[event.Method])
		}
		got = append(got, method)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the service has heard of %q, want %q", got, want)
	}
}
