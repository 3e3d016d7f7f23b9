// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/health"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// values is a runtime.
type values struct{ keys sync.Map }

func (*values) Generation() uint64                         { return 0 }
func (*values) Double(_ string, otherwise float64) float64 { return otherwise }

func (v *values) Integer(name string, otherwise uint64) uint64 {
	if n, ok := v.keys.Load(name); ok {
		return n.(uint64)
	}
	return otherwise
}

// TestBounds: the runtime bounds each wait from the next one on; the shortest one counts where the two contradict.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, cfg := &values{}, slowCheck()
		cfg.InitialJitter = 10 * time.Second
		d := deps()
		d.Runtime, d.Random = v, func() uint64 { return uint64(9 * time.Second) }
		d.Dial = dials(answers(status(200)))
		v.keys.Store("health_check.max_interval", uint64(3000))
		l, c := begin(cfg, health.Target{Traffic: true}, d)
		time.Sleep(7 * time.Second)
		v.keys.Store("health_check.min_interval", uint64(20_000))
		time.Sleep(30 * time.Second)
		v.keys.Clear()
		time.Sleep(20 * time.Second)
		c.Stop()
		l.check(t, "3s healthy", "6s healthy", "9s healthy", "29s healthy", "49s healthy", "54s healthy")
	})
}

// TestNameDoesNotCount: the runtime can turn the comparison of names off.
func TestNameDoesNotCount(t *testing.T) {
	t.Parallel()
	for share, want := range map[uint64]string{100: "0s unhealthy, the service name does not match", 0: "0s healthy"} {
		synctest.Test(t, func(t *testing.T) {
			v, cfg := &values{}, slowCheck()
			cfg.HTTP.ServiceName = &mesh.StringMatch{Value: "shop"}
			v.keys.Store("health_check.verify_cluster", share)
			d := deps()
			d.Runtime, d.Dial = v, dials(answers(status(200)))
			l, c := begin(cfg, health.Target{}, d)
			synctest.Wait()
			c.Stop()
			l.check(t, want)
			if n := d.Stats.Value(metrics.HealthCheckVerifyCluster); n != int64(share/100) {
				t.Errorf("%d names were compared", n)
			}
		})
	}
}
