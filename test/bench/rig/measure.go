// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshtap/meshtap/test/bench/load"
	"github.com/meshtap/meshtap/test/bench/peer"
	"github.com/meshtap/meshtap/test/bench/plan"
	"github.com/meshtap/meshtap/test/bench/proc"
	"github.com/meshtap/meshtap/test/bench/report"
)

// idleLimit is how long it may take to open the idle connections.
const idleLimit = time.Minute

// quietly measures, and does it again where others disturbed it. The least disturbed cell is kept.
func quietly(again int, measure func() (report.Cell, []byte)) (report.Cell, []byte) {
	best, latency := measure()
	for n := 1; n <= again && best.Noisy(); n++ {
		cell, l := measure()
		if cell.Failed == "" && (best.Failed != "" || cell.Disturbance() < best.Disturbance()) {
			best, latency = cell, l
		}
		best.Again = n
	}
	return best, latency
}

// measure makes one cell with a proxy that is started for it.
func (r *rig) measure(ctx context.Context, row *plan.Row, c *contender) (report.Cell, []byte) {
	if why := c.wrong[wire(row)]; why != "" {
		return report.Cell{Failed: why}, nil
	}
	running, err := r.start(ctx, row, c)
	if err != nil {
		return report.Cell{Failed: err.Error()}, nil
	}
	defer running.Stop()
	job := r.job(row, c, running.PID)
	if job.Idle {
		cell, err := r.idle(ctx, job, c.group(r), running.PID)
		if err != nil {
			return report.Cell{Failed: err.Error()}, nil
		}
		return cell, nil
	}
	result, err := r.generate(ctx, job, c.group(r), nil)
	if err == nil {
		err = alive(running)
	}
	if err != nil {
		return report.Cell{Failed: err.Error()}, nil
	}
	cell, err := figures(&result)
	if err != nil {
		return report.Cell{Failed: err.Error()}, nil
	}
	return cell, result.Latency
}

// start starts a peer and refuses it for good, over the row's wire, where it does not do the job.
func (r *rig) start(ctx context.Context, row *plan.Row, c *contender) (*peer.Running, error) {
	at := c.at
	at.Wire = wire(row)
	running, err := c.Start(ctx, c.program, at, r.ProxyCore)
	if err != nil {
		return nil, err
	}
	if err := peer.Check(ctx, at); err != nil {
		running.Stop()
		why := "it does not do the job: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		c.wrong[at.Wire] = why
		return nil, errors.New(why)
	}
	return running, nil
}

func alive(p *peer.Running) error {
	select {
	case <-p.Ended():
		return errors.New("the proxy ended while it was measured")
	default:
		return nil
	}
}

// job is the row's load with the addresses of this run.
func (r *rig) job(row *plan.Row, c *contender, pid int) load.Job {
	j := row.Job
	j.Target, j.Upstreams = c.at.Listen, []netip.AddrPort{r.upstream(0), r.upstream(1)}
	if j.Host = plan.Host; j.Path == "" {
		j.Path = plan.Path
	}
	j.Warm, j.Measure = r.Warm, r.Measure
	j.Watch, j.Core, j.OwnCore = pid, r.ProxyCore, r.GeneratorCore
	if j.Idle {
		j.Measure = idleLimit
	}
	return j
}

// group is the cgroup of the contender, its clients and its upstreams; nil where it wants none.
func (c *contender) group(r *rig) *cgroup {
	if !c.Cgroup {
		return nil
	}
	return r.cgroup
}

// generate runs a generator as a child of its own, in a cgroup unless that is nil. For a job with idle connections, ready is called while they stand.
func (r *rig) generate(ctx context.Context, job load.Job, in *cgroup, ready func() error) (load.Result, error) {
	var result load.Result
	cmd := exec.CommandContext(ctx, r.self, "generate")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in.put(cmd.SysProcAttr)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	to, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return result, fmt.Errorf("rig: generator: %w", err)
	}
	err := talk(job, to, bufio.NewReader(out), ready, &result)
	if ended := cmd.Wait(); ended != nil {
		err = fmt.Errorf("rig: generator: %w: %s", ended, strings.TrimSpace(complaint.String()))
	}
	return result, err
}

// talk gives the generator its job and takes what it says: a line when idle connections stand, and the result.
func talk(job load.Job, in io.WriteCloser, out *bufio.Reader, ready func() error, result *load.Result) error {
	defer in.Close()
	if err := json.NewEncoder(in).Encode(job); err != nil {
		return err
	}
	line, err := out.ReadBytes('\n')
	if err == nil && string(line) == readyLine {
		if err = ready(); err != nil {
			return err
		}
		_ = in.Close()
		line, err = out.ReadBytes('\n')
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(line, result)
}

const readyLine = "ready\n"

// Generate is the child's side of generate.
func Generate(ctx context.Context, in io.Reader, out io.Writer) error {
	debug.SetGCPercent(-1) // it lives for seconds
	r := bufio.NewReader(in)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("rig: generator: %w", err)
	}
	var job load.Job
	if err := json.Unmarshal(line, &job); err != nil {
		return fmt.Errorf("rig: generator: %w", err)
	}
	result, err := load.Run(ctx, job, load.Deps{Proc: proc.Open("/proc"), Ready: func() {
		_, _ = io.WriteString(out, readyLine)
		_, _ = io.Copy(io.Discard, r) // until the parent has seen enough
	}})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// figures turns what the generator saw into a cell.
func figures(r *load.Result) (report.Cell, error) {
	cell := report.Cell{
		Requests: r.Requests, Errors: r.Errors, Bad: r.Bad, Stuck: r.Stuck, Backlog: r.Backlog, Reconnects: r.Reconnects,
		First: r.First,
	}
	if r.Requests == 0 || r.Seconds == 0 {
		return cell, fmt.Errorf("no request was answered: %d errors, %d bad answers; %s", r.Errors, r.Bad, r.First)
	}
	h, err := hdrhistogram.Decode(r.Latency)
	if err != nil {
		return cell, fmt.Errorf("rig: %w", err)
	}
	us := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	cell.P50, cell.P99, cell.P999, cell.Max = us(50), us(99), us(99.9), float64(h.Max())/1e3
	cell.Rate = float64(r.Requests) / r.Seconds
	cell.CPU = float64(r.Proxy.Total) / 1e3 / float64(r.Requests)
	if both := float64(r.Proxy.User + r.Proxy.System); both > 0 {
		cell.User, cell.System = cell.CPU*float64(r.Proxy.User)/both, cell.CPU*float64(r.Proxy.System)/both
	}
	cell.Foreign = max(foreign(r.Core, r.Proxy), foreign(r.OwnCore, r.Generator))
	if all := float64(r.Core.All); all > 0 {
		cell.Steal = float64(r.Core.Steal) / all
	}
	cell.Generator = float64(r.Generator.Total) / 1e9 / r.Seconds
	var sum uint64
	for _, n := range r.Answers {
		sum += n
	}
	if sum > 0 {
		cell.Balance = float64(slices.Max(r.Answers)) / float64(sum)
	}
	return cell, nil
}

// foreign is the share of a core that others used than the one it is for.
func foreign(core proc.CoreTime, own proc.CPU) float64 {
	if core.All <= 0 {
		return 0
	}
	return max(0, float64(core.Busy-own.Total)/float64(core.All))
}

// used is how many requests a proxy has served, at least, before its memory is read: what it fills once and keeps within
// bounds, such as a ring of events, is so the process's and not the connections'.
const used = 6000

// use sends that many requests or more, over one connection that is kept for a second at a time, and leaves the proxy without
// connections.
func (r *rig) use(ctx context.Context, job load.Job, in *cgroup) error {
	ctx, cancel := context.WithTimeout(ctx, idleLimit)
	defer cancel()
	job.Idle, job.Held, job.Conns, job.Streams = false, false, 1, 0
	job.Warm, job.Measure = 0, time.Second
	for served := uint64(0); served < used; {
		result, err := r.generate(ctx, job, in, nil)
		if err != nil {
			return err
		}
		if result.Requests == 0 || result.Errors+result.Bad > 0 {
			return fmt.Errorf("of the requests before the first reading, %d were answered, with %d errors and %d bad answers: %s",
				result.Requests, result.Errors, result.Bad, result.First)
		}
		served += result.Requests
	}
	return nil
}

// idle measures memory: of a proxy in use without connections, and with many that had one request each.
func (r *rig) idle(ctx context.Context, job load.Job, in *cgroup, pid int) (report.Cell, error) {
	var cell report.Cell
	if err := r.use(ctx, job, in); err != nil {
		return cell, err
	}
	settle := func() (float64, error) {
		t := time.NewTimer(r.Settle)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		rss, err := r.proc.RSS(pid)
		return float64(rss), err
	}
	before, err := settle()
	if err != nil {
		return cell, err
	}
	var after float64
	result, err := r.generate(ctx, job, in, func() (err error) {
		after, err = settle()
		return err
	})
	if err != nil {
		return cell, err
	}
	if after == 0 {
		return cell, fmt.Errorf("the connections did not stand: %s", result.First)
	}
	cell.Errors, cell.Bad, cell.First = result.Errors, result.Bad, result.First
	cell.RSS, cell.PerConn = before, (after-before)/float64(job.Slots())
	return cell, nil
}
