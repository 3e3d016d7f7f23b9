// SPDX-License-Identifier: Apache-2.0

package runtimekeys_test

import (
	"testing"

	"github.com/meshtap/meshtap/internal/runtimekeys"
)

func TestOf(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{ // "*" is all clusters, "" no key
		"upstream.healthy_panic_threshold":                              "*",
		"upstream.maintenance_mode.web":                                 "web",
		"upstream.maintenance_mode.a.b":                                 "a.b",
		"upstream.maintenance_mode.":                                    "",
		"outlier_detection.interval_ms":                                 "*",
		"outlier_detection.success_rate_stdev_factor":                   "",
		"health_check.verify_cluster":                                   "*",
		"health_check.interval":                                         "",
		"circuit_breakers.web.default.max_requests":                     "web",
		"circuit_breakers.a.default.b.high.retry_budget.budget_percent": "a.default.b",
		"circuit_breakers.web.low.max_requests":                         "",
		"circuit_breakers.web.default.max_connection_pools":             "",
		"circuit_breakers..default.max_requests":                        "",
		"circuit_breakers.default.max_requests":                         "",
		"max_requests":                                                  "",
	} {
		cluster, ok := runtimekeys.Of(key)
		if ok && cluster == "" {
			cluster = "*"
		}
		if cluster != want || ok != (want != "") {
			t.Errorf("%s: %q, %v, want %q", key, cluster, ok, want)
		}
	}
	if got := runtimekeys.Limit("web", 1, runtimekeys.MaxRetries); got != "circuit_breakers.web.high.max_retries" {
		t.Errorf("a key is %s", got)
	}
}
