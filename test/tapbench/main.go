// SPDX-License-Identifier: Apache-2.0

// Command tapbench says what the event tap costs: the hand-over on the request's goroutine, the processor time of the whole
// process for each event with each sink and with none, and how fast a spool and Kafka take events. Cases take turns in
// rounds, so that a slow minute of the machine hits them alike; medians are told. Brokers are other processes, whose
// processor time does not count. It prints a table, and with -json a file for programs.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	broker := flag.String("broker", "", "be this broker, kafka or nats, until the standard input ends")
	rounds := flag.Int("rounds", 5, "how often each case has its turn")
	count := flag.Int("events", 200_000, "events of a turn")
	kafkaAt := flag.String("kafka", "", "a Kafka broker, host:port; the default is a fake one in another process")
	only := flag.String("case", "", "measure only the cases with this in their names, and not the hand-over")
	file := flag.String("json", "", "a file for the result")
	flag.Parse()
	if *broker != "" {
		exit(serve(*broker))
	}
	exit(bench(*rounds, *count, *kafkaAt, *only, *file))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "tapbench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Row is the median of a case.
type Row struct {
	Name string `json:"name"`
	// CPU is processor time of the whole process for an event, Over what it is more than without a tap, in nanoseconds.
	CPU  float64 `json:"cpu_ns_per_event,omitempty"`
	Over float64 `json:"over_off_ns,omitempty"`
	// PerSecond is how many events were taken in a second of the wall clock.
	PerSecond float64 `json:"events_per_second,omitempty"`
	// Call is the wall clock's time of one hand-over in nanoseconds, Allocs its allocations.
	Call   float64  `json:"call_ns,omitempty"`
	Allocs *float64 `json:"allocs_per_call,omitempty"`
}

// Result is what is written to the file.
type Result struct {
	Go, OS, Arch string
	CPUs, Rounds int
	Events       int
	Rows         []Row
}

func bench(rounds, count int, kafkaAt, only, file string) error {
	dir, err := os.MkdirTemp("", "tapbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cases, end, err := open(dir, kafkaAt)
	if err != nil {
		return err
	}
	defer end()
	cases = slices.DeleteFunc(cases, func(c benchCase) bool { return c.name != "off" && !strings.Contains(c.name, only) })
	cpus, rates := map[string][]float64{}, map[string][]float64{}
	for round := range rounds + 1 {
		for i := range cases {
			c := cases[(i+round)%len(cases)]
			runtime.GC()
			before, start := cpu(), time.Now()
			if err := c.run(count); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round == 0 {
				continue // it warms up
			}
			cpus[c.name] = append(cpus[c.name], float64(cpu()-before)/float64(count))
			rates[c.name] = append(rates[c.name], float64(count)/time.Since(start).Seconds())
		}
	}
	r := Result{runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), rounds, count, nil}
	off := median(cpus["off"])
	for _, c := range cases {
		row := Row{Name: c.name}
		if c.end != nil { // "off" makes nothing
			row.PerSecond = median(rates[c.name])
		}
		if c.tap {
			row.CPU = median(cpus[c.name])
			row.Over = row.CPU - off
		}
		r.Rows = append(r.Rows, row)
	}
	if only == "" {
		row, err := handOver()
		if err != nil {
			return err
		}
		r.Rows = append(r.Rows, row)
	}
	show(&r)
	if file == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func show(r *Result) {
	fmt.Printf("%s %s/%s, %d processors, medians of %d rounds of %d events\n\n", r.Go, r.OS, r.Arch, r.CPUs, r.Rounds, r.Events)
	fmt.Printf("%-34s %12s %12s %12s %10s %8s\n", "case", "cpu ns/event", "over off", "events/s", "ns/call", "allocs")
	number := func(v float64) string {
		if v == 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f", v)
	}
	for _, row := range r.Rows {
		allocs := "-"
		if row.Allocs != nil {
			allocs = fmt.Sprintf("%.2f", *row.Allocs)
		}
		fmt.Printf("%-34s %12s %12s %12s %10s %8s\n", row.Name, number(row.CPU), number(row.Over), number(row.PerSecond), number(row.Call), allocs)
	}
}

func median(v []float64) float64 {
	slices.SortFunc(v, cmp.Compare)
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}

// cpu is the processor time of this process, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
