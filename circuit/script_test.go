// SPDX-License-Identifier: Apache-2.0

package circuit_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
)

var rewrite = flag.Bool("rewrite", false, "write what the code does into testdata")

// timelines runs the archives of a folder. An archive has a config, one "key value" on each line, and a timeline of
//
//	at TIME COMMAND... [xN]
//
// where each line is followed by " -> " and what came of the command, done N times. start makes what runs a command;
// the results of repeated commands are joined, and those that are "" left out.
func timelines(t *testing.T, folder string, start func(config map[string]string) func(now int64, f []string) string) {
	paths, err := filepath.Glob(folder + "/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no archives in %s: %v", folder, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := string(txtar.Format(a))
			config := map[string]string{}
			for line := range strings.Lines(string(a.Files[0].Data)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
				config[key] = value
			}
			a.Files[1].Data = []byte(timeline(t, start(config), string(a.Files[1].Data)))
			got := txtar.Format(a)
			if *rewrite {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if string(got) != want {
				t.Errorf("%s differs; look at what go test -rewrite changes. Got:\n%s", path, got)
			}
		})
	}
}

// timeline returns the lines of a timeline with the results that run gives.
func timeline(t *testing.T, run func(now int64, f []string) string, lines string) string {
	var out strings.Builder
	for line := range strings.Lines(lines) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " -> ")
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "at" {
			t.Fatalf("what is %q?", line)
		}
		now, err := time.ParseDuration(f[1])
		if err != nil {
			t.Fatal(err)
		}
		command, times := f[2:], 1
		if last := command[len(command)-1]; last[0] == 'x' {
			if times, err = strconv.Atoi(last[1:]); err != nil {
				t.Fatal(err)
			}
			command = command[:len(command)-1]
		}
		var results []string
		for range times {
			if r := run(int64(now), command); r != "" && (len(results) == 0 || results[len(results)-1] != r) {
				results = append(results, r)
			}
		}
		out.WriteString(line)
		if results != nil {
			out.WriteString(" -> " + strings.Join(results, "; "))
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// settings reads the values of a config into what they are for; keys that are not there leave it alone.
type settings map[string]string

func (s settings) duration(key string, to *time.Duration) {
	if v, ok := s[key]; ok {
		d, err := time.ParseDuration(v)
		if err != nil {
			panic(err)
		}
		*to = d
	}
}

func (s settings) number(key string, to *uint32) {
	if v, ok := s[key]; ok {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			panic(err)
		}
		*to = uint32(n)
	}
}

func (s settings) rate(key string, to *float64) {
	if v, ok := s[key]; ok {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil {
			panic(err)
		}
		*to = f
	}
}

func (s settings) flag(key string, to *bool) {
	if v, ok := s[key]; ok {
		*to = v == "true"
	}
}

// TestBreakerTimelines runs testdata/breaker. Results are ok, fail and slow (as long as slow_after, but ok). Commands:
//
//	call RESULT       a request that ends at once
//	admit NAME        a request that goes on
//	end NAME RESULT   its end
//	drop NAME         its end without a result
//	view              what the circuit looks like
func TestBreakerTimelines(t *testing.T) {
	t.Parallel()
	timelines(t, "testdata/breaker", func(config map[string]string) func(int64, []string) string {
		c, s := circuit.DefaultBreaker(), settings(config)
		s.duration("window", &c.Window)
		s.number("min_volume", &c.MinVolume)
		s.number("consecutive_failures", &c.ConsecutiveFailures)
		s.rate("error_rate", &c.ErrorRate)
		s.rate("slow_rate", &c.SlowRate)
		s.duration("slow_after", &c.SlowAfter)
		s.duration("open_for", &c.OpenFor)
		s.number("probes", &c.Probes)
		s.number("probe_successes", &c.ProbeSuccesses)
		r := &breakerRun{c: c, b: circuit.NewBreaker(c, 0), permits: map[string]circuit.Permit{}}
		return r.run
	})
}

type breakerRun struct {
	c       mesh.Breaker
	b       *circuit.Breaker
	permits map[string]circuit.Permit
}

func (r *breakerRun) run(now int64, f []string) string {
	switch f[0] {
	case "call", "admit":
		v := r.b.Admit(now)
		text := map[bool]string{true: "admitted, ", false: "refused, "}[v.Admitted] + v.State.String() + told(v.Transition)
		if f[0] == "admit" {
			r.permits[f[1]] = v.Permit
			return text
		}
		return text + told(v.Permit.Done(now, r.result(f[1])))
	case "end":
		return strings.TrimPrefix(told(r.permits[f[1]].Done(now, r.result(f[2]))), "; ")
	case "drop":
		r.permits[f[1]].Drop()
		return ""
	case "view":
		v := r.b.View(now)
		return fmt.Sprintf("%v since %v %s: requests %d, failures %d, slow %d, in a row %d, probing %d, succeeded %d",
			v.State, time.Duration(v.Since), v.Reason, v.Requests, v.Failures, v.Slow, v.Consecutive, v.Probing, v.Succeeded)
	}
	panic("what is " + f[0] + "?")
}

func (r *breakerRun) result(name string) circuit.Result {
	switch name {
	case "fail":
		return circuit.Result{Failure: true}
	case "slow":
		return circuit.Result{Took: int64(r.c.SlowAfter)}
	}
	return circuit.Result{}
}

func told(n *mesh.CircuitNotice) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf("; %v to %v: %s, %d requests, %d failures, %d slow",
		n.From, n.To, n.Reason, n.Requests, n.Failures, n.Slow)
}

// TestOutlierTimelines runs testdata/outlier. The config names the hosts. Commands:
//
//	HOST RESULT   an attempt: a status, grpc:CODE, or the name of a failure
//	tick          the interval is over
//	check HOST    an active check succeeded
//	remove HOST, add HOST
//	rnd N         the random number from here on; it is 0 at first
func TestOutlierTimelines(t *testing.T) {
	t.Parallel()
	timelines(t, "testdata/outlier", func(config map[string]string) func(int64, []string) string {
		c, s := circuit.DefaultOutlier(), settings(config)
		s.number("consecutive_5xx", &c.Consecutive5xx)
		s.number("consecutive_gateway_failure", &c.ConsecutiveGateway)
		s.number("consecutive_local_origin_failure", &c.ConsecutiveLocal)
		s.number("enforcing_consecutive_5xx", &c.Enforcing5xx)
		s.number("enforcing_consecutive_gateway_failure", &c.EnforcingGateway)
		s.number("enforcing_consecutive_local_origin_failure", &c.EnforcingLocal)
		s.duration("interval", &c.Interval)
		s.duration("base_ejection_time", &c.BaseEjection)
		s.duration("max_ejection_time", &c.MaxEjection)
		s.duration("max_ejection_time_jitter", &c.Jitter)
		s.number("max_ejection_percent", &c.MaxEjectionPercent)
		s.flag("always_eject_one_host", &c.AlwaysEjectOne)
		s.flag("split_external_local_origin_errors", &c.SplitLocal)
		s.flag("successful_active_health_check_uneject_host", &c.HealthyUnejects)
		r := &outlierRun{o: circuit.NewOutlier(c), names: strings.Fields(config["hosts"])}
		for range r.names {
			h := new(circuit.HostState)
			r.o.Add(h)
			r.hosts = append(r.hosts, h)
		}
		return r.run
	})
}

type outlierRun struct {
	o     *circuit.Outlier
	names []string
	hosts []*circuit.HostState
	rnd   uint64
}

func (r *outlierRun) run(now int64, f []string) string {
	var out []string
	switch f[0] {
	case "tick":
		for _, c := range r.o.Tick(now, r.hosts) {
			out = append(out, ejection(r.names[c.Host], c.Notice))
		}
	case "rnd":
		r.rnd, _ = strconv.ParseUint(f[1], 10, 64)
	case "check":
		if n, ok := r.o.CheckPassed(now, r.host(f[1])); ok {
			out = append(out, ejection(f[1], n))
		}
	case "remove":
		r.o.Remove(r.host(f[1]))
		return fmt.Sprintf("%d ejected", r.o.Active())
	case "add":
		r.o.Add(r.host(f[1]))
	default:
		for _, d := range r.o.Report(now, r.host(f[0]), attemptOf(f[1]), r.rnd) {
			if d.Overflow {
				out = append(out, fmt.Sprintf("%s stays: %s, but too many are out", f[0], d.Reason))
				continue
			}
			out = append(out, ejection(f[0], d.Notice))
		}
	}
	return strings.Join(out, "; ")
}

func (r *outlierRun) host(name string) *circuit.HostState {
	return r.hosts[slices.Index(r.names, name)]
}

func attemptOf(text string) *circuit.Attempt {
	if status, err := strconv.Atoi(text); err == nil {
		return &circuit.Attempt{Status: status}
	}
	if code, ok := strings.CutPrefix(text, "grpc:"); ok {
		n, _ := strconv.ParseUint(code, 10, 32)
		return &circuit.Attempt{Status: 200, HasGRPC: true, IsGRPC: true, GRPC: int64(n)}
	}
	for k := mesh.NoRoute; k <= mesh.InternalError; k++ {
		if k.String() == text {
			return &circuit.Attempt{Failure: mesh.Failure{Kind: k}}
		}
	}
	panic("what is " + text + "?")
}

func ejection(host string, n mesh.EjectionNotice) string {
	switch {
	case !n.Ejected:
		return fmt.Sprintf("%s is back: %s, after %v", host, n.Reason, time.Duration(n.For))
	case !n.Enforced:
		return fmt.Sprintf("%s would be out: %s", host, n.Reason)
	}
	return fmt.Sprintf("%s is out: %s, time %d, for %v", host, n.Reason, n.Times, time.Duration(n.For))
}
