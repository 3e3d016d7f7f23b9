// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/cmd/meshtapd/bus"
	"github.com/meshtap/meshtap/cmd/meshtapd/demo"
	"github.com/meshtap/meshtap/cmd/meshtapd/local"
)

// demoFlags are the flags of "meshtapd demo".
type demoFlags struct {
	rate     int
	sinks    string
	logLevel string
}

const (
	// readyTime bounds the start of a demo.
	readyTime = 30 * time.Second
	// demoBytes bounds the events that a demo keeps.
	demoBytes = 64 << 20
	maxRate   = 1000
)

func newDemo() *cobra.Command {
	f := &demoFlags{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run three toy services behind sidecars, to look at and to break",
		Long: `
All of it is on the loopback interface and in a private directory, and goes
with Ctrl-C. It says what to type in a second terminal.`,
		Example: `  meshtapd demo
  meshtapd demo --rate 100`,
		Args: cli.NoArgs,
		RunE: verb(f.run, syscall.SIGHUP), // the end of its terminal
	}
	cmd.Flags().IntVar(&f.rate, "rate", 20, "`number` of requests per second")
	cmd.Flags().StringVar(&f.sinks, "sinks", "", "`file`: more sinks of the tap, a list as in its sinks field")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "warn", "`level`: debug, info, warn or error")
	return cmd
}

func (f *demoFlags) run(ctx context.Context, cmd *cobra.Command) error {
	begun := time.Now()
	if f.rate < 1 || f.rate > maxRate {
		return cli.Usage("", "--rate %d: 1 to %d are allowed", f.rate, maxRate)
	}
	log, err := newLogger(os.Stderr, f.logLevel)
	if err != nil {
		return err
	}
	d := &demoRun{log: log, rate: f.rate, begun: begun, out: cmd.OutOrStdout()}
	if f.sinks != "" {
		if d.sinks, err = demo.ReadSinks(f.sinks); err != nil {
			return cli.Usage("", "--sinks %s: %v", f.sinks, err)
		}
	}
	if err := d.prepare(); err != nil {
		return err
	}
	err = d.serve(ctx)
	return cmp.Or(err, d.dir.Remove())
}

// demoRun is a running demo.
type demoRun struct {
	log   *zap.Logger
	rate  int
	sinks []string
	begun time.Time
	out   io.Writer

	meshtap, meshtapd string // the binaries
	context           string // the path of the context file
	dir               *demo.Dir
	bus               *bus.Bus
	world             *demo.World
	plane             *plane
}

func (d *demoRun) in(name string) string { return filepath.Join(d.dir.Path, name) }

// prepare looks for what may be missing, before anything is started.
func (d *demoRun) prepare() (err error) {
	if d.meshtapd, err = os.Executable(); err != nil {
		return err
	}
	if d.meshtap, err = demo.FindMeshtap(d.meshtapd); err != nil {
		return &cli.Error{Exit: cli.ExitFailure, Msg: err.Error(), Hint: "make build makes both binaries"}
	}
	if d.context = cli.ContextPath(os.Getenv); d.context == "" {
		return &cli.Error{Exit: cli.ExitFailure, Msg: "there is no home for the context file", Hint: "set MESHTAP_CONTEXT to a file"}
	}
	if pid := demo.Running(d.context); pid != 0 {
		return &cli.Error{Exit: cli.ExitFailure, Msg: fmt.Sprintf("a demo runs already, as process %d", pid),
			Hint: "stop it, or set MESHTAP_CONTEXT to another file, for this one and for meshtap"}
	}
	d.dir, err = demo.NewDir(os.Getenv)
	return err
}

// serve runs the bus and all that needs it, until ctx ends or a part has failed.
func (d *demoRun) serve(ctx context.Context) (err error) {
	d.bus, err = bus.Start(ctx, bus.Config{
		Dir: d.in("bus"), Listen: "127.0.0.1:0", MaxBytes: demoBytes, Sync: busSync, Log: d.log.Named("bus"),
	})
	if err != nil {
		return err
	}
	defer d.bus.Close()
	d.world, err = demo.New(demo.Config{
		Dir: d.dir.Path, Meshtap: d.meshtap, Meshtapd: d.meshtapd, Control: d.in("xds.sock"),
		BusURL: d.bus.URL(), TokenFile: d.bus.TokenFile(), Stream: bus.Stream, Sinks: d.sinks,
	})
	if err != nil {
		return err
	}
	stop := sync.OnceFunc(d.world.Stop)
	defer stop()
	if d.plane, err = d.openPlane(ctx); err != nil {
		return err
	}
	faults, err := local.Listen(ctx, d.in("faults.sock"), false)
	if err != nil {
		d.plane.close()
		return err
	}
	inner, fail := context.WithCancelCause(ctx)
	// The control plane and the switches outlive the processes that need them.
	outer, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { fail(d.plane.run(outer)) })
	wg.Go(func() { fail(local.Serve(outer, faults, d.world.Handle)) })
	err = d.live(inner)
	stop()
	end()
	wg.Wait()
	return err
}

// openPlane opens the control plane on the mesh of the world, which is a file that may be changed.
func (d *demoRun) openPlane(ctx context.Context) (*plane, error) {
	text, err := d.world.Mesh()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.in("mesh.yaml"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	return openPlane(ctx, planeConfig{
		File: d.in("mesh.yaml"), Listen: d.in("xds.sock"), Admin: d.in("control.sock"), Bus: d.bus, Log: d.log.Named("control"),
	})
}

// live is the demo from the start of its processes until ctx ends, which is as it should be, or a part fails.
func (d *demoRun) live(ctx context.Context) error {
	start, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := d.world.Start(start); err != nil {
		if ctx.Err() != nil {
			return cause(ctx)
		}
		return err
	}
	if err := demo.WriteContext(d.contextFile(), d.context); err != nil {
		return fmt.Errorf("the context file: %w", err)
	}
	defer func() {
		if err := demo.RemoveContext(d.context, os.Getpid()); err != nil {
			d.log.Warn("the context file stays", zap.Error(err))
		}
	}()
	d.banner()
	loading, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		l := d.world.Load(loading, d.rate)
		fmt.Fprintf(d.out, "stopped: %d requests answered, %d failed, %d not sent since too many waited\n", l.OK, l.Failed, l.Skipped)
	})
	err := d.world.Died(ctx)
	end()
	wg.Wait()
	return cmp.Or(err, cause(ctx))
}

// cause is why ctx has ended; nil where it was asked to, or has not.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (d *demoRun) contextFile() *cli.Context {
	return &cli.Context{
		Name: "demo", PID: os.Getpid(), Proxies: d.world.Proxies(),
		Bus:     &cli.ContextBus{URL: d.bus.URL(), Token: d.bus.Token(), Stream: bus.Stream, Subject: bus.Subject},
		Control: cli.ContextControl{Admin: d.in("control.sock")}, Faults: d.in("faults.sock"),
	}
}

// banner says what to do now.
func (d *demoRun) banner() {
	m := d.command()
	fmt.Fprintf(d.out, `ready in %.1f s: load -> web -> orders -> payments, %d times a second, each behind a sidecar

In a second terminal:
  %s tap                            each request and change, as it happens
  %s stat                           rates, latencies, circuits; also: %s status
  %s fault add orders --abort 100%%  the circuit opens, and a fallback answers
  %s fault rm orders                and it closes

web       %s
mesh      %s  (what you save goes into force)
admin     curl --unix-socket %s http://localhost/clusters
          also orders.sock and payments.sock there, and control.sock with /proxies
events    %s, token in %s
Ctrl-C stops and removes all of it.
`, time.Since(d.begun).Seconds(), d.rate, m, m, m, m, m, d.world.URL(), d.in("mesh.yaml"), d.in("web.sock"), d.bus.URL(), d.bus.TokenFile())
}

// command is how a person calls the other binary.
func (d *demoRun) command() string {
	if path, err := exec.LookPath("meshtap"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil && real == d.meshtap {
			return "meshtap"
		}
	}
	if dir, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(dir, d.meshtap); err == nil && !strings.HasPrefix(rel, "..") {
			if !strings.Contains(rel, "/") {
				rel = "./" + rel
			}
			return rel
		}
	}
	return d.meshtap
}
