// SPDX-License-Identifier: Apache-2.0

package health

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/mesh"
)

var rewrite = flag.Bool("rewrite", false, "write what the code does into testdata")

var verdictNames = []string{passed: "pass", degraded: "degraded", refused: "refuse", retriable: "retriable", unreachable: "unreachable"}

// TestStateScripts runs testdata/state. An archive has a config of lines "NAME VALUE" named as in Envoy, with "healthy"
// and "traffic" for a host that begins so, and a timeline of verdicts, or "traffic" for the cluster's first use. Each
// line begins with the time at which it happens and is followed by " -> " and what it does.
func TestStateScripts(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/state/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			a := txtar.Parse(want)
			a.Files[1].Data = runTimeline(t, string(a.Files[0].Data), string(a.Files[1].Data))
			got := txtar.Format(a)
			if *rewrite {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if string(got) != string(want) {
				t.Errorf("%s differs; look at what go test -rewrite changes. Got:\n%s", path, got)
			}
		})
	}
}

func runTimeline(t *testing.T, config, timeline string) []byte {
	s, traffic := parseState(t, config)
	var out strings.Builder
	var now time.Duration
	for line := range strings.Lines(timeline) {
		command, _, _ := strings.Cut(strings.TrimSpace(line), " -> ")
		if _, after, timed := strings.Cut(command, ": "); timed {
			command = after
		}
		fmt.Fprintf(&out, "%v: %s", now, command)
		if command == "traffic" {
			traffic = true
			out.WriteByte('\n')
			continue
		}
		v := slices.Index(verdictNames, command)
		if v < 0 {
			t.Fatalf("what is %q?", command)
		}
		changed, first := s.take(verdict(v))
		wait := s.wait(traffic, [2]uint64{})
		now += wait
		fmt.Fprintf(&out, " -> %s, next in %v\n", describe(s, changed, first), wait)
	}
	return []byte(out.String())
}

func describe(s *state, changed, first bool) string {
	text := "unhealthy"
	if s.healthy {
		text = "healthy"
		if s.degraded {
			text = "degraded"
		}
	}
	if first {
		text = "first " + text
	}
	if changed {
		text += " (changed)"
	}
	return text
}

func parseState(t *testing.T, config string) (s *state, traffic bool) {
	c := &mesh.HealthCheck{HealthyThreshold: 1, UnhealthyThreshold: 1}
	s = &state{cfg: c}
	durations := map[string]*time.Duration{
		"interval": &c.Interval, "no_traffic_interval": &c.NoTrafficInterval, "unhealthy_interval": &c.UnhealthyInterval,
		"unhealthy_edge_interval": &c.UnhealthyEdgeInterval, "healthy_edge_interval": &c.HealthyEdgeInterval,
	}
	thresholds := map[string]*uint32{"healthy_threshold": &c.HealthyThreshold, "unhealthy_threshold": &c.UnhealthyThreshold}
	for line := range strings.Lines(config) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch {
		case name == "healthy":
			s.healthy = true
		case name == "traffic":
			traffic = true
		case durations[name] != nil:
			*durations[name], err = time.ParseDuration(value)
		case thresholds[name] != nil:
			var n uint64
			n, err = strconv.ParseUint(value, 10, 32)
			*thresholds[name] = uint32(n)
		default:
			t.Fatalf("what is %q?", line)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s, traffic
}

// TestInterval is the table of the intervals in Envoy's documentation, and their defaults.
func TestInterval(t *testing.T) {
	t.Parallel()
	const interval, noTraffic, unhealthy, unhealthyEdge, healthyEdge = 1, 2, 3, 4, 5
	all := mesh.HealthCheck{
		Interval: interval, NoTrafficInterval: noTraffic, UnhealthyInterval: unhealthy, UnhealthyEdgeInterval: unhealthyEdge,
		HealthyEdgeInterval: healthyEdge, HealthyThreshold: 2, UnhealthyThreshold: 2,
	}
	without := func(change func(*mesh.HealthCheck)) mesh.HealthCheck {
		c := all
		change(&c)
		return c
	}
	for _, tc := range []struct {
		name    string
		cfg     mesh.HealthCheck
		healthy bool
		last    verdict
		idle    bool
		want    time.Duration
	}{
		{"healthy stays", all, true, passed, false, interval},
		{"healthy fails once", all, true, unreachable, false, unhealthyEdge},
		{"unhealthy stays", all, false, unreachable, false, unhealthy},
		{"unhealthy passes once", all, false, passed, false, healthyEdge},
		{"healthy is refused", all, true, refused, false, unhealthy},
		{"no traffic, healthy", all, true, passed, true, noTraffic},
		{"no traffic, unhealthy", all, false, unreachable, true, noTraffic},
		{"no traffic, edge", all, true, unreachable, true, noTraffic},
		{
			"no traffic interval missing", without(func(c *mesh.HealthCheck) { c.NoTrafficInterval = 0 }),
			true, passed, true, interval,
		},
		{
			"unhealthy interval missing", without(func(c *mesh.HealthCheck) { c.UnhealthyInterval = 0 }),
			false, unreachable, false, interval,
		},
		{
			"unhealthy edge interval missing", without(func(c *mesh.HealthCheck) { c.UnhealthyEdgeInterval = 0 }),
			true, unreachable, false, unhealthy,
		},
		{
			"both unhealthy intervals missing",
			without(func(c *mesh.HealthCheck) { c.UnhealthyInterval, c.UnhealthyEdgeInterval = 0, 0 }),
			true, unreachable, false, interval,
		},
		{
			"healthy edge interval missing", without(func(c *mesh.HealthCheck) { c.HealthyEdgeInterval = 0 }),
			false, passed, false, interval,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := &state{cfg: &tc.cfg, healthy: tc.healthy, checked: true}
			s.take(tc.last)
			if got := s.interval(!tc.idle); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	const sec, ms = time.Second, time.Millisecond
	for _, tc := range []struct {
		name   string
		cfg    mesh.HealthCheck
		random [2]uint64
		want   time.Duration
	}{
		{"no jitter", mesh.HealthCheck{Interval: sec}, [2]uint64{99, 99}, sec},
		{"percent, least", mesh.HealthCheck{Interval: sec, IntervalJitterPct: 20}, [2]uint64{0, 7}, sec},
		{"percent, some", mesh.HealthCheck{Interval: sec, IntervalJitterPct: 20}, [2]uint64{uint64(50 * ms), 7}, sec + 50*ms},
		{"percent, wraps", mesh.HealthCheck{Interval: sec, IntervalJitterPct: 20}, [2]uint64{uint64(201 * ms), 7}, sec + ms},
		{"jitter", mesh.HealthCheck{Interval: sec, IntervalJitter: 10 * ms}, [2]uint64{7, uint64(3 * ms)}, sec + 3*ms},
		{"jitter wraps", mesh.HealthCheck{Interval: sec, IntervalJitter: 10 * ms}, [2]uint64{7, uint64(13 * ms)}, sec + 3*ms},
		{
			"both", mesh.HealthCheck{Interval: sec, IntervalJitter: 10 * ms, IntervalJitterPct: 100},
			[2]uint64{uint64(500 * ms), uint64(3 * ms)}, sec + 503*ms,
		},
		{"never 0", mesh.HealthCheck{}, [2]uint64{}, minWait},
		{
			"out of range", mesh.HealthCheck{Interval: math.MaxInt64, IntervalJitter: math.MaxInt64, IntervalJitterPct: math.MaxUint32},
			[2]uint64{uint64(maxWait) - 1, uint64(maxWait) - 1}, 3*maxWait - 2,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := &state{cfg: &tc.cfg, healthy: true}
			if got := s.wait(true, tc.random); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestFirstWait(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		jitter time.Duration
		random uint64
		want   time.Duration
	}{
		{0, 99, 0},
		{time.Second, uint64(3 * time.Millisecond), 3 * time.Millisecond},
		{time.Second, uint64(time.Second) + uint64(3*time.Millisecond), 3 * time.Millisecond},
		{time.Second, 0, minWait},
	} {
		if got := firstWait(&mesh.HealthCheck{InitialJitter: tc.jitter}, tc.random); got != tc.want {
			t.Errorf("jitter %v, random %d: got %v, want %v", tc.jitter, tc.random, got, tc.want)
		}
	}
}

// TestThresholdOfZero: 0 is taken as 1.
func TestThresholdOfZero(t *testing.T) {
	t.Parallel()
	s := &state{cfg: &mesh.HealthCheck{}, healthy: true, checked: true}
	if s.take(unreachable); s.healthy {
		t.Error("a failure left the host healthy")
	}
	if s.take(passed); !s.healthy {
		t.Error("a success left the host unhealthy")
	}
}

// model keeps health in the terms of Envoy: flags, a counter for each direction, and a transition.
type model struct {
	cfg                    *mesh.HealthCheck
	failedFlag             bool
	degradedFlag           bool
	numHealthy, numFailing uint32
	checked                bool
}

func (m *model) take(v verdict) (changed bool, interval time.Duration) {
	const unchanged, pending, turned = 0, 1, 2
	transition := unchanged
	first := !m.checked
	m.checked = true
	if v != passed && v != degraded {
		m.numHealthy = 0
		if !m.failedFlag {
			m.numFailing++
			if v == refused || m.numFailing == m.cfg.UnhealthyThreshold {
				m.failedFlag, transition = true, turned
			} else {
				transition = pending
			}
		}
		if transition == pending {
			return false, m.cfg.UnhealthyEdgeInterval
		}
		return transition == turned, m.cfg.UnhealthyInterval
	}
	m.numFailing = 0
	if m.failedFlag {
		m.numHealthy++
		if first || m.numHealthy == m.cfg.HealthyThreshold {
			m.failedFlag, transition = false, turned
		} else {
			transition = pending
		}
	}
	if (v == degraded) != m.degradedFlag {
		m.degradedFlag = v == degraded
		if transition == unchanged {
			transition = turned
		}
	}
	if transition == pending {
		return false, m.cfg.HealthyEdgeInterval
	}
	return transition == turned, m.cfg.Interval
}

// FuzzState runs verdicts through the state and through the model.
func FuzzState(f *testing.F) {
	f.Add(uint8(2), uint8(3), false, []byte{0, 4, 4, 4, 0, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, healthyThreshold, unhealthyThreshold uint8, healthy bool, verdicts []byte) {
		compare(t, healthyThreshold, unhealthyThreshold, healthy, verdicts)
	})
}

func TestStateAgainstModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		verdicts := make([]byte, 40)
		for i := range verdicts {
			verdicts[i] = byte(r.Uint32())
		}
		compare(t, uint8(r.Uint32N(5)), uint8(r.Uint32N(5)), r.Uint32N(2) == 0, verdicts)
	}
}

func compare(t *testing.T, healthyThreshold, unhealthyThreshold uint8, healthy bool, verdicts []byte) {
	cfg := &mesh.HealthCheck{
		Interval: 1, UnhealthyInterval: 2, UnhealthyEdgeInterval: 3, HealthyEdgeInterval: 4,
		HealthyThreshold: max(uint32(healthyThreshold), 1), UnhealthyThreshold: max(uint32(unhealthyThreshold), 1),
	}
	s, m := &state{cfg: cfg, healthy: healthy}, &model{cfg: cfg, failedFlag: !healthy}
	for i, b := range verdicts {
		v := verdict(b % 5)
		changed, first := s.take(v)
		wantChanged, wantInterval := m.take(v)
		if changed != wantChanged || s.healthy == m.failedFlag || s.degraded != m.degradedFlag || first != (i == 0) {
			t.Fatalf("%v of %v: %s, changed %v; want %+v, changed %v", i, verdicts, describe(s, changed, first), changed, m, wantChanged)
		}
		if got := s.interval(true); got != wantInterval {
			t.Fatalf("%v of %v: interval %d, want %d", i, verdicts, got, wantInterval)
		}
	}
}
