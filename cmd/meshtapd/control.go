// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
	"github.com/meshtap/meshtap/cmd/meshtapd/bus"
	"github.com/meshtap/meshtap/internal/login"
)

// controlFlags are the flags of "meshtapd control".
type controlFlags struct {
	config, listen, admin string
	busListen, busToken   string
	busDir                string
	noBus                 bool
	logLevel              string
	tls                   login.TLS
}

const (
	// busBytes bounds the stream of the bus, busSync is the time between two flushes to the disk.
	busBytes = 1 << 30
	busSync  = 2 * time.Minute
)

func newControl() *cobra.Command {
	f := &controlFlags{}
	cmd := &cobra.Command{
		Use:   "control --config FILE",
		Short: "Serve a mesh.yaml to sidecars over xDS, and each change of it",
		Long: `
The file is watched; SIGHUP reads it again, too. One that cannot be used
changes nothing, and the log says what is wrong with it and where. Without
--bus-listen, nobody reaches the event bus from outside. --admin "" turns
/proxies, /mesh, /bus, /stats and /ready off.`,
		Example: `  meshtapd control --config mesh.yaml
  meshtapd control --config mesh.yaml --bus-listen 127.0.0.1:4222`,
		Args: cli.NoArgs,
		RunE: verb(func(ctx context.Context, _ *cobra.Command) error { return f.run(ctx) }),
	}
	s := cmd.Flags()
	s.StringVarP(&f.config, "config", "c", "", "`file`: the mesh, as docs/mesh-yaml.md has it")
	s.StringVar(&f.listen, "listen", "127.0.0.1:18000", "`address`: for sidecars, or unix:/path")
	s.StringVar(&f.admin, "admin", "127.0.0.1:18001", "`address`: for people, or unix:/path")
	s.StringVar(&f.tls.CertificateFile, "tls-cert", "", "`file`: the certificate to show to sidecars, for TLS")
	s.StringVar(&f.tls.KeyFile, "tls-key", "", "`file`: its key")
	s.StringVar(&f.tls.CAFile, "tls-client-ca", "", "`file`: whose certificates sidecars must have")
	s.StringVar(&f.busListen, "bus-listen", "", "`address`: opens the event bus, as 127.0.0.1:4222")
	s.StringVar(&f.busToken, "bus-token-file", "", "`file`: the token for --bus-listen, else a new one")
	s.StringVar(&f.busDir, "bus-dir", "", "`directory`: of the events ($XDG_STATE_HOME/meshtap/bus)")
	s.BoolVar(&f.noBus, "no-bus", false, "run no event bus")
	s.StringVar(&f.logLevel, "log-level", "info", "`level`: debug, info, warn or error")
	return cmd
}

func (f *controlFlags) run(ctx context.Context) error {
	switch {
	case f.config == "":
		return cli.Usage("give a mesh with --config FILE; docs/mesh-yaml.md says what is in it", "there is nothing to serve")
	case f.noBus && (f.busListen != "" || f.busToken != "" || f.busDir != ""):
		return cli.Usage("", "--no-bus and the other flags of the bus exclude each other")
	}
	if err := f.tlsUsage(); err != nil {
		return err
	}
	log, err := newLogger(os.Stderr, f.logLevel)
	if err != nil {
		return err
	}
	c := planeConfig{File: f.config, Listen: f.listen, Admin: f.admin, TLS: f.tls, Log: log.Named("control")}
	if !f.noBus {
		if c.Bus, err = f.startBus(ctx, log); err != nil {
			return err
		}
		defer c.Bus.Close()
	}
	p, err := openPlane(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { reload(ctx, p) })
	log.Info("serving", f.addresses(p)...)
	err = p.run(ctx)
	cancel()
	wg.Wait()
	log.Info("stopped")
	return err
}

// reload reads the mesh again at each SIGHUP, until ctx ends.
func reload(ctx context.Context, p *plane) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			p.source.Reload()
		}
	}
}

func (f *controlFlags) startBus(ctx context.Context, log *zap.Logger) (*bus.Bus, error) {
	dir := f.busDir
	if dir == "" {
		state := os.Getenv("XDG_STATE_HOME")
		if !filepath.IsAbs(state) {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, cli.Usage("name a directory with --bus-dir, or leave the bus out with --no-bus", "there is no home for the events of the bus")
			}
			state = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(state, "meshtap", "bus")
	}
	return bus.Start(ctx, bus.Config{
		Dir: dir, Listen: f.busListen, TokenFile: f.busToken, MaxBytes: busBytes, Sync: busSync, Log: log.Named("bus"),
	})
}

func (f *controlFlags) addresses(p *plane) []zap.Field {
	out := []zap.Field{zap.String("file", f.config), zap.Stringer("proxies", p.proxies.Addr())}
	if p.adminSocket != nil {
		out = append(out, zap.Stringer("admin", p.adminSocket.Addr()))
	}
	if p.Bus != nil && p.Bus.URL() != "" {
		out = append(out, zap.String("bus", p.Bus.URL()), zap.String("token_file", p.Bus.TokenFile()))
	}
	return out
}
