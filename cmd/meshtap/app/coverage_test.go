// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/meshtap/meshtap/internal/stats"
)

// TestCoverage: fields that change nothing are listed, with their reasons, as long as what holds them is in force: those of the
// bootstrap with their line, those of resources with their version. Both are counted.
func TestCoverage(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "cds.yaml")
	const cds = `
version_info: "7"
resources:
- {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: plain}
- {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: looked-up, type: STRICT_DNS, dns_jitter: 1s,
   per_connection_buffer_high_watermark_timeout: 1s}
`
	if err := os.WriteFile(file, []byte(cds), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _, err := build(t, fmt.Sprintf(`
node: {id: one, cluster: tests}
enable_dispatcher_stats: true
dynamic_resources: {cds_config: {path_config_source: {path: %s}}}
static_resources:
  clusters:
  - {name: own, type: STRICT_DNS, dns_jitter: 1s}
`, file))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	<-a.manager.Ready()
	c, err := a.coverage()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, b := range c.Bootstrap {
		got += fmt.Sprintf("%d %s: %s\n", b.Line, b.Path, b.What)
	}
	for _, r := range c.Resources {
		got += fmt.Sprintf("%s %s %s %s\n", r.Type, r.Name, r.Version, r.Source)
		for _, f := range r.Fields {
			got += fmt.Sprintf("  %s: %s\n", f.Path, f.Why)
		}
	}
	const why = "no effect: "
	want := "0 : there is no listener and none can come, so nothing will be served\n" +
		"3 enable_dispatcher_stats: enable_dispatcher_stats: " + why + "it is Envoy's own housekeeping\n" +
		"7 static_resources.clusters[0].dns_jitter: clusters[0].dns_jitter: " + why + "look-ups are made without jitter\n" +
		"cluster looked-up 7 file " + file + "\n" +
		"  dns_jitter: " + why + "look-ups are made without jitter\n" +
		"  per_connection_buffer_high_watermark_timeout: " + why + "a full buffer stops reading until it is written\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	counted := map[string]int64{}
	a.stats.Each(func(k stats.Kind) bool { return k == stats.Counter }, func(m *stats.Metric) bool {
		counted[string(m.AppendName(nil))] = m.Value
		return true
	})
	if static, dynamic := counted["meshtap_config_static_fields_without_effect_total"], counted["meshtap_config_dynamic_fields_without_effect_total"]; static != 1 || dynamic != 2 {
		t.Errorf("%d static and %d dynamic fields were counted, want 1 and 2", static, dynamic)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
