// SPDX-License-Identifier: Apache-2.0

package runtimekeys_test

import (
	"testing"

	"github.com/meshtap/meshtap/internal/runtimekeys"
)

func TestRead(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]bool{
		"upstream.healthy_panic_threshold":                              true,
		"upstream.maintenance_mode.web":                                 false,
		"outlier_detection.interval_ms":                                 true,
		"outlier_detection.success_rate_stdev_factor":                   false,
		"circuit_breakers.web.default.max_requests":                     true,
		"circuit_breakers.a.default.b.high.retry_budget.budget_percent": true,
		"circuit_breakers.web.low.max_requests":                         false,
		"circuit_breakers.web.default.max_connection_pools":             false,
		"circuit_breakers..default.max_requests":                        false,
		"circuit_breakers.default.max_requests":                         false,
		"max_requests":                                                  false,
	} {
		if got := runtimekeys.Read(key); got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
	if got := runtimekeys.Limit("web", 1, runtimekeys.MaxRetries); got != "circuit_breakers.web.high.max_retries" {
		t.Errorf("a key is %s", got)
	}
}
