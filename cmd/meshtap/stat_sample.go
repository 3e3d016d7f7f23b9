// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// sample is what one proxy counts at one moment.
type sample struct {
	at    time.Time
	proxy cli.Proxy
	live  bool
	// clusters are by their name in metrics; own is what came to the service beside the proxy.
	clusters map[string]*counts
	own      *counts
	// circuits are by the cluster's name in metrics.
	circuits map[string][]string
	produced int64
	// dropped is what the sink that lost most has lost.
	dropped int64
	tap     bool
}

// counts are the numbers of one cluster, or of a service's own listeners.
type counts struct {
	completed, failed, connections int64
	hosts, healthy                 int64
	steps                          map[float64]step
}

// step is one step of a histogram, in milliseconds.
type step struct {
	width float64
	count int64
}

// What is asked of /stats: Envoy's names, and those of the tap.
const (
	statFilter = `^(cluster\..*\.(upstream_rq_(completed|5xx|time)|upstream_cx_active|membership_(total|healthy))|` +
		`http\..*\.(downstream_rq_(completed|5xx|time)|downstream_cx_active)|meshtap\.tap\..*)$`
	statPath = "/stats?format=json&histogram_buckets=detailed&filter="
)

// statsJSON is the answer of /stats, as Envoy writes it.
type statsJSON struct {
	Stats []struct {
		Name       string          `json:"name"`
		Value      json.RawMessage `json:"value"` // a number, or the text of a text readout
		Histograms struct {
			Details []struct {
				Name   string `json:"name"`
				Totals []struct {
					Low   float64 `json:"lower_bound"`
					Width float64 `json:"width"`
					Count int64   `json:"count"`
				} `json:"totals"`
			} `json:"details"`
		} `json:"histograms"`
	} `json:"stats"`
}

// circuitsJSON is the answer of /circuits.
type circuitsJSON struct {
	Circuits []circuitJSON `json:"circuits"`
}

// circuitJSON is one circuit.
type circuitJSON struct {
	Proxy     string    `json:"proxy,omitempty"`     // the proxy that has it
	Cluster   string    `json:"cluster"`             // the cluster that it is in front of
	Host      string    `json:"host,omitempty"`      // the host that it is in front of, where it is not the whole cluster
	State     string    `json:"state"`               // closed, open or half_open
	Reason    string    `json:"reason,omitempty"`    // why it came into this state
	Since     time.Time `json:"since,omitzero"`      // when it came into this state
	NextProbe time.Time `json:"next_probe,omitzero"` // when an open circuit lets a request through to try
	Requests  uint32    `json:"requests"`            // requests that its window holds
	Failures  uint32    `json:"failures"`            // those of them that failed
	Slow      uint32    `json:"slow"`                // those of them that were slow
}

// sampleProxy asks one proxy for its numbers.
func sampleProxy(ctx context.Context, a *cli.Admin) (*sample, error) {
	p, err := nameProxy(ctx, a)
	if err != nil {
		return nil, err
	}
	var answer statsJSON
	if err := a.JSON(ctx, statPath+url.QueryEscape(statFilter), &answer); err != nil {
		return nil, err
	}
	s := newSample(p.Proxy, &answer)
	s.at, s.live = time.Now(), p.State == "LIVE"
	var circuits circuitsJSON
	if err := a.JSON(ctx, "/circuits", &circuits); err != nil {
		return nil, err
	}
	for _, c := range circuits.Circuits {
		name := metrics.StatName(c.Cluster)
		s.circuits[name] = append(s.circuits[name], c.State)
	}
	return s, nil
}

// newSample sorts the numbers of /stats.
func newSample(p cli.Proxy, answer *statsJSON) *sample {
	s := &sample{proxy: p, clusters: map[string]*counts{}, circuits: map[string][]string{}}
	listeners := map[string]*counts{}
	sinks := map[string]int64{}
	for _, m := range answer.Stats {
		var v int64
		if json.Unmarshal(m.Value, &v) == nil {
			s.number(m.Name, v, listeners, sinks)
		}
		for _, h := range m.Histograms.Details {
			c, name := s.group(h.Name, listeners)
			if c == nil || name != "upstream_rq_time" && name != "downstream_rq_time" {
				continue
			}
			for _, t := range h.Totals {
				c.steps[t.Low] = step{t.Width, t.Count}
			}
		}
	}
	for name, c := range s.clusters { // those without this number are families of codes, such as NAME.external
		if c.connections < 0 {
			delete(s.clusters, name)
		}
		c.connections = max(c.connections, 0)
	}
	for _, n := range sinks {
		s.dropped = max(s.dropped, n)
	}
	s.own = ownListeners(listeners)
	return s
}

// number puts one number where it belongs.
func (s *sample) number(name string, v int64, listeners map[string]*counts, sinks map[string]int64) {
	if rest, ok := strings.CutPrefix(name, "meshtap.tap."); ok {
		s.tap = true
		switch {
		case rest == "produced":
			s.produced = v
		case strings.Contains(rest, ".dropped_"): // a sink's; it contains the tap's own
			sink, _, _ := strings.Cut(rest, ".dropped_")
			sinks[sink] += v
		}
		return
	}
	c, field := s.group(name, listeners)
	if c == nil {
		return
	}
	switch field {
	case "upstream_rq_completed", "downstream_rq_completed":
		c.completed = v
	case "upstream_rq_5xx", "downstream_rq_5xx":
		c.failed = v
	case "upstream_cx_active", "downstream_cx_active":
		c.connections = v
	case "membership_total":
		c.hosts = v
	case "membership_healthy":
		c.healthy = v
	}
}

// group returns the counts that a name belongs to, and the rest of the name; nil where there are none.
func (s *sample) group(name string, listeners map[string]*counts) (*counts, string) {
	at := strings.LastIndexByte(name, '.')
	in, rest := s.clusters, ""
	if r, ok := strings.CutPrefix(name, "cluster."); ok {
		rest = r
	} else if r, ok := strings.CutPrefix(name, "http."); ok {
		in, rest = listeners, r
	}
	if rest == "" || len(name)-len(rest) > at {
		return nil, ""
	}
	group := name[len(name)-len(rest) : at]
	c := in[group]
	if c == nil {
		c = &counts{connections: -1, steps: map[float64]step{}}
		in[group] = c
	}
	return c, name[at+1:]
}

// ownListeners adds up what came to the service itself. Where prefixes tell inbound from outbound, only inbound counts:
// what the service itself calls is counted by its clusters.
func ownListeners(listeners map[string]*counts) *counts {
	inbound := map[string]*counts{}
	for name, c := range listeners {
		if strings.Contains(name, "inbound") || strings.Contains(name, "ingress") {
			inbound[name] = c
		}
	}
	if len(inbound) == 0 {
		inbound = listeners
	}
	sum := &counts{steps: map[float64]step{}}
	for name, c := range inbound {
		if name != "admin" && name != "async-client" {
			sum.add(c)
		}
	}
	return sum
}

// add adds the numbers of another.
func (c *counts) add(o *counts) {
	c.completed += o.completed
	c.failed += o.failed
	c.connections += max(o.connections, 0)
	c.hosts = max(c.hosts, o.hosts)
	c.healthy = max(c.healthy, o.healthy)
	for low, s := range o.steps {
		c.steps[low] = step{s.width, c.steps[low].count + s.count}
	}
}

// since returns what was counted since another sample. Where a number is less than before, the proxy began anew, and all
// of it is since then.
func (c *counts) since(before *counts) *counts {
	if before == nil || before.completed > c.completed {
		return c
	}
	d := *c
	d.completed, d.failed = c.completed-before.completed, c.failed-before.failed
	d.steps = map[float64]step{}
	for low, s := range c.steps {
		if n := s.count - before.steps[low].count; n > 0 {
			d.steps[low] = step{s.width, n}
		}
	}
	return &d
}
