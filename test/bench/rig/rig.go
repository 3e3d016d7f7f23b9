// SPDX-License-Identifier: Apache-2.0

// Package rig runs a benchmark: it starts one proxy at a time on a core of its own, lets the load generator run on another
// one, and gathers the figures. Rounds are interleaved and their order rotates, so that what changes on the machine meets
// all proxies alike.
package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshtap/meshtap/test/bench/load"
	"github.com/meshtap/meshtap/test/bench/peer"
	"github.com/meshtap/meshtap/test/bench/plan"
	"github.com/meshtap/meshtap/test/bench/proc"
	"github.com/meshtap/meshtap/test/bench/report"
)

// Config is what a run is asked for.
type Config struct {
	Library peer.Library
	Rows    []plan.Row
	// Only names the peers to compare; empty takes all.
	Only []string
	// Rounds is how often each measurement is made, and Warm and Measure how long each lasts.
	Rounds        int
	Warm, Measure time.Duration
	// Again is how often a measurement is made again where others disturbed it.
	Again int
	// Settle is how long a proxy is left alone before its memory is read.
	Settle time.Duration
	// Port is the first of the ports that are used: three upstreams, and one for each peer.
	Port uint16
	// ProxyCore and GeneratorCore are two cores; -1 takes the last and the first that the process may use.
	ProxyCore, GeneratorCore int
	// Syscalls counts system calls as well, in a run of its own behind the rounds.
	Syscalls bool
	// Checkout is the root of the source, for the commit.
	Checkout string
}

// contender is a peer that takes part.
type contender struct {
	peer.Peer
	program peer.Program
	at      peer.Place
	wrong   map[peer.Wire]string // why it is not measured: it does not do the job over a wire
}

// rig is one run.
type rig struct {
	Config
	proc       proc.FS
	self       string // this program
	dir        string // of the proxies' files
	contenders []*contender
	cgroup     *cgroup // of those who want one; nil where nobody does
	report     *report.Report
	progress   *progress
}

// Run measures, and tells on out how it goes. Where it is cancelled, it returns what it has.
func Run(ctx context.Context, cfg Config, out io.Writer) (*report.Report, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	dir, err := os.MkdirTemp("", "meshtap-bench-")
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	defer os.RemoveAll(dir)
	r := &rig{Config: cfg, proc: proc.Open("/proc"), self: self, dir: dir, progress: newProgress(out)}
	if err := r.cores(); err != nil {
		return nil, err
	}
	if err := r.alone(); err != nil {
		return nil, err
	}
	defer func() {
		if err := r.cgroup.Close(); err != nil {
			r.progress.say("%v", err)
		}
	}()
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	err = r.rounds(ctx)
	if err == nil && r.Syscalls {
		err = r.countSyscalls(ctx)
	}
	r.progress.done()
	r.report.Ended = time.Now()
	if err == nil {
		r.report.After, err = r.proc.Look(ctx, time.Second)
	}
	return r.report, err
}

// cores chooses the two cores and keeps the run itself off the proxy's.
func (r *rig) cores() error {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return fmt.Errorf("rig: affinity: %w", err)
	}
	var all []int
	for i := range len(may) * 64 {
		if may.IsSet(i) {
			all = append(all, i)
		}
	}
	if len(all) < 2 {
		return errors.New("rig: one core is for the proxy and one for the load; there is but one")
	}
	if r.ProxyCore < 0 {
		r.ProxyCore = all[len(all)-1]
	}
	if r.GeneratorCore < 0 {
		r.GeneratorCore = all[0]
	}
	if r.ProxyCore == r.GeneratorCore || !slices.Contains(all, r.ProxyCore) || !slices.Contains(all, r.GeneratorCore) {
		return fmt.Errorf("rig: cores %d and %d: they must be two of %v", r.ProxyCore, r.GeneratorCore, all)
	}
	var mine unix.CPUSet
	mine.Set(r.GeneratorCore)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("rig: %w", err)
	}
	for _, t := range threads {
		var tid int
		if _, err := fmt.Sscan(t.Name(), &tid); err == nil {
			_ = unix.SchedSetaffinity(tid, &mine) // one that has just ended needs none
		}
	}
	return files()
}

// files raises the limit of descriptors as far as the system lets it; the children have it too.
func files() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("rig: descriptors: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("rig: descriptors: %w", err)
	}
	return nil
}

// upstreams are the first three ports.
func (r *rig) upstream(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), r.Port+uint16(i))
}

// alone refuses to run beside anybody on the ports: a forgotten proxy that shares a port would take half of the load.
func (r *rig) alone() error {
	var ports []uint16
	for i := range 3 + len(peer.All()) {
		ports = append(ports, r.Port+uint16(i))
	}
	who, err := r.proc.Listeners(ports...)
	if err != nil {
		return err
	}
	return strays(who)
}

func strays(who []proc.Listener) error {
	if len(who) == 0 {
		return nil
	}
	var lines []string
	for _, l := range who {
		lines = append(lines, l.String())
	}
	return fmt.Errorf("rig: somebody is on the benchmark's ports, and would share its load; end it, or choose others with -port:\n  %s", strings.Join(lines, "\n  "))
}

// begin writes down where and what is measured, and finds the peers.
func (r *rig) begin(ctx context.Context) error {
	r.report = &report.Report{
		Schema: report.Schema, Began: time.Now(), Machine: machine(),
		Flags: report.Flags{
			Rows: plan.Names(r.Rows), Rounds: r.Rounds, Warm: r.Warm, Measure: r.Measure,
			Again: r.Again, ProxyCore: r.ProxyCore, GeneratorCore: r.GeneratorCore,
		},
	}
	r.report.Commit, r.report.Dirty = commit(r.Checkout)
	for i, p := range peer.All() {
		if len(r.Only) > 0 && !slices.Contains(r.Only, p.Name) {
			continue
		}
		found, err := p.Find(r.Library)
		if err == nil && p.Cgroup {
			err = r.together()
		}
		if absent := peer.AbsentError(""); errors.As(err, &absent) {
			r.progress.say("%s is left out: %v", p.Name, err)
			r.report.Peers = append(r.report.Peers, report.Peer{Name: p.Name, Absent: err.Error()})
			continue
		}
		if err != nil {
			return err
		}
		c := &contender{Peer: p, program: found, wrong: map[peer.Wire]string{}, at: peer.Place{
			Listen: r.upstream(3 + i), Upstreams: [2]netip.AddrPort{r.upstream(0), r.upstream(1)}, Other: r.upstream(2),
			Dir: filepath.Join(r.dir, strings.ReplaceAll(p.Name, "/", "-")),
		}}
		if p.Cgroup {
			c.at.Cgroup = r.cgroup.file
		}
		r.contenders = append(r.contenders, c)
		r.report.Peers = append(r.report.Peers, report.Peer{Name: p.Name, Version: p.Version(found), Lacks: p.Lacks})
	}
	if len(r.contenders) == 0 {
		return errors.New("rig: there is nobody to measure")
	}
	var err error
	if r.report.Before, err = r.proc.Look(ctx, time.Second); err != nil {
		return err
	}
	for _, why := range r.report.Before.Disturbed() {
		r.progress.say("THE MACHINE IS NOT QUIET: %s", why)
	}
	return nil
}

// together makes the cgroup, once. Where it cannot be had, who wants it is absent.
func (r *rig) together() error {
	if r.cgroup != nil {
		return nil
	}
	c, err := newCgroup("/proc")
	if err != nil {
		return peer.AbsentError(err.Error())
	}
	r.cgroup = c
	return nil
}

// rounds measures each peer in each row, once per round.
func (r *rig) rounds(ctx context.Context) error {
	r.progress.total = r.Rounds * r.possible()
	for round := range r.Rounds {
		for i := range r.Rows {
			for k := range r.contenders {
				c := r.contenders[rotated(k, round+i, len(r.contenders))]
				row := &r.Rows[i]
				if c.Cannot(wire(row)) != "" {
					continue
				}
				r.progress.step("round %d of %d: %s, %s", round+1, r.Rounds, row.Name, c.Name)
				cell, latency := quietly(r.Again, func() (report.Cell, []byte) { return r.measure(ctx, row, c) })
				if ctx.Err() != nil {
					return ctx.Err()
				}
				cell.Round = round + 1
				if err := r.keep(row.Name, c.Name, cell, latency); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// possible writes down who cannot be measured in a row, and why, and counts those who can.
func (r *rig) possible() (n int) {
	for i := range r.Rows {
		for _, c := range r.contenders {
			why := c.Cannot(wire(&r.Rows[i]))
			if why == "" {
				n++
				continue
			}
			r.report.Series = append(r.report.Series, report.Series{Row: r.Rows[i].Name, Peer: c.Name, Absent: why})
			r.progress.say("%s, %s is left out: %s", r.Rows[i].Name, c.Name, why)
		}
	}
	return n
}

// wire is what is spoken in a row.
func wire(row *plan.Row) peer.Wire {
	j := &row.Job
	return peer.Wire{Down2: j.Down == load.HTTP2, Up2: j.Up == load.HTTP2, GRPC: j.GRPC, Streaming: j.Streaming, TLS: j.TLS}
}

// rotated is who comes k-th where the order begins one further each time: ABC, BCA, CAB.
func rotated(k, turn, n int) int { return (k + turn) % n }

// keep adds a cell to its series.
func (r *rig) keep(row, name string, cell report.Cell, latency []byte) error {
	s := r.report.Find(row, name)
	if s == nil {
		r.report.Series = append(r.report.Series, report.Series{Row: row, Peer: name})
		s = r.report.Find(row, name)
	}
	s.Cells = append(s.Cells, cell)
	if cell.Failed != "" {
		r.progress.say("%s, %s: no figures: %s", row, name, cell.Failed)
		return nil
	}
	if cell.Faulty() {
		r.progress.say("%s, %s: %d errors, %d bad answers, %d stuck, %d not sent in time; %s", row, name, cell.Errors, cell.Bad, cell.Stuck, cell.Backlog, cell.First)
	}
	var err error
	if len(latency) > 0 {
		s.Latency, err = report.Merge(s.Latency, latency)
	}
	return err
}
