// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

// A filter whose configuration comes by itself is missing before, is the default where there is one, and is whatever came last
// from the next look on.
func TestDiscovered(t *testing.T) {
	t.Parallel()
	var now atomic.Pointer[mesh.Extension]
	configs := func(key string) func() *mesh.Extension {
		if key != "k" {
			t.Errorf("asked for %q", key)
		}
		return now.Load
	}
	ext := func(f Filter) *mesh.Extension { return &mesh.Extension{TypeURL: "test", Config: f} }
	built := 0
	builds := map[string]Build{"test": func(c any) Filter { built++; return c.(Filter) }, typeOriginalDst: func(any) Filter { return Filter{Opener: originalDst{}} }}
	compile := func(d mesh.FilterDiscovery) *Filters {
		t.Helper()
		d.Key = "k"
		f, err := Compile([]mesh.ListenerFilter{{Extension: mesh.Extension{Name: "f", Discovery: &d}}}, builds, configs)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	run := func(f *Filters, peeked string, at *int32) (Verdict, bool) {
		var info ConnInfo
		v := f.Run(at, -1, []byte(peeked), false, &info)
		return v, info.Redirected()
	}
	first := func(f *Filters, peeked string) Verdict {
		at := int32(0)
		v, _ := run(f, peeked, &at)
		return v
	}

	f := compile(mesh.FilterDiscovery{Types: "test"})
	if v := first(f, "x"); v != Missing || f.Limit() != MaxClientHello || f.FindsOriginalDst() {
		t.Errorf("before it came: %d, limit %d", v, f.Limit())
	}
	withDefault := compile(mesh.FilterDiscovery{Types: "test", Default: ext(Filter{Peeker: &script{limit: 1, say: needs(1)}})})
	if v := first(withDefault, "x"); v != Done {
		t.Errorf("with a default: %d", v)
	}
	now.Store(&mesh.Extension{TypeURL: "other"})
	if v := first(f, "x"); v != Missing {
		t.Errorf("with what others named: %d", v)
	}
	now.Store(ext(Filter{Peeker: &script{limit: 3, say: needs(3)}}))
	at := int32(0)
	for _, peeked := range []string{"", "x", "xy"} {
		if v, _ := run(f, peeked, &at); v != More {
			t.Errorf("%q: %d, want more", peeked, v)
		}
	}
	if v := first(withDefault, "x"); v != More {
		t.Errorf("in place of the default: %d", v)
	}
	before := built
	now.Store(ext(Filter{Opener: redirect{netip.MustParseAddrPort("10.0.0.1:80")}}))
	if v, redirected := run(f, "xy", &at); v != Done || !redirected || at != 1 {
		t.Errorf("one that changed under a connection: %d at %d, redirected %v", v, at, redirected)
	}
	first(f, "x")
	if built != before+1 {
		t.Errorf("built %d times for one configuration", built-before)
	}
	if d := compile(mesh.FilterDiscovery{Types: "test " + typeOriginalDst}); !d.FindsOriginalDst() || d.WithOriginalDst() != d {
		t.Error("a filter that may find the original destination is not taken for one")
	}
	_, err := Compile([]mesh.ListenerFilter{{Extension: mesh.Extension{Discovery: &mesh.FilterDiscovery{Key: "k", Types: "test x.Y"}}}}, builds, configs)
	if err == nil || !strings.Contains(err.Error(), `listener_filters[0]: there is no listener filter of type "x.Y"`) {
		t.Errorf("of an unknown type: %v", err)
	}
}
