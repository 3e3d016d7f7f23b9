// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// busyShare is the share of a core above which another process disturbs a measurement, and stealShare that of time that
// the host takes away.
const (
	busyShare  = 0.05
	stealShare = 0.01
)

// Quiet is how much else the machine does.
type Quiet struct {
	// Load is the load average of one minute.
	Load float64 `json:"load"`
	// Steal is the share of the time that the host took away.
	Steal float64 `json:"steal"`
	// Busy are the processes that used more than a twentieth of a core, busiest first.
	Busy []Process `json:"busy,omitempty"`
}

// Process is one that uses the processor.
type Process struct {
	PID   int     `json:"pid"`
	Name  string  `json:"name"`
	Share float64 `json:"share"` // of a core
}

// Disturbed says, for a person, what keeps the machine from being quiet; it is empty where nothing does.
func (q Quiet) Disturbed() []string {
	var why []string
	for _, p := range q.Busy {
		why = append(why, fmt.Sprintf("%s (process %d) uses %.0f %% of a core", p.Name, p.PID, 100*p.Share))
	}
	if q.Steal > stealShare {
		why = append(why, fmt.Sprintf("the host takes %.1f %% of the time", 100*q.Steal))
	}
	if q.Load > 1 {
		why = append(why, fmt.Sprintf("the load average is %.2f", q.Load))
	}
	return why
}

// Look watches the machine for a while and leaves out the calling process.
func (fs FS) Look(ctx context.Context, while time.Duration) (Quiet, error) {
	before := fs.times()
	core, err := fs.Core(-1)
	if err != nil {
		return Quiet{}, err
	}
	began := time.Now()
	t := time.NewTimer(while)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return Quiet{}, ctx.Err()
	}
	took := time.Since(began)
	after, err := fs.Core(-1)
	if err != nil {
		return Quiet{}, err
	}
	q := Quiet{Busy: busy(before, fs.times(), took, fs.Self())}
	if d := after.Sub(core); d.All > 0 {
		q.Steal = float64(d.Steal) / float64(d.All)
	}
	load, err := fs.read("loadavg")
	if err != nil {
		return q, fmt.Errorf("proc: %w", err)
	}
	first, _, _ := strings.Cut(load, " ")
	q.Load, err = strconv.ParseFloat(first, 64)
	return q, err
}

// usage is what a process has used so far.
type usage struct {
	name string
	time time.Duration
}

func (fs FS) times() map[int]usage {
	all := map[int]usage{}
	for _, pid := range fs.processes() {
		stat, err := fs.read(strconv.Itoa(pid), "stat")
		if err != nil {
			continue // it has ended
		}
		u, s, err := times(stat)
		if err != nil {
			continue
		}
		name, _ := fs.read(strconv.Itoa(pid), "comm")
		all[pid] = usage{strings.TrimSpace(name), u + s}
	}
	return all
}

// busy returns the processes that used more than busyShare between two looks.
func busy(before, after map[int]usage, took time.Duration, self int) (list []Process) {
	for pid, u := range after {
		share := float64(u.time-before[pid].time) / float64(took)
		if pid != self && share > busyShare {
			list = append(list, Process{pid, u.name, share})
		}
	}
	slices.SortFunc(list, func(a, b Process) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.PID, b.PID))
	})
	return list
}
