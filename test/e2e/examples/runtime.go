// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"fmt"
	"strings"
	"testing"
)

// turnedUp: a share of the runtime that is changed through the administration interface counts from the next request on, and
// the statistics have the names that the configuration gives them.
func turnedUp(t *testing.T, r *Rig) {
	for _, tc := range []struct{ set, origin string }{
		{"", "a "}, {"canary.share=100", "b "}, {"canary.share=", "a "},
	} {
		if tc.set != "" {
			r.Admin.Post("/runtime_modify?" + tc.set)
		}
		for range 5 {
			if a := r.Do(Request{Name: "share " + tc.set}); !strings.HasPrefix(a.Body, tc.origin) {
				t.Errorf("after %q: from %q, want from %s", tc.set, a.Body, tc.origin)
			}
		}
	}
	for _, tc := range []struct {
		limit  string // circuit_breakers.v1.default.max_requests, "" for none
		shown  string
		status int
	}{{"0", "0", 503}, {"", "1024", 200}} {
		r.Admin.Post("/runtime_modify?circuit_breakers.v1.default.max_requests=" + tc.limit)
		r.Admin.Until("/clusters", func(_ int, body string) bool {
			return strings.Contains(body, "v1::default_priority::max_requests::"+tc.shown+"\n")
		})
		if a := r.Do(Request{Name: "limit " + tc.limit}); a.Status != tc.status {
			t.Errorf("with at most %q requests: status %d, want %d", tc.limit, a.Status, tc.status)
		}
	}
	for _, tc := range []struct {
		share  string // upstream.maintenance_mode.v1, "" for none
		status int
	}{{"100", 503}, {"", 200}} {
		r.Admin.Post("/runtime_modify?upstream.maintenance_mode.v1=" + tc.share)
		var a Answer
		r.Admin.Until("/ready", func(int, string) bool { // the change may take a moment
			a = r.Do(Request{Name: "maintenance"})
			return a.Status == tc.status
		})
		if tc.status == 503 && (a.Body != "maintenance mode" || a.Header.Get("x-envoy-overloaded") != "true") {
			t.Errorf("in maintenance: %q, %v", a.Body, a.Header)
		}
	}
	var runtime struct {
		Layers  []string
		Entries map[string]struct {
			LayerValues []string `json:"layer_values"`
			FinalValue  string   `json:"final_value"`
		}
		WithoutEffect []string `json:"without_effect"`
		Unread        []string
	}
	r.Admin.Post("/runtime_modify?cannary.share=1&upstream.maintenance_mode.v1=0&upstream.maintenance_mode.v3=0&upstream.use_http3=0")
	r.Admin.JSON("/runtime", &runtime)
	if told := fmt.Sprint(runtime.WithoutEffect, runtime.Unread); !r.Envoy && told != "[upstream.use_http3] [cannary.share upstream.maintenance_mode.v3]" {
		t.Errorf("the keys that change nothing: %s", told)
	}
	if e := runtime.Entries["canary.share"]; strings.Join(runtime.Layers, " ") != "static admin" || e.FinalValue != "0" || len(e.LayerValues) != 2 {
		t.Errorf("runtime: %+v", runtime)
	}
	text := r.Admin.Get("/stats/prometheus")
	for _, series := range []string{
		`envoy_http_downstream_rq{class="2xx",prefix="ingress",zone="west"}`,
		`envoy_listener_`, `listener_prefix="ingress"`, `envoy_http_downstream_rq_time_bucket{prefix="ingress",zone="west",le="100"}`,
	} {
		if !strings.Contains(sortedLabels(text), series) {
			t.Errorf("there is no %s", series)
		}
	}
	if strings.Contains(text, "downstream_cx_") {
		t.Error("what is left out is there")
	}
}

// sortedLabels puts the labels of each series in order: Envoy has them in another one.
func sortedLabels(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		name, rest, found := strings.Cut(line, "{")
		labels, value, closed := strings.Cut(rest, "}")
		if !found || !closed {
			continue
		}
		list := strings.Split(labels, ",")
		less := func(a, b string) bool { // "le" last
			return !strings.HasPrefix(a, "le=") && (strings.HasPrefix(b, "le=") || a < b)
		}
		for j := range list {
			for k := j; k > 0 && less(list[k], list[k-1]); k-- {
				list[k], list[k-1] = list[k-1], list[k]
			}
		}
		lines[i] = name + "{" + strings.Join(list, ",") + "}" + value
	}
	return strings.Join(lines, "\n")
}
