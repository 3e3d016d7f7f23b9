// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"testing"
	"time"

	"github.com/meshtap/meshtap/test/fakexds"
)

// TestDrippingControlPlane (F15): start-up ends with the fetch timeout where the control plane sends a byte a second, and
// where it accepts the connection and never says anything. The same in service leaves in force what is there, and what was
// held back goes into force when it has come.
func TestDrippingControlPlane(t *testing.T) {
	t.Parallel()
	for name, every := range map[string]time.Duration{"a byte a second": time.Second, "never": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp := fakexds.Start(t)
			serve(cp, "1", "a")
			cp.Drip(every)
			began := time.Now()
			w := startAt(t, cp, time.Second)
			w.ready()
			t.Logf("figure: ready after %v, with a fetch timeout of 1s", time.Since(began).Round(time.Millisecond))
			if s, err := w.m.Status(t.Context()); err != nil || s.Degraded == "" {
				t.Errorf("status %+v, error %v; want it to say what is missing", s, err)
			}
			cp.Drip(0)
			w.until("routes to a", serves("a"))
			cp.Drip(every)
			serve(cp, "2", "b")
			select {
			case s := <-w.proxy.applied:
				if serves("b")(s) {
					t.Error("it came at once: the control plane does not drip")
				}
			case <-time.After(2 * time.Second): // some bytes
			}
			w.proxy.mu.Lock()
			if last := w.proxy.last; last.Clusters["a"] == nil || !serves("a")(last) {
				t.Error("what was in force has gone")
			}
			w.proxy.mu.Unlock()
			cp.Drip(0)
			w.until("routes to b", serves("b"))
		})
	}
}
