// SPDX-License-Identifier: Apache-2.0

// Package report is the result of a benchmark: its JSON file, the figures made of it, tables, charts, the comparison of two
// of them, and docs/perf.md. It measures nothing.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/meshtap/meshtap/test/bench/proc"
)

// Schema is the version of the JSON file; a file of another one is refused.
const Schema = 1

// Report is one run of the benchmark.
type Report struct {
	Schema  int       `json:"schema"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Machine Machine   `json:"machine"`
	// Commit is that of the checkout; Dirty says that it had changes beside.
	Commit string `json:"commit"`
	Dirty  bool   `json:"dirty"`
	Flags  Flags  `json:"flags"`
	// Before and After are how quiet the machine was at both ends.
	Before proc.Quiet `json:"before"`
	After  proc.Quiet `json:"after"`
	Peers  []Peer     `json:"peers"`
	Series []Series   `json:"series"`
}

// Machine is where it was measured.
type Machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	MemoryMiB int64  `json:"memory_mib"`
	Kernel    string `json:"kernel"`
	System    string `json:"system"`
	Go        string `json:"go"`
	// Congestion is the TCP congestion control of the system.
	Congestion string `json:"congestion"`
}

// Flags are what the run was asked for.
type Flags struct {
	Rows          []string      `json:"rows"`
	Rounds        int           `json:"rounds"`
	Warm          time.Duration `json:"warm_ns"`
	Measure       time.Duration `json:"measure_ns"`
	Again         int           `json:"again"`
	ProxyCore     int           `json:"proxy_core"`
	GeneratorCore int           `json:"generator_core"`
}

// Peer is a proxy that was compared, or one that was left out.
type Peer struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	// Absent says why it was left out; it is empty for those that were measured.
	Absent string `json:"absent,omitempty"`
	// Lacks says where its configuration differs from the job.
	Lacks []string `json:"lacks,omitempty"`
}

// Series is what was measured of one peer in one row.
type Series struct {
	Row  string `json:"row"`
	Peer string `json:"peer"`
	// Absent says why the peer was left out of the row; there are no cells then.
	Absent string `json:"absent,omitempty"`
	// Cells are the rounds, in order.
	Cells []Cell `json:"cells"`
	// Latency is the HdrHistogram of all rounds together, in its compressed encoding, of nanoseconds.
	Latency []byte `json:"latency,omitempty"`
	// Syscalls are the system calls per request by name, where they were counted.
	Syscalls map[string]float64 `json:"syscalls,omitempty"`
}

// Cell is one measurement. Times are in microseconds, memory is in bytes, shares are of 1.
type Cell struct {
	Round int `json:"round"`
	// Failed says why there are no figures.
	Failed string `json:"failed,omitempty"`

	Requests uint64  `json:"requests,omitempty"`
	Rate     float64 `json:"rate,omitempty"` // per second
	CPU      float64 `json:"cpu,omitempty"`  // of the proxy per request
	User     float64 `json:"user,omitempty"` // of CPU
	System   float64 `json:"system,omitempty"`
	P50      float64 `json:"p50,omitempty"`
	P99      float64 `json:"p99,omitempty"`
	P999     float64 `json:"p999,omitempty"`
	Max      float64 `json:"max,omitempty"`

	Errors     uint64 `json:"errors"`
	Bad        uint64 `json:"bad"`
	Stuck      int    `json:"stuck"`
	Backlog    int    `json:"backlog"`
	Reconnects uint64 `json:"reconnects,omitempty"`
	// First is an account of the first error.
	First string `json:"first,omitempty"`

	// Balance is the share of the busier upstream: 0.5 is fair.
	Balance float64 `json:"balance,omitempty"`
	// Foreign is the share of a core that others used than the one it was for, proxy or generator, whichever is more; Steal
	// is what the host took of the proxy's core. Again is how often the measurement was made again for their sake.
	Foreign float64 `json:"foreign"`
	Steal   float64 `json:"steal"`
	Again   int     `json:"again,omitempty"`
	// Generator is the share of its own core that the generator used; at saturation, near 1 says that it was the limit.
	Generator float64 `json:"generator,omitempty"`

	RSS     float64 `json:"rss,omitempty"`      // before there were connections
	PerConn float64 `json:"per_conn,omitempty"` // memory that each idle connection adds
}

// Faulty reports whether something went wrong in a cell: its figures are shown, and marked.
func (c *Cell) Faulty() bool {
	return c.Failed != "" || c.Errors+c.Bad > 0 || c.Stuck > 0 || c.Backlog > int(c.Requests/100)
}

// quiet is the share of a core, taken by others or by the host, above which a cell is marked.
const quiet = 0.03

// Disturbance is the share that others and the host took of a core.
func (c *Cell) Disturbance() float64 { return c.Foreign + c.Steal }

// Noisy reports whether others disturbed a measurement, or kept it from having figures at all.
func (c *Cell) Noisy() bool { return c.Failed != "" || c.Disturbance() > quiet }

// Find returns a series, or nil.
func (r *Report) Find(row, peer string) *Series {
	for i := range r.Series {
		if r.Series[i].Row == row && r.Series[i].Peer == peer {
			return &r.Series[i]
		}
	}
	return nil
}

// Load reads a report.
func Load(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	r := &Report{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("report: %s: %w", path, err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("report: %s has schema %d, this program reads %d; measure again", path, r.Schema, Schema)
	}
	return r, nil
}

// Save writes a report.
func (r *Report) Save(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
