// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/meshtap/meshtap/test/bench/plan"
)

// calls are those that proxies make per request; what else they call is counted as others.
var calls = strings.Fields(`read write readv writev recvfrom recvmsg sendto sendmsg epoll_wait epoll_pwait epoll_ctl accept4
	close connect socket shutdown setsockopt getsockopt getsockname futex nanosleep splice io_uring_enter timerfd_settime getpid`)

const (
	everyCall = "raw_syscalls:sys_enter"
	eachCall  = "syscalls:sys_enter_"
	others    = "others"
)

// countSyscalls counts the system calls of each peer in each row, which is not done while times are taken.
func (r *rig) countSyscalls(ctx context.Context) error {
	tracer, err := findTracer()
	if err != nil {
		r.progress.say("system calls are not counted: %v", err)
		return nil
	}
	rows := slices.DeleteFunc(slices.Clone(r.Rows), func(row plan.Row) bool { return row.Job.Idle })
	r.progress.total, r.progress.n = len(rows)*len(r.contenders), 0
	for i := range rows {
		for _, c := range r.contenders {
			if c.Cannot(wire(&rows[i])) != "" {
				continue
			}
			r.progress.step("system calls: %s, %s", rows[i].Name, c.Name)
			per, err := r.syscalls(ctx, &rows[i], c, tracer)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				r.progress.say("%s, %s: system calls were not counted: %v", rows[i].Name, c.Name, err)
				continue
			}
			if s := r.report.Find(rows[i].Name, c.Name); s != nil {
				s.Syscalls = per
			}
		}
	}
	return nil
}

// tracer counts the system calls of a process between its return and the call of stop.
type tracer func(ctx context.Context, pid int) (stop func() (map[string]float64, error), err error)

func findTracer() (tracer, error) {
	if _, err := exec.LookPath("perf"); err == nil && exec.Command("perf", "stat", "-e", everyCall, "--", "true").Run() == nil {
		return perf, nil
	}
	if _, err := exec.LookPath("strace"); err == nil {
		return strace, nil
	}
	return nil, errors.New("neither perf (with the right to trace) nor strace is there")
}

// syscalls counts from before the first request to behind the last one.
func (r *rig) syscalls(ctx context.Context, row *plan.Row, c *contender, trace tracer) (map[string]float64, error) {
	running, err := r.start(ctx, row, c)
	if err != nil {
		return nil, err
	}
	defer running.Stop()
	stop, err := trace(ctx, running.PID)
	if err != nil {
		return nil, err
	}
	result, err := r.generate(ctx, r.job(row, c, running.PID), c.group(r), nil)
	counts, failed := stop()
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	var answers uint64
	for _, n := range result.Answers {
		answers += n
	}
	if answers == 0 {
		return nil, errors.New("no request was answered")
	}
	for name := range counts {
		counts[name] /= float64(answers)
	}
	return counts, nil
}

// perf counts in the kernel, which costs little.
func perf(ctx context.Context, pid int) (func() (map[string]float64, error), error) {
	events := []string{everyCall}
	for _, name := range calls {
		if _, err := os.Stat(filepath.Join("/sys/kernel/tracing/events/syscalls", "sys_enter_"+name)); err == nil {
			events = append(events, eachCall+name)
		}
	}
	control, toPerf, err1 := os.Pipe()
	fromPerf, ack, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "perf", "stat", "-x,", "-D", "-1", "--control", "fd:3,4", "-e", strings.Join(events, ","), "-p", strconv.Itoa(pid))
	cmd.ExtraFiles = []*os.File{control, ack}
	var out bytes.Buffer
	cmd.Stderr = &out
	err := cmd.Start()
	_, _ = control.Close(), ack.Close()
	if err == nil {
		_, _ = io.WriteString(toPerf, "enable\n")
		if _, err = bufio.NewReader(fromPerf).ReadString('\n'); err != nil {
			err = errors.Join(fmt.Errorf("perf: %s", strings.TrimSpace(out.String())), cmd.Wait())
		}
	}
	closeAll := func() { _, _ = toPerf.Close(), fromPerf.Close() }
	if err != nil {
		closeAll()
		return nil, err
	}
	return func() (map[string]float64, error) {
		defer closeAll()
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait() // it ends by the signal
		return perfCounts(out.String())
	}, nil
}

// perfCounts reads lines of count,unit,event,...
func perfCounts(text string) (map[string]float64, error) {
	counts := map[string]float64{}
	var all, named float64
	for line := range strings.Lines(text) {
		f := strings.Split(line, ",")
		if len(f) < 3 {
			continue
		}
		n, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			continue // not counted
		}
		if name, ok := strings.CutPrefix(f[2], eachCall); ok {
			named += n
			if n > 0 {
				counts[name] = n
			}
		} else if f[2] == everyCall {
			all = n
		}
	}
	if all == 0 {
		return nil, fmt.Errorf("perf counted nothing: %s", strings.TrimSpace(text))
	}
	if all > named {
		counts[others] = all - named
	}
	return counts, nil
}

// strace stops the process at each call, so that counts are right and everything is slow.
func strace(ctx context.Context, pid int) (func() (map[string]float64, error), error) {
	dir, err := os.MkdirTemp("", "strace-")
	if err != nil {
		return nil, err
	}
	summary := filepath.Join(dir, "summary")
	cmd := exec.CommandContext(ctx, "strace", "-f", "-c", "-o", summary, "-p", strconv.Itoa(pid))
	complaint, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	r := bufio.NewReader(complaint)
	if line, _ := r.ReadString('\n'); !strings.Contains(line, "attached") {
		return nil, errors.Join(fmt.Errorf("strace: %s", strings.TrimSpace(line)), cmd.Wait(), os.RemoveAll(dir))
	}
	return func() (map[string]float64, error) {
		defer os.RemoveAll(dir)
		_ = cmd.Process.Signal(syscall.SIGINT)
		_, _ = io.Copy(io.Discard, r)
		_ = cmd.Wait() // it ends by the signal
		b, err := os.ReadFile(summary)
		if err != nil {
			return nil, err
		}
		return straceCounts(string(b))
	}, nil
}

// straceCounts reads the columns: % time, seconds, usecs/call, calls, errors (which may be missing), syscall.
func straceCounts(text string) (map[string]float64, error) {
	counts := map[string]float64{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		if n, err := strconv.ParseFloat(f[3], 64); err == nil {
			counts[f[len(f)-1]] = n
		}
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("strace counted nothing: %s", strings.TrimSpace(text))
	}
	return counts, nil
}
