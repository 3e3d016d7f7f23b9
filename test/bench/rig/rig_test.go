// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshtap/meshtap/test/bench/load"
	"github.com/meshtap/meshtap/test/bench/peer"
	"github.com/meshtap/meshtap/test/bench/plan"
	"github.com/meshtap/meshtap/test/bench/proc"
	"github.com/meshtap/meshtap/test/bench/report"
)

// TestMain is the test, or the generator that a run starts as its child.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "generate" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := Generate(ctx, os.Stdin, os.Stdout); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// A short run against the standard library's proxy, from beginning to end.
func TestRun(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("a run needs two cores")
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "reverseproxy"), "../reverseproxy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rows, err := plan.Pick(plan.Rows(), "h1-1k,h1-1k-8k,h1-post-64k,h1-churn,idle,h2-1k,h2-h1,h1-h2,grpc-unary,h2-idle,h2-held")
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if rows[i].Job.Rate > 0 {
			rows[i].Job.Rate = 200 // whatever else runs
		}
		rows[i].Job.Conns, rows[i].Job.Streams = min(rows[i].Job.Conns, 200), min(rows[i].Job.Streams, 4)
	}
	cfg := Config{
		Library: peer.Library{Dir: dir, Meshtap: filepath.Join(dir, "meshtap")}, Rows: rows, Only: []string{"net/http", "meshtap"},
		Rounds: 2, Warm: 50 * time.Millisecond, Measure: 300 * time.Millisecond, Settle: 10 * time.Millisecond, Port: 21480,
		ProxyCore: -1, GeneratorCore: -1, Checkout: "..",
	}
	var out bytes.Buffer
	r, err := Run(t.Context(), cfg, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if len(r.Peers) != 2 || r.Peers[0].Absent == "" || !strings.Contains(out.String(), "meshtap is left out") {
		t.Errorf("an absent peer is not named: %+v\n%s", r.Peers, out.String())
	}
	if r.Machine.Kernel == "" || r.Machine.Processor == "" || r.Ended.Before(r.Began) {
		t.Errorf("where was it measured? %+v", r.Machine)
	}
	for _, row := range rows {
		s := r.Find(row.Name, "net/http")
		if s == nil || len(s.Cells) != 2 {
			t.Fatalf("%s: %+v", row.Name, s)
		}
		for i, c := range s.Cells {
			switch {
			case c.Round != i+1 || c.Failed != "" || c.Errors+c.Bad > 0:
				t.Errorf("%s: %+v", row.Name, c)
			case row.Job.Idle && c.RSS <= 0:
				t.Errorf("%s: %+v", row.Name, c)
			case !row.Job.Idle && (c.Requests == 0 || c.CPU <= 0 || c.P50 <= 0 || c.P999 < c.P50 || c.Balance < 0.4):
				t.Errorf("%s: %+v", row.Name, c)
			}
		}
		if h, err := hdrhistogram.Decode(s.Latency); !row.Job.Idle && (err != nil || h.TotalCount() != int64(s.Cells[0].Requests+s.Cells[1].Requests)) {
			t.Errorf("%s: the rounds' histograms were not merged: %v", row.Name, err)
		}
	}
}

// A peer that cannot do a row is named with the reason, and not measured.
func TestPossible(t *testing.T) {
	t.Parallel()
	rows, err := plan.Pick(plan.Rows(), "h1-1k,h2-1k,grpc-unary")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r := &rig{Config: Config{Rows: rows}, report: &report.Report{}, progress: newProgress(&out)}
	for _, p := range peer.All() {
		if p.Name == "nginx" || p.Name == "envoy" {
			r.contenders = append(r.contenders, &contender{Peer: p})
		}
	}
	if n := r.possible(); n != 5 {
		t.Errorf("%d measurements a round, want 5", n)
	}
	s := r.report.Find("h2-1k", "nginx")
	if s == nil || s.Absent == "" || len(r.report.Series) != 1 || !strings.Contains(out.String(), "h2-1k, nginx is left out") {
		t.Errorf("%+v\n%s", r.report.Series, out.String())
	}
}

func TestStrays(t *testing.T) {
	t.Parallel()
	if err := strays(nil); err != nil {
		t.Error(err)
	}
	err := strays([]proc.Listener{{Port: 21403, PID: 7, Name: "haproxy"}, {Port: 21404}})
	if err == nil || !strings.Contains(err.Error(), "haproxy, process 7") || !strings.Contains(err.Error(), "21404") {
		t.Errorf("%v", err)
	}
}

// Each is first once, and nobody is left out.
func TestRotated(t *testing.T) {
	t.Parallel()
	const n = 5
	first := map[int]bool{}
	for turn := range n {
		seen := map[int]bool{}
		for k := range n {
			seen[rotated(k, turn, n)] = true
		}
		if len(seen) != n {
			t.Errorf("turn %d: %v", turn, seen)
		}
		first[rotated(0, turn, n)] = true
	}
	if len(first) != n {
		t.Errorf("first were %v", first)
	}
}

func result(t *testing.T) load.Result {
	t.Helper()
	h := load.NewHistogram()
	for i := range 1000 {
		_ = h.RecordValue(int64(i+1) * int64(time.Microsecond))
	}
	b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		t.Fatal(err)
	}
	return load.Result{
		Requests: 1000, Seconds: 2, Latency: b, Answers: []uint64{300, 700},
		Proxy:     proc.CPU{Total: 20 * time.Millisecond, User: 5 * time.Millisecond, System: 15 * time.Millisecond},
		Core:      proc.CoreTime{Busy: 220 * time.Millisecond, Steal: 20 * time.Millisecond, All: 2 * time.Second},
		Generator: proc.CPU{Total: time.Second},
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	r := result(t)
	c, err := figures(&r)
	if err != nil {
		t.Fatal(err)
	}
	near := func(name string, got, want float64) {
		if math.Abs(got-want) > want/100 {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	near("CPU", c.CPU, 20)
	near("User", c.User, 5)
	near("System", c.System, 15)
	near("Rate", c.Rate, 500)
	near("P50", c.P50, 500)
	near("P99", c.P99, 990)
	near("P999", c.P999, 999)
	near("Max", c.Max, 1000)
	near("Balance", c.Balance, 0.7)
	near("Foreign", c.Foreign, 0.1)
	near("Steal", c.Steal, 0.01)
	near("Generator", c.Generator, 0.5)
	r.OwnCore = proc.CoreTime{Busy: 1600 * time.Millisecond, All: 2 * time.Second}
	if c, _ = figures(&r); math.Abs(c.Foreign-0.3) > 0.001 {
		t.Errorf("others used %v of the generator's core", c.Foreign)
	}
	r.Requests, r.Errors, r.First = 0, 3, "refused"
	if _, err := figures(&r); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}

// The parent reads the result, and lets idle connections stand while it looks.
func TestTalk(t *testing.T) {
	t.Parallel()
	for _, idle := range []bool{false, true} {
		fromParent, toChild := io.Pipe()
		fromChild, toParent := io.Pipe()
		looked := false
		done := make(chan error, 1)
		go func() {
			in := bufio.NewReader(fromParent)
			line, err := in.ReadBytes('\n')
			var j load.Job
			if err = errors.Join(err, json.Unmarshal(line, &j)); err == nil && idle {
				_, _ = io.WriteString(toParent, readyLine)
				_, err = io.Copy(io.Discard, in)
				if !looked {
					err = errors.New("the parent let go before it looked")
				}
			}
			done <- errors.Join(err, json.NewEncoder(toParent).Encode(load.Result{Requests: uint64(j.Conns)}), toParent.Close())
		}()
		var r load.Result
		err := talk(load.Job{Conns: 7}, toChild, bufio.NewReader(fromChild), func() error { looked = true; return nil }, &r)
		if err != nil || r.Requests != 7 || looked != idle {
			t.Errorf("idle %v: %+v, %v", idle, r, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A measurement is made again until it is quiet, or often enough; the least disturbed counts.
func TestQuietly(t *testing.T) {
	t.Parallel()
	noise := func(share float64) report.Cell { return report.Cell{Foreign: share, Requests: uint64(1000 * share)} }
	for _, tt := range []struct {
		name  string
		cells []report.Cell
		want  report.Cell
		made  int
	}{
		{"quiet at once", []report.Cell{noise(0.01)}, noise(0.01), 1},
		{"quiet later", []report.Cell{noise(0.5), noise(0.02)}, report.Cell{Foreign: 0.02, Requests: 20, Again: 1}, 2},
		{"never quiet", []report.Cell{noise(0.5), noise(0.2), noise(0.4)}, report.Cell{Foreign: 0.2, Requests: 200, Again: 2}, 3},
		{"no figures, then some", []report.Cell{{Failed: "starved"}, noise(0.3), {Failed: "starved"}}, report.Cell{Foreign: 0.3, Requests: 300, Again: 2}, 3},
		{"no figures", []report.Cell{{Failed: "a"}, {Failed: "b"}, {Failed: "c"}}, report.Cell{Failed: "a", Again: 2}, 3},
	} {
		made := 0
		got, latency := quietly(2, func() (report.Cell, []byte) {
			made++
			c := tt.cells[made-1]
			return c, []byte{byte(100 * c.Foreign)}
		})
		if got != tt.want || made != tt.made || latency[0] != byte(100*got.Foreign) {
			t.Errorf("%s: %+v of %d, latency %v", tt.name, got, made, latency)
		}
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	now := time.Unix(0, 0)
	p := &progress{out: &out, total: 4, currentTime: func() time.Time { return now }}
	p.step("h1-1k, %s", "envoy")
	now = now.Add(10 * time.Second)
	p.step("h1-1k, %s", "nginx")
	p.say("a line")
	p.terminal = true
	p.step("idle")
	p.say("last")
	want := "h1-1k, envoy (1 of 4)\nh1-1k, nginx (2 of 4, about 30s left)\na line\n\r\x1b[Kidle (3 of 4, about 10s left)\r\x1b[Klast\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestKeepMergesAndTellsOfFailures(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := &rig{report: &report.Report{}, progress: newProgress(&out)}
	res := result(t)
	for _, c := range []report.Cell{{Round: 1, Requests: 1000}, {Round: 2, Failed: "it ended"}, {Round: 3, Requests: 1000, Errors: 2, First: "reset"}} {
		latency := res.Latency
		if c.Failed != "" {
			latency = nil
		}
		if err := r.keep("h1-1k", "envoy", c, latency); err != nil {
			t.Fatal(err)
		}
	}
	s := r.report.Find("h1-1k", "envoy")
	h, err := hdrhistogram.Decode(s.Latency)
	if err != nil || h.TotalCount() != 2000 || len(s.Cells) != 3 {
		t.Errorf("%v %v", err, s.Cells)
	}
	if o := out.String(); !strings.Contains(o, "no figures: it ended") || !strings.Contains(o, "2 errors") || !strings.Contains(o, "reset") {
		t.Errorf("%q", o)
	}
}

func TestPerfCounts(t *testing.T) {
	t.Parallel()
	got, err := perfCounts("Events disabled\nEvents enabled\n120,,raw_syscalls:sys_enter,1,100.00,,\n80,,syscalls:sys_enter_read,1,100.00,,\n" +
		"0,,syscalls:sys_enter_write,1,100.00,,\n<not counted>,,syscalls:sys_enter_close,0,100.00,,\n")
	if want := map[string]float64{"read": 80, others: 40}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := perfCounts("Permission denied\n"); err == nil || !strings.Contains(err.Error(), "denied") {
		t.Errorf("%v", err)
	}
}

func TestStraceCounts(t *testing.T) {
	t.Parallel()
	got, err := straceCounts(`% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000060           3        20         5 read
 40.00    0.000040           4        10           write
------ ----------- ----------- --------- --------- ----------------
100.00    0.000100           3        30         5 total
`)
	if want := map[string]float64{"read": 20, "write": 10}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := straceCounts(""); err == nil {
		t.Error("nothing was counted, and it is no error")
	}
}
