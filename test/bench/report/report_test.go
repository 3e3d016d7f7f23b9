// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshtap/meshtap/test/bench/load"
	"github.com/meshtap/meshtap/test/bench/plan"
	"github.com/meshtap/meshtap/test/bench/proc"
)

var rewrite = flag.Bool("rewrite", false, "write the expected documents anew")

// histogram has n latencies of d.
func histogram(t *testing.T, n int64, d time.Duration) []byte {
	t.Helper()
	h := load.NewHistogram()
	if err := h.RecordValues(int64(d), n); err != nil {
		t.Fatal(err)
	}
	b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sample is a report with figures of every kind: good ones, errors, failures, noise, and a peer that is absent.
func sample(t *testing.T) *Report {
	t.Helper()
	r := &Report{
		Schema: Schema, Began: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), Commit: "536614e0a1b2c3d4", Dirty: true,
		Machine: Machine{Processor: "EPYC", Cores: 2, MemoryMiB: 4096, Kernel: "6.1 x86_64", System: "Debian", Go: "go1.26", Congestion: "bbr"},
		Flags:   Flags{Rows: []string{"h1-1k", "h1-1k-8k", "idle", "h2-held"}, Rounds: 3, Warm: time.Second, Measure: 5 * time.Second, ProxyCore: 1},
		Before:  proc.Quiet{Load: 2},
		Peers: []Peer{
			{Name: "meshtap", Version: "0.1"},
			{Name: "envoy", Version: "1.40.0"},
			{Name: "haproxy", Version: "2.6", Lacks: []string{"a | b"}},
			{Name: "mosn", Absent: "it could not be built"},
		},
	}
	add := func(row, peer string, cells ...Cell) {
		for i := range cells {
			cells[i].Round = i + 1
		}
		s := Series{Row: row, Peer: peer, Cells: cells}
		if row != "idle" && row != "h2-held" {
			s.Latency = histogram(t, 100, 70*time.Microsecond)
		}
		r.Series = append(r.Series, s)
	}
	cell := func(cpu, p99 float64) Cell {
		return Cell{CPU: cpu, User: cpu / 4, System: cpu * 3 / 4, P50: p99 / 3, P99: p99, P999: 2 * p99, Rate: 1e6 / cpu, Requests: 1000, Balance: 0.5}
	}
	noisy := cell(11, 900)
	noisy.Foreign = 0.2
	wrong := cell(50, 3000)
	wrong.Errors = 3
	// The machine is twice as slow in the third round: the quotients do not see it.
	add("h1-1k", "meshtap", cell(10, 900), noisy, cell(20, 1800))
	add("h1-1k", "envoy", cell(48, 3000), wrong, cell(98, 6000))
	add("h1-1k", "haproxy", cell(16, 1000), cell(16, 1100), cell(33, 2100))
	add("h1-1k-8k", "meshtap", cell(28, 200), cell(29, 210), cell(30, 190))
	add("h1-1k-8k", "envoy", Cell{Failed: "it ended"}, Cell{Failed: "it ended"}, Cell{Failed: "it ended"})
	add("h1-1k-8k", "haproxy", cell(33, 250), Cell{Failed: "it ended"}, cell(34, 260))
	add("h2-held", "meshtap", Cell{RSS: 14 << 20, PerConn: 8000}, Cell{RSS: 14 << 20, PerConn: 8100}, Cell{RSS: 14 << 20, PerConn: 7900})
	r.Series = append(r.Series, Series{Row: "h2-held", Peer: "haproxy", Absent: "it speaks HTTP/1.1 alone"})
	add("idle", "meshtap", Cell{RSS: 14 << 20, PerConn: 700}, Cell{RSS: 15 << 20, PerConn: 710}, Cell{RSS: 14 << 20, PerConn: 690})
	r.Find("h1-1k", "meshtap").Syscalls = map[string]float64{"read": 2, "write": 2, "epoll_wait": 0.31, "others": 0.01}
	return r
}

func TestOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3, 1}},
		{[]float64{3, 1}, Spread{2, 1, 3, 2}},
		{[]float64{9, 1, 3}, Spread{3, 1, 9, 3}},
		{[]float64{4, 2, 1, 100}, Spread{3, 1, 100, 4}},
	} {
		before := append([]float64(nil), tt.values...)
		if got := Of(tt.values); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.values, got, tt.want)
		}
		if !reflect.DeepEqual(before, append([]float64(nil), tt.values...)) {
			t.Errorf("%v: the order was changed", before)
		}
	}
	if got := Of([]float64{4, 5, 6}).Relative(); got != 0.4 {
		t.Errorf("relative %v", got)
	}
}

// A quotient is taken within a round, and rounds that failed for one of the two are left out.
func TestRatio(t *testing.T) {
	t.Parallel()
	r := sample(t)
	got := r.Ratio("h1-1k", plan.CPU, "meshtap", "haproxy")
	if got.N != 3 || math.Abs(got.Median-0.625) > 1e-9 || math.Abs(got.Min-20.0/33) > 1e-9 || math.Abs(got.Max-11.0/16) > 1e-9 {
		t.Errorf("%+v", got)
	}
	if got := r.Ratio("h1-1k-8k", plan.CPU, "meshtap", "haproxy"); got.N != 2 || got.Min != 28.0/33 {
		t.Errorf("%+v", got)
	}
	for _, against := range []string{"envoy", "mosn"} {
		if got := r.Ratio("h1-1k-8k", plan.CPU, "meshtap", against); got.N != 0 {
			t.Errorf("against %s: %+v", against, got)
		}
	}
}

func TestStandings(t *testing.T) {
	t.Parallel()
	type key struct{ row, subject, metric, against string }
	got := map[key]Verdict{}
	for _, s := range sample(t).Standings(plan.Rows()) {
		got[key{s.Row, s.Subject, s.Metric, s.Against}] = s.Verdict
	}
	want := map[key]Verdict{
		{"h1-1k", "meshtap", plan.CPU, "haproxy"}:         Shippable,
		{"h1-1k", "meshtap", plan.CPU, "envoy"}:           Broken, // a round with errors
		{"h1-1k", "meshtap-sockmap", plan.CPU, "haproxy"}: Unknown,
		{"h1-1k-8k", "meshtap", plan.CPU, "haproxy"}:      Broken, // a round failed
		{"h1-1k-8k", "meshtap", plan.CPU, "envoy"}:        Unknown,
		{"h1-1k-8k", "meshtap", plan.P99, "haproxy"}:      Broken,
		{"h1-1k-8k", "meshtap", plan.P99, "envoy"}:        Unknown,
		{"idle", "meshtap", plan.RSS, ""}:                 Reached,
		{"idle", "meshtap", plan.PerConn, ""}:             Shippable,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	g := plan.Goal{Goal: 0.6, Floor: 0.75}
	for _, tt := range []struct {
		goal   plan.Goal
		figure float64
		want   Verdict
	}{
		{g, 0.6, Reached},
		{g, 0.61, Shippable},
		{g, 0.75, Shippable},
		{g, 0.76, Above},
		{plan.Goal{Floor: 0.3}, 0.1, Shippable}, // without a goal, the floor is all there is
	} {
		if got := judge(tt.goal, Spread{Median: tt.figure, N: 1}, false); got != tt.want {
			t.Errorf("%v of %+v: %s, want %s", tt.figure, tt.goal, got, tt.want)
		}
	}
}

// Merged histograms are what one histogram of all values would be.
func TestMerge(t *testing.T) {
	t.Parallel()
	var all []byte
	var err error
	for _, part := range [][]byte{histogram(t, 990, time.Millisecond), histogram(t, 9, 10*time.Millisecond), histogram(t, 1, time.Second)} {
		if all, err = Merge(all, part); err != nil {
			t.Fatal(err)
		}
	}
	h, err := hdrhistogram.Decode(all)
	if err != nil {
		t.Fatal(err)
	}
	near := func(q float64, want time.Duration) {
		if got := time.Duration(h.ValueAtQuantile(q)); got < want*99/100 || got > want*101/100 {
			t.Errorf("p%v is %v, want %v", q, got, want)
		}
	}
	if h.TotalCount() != 1000 {
		t.Errorf("%d values", h.TotalCount())
	}
	near(50, time.Millisecond)
	near(99, time.Millisecond)
	near(99.5, 10*time.Millisecond)
	near(100, time.Second)
	if _, err := Merge(all, []byte("no histogram")); err == nil {
		t.Error("rubbish was merged")
	}
}

func TestFaulty(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Cell{
		"failed": {Failed: "x"}, "errors": {Errors: 1}, "bad": {Bad: 1}, "stuck": {Stuck: 1}, "behind": {Requests: 1000, Backlog: 11},
	} {
		if !c.Faulty() {
			t.Errorf("%s: it is not faulty", name)
		}
	}
	if c := (Cell{Foreign: 0.02, Steal: 0.02}); !c.Noisy() {
		t.Error("a cell that was disturbed is quiet")
	}
	if c := (Cell{Foreign: 0.03}); c.Noisy() {
		t.Error("a cell that was hardly disturbed is noisy")
	}
	if c := (Cell{Requests: 1000, Backlog: 10, Reconnects: 3}); c.Faulty() {
		t.Error("a cell with nothing wrong is faulty")
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	s := func(v ...float64) Spread { return Of(v) }
	for _, tt := range []struct {
		name   string
		metric string
		old    Spread
		now    Spread
		want   string
	}{
		{"the same", plan.CPU, s(10, 11, 12), s(10, 11, 12), "~"},
		{"rounds overlap", plan.CPU, s(10, 11, 14), s(13, 15, 16), "~"},
		{"apart, but little", plan.CPU, s(100, 100.1), s(102, 102.1), "~"},
		{"slower", plan.CPU, s(10, 10, 11), s(12, 12, 13), "WORSE +20%"},
		{"faster", plan.CPU, s(12, 12, 13), s(9, 9, 10), "better -25%"},
		{"more requests", "rate", s(100, 100), s(150, 150), "better +50%"},
		{"fewer requests", "rate", s(100, 100), s(50, 50), "WORSE -50%"},
		{"nothing before", plan.CPU, s(0), s(5), "~"},
	} {
		if got := (Change{Metric: tt.metric, Old: tt.old, New: tt.now}).Says(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	older, newer := sample(t), sample(t)
	newer.Peers[1].Version = "1.41.0"
	newer.Machine.Cores = 8
	s := newer.Find("h1-1k-8k", "meshtap")
	for i := range s.Cells {
		s.Cells[i].CPU /= 2
	}
	newer.Series = newer.Series[:len(newer.Series)-1] // the idle row was not measured again
	var out bytes.Buffer
	if err := Compare(&out, older, newer); err != nil {
		t.Fatal(err)
	}
	golden(t, "compare.golden", out.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("run the test with -rewrite and read the difference:\n%s", got)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := sample(t).Table(&out, plan.Rows()); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.golden", out.String())
}

func TestDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "perf.md")
	if err := sample(t).Document(plan.Rows(), path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "perf.md.golden", string(b))
	for _, chart := range []string{"cpu", "rate", "latency-h1-1k-8k", "idle"} {
		svg, err := os.ReadFile(filepath.Join(dir, "perf", "chart-"+chart+".svg"))
		if err != nil || !bytes.Contains(svg, []byte("meshtap")) || !bytes.Contains(svg, []byte("NOT QUIET")) {
			t.Errorf("%s: %d bytes, %v", chart, len(svg), err)
		}
		if !strings.Contains(string(b), "(perf/chart-"+chart+".svg)") {
			t.Errorf("%s is not in the document", chart)
		}
	}
}

func TestDraw(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "new", "run")
	files, err := sample(t).Draw(plan.Rows(), base, "svg", "png")
	if err != nil || len(files) != 8 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || strings.HasSuffix(f, ".png") != bytes.HasPrefix(b, []byte("\x89PNG")) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "run.json")
	r := sample(t)
	if err := r.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%v\n%+v\n%+v", err, got, r)
	}
	r.Schema = 0
	if err := r.Save(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "schema 0") {
		t.Errorf("an old file: %v", err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil {
		t.Error("half a file was read")
	}
}
