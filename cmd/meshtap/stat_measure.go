// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// statRow is one line of stat. What cannot be known is nil.
type statRow struct {
	// Name is the service, or the cluster that a proxy calls.
	Name string `json:"name"`
	// SeenBy is "clients" where the numbers are those of the proxies that call it, "itself" where they are those of its own.
	SeenBy string `json:"seen_by"`
	// Meshed is how many of its instances have a proxy that is known and live.
	Meshed      string   `json:"meshed,omitempty"`
	Requests    int64    `json:"requests"`        // requests since the proxies started
	Success     *float64 `json:"success"`         // the share that was not answered with 5xx, 0 to 1
	RPS         float64  `json:"rps"`             // requests in a second
	P50         *float64 `json:"p50_ms"`          // half of the requests took at most so long
	P95         *float64 `json:"p95_ms"`          // 95 of 100 requests took at most so long
	P99         *float64 `json:"p99_ms"`          // 99 of 100 requests took at most so long
	Connections int64    `json:"connections"`     // connections that are open now
	Hosts       *hosts   `json:"hosts,omitempty"` // the members of the cluster, as a caller sees them
	// Circuit is the worst state of its circuits.
	Circuit         string   `json:"circuit,omitempty"`
	EventsPerSecond *float64 `json:"events_per_second"` // events of its own proxies in a second
	Dropped         *int64   `json:"dropped"`           // events that its own proxies lost since they started

	// circuits says how many of how many circuits are in the worst state.
	circuits string
	used     bool
}

// hosts are the members of a cluster, as the caller that has most of them sees it.
type hosts struct {
	Total   int64 `json:"total"`   // all of them
	Healthy int64 `json:"healthy"` // those that get requests
}

// tally collects what several proxies say of one name.
type tally struct {
	delta, total   *counts
	seconds        float64
	circuits       []string
	proxies, live  int
	produced       float64 // events in a second
	dropped        int64
	tap, byClients bool
}

func newTally() *tally {
	return &tally{delta: &counts{steps: map[float64]step{}}, total: &counts{steps: map[float64]step{}}}
}

// measure makes rows of two samples of each proxy: one for each cluster that they call, and one for each service of
// theirs that nobody calls. It is pure.
func measure(before, after []cli.Answer[*sample]) []statRow {
	all := map[string]*tally{}
	of := func(name string) *tally {
		if all[name] == nil {
			all[name] = newTally()
		}
		return all[name]
	}
	for i, a := range after {
		if a.Err != nil {
			if a.Proxy.Service != "" {
				of(a.Proxy.Service).proxies++
			}
			continue
		}
		var old *sample
		if i < len(before) && before[i].Err == nil {
			old = before[i].Value
		}
		for name, c := range a.Value.clusters {
			of(name).called(c, old.cluster(name), a.Value.seconds(old), a.Value.circuits[name])
		}
	}
	for i, a := range after {
		if a.Err == nil {
			var old *sample
			if before[i].Err == nil {
				old = before[i].Value
			}
			of(a.Value.proxy.Service).own(a.Value, old)
		}
	}
	rows := []statRow{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		rows = append(rows, all[name].row(name))
	}
	return rows
}

// cluster returns the counts of a cluster, nil where there are none. s may be nil.
func (s *sample) cluster(name string) *counts {
	if s == nil {
		return nil
	}
	return s.clusters[name]
}

// seconds is the time between two samples.
func (s *sample) seconds(before *sample) float64 {
	if before == nil {
		return 0
	}
	return s.at.Sub(before.at).Seconds()
}

// called adds what one caller says. A cluster that it did not have before has no rate yet.
func (t *tally) called(now, before *counts, seconds float64, circuits []string) {
	t.byClients = true
	t.total.add(now)
	t.circuits = append(t.circuits, circuits...)
	if before != nil && seconds > 0 {
		t.delta.add(now.since(before))
		t.seconds = max(t.seconds, seconds)
	}
}

// own adds what the service's own proxy says.
func (t *tally) own(s, before *sample) {
	t.proxies++
	if s.live {
		t.live++
	}
	if s.tap {
		t.tap = true
		t.dropped += s.dropped
		if seconds := s.seconds(before); seconds > 0 && s.produced >= before.produced {
			t.produced += float64(s.produced-before.produced) / seconds
		}
	}
	if t.byClients {
		return
	}
	t.total.add(s.own)
	if seconds := s.seconds(before); seconds > 0 {
		t.delta.add(s.own.since(before.own))
		t.seconds = max(t.seconds, seconds)
	}
}

func (t *tally) row(name string) statRow {
	r := statRow{
		Name: name, SeenBy: "itself", Connections: t.total.connections, Requests: t.total.completed,
		used: t.total.completed > 0 || t.proxies > 0,
	}
	if t.byClients {
		r.SeenBy = "clients"
		r.Hosts = &hosts{t.total.hosts, t.total.healthy}
	}
	if n := max(t.total.hosts, int64(t.proxies)); n > 0 {
		r.Meshed = fmt.Sprintf("%d/%d", t.live, n)
	}
	if n := t.delta.completed; n > 0 {
		ok := float64(n-min(t.delta.failed, n)) / float64(n)
		r.Success = &ok
		if t.seconds > 0 {
			r.RPS = float64(n) / t.seconds
		}
	}
	r.P50, r.P95, r.P99 = quantile(t.delta.steps, 0.5), quantile(t.delta.steps, 0.95), quantile(t.delta.steps, 0.99)
	r.circuits, r.Circuit = worstCircuit(t.circuits)
	if t.tap {
		r.EventsPerSecond, r.Dropped = &t.produced, &t.dropped
	}
	return r
}

// quantile returns the value below which the share q lies, nil where there are no values. Those of a step are taken as
// spread evenly over it, as internal/stats does.
func quantile(steps map[float64]step, q float64) *float64 {
	var total int64
	for _, s := range steps {
		total += s.count
	}
	rank := max(int64(math.Ceil(q*float64(total))), 1)
	for _, low := range slices.Sorted(maps.Keys(steps)) {
		s := steps[low]
		if rank <= s.count {
			v := low + s.width*float64(rank)/float64(s.count+1)
			return &v
		}
		rank -= s.count
	}
	return nil
}

// worstCircuit returns the worst of the states, with how many circuits are in it where not all are.
func worstCircuit(states []string) (text, worst string) {
	for _, s := range []string{"open", "half_open", "closed"} {
		n := 0
		for _, have := range states {
			if strings.EqualFold(have, s) {
				n++
			}
		}
		switch {
		case n == 0:
		case n == len(states):
			return word(s), s
		default:
			return fmt.Sprintf("%s %d/%d", word(s), n, len(states)), s
		}
	}
	return "", ""
}
