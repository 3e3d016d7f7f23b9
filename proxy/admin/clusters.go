// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"github.com/meshtap/meshtap/mesh"
)

func (s *Server) clusters(r *request) (*answer, error) {
	filter, err := r.query.regexp("filter", badFilter)
	if err != nil {
		return nil, err
	}
	if r.query.get("format") == "json" {
		return writeJSON(func(w io.Writer) error { return s.clustersJSON(w, filter) }), nil
	}
	return writeText(func(w *bufio.Writer) error {
		for c := range s.views.Clusters() {
			if filter != nil && !filter.MatchString(c.Name) {
				continue
			}
			if err := clusterText(w, c); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

// clusterText prints one cluster as lines of the form cluster::key::value and cluster::host::key::value.
func clusterText(w *bufio.Writer, c *Cluster) error {
	name := clean(c.Name)
	line := func(key, value string) { w.WriteString(name + "::" + key + "::" + value + "\n") }
	line("observability_name", clean(c.StatName))
	if c.Outlier { // success rates are not watched
		line("outlier::success_rate_average", "-1")
		line("outlier::success_rate_ejection_threshold", "-1")
		line("outlier::local_origin_success_rate_average", "-1")
		line("outlier::local_origin_success_rate_ejection_threshold", "-1")
	}
	for p, prefix := range [...]string{"default_priority::", "high_priority::"} {
		l := &c.Limits[p]
		line(prefix+"max_connections", number(l.Connections))
		line(prefix+"max_pending_requests", number(l.Pending))
		line(prefix+"max_requests", number(l.Requests))
		line(prefix+"max_retries", number(l.Retries))
	}
	line("added_via_api", strconv.FormatBool(c.AddedViaAPI))
	for i := range c.Hosts {
		h := &c.Hosts[i]
		host := clean(h.Address.String()) + "::"
		for _, kv := range h.lines() {
			line(host+kv[0], kv[1])
		}
	}
	_, err := w.Write(nil) // the error of any write before
	return err
}

func number[N uint32 | uint64 | int64](n N) string { return fmt.Sprint(n) }

// lines are a host's keys and values, in Envoy's order.
func (h *Host) lines() [][2]string {
	return [][2]string{
		{"cx_active", number(h.CxActive)},
		{"cx_connect_fail", number(h.CxConnectFail)},
		{"cx_total", number(h.CxTotal)},
		{"rq_active", number(h.RqActive)},
		{"rq_error", number(h.RqError)},
		{"rq_pending_active", number(h.RqPendingActive)},
		{"rq_success", number(h.RqSuccess)},
		{"rq_timeout", number(h.RqTimeout)},
		{"rq_total", number(h.RqTotal)},
		{"hostname", clean(h.Hostname)},
		{"health_flags", h.flags()},
		{"weight", number(h.Weight)},
		{"region", clean(h.Locality.Region)},
		{"zone", clean(h.Locality.Zone)},
		{"sub_zone", clean(h.Locality.SubZone)},
		{"canary", strconv.FormatBool(h.Canary)},
		{"priority", number(h.Priority)},
		{"success_rate", "-1"},
		{"local_origin_success_rate", "-1"},
	}
}

// flags prints what speaks against a host, or "healthy".
func (h *Host) flags() string {
	s := ""
	if h.FailedCheck {
		s += "/failed_active_hc"
	}
	if h.Ejected {
		s += "/failed_outlier_check"
	}
	switch h.Discovered {
	case mesh.HealthUnhealthy, mesh.HealthTimeout:
		s += "/failed_eds_health"
	case mesh.HealthDegraded:
		s += "/degraded_eds_health"
	case mesh.HealthDraining:
		s += "/eds_status_draining"
	}
	if s == "" {
		return "healthy"
	}
	return s
}

// The JSON is envoy.admin.v3.Clusters: numbers of 64 bits are strings, and what has its default is left out.
type clusterJSON struct {
	Name        string     `json:"name"`
	AddedViaAPI bool       `json:"added_via_api,omitempty"`
	Hosts       []hostJSON `json:"host_statuses,omitempty"`
	Breakers    struct {
		Thresholds [2]thresholdsJSON `json:"thresholds"`
	} `json:"circuit_breakers"`
	ObservabilityName string `json:"observability_name"`
}

type thresholdsJSON struct {
	Priority    string `json:"priority,omitempty"`
	Connections uint32 `json:"max_connections"`
	Pending     uint32 `json:"max_pending_requests"`
	Requests    uint32 `json:"max_requests"`
	Retries     uint32 `json:"max_retries"`
}

type hostJSON struct {
	Address  addressJSON `json:"address"`
	Stats    []statJSON  `json:"stats"`
	Health   healthJSON  `json:"health_status"`
	Weight   uint32      `json:"weight,omitempty"`
	Hostname string      `json:"hostname,omitempty"`
	Priority uint32      `json:"priority,omitempty"`
	Locality struct {
		Region  string `json:"region,omitempty"`
		Zone    string `json:"zone,omitempty"`
		SubZone string `json:"sub_zone,omitempty"`
	} `json:"locality"`
}

type statJSON struct {
	Type  string `json:"type,omitempty"`
	Value string `json:"value,omitempty"`
	Name  string `json:"name"`
}

type healthJSON struct {
	FailedCheck bool   `json:"failed_active_health_check,omitempty"`
	Ejected     bool   `json:"failed_outlier_check,omitempty"`
	EDS         string `json:"eds_health_status"`
}

// edsNames are the names of health statuses in Envoy's API; an unknown one counts as healthy.
var edsNames = [...]string{
	mesh.HealthUnknown: "HEALTHY", mesh.HealthHealthy: "HEALTHY", mesh.HealthUnhealthy: "UNHEALTHY",
	mesh.HealthDraining: "DRAINING", mesh.HealthTimeout: "TIMEOUT", mesh.HealthDegraded: "DEGRADED",
}

// clustersJSON writes the clusters one by one.
func (s *Server) clustersJSON(w io.Writer, filter *regexp.Regexp) error {
	between := "{\n \"cluster_statuses\": [\n  "
	for c := range s.views.Clusters() {
		if filter != nil && !filter.MatchString(c.Name) {
			continue
		}
		b, err := json.MarshalIndent(clusterOf(c), "  ", " ")
		if err != nil {
			return fmt.Errorf("admin: write cluster %s: %w", c.Name, err)
		}
		if _, err := w.Write(append([]byte(between), b...)); err != nil {
			return err
		}
		between = ",\n  "
	}
	end := "\n ]\n}\n"
	if between[0] == '{' {
		end = "{\n \"cluster_statuses\": []\n}\n"
	}
	_, err := io.WriteString(w, end)
	return err
}

func clusterOf(c *Cluster) *clusterJSON {
	j := &clusterJSON{Name: c.Name, AddedViaAPI: c.AddedViaAPI, ObservabilityName: c.StatName}
	for p, name := range [...]string{"", "HIGH"} {
		l := &c.Limits[p]
		j.Breakers.Thresholds[p] = thresholdsJSON{name, l.Connections, l.Pending, l.Requests, l.Retries}
	}
	for i := range c.Hosts {
		j.Hosts = append(j.Hosts, hostOf(&c.Hosts[i]))
	}
	return j
}

func hostOf(h *Host) hostJSON {
	counter := func(name string, v uint64) statJSON { return statJSON{"", nonzero(v), name} }
	gauge := func(name string, v int64) statJSON { return statJSON{"GAUGE", nonzero(v), name} }
	j := hostJSON{
		Address: addressOf(h.Address),
		Stats: []statJSON{
			counter("cx_connect_fail", h.CxConnectFail),
			counter("cx_total", h.CxTotal),
			counter("rq_error", h.RqError),
			counter("rq_success", h.RqSuccess),
			counter("rq_timeout", h.RqTimeout),
			counter("rq_total", h.RqTotal),
			gauge("cx_active", h.CxActive),
			gauge("rq_active", h.RqActive),
			gauge("rq_pending_active", h.RqPendingActive),
		},
		Health:   healthJSON{h.FailedCheck, h.Ejected, edsNames[h.Discovered]},
		Weight:   h.Weight,
		Hostname: h.Hostname,
		Priority: h.Priority,
	}
	j.Locality.Region, j.Locality.Zone, j.Locality.SubZone = h.Locality.Region, h.Locality.Zone, h.Locality.SubZone
	return j
}

func nonzero[N uint64 | int64](n N) string {
	if n == 0 {
		return ""
	}
	return number(n)
}
