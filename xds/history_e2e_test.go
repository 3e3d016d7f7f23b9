// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/xds"
)

func (w *moded) history() []xds.Past {
	w.t.Helper()
	list, err := w.m.History(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// isInForce fails where the proxy does not have a state.
func (w *moded) isInForce(when string, s state) {
	w.t.Helper()
	w.proxy.mu.Lock()
	last := w.proxy.last
	w.proxy.mu.Unlock()
	if got := w.inForce(last); got != s.text() {
		w.t.Errorf("%s: in force:\n%s\nwant:\n%s", when, got, s.text())
	}
}

// TestRollback: an older configuration is put back with the endpoints of its clusters, and holds while newer ones are accepted;
// the newest is in force after the release. All of it is shown.
func TestRollback(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"ADS GRPC", "ADS DELTA_GRPC"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := startMode(t, mode)
			first, second, third := one(1, "a", "b"), one(9, "c"), one(20, "d")
			for i, s := range []state{first, second} {
				w.push(fmt.Sprint("v", i+1), s)
				w.untilInForce(s)
			}
			if err := w.m.Release(t.Context()); err == nil || err.Error() != "no snapshot is held" {
				t.Errorf("release of nothing: %v", err)
			}
			if err := w.m.Rollback(t.Context(), "v9"); err == nil || !strings.Contains(err.Error(), `there is no snapshot "v9"`) {
				t.Errorf("rollback to nothing: %v", err)
			}
			was := w.newestOf("v1")
			if err := w.m.Rollback(t.Context(), fmt.Sprint(was.Snapshot)); err != nil {
				t.Fatal(err)
			}
			w.isInForce("after the rollback", first)
			w.degraded(mode, fmt.Sprintf("snapshot %d is held by hand since ", was.Snapshot))
			w.push("v3", third)
			w.acked("v3")
			w.isInForce("with a newer one", first)
			list := w.history()
			i := slices.IndexFunc(list, func(p xds.Past) bool { return p.InForce })
			if i <= 0 || !list[i].Held || list[i].Snapshot != was.Snapshot || list[0].Versions.Clusters != "v3" {
				t.Errorf("history %+v", list)
			}
			if err := w.m.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.untilInForce(third)
			if s, err := w.m.Status(t.Context()); err != nil || s.Held != "" || s.Degraded != "" {
				t.Errorf("status %+v, error %v", s, err)
			}
			if notes := w.notes(); len(notes) != 6 || !strings.Contains(notes[0], "gone back by hand to snapshot") || !strings.Contains(notes[5], "released by hand") {
				t.Errorf("notices %q", notes)
			}
		})
	}
}

// newestOf returns the newest snapshot with a version of clusters and listeners.
func (w *moded) newestOf(version string) xds.Past {
	w.t.Helper()
	for _, p := range w.history() {
		if p.Versions == (mesh.Versions{Listeners: version, Routes: version, Clusters: version}) {
			return p
		}
	}
	w.t.Fatalf("no snapshot of %s in %+v", version, w.history())
	return xds.Past{}
}

// acked waits until clusters and route tables of a version were accepted, and the newest snapshot has them. (A listener that has
// not changed keeps its version in the incremental variant.)
func (w *moded) acked(version string) {
	w.t.Helper()
	there := func() bool {
		v := w.history()[0].Versions
		return v.Routes == version && v.Clusters == version
	}
	for deadline := time.Now().Add(hang); !there(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s was not accepted: %+v", version, w.history())
		}
	}
}

// notes are what observers were told beside of what was accepted.
func (w *moded) notes() (out []string) {
	for _, n := range w.drain() {
		if n.Config != nil && len(n.Config.Errors) > 0 {
			out = append(out, n.Config.Errors[0].Reason)
		}
	}
	return out
}

// TestHistoryIsBounded: the last ones are kept, and the one that is held; each says what it has otherwise.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	w := startMode(t, "ADS GRPC")
	for i := range 40 {
		s := one(1, "a", fmt.Sprint("b", i))
		w.push(fmt.Sprint("v", i), s)
		w.untilInForce(s)
		if i == 3 {
			if err := w.m.Rollback(t.Context(), "v2"); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	for i := 4; i < 40; i++ {
		w.push(fmt.Sprint("v", i), one(1, "a", fmt.Sprint("b", i)))
		w.acked(fmt.Sprint("v", i))
	}
	list := w.history()
	if len(list) != 16 || !list[15].InForce || !list[15].Held || list[15].Versions.Clusters != "v2" {
		t.Errorf("%d snapshots, the oldest %+v", len(list), list[len(list)-1])
	}
	said := 0 // a snapshot may differ by its versions alone
	for _, p := range list {
		if p.All != len(p.Changed) {
			t.Errorf("changes %d %q", p.All, p.Changed)
		}
		said += p.All
	}
	if said == 0 {
		t.Error("no snapshot says what it has otherwise")
	}
}
