// SPDX-License-Identifier: Apache-2.0

// Package proc reads what the kernel tells of processes, cores and ports below /proc: what a proxy costs, who listens where,
// and whether the machine is quiet. It only reads, and needs no rights beyond those of the processes' owner.
package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the times in /proc/PID/stat and /proc/stat: USER_HZ is 100 on every platform that Go runs on.
const tick = 10 * time.Millisecond

// FS is a mounted proc file system. The zero value reads nothing.
type FS struct{ root string }

// Open returns the proc file system at a path, which is /proc outside tests.
func Open(root string) FS { return FS{root} }

// CPU is processor time.
type CPU struct {
	// Total is exact: the sum over the threads' schedstat, interrupts on their behalf included.
	Total time.Duration
	// User and System are of 10 ms; their ratio is what they are for.
	User, System time.Duration
}

// Sub returns the time between two samples.
func (c CPU) Sub(earlier CPU) CPU {
	return CPU{c.Total - earlier.Total, c.User - earlier.User, c.System - earlier.System}
}

// CoreTime is how a core, or all of them, spent the time.
type CoreTime struct {
	// Busy is everything but idleness, waiting for disks, and Steal; Steal is what the host took.
	Busy, Steal time.Duration
	// All is the whole time.
	All time.Duration
}

// Sub returns the time between two samples.
func (c CoreTime) Sub(earlier CoreTime) CoreTime {
	return CoreTime{c.Busy - earlier.Busy, c.Steal - earlier.Steal, c.All - earlier.All}
}

// Self is the calling process.
func (FS) Self() int { return os.Getpid() }

func (fs FS) read(elem ...string) (string, error) {
	b, err := os.ReadFile(filepath.Join(append([]string{fs.root}, elem...)...))
	return string(b), err
}

// CPU returns the processor time of a process since it began. Threads that have ended are missing from Total where the
// kernel keeps schedstat for live threads alone; the proxies keep theirs.
func (fs FS) CPU(pid int) (CPU, error) {
	id := strconv.Itoa(pid)
	stat, err := fs.read(id, "stat")
	if err != nil {
		return CPU{}, fmt.Errorf("proc: %w", err)
	}
	var c CPU
	if c.User, c.System, err = times(stat); err != nil {
		return CPU{}, fmt.Errorf("proc: process %d: %w", pid, err)
	}
	threads, err := os.ReadDir(filepath.Join(fs.root, id, "task"))
	if err != nil {
		return CPU{}, fmt.Errorf("proc: %w", err)
	}
	for _, t := range threads {
		s, err := fs.read(id, "task", t.Name(), "schedstat")
		if err != nil {
			continue // the thread has ended, or the kernel keeps none
		}
		first, _, _ := strings.Cut(s, " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return CPU{}, fmt.Errorf("proc: schedstat of process %d: %w", pid, err)
		}
		c.Total += time.Duration(ns)
	}
	if c.Total == 0 {
		c.Total = c.User + c.System
	}
	return c, nil
}

// times reads the fields utime and stime. The name of the program may hold anything, even parentheses.
func times(stat string) (user, system time.Duration, err error) {
	i := strings.LastIndexByte(stat, ')')
	f := strings.Fields(stat[i+1:])
	if i < 0 || len(f) < 13 {
		return 0, 0, errors.New("stat has too few fields")
	}
	u, err1 := strconv.ParseInt(f[11], 10, 64)
	s, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(u) * tick, time.Duration(s) * tick, errors.Join(err1, err2)
}

// Core returns how a core has spent its time since the machine began; -1 is all cores together.
func (fs FS) Core(core int) (CoreTime, error) {
	s, err := fs.read("stat")
	if err != nil {
		return CoreTime{}, fmt.Errorf("proc: %w", err)
	}
	name := "cpu"
	if core >= 0 {
		name += strconv.Itoa(core)
	}
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 9 || f[0] != name {
			continue
		}
		var c CoreTime
		for i, field := range f[1:9] { // user nice system idle iowait irq softirq steal; guests are in user
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return CoreTime{}, fmt.Errorf("proc: stat: %w", err)
			}
			d := time.Duration(n) * tick
			c.All += d
			switch i {
			case 3, 4:
			case 7:
				c.Steal += d
			default:
				c.Busy += d
			}
		}
		return c, nil
	}
	return CoreTime{}, fmt.Errorf("proc: there is no core %d", core)
}

// RSS returns the resident memory of a process in bytes.
func (fs FS) RSS(pid int) (int64, error) {
	s, err := fs.read(strconv.Itoa(pid), "status")
	if err != nil {
		return 0, fmt.Errorf("proc: %w", err)
	}
	for line := range strings.Lines(s) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("proc: process %d has no memory", pid)
}
