// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// recorded returns what a proxy of testdata/recorded counted, the second time if asked.
func recorded(t *testing.T, name, service, file string, at time.Time) cli.Answer[*sample] {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/recorded", name, file))
	if err != nil {
		t.Fatal(err)
	}
	var answer statsJSON
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatal(err)
	}
	p := cli.Proxy{Name: name + "-1", Service: service}
	s := newSample(p, &answer)
	s.at, s.live = at, true
	return cli.Answer[*sample]{Proxy: p, Value: s}
}

// samples returns what web and orders counted, two seconds apart. web calls orders and pay.
func samples(t *testing.T) (before, after []cli.Answer[*sample]) {
	t.Helper()
	start := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	end := start.Add(2 * time.Second)
	before = []cli.Answer[*sample]{recorded(t, "web", "web", "stats", start), recorded(t, "orders", "orders", "stats", start)}
	after = []cli.Answer[*sample]{recorded(t, "web", "web", "stats.2", end), recorded(t, "orders", "orders", "stats.2", end)}
	after[0].Value.circuits = map[string][]string{"orders": {"half_open", "closed"}, "pay": {"open"}}
	return before, after
}

// TestStat: each number of the table is known from the counters.
func TestStat(t *testing.T) {
	t.Parallel()
	rows := map[string]statRow{}
	before, after := samples(t)
	for _, r := range measure(before, after) {
		rows[r.Name] = r
	}
	if len(rows) != 4 {
		t.Fatalf("rows are %v", rows)
	}
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"orders is seen by its callers", rows["orders"].SeenBy, "clients"},
		{"orders: one of two hosts has a proxy", rows["orders"].Meshed, "1/2"},
		{"orders: 200 requests in 2 s", rows["orders"].RPS, 100.0},
		{"orders: 10 of 200 failed", *rows["orders"].Success, 0.95},
		{"orders: all its requests", rows["orders"].Requests, int64(1200)},
		{"orders: open connections now", rows["orders"].Connections, int64(19)},
		{"orders: hosts", *rows["orders"].Hosts, hosts{2, 1}},
		{"orders: the worst of two circuits", rows["orders"].circuits, "half-open 1/2"},
		{"orders: P50 is the 100th of the 100 of the first step", *rows["orders"].P50, 1 + 0.5*100/101},
		{"orders: P95 is the 90th of the 90 of the second step", *rows["orders"].P95, 40 + 4*90.0/91},
		{"orders: P99 is the 8th of the 10 of the third step", *rows["orders"].P99, 160 + 16*8.0/11},
		{"orders: 10 events in 2 s, its own", *rows["orders"].EventsPerSecond, 5.0},
		{"orders: the sink that lost most", *rows["orders"].Dropped, int64(5)},
		{"pay: every request failed or not, 4 in 2 s", rows["pay"].RPS, 2.0},
		{"pay: all failed", *rows["pay"].Success, 0.0},
		{"pay: no proxy of its own", rows["pay"].Meshed, "0/1"},
		{"pay: open", rows["pay"].circuits, "open"},
		{"pay: events are not known", rows["pay"].EventsPerSecond == nil && rows["pay"].Dropped == nil, true},
		{"idle was never called", rows["idle"].used, false},
		{"idle: success is not known", rows["idle"].Success == nil && rows["idle"].P50 == nil, true},
		{"web: nobody calls it, so its own listeners count", rows["web"].SeenBy, "itself"},
		{"web: only what comes in counts: 400 in 2 s", rows["web"].RPS, 200.0},
		{"web: 1 of 400 failed", *rows["web"].Success, 399.0 / 400},
		{"web: connections", rows["web"].Connections, int64(38)},
		{"web: 412 events in 2 s", *rows["web"].EventsPerSecond, 206.0},
		{"web: what the ring dropped, once and not for each sink", *rows["web"].Dropped, int64(3)},
	} {
		if got, ok := c.got.(float64); ok {
			if want := c.want.(float64); math.Abs(got-want) > 1e-9 {
				t.Errorf("%s: %v, want %v", c.name, got, want)
			}
		} else if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

// TestStatChanges: what becomes of proxies that begin anew, come, and go.
func TestStatChanges(t *testing.T) {
	t.Parallel()
	row := func(before, after []cli.Answer[*sample], name string) statRow {
		for _, r := range measure(before, after) {
			if r.Name == name {
				return r
			}
		}
		t.Fatalf("there is no %s", name)
		return statRow{}
	}
	t.Run("a proxy began anew: all is since then", func(t *testing.T) {
		t.Parallel()
		before, after := samples(t)
		before[0].Value, after[0].Value = after[0].Value, before[0].Value
		before[0].Value.at, after[0].Value.at = after[0].Value.at, before[0].Value.at
		if r := row(before, after, "orders"); r.RPS != 500 {
			t.Errorf("RPS is %v, want 1000 in 2 s", r.RPS)
		}
		if r := row(before, after, "web"); *r.EventsPerSecond != 0 {
			t.Errorf("events: %v a second, want none: their number fell", *r.EventsPerSecond)
		}
	})
	t.Run("a proxy came: it has no rate yet", func(t *testing.T) {
		t.Parallel()
		before, after := samples(t)
		before[0].Err = errors.New("was not there")
		r := row(before, after, "orders")
		if r.RPS != 0 || r.Success != nil || r.Requests != 1200 {
			t.Errorf("RPS %v, success %v, requests %d", r.RPS, r.Success, r.Requests)
		}
	})
	t.Run("a proxy went: its service counts it as one that is not meshed", func(t *testing.T) {
		t.Parallel()
		before, after := samples(t)
		after[1].Err = errors.New("has gone")
		if r := row(before, after, "orders"); r.Meshed != "0/2" {
			t.Errorf("meshed is %s", r.Meshed)
		}
	})
	t.Run("a proxy went and came back: it is measured from when it was last seen", func(t *testing.T) {
		t.Parallel()
		before, after := samples(t)
		gone := []cli.Answer[*sample]{{Proxy: before[0].Proxy, Err: errors.New("has gone")}, before[1]}
		if r := row(keep(before, gone), after, "orders"); r.RPS != 100 {
			t.Errorf("RPS is %v, want 200 in 2 s", r.RPS)
		}
	})
	t.Run("two callers add up", func(t *testing.T) {
		t.Parallel()
		before, after := samples(t)
		before, after = append(before, before[0]), append(after, after[0])
		r := row(before, after, "orders")
		if r.RPS != 200 || r.Connections != 38 || *r.Hosts != (hosts{2, 1}) {
			t.Errorf("RPS %v, connections %d, hosts %v", r.RPS, r.Connections, r.Hosts)
		}
	})
}

// TestStatTable: the same numbers, as they are printed.
func TestStatTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for _, format := range []string{cli.Table, cli.Wide, cli.JSON} {
		f := &statFlags{window: 2 * time.Second}
		cmd := &cobra.Command{}
		f.Output.Add(cmd, cli.Table, cli.Wide, cli.JSON)
		f.Format = format
		cmd.SetOut(&out)
		s, err := f.Open(cmd)
		if err != nil {
			t.Fatal(err)
		}
		before, after := samples(t)
		rows, err := only(measure(before, after), false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.print(s, &out, rows); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "testdata/stat.txt", out.Bytes())
}

func TestOnly(t *testing.T) {
	t.Parallel()
	rows := []statRow{{Name: "orders", used: true}, {Name: "idle"}}
	for _, c := range []struct {
		name  string
		all   bool
		names []string
		want  string
	}{
		{"those that were called", false, nil, "orders"},
		{"all", true, nil, "orders idle"},
		{"named, called or not", false, []string{"idle"}, "idle"},
	} {
		got, err := only(rows, c.all, c.names)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, r := range got {
			names = append(names, r.Name)
		}
		if strings.Join(names, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.name, names, c.want)
		}
	}
	_, err := only(rows, false, []string{"ordres"})
	var e *cli.Error
	if !errors.As(err, &e) || e.Exit != cli.ExitUsage || e.Hint != "did you mean orders?" {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	if quantile(nil, 0.5) != nil {
		t.Error("of nothing there is one")
	}
	one := map[float64]step{8: {width: 0, count: 1}}
	for _, q := range []float64{0, 0.5, 0.99, 1} {
		if got := quantile(one, q); got == nil || *got != 8 {
			t.Errorf("%v of one value: %v", q, got)
		}
	}
	// A hundred values, 1 to 100, each in a step of its own.
	steps := map[float64]step{}
	for i := range 100 {
		steps[float64(i+1)] = step{count: 1}
	}
	for q, want := range map[float64]float64{0.5: 50, 0.95: 95, 0.99: 99, 1: 100, 0.001: 1} {
		if got := quantile(steps, q); *got != want {
			t.Errorf("%v: %v, want %v", q, *got, want)
		}
	}
}

func TestTimesAndRates(t *testing.T) {
	t.Parallel()
	for nano, want := range map[int64]string{
		-1: "-", 0: "0µs", 999_999: "999µs", 1_000_000: "1.0ms", 9_940_000: "9.9ms", 10_000_000: "10ms", 9_999_000_000: "9999ms",
		10_000_000_000: "10.0s", 599_900_000_000: "599.9s", 600_000_000_000: "10m",
	} {
		if got := took(nano); got != want {
			t.Errorf("took(%d) is %s, want %s", nano, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0", 0.04: "0.0", 1: "1.0", 9.94: "9.9", 10: "10", 412.4: "412"} {
		if got := rate(v); got != want {
			t.Errorf("rate(%v) is %s, want %s", v, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 2 * time.Hour: "2h", 49 * time.Hour: "2d",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) is %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0B", 9999: "9999B", 10_000: "10.0KB", 10_000_000: "10.0MB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) is %s, want %s", n, got, want)
		}
	}
}

func TestWorstCircuit(t *testing.T) {
	t.Parallel()
	for states, want := range map[string]string{
		"": "", "closed": "closed", "open": "open", "closed closed": "closed", "closed open": "open 1/2", "half_open closed closed": "half-open 1/3",
		"half_open open": "open 1/2",
	} {
		if got, _ := worstCircuit(strings.Fields(states)); got != want {
			t.Errorf("%s: %s, want %s", states, got, want)
		}
	}
}
