// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// A connection that comes before the configuration of a listener filter is closed, counted and told; the next one after it
// is served, and a listener that is built anew has it at once.
func TestListenerFilterComesByItself(t *testing.T) {
	t.Parallel()
	var now atomic.Pointer[mesh.Extension]
	r := newRig(t, func(c *Config) { c.Configs = func(string) func() *mesh.Extension { return now.Load } })
	l := plain("l", chainOf("raw", toyKind{}))
	inspector := tlsInspector()
	l.FiltersTimeout = time.Hour
	l.Filters = []mesh.ListenerFilter{{Extension: mesh.Extension{Name: "i", Discovery: &mesh.FilterDiscovery{Key: "i", Types: inspector.TypeURL}}}}
	r.apply(l)
	r.dial("l").wantEnd()
	if o := r.waitOutcomes(1)[0]; o.Failure != mesh.InternalError || o.Details != "listener_filter_config_missing" {
		t.Errorf("outcome %+v", o)
	}
	if n := r.stat(l, "extension_config_missing"); n != 1 {
		t.Errorf("%d are counted as missing", n)
	}
	now.Store(&inspector.Extension)
	for range 2 {
		c := r.dial("l")
		c.send("GET /")
		c.want("raw:5")
		again := *l
		r.apply(&again)
	}
}
