// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/test/e2e/examples"
	"github.com/meshtap/meshtap/test/e2e/load"
	"github.com/meshtap/meshtap/test/e2e/sidecar"
)

// slowDisk has each flush to the disk take so long, in a proxy that it starts. strace stops nothing else.
func slowDisk(t *testing.T, flush string) func(*exec.Cmd) error {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("a slow disk needs strace:", err)
	}
	return func(c *exec.Cmd) error {
		c.Args = append([]string{path, "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
			"-e", "inject=fsync,fdatasync:delay_enter=" + flush, "--"}, c.Args...)
		c.Path = path
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return c.Start()
	}
}

// A disk that is slow harms no request: events wait in the memory, and what finds no room there is counted and told, to the
// event; where a flush takes longer than a second, a metric says so meanwhile (F81).
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	if !soak() {
		t.Skip("make soak-tap runs it: it needs strace")
	}
	for _, c := range []struct {
		name, flush string
		drops       bool
	}{
		{"half a second for a flush", "500ms", false},
		{"five seconds for a flush", "5s", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := examples.NewRig(t)
			text := "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n" +
				withSpool(t, r.Read("tap-nats.yaml"), r.Files+"/spool", r.Files+"/events.jsonl")
			if c.drops {
				text = strings.Replace(text, "memory_bytes: 67108864", "memory_bytes: 4194304", 1)
			}
			r.Proxy = sidecar.Run(t, sidecar.Options{Bootstrap: text, Start: slowDisk(t, c.flush)})
			r.Admin = r.Proxy.Admin()
			r.Proxy.Ready()
			r.Relisten()
			l := load.Start(t, load.Options{Workers: 8, Rate: 2000, Addr: func() string { return r.Addr("") }})
			stalled := false
			r.Admin.UntilStats(func(s sidecar.Stats) bool {
				now := readLedger(s)
				stalled = stalled || s["meshtap.tap.sink.nats.spool_stalled"] > 0
				return now.produced > 20_000 && (!c.drops || now.dropped > 1000 && stalled)
			})
			p99 := l.Quantile(0.99)
			res := l.Stop()
			if res.Failed > 0 {
				t.Errorf("%d of %d requests failed: %q", res.Failed, res.Requests, res.Failures)
			}
			made := res.Requests
			untilLedger(r, func(now ledger) bool { return now.produced == made && now.pending == 0 })
			r.Do(examples.Request{Name: "last"}) // what was lost last is told in front of it
			made++
			got := untilLedger(r, func(now ledger) bool { return now.produced == made && now.pending == 0 })
			t.Logf("figure: %v; 99 %% within %v; %+v", res, p99, got)
			if got.produced != got.acked+got.dropped || (got.dropped > 0) != c.drops || got.refused+got.shutdown > 0 {
				t.Errorf("the counters do not add up, or not as they should: %+v", got)
			}
			checkStream(t, r, got)
		})
	}
}
