// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/meshtap/meshtap/cmd/meshtap/cli"
)

// Config is what a World needs of its surroundings.
type Config struct {
	// Dir is a directory that belongs to the world and that nobody else may enter. Its path must be short: sockets lie in it.
	Dir string
	// Meshtap and Meshtapd are the binaries: sidecars are the one, toy services the other with its verb "toy".
	Meshtap, Meshtapd string
	// Control is the socket of the control plane.
	Control string
	// BusURL, TokenFile and Stream say where sidecars send their events.
	BusURL, TokenFile, Stream string
	// Sinks are further sinks of the events, each a meshtap.tap.v1.Sink in one line of JSON; see ReadSinks.
	Sinks []string
}

// World is the toy services, their sidecars, and those who call them.
type World struct {
	cfg      Config
	nursery  *nursery
	services []*service // in the order of the calls
	load     *loader
}

const (
	// stopTime is how long processes may take to end when asked to; then they are killed.
	stopTime = 3 * time.Second
	// longestSocket bounds the path of a socket, in bytes (unix(7)); those of Dir have names of at most 32.
	longestSocket = 107 - 32
)

// New chooses the addresses of a world. It starts nothing; Stop it.
func New(c Config) (*World, error) {
	if len(c.Dir) > longestSocket {
		return nil, fmt.Errorf("%s is too long for sockets in it, by %d bytes; set XDG_RUNTIME_DIR or TMPDIR to a shorter path",
			c.Dir, len(c.Dir)-longestSocket)
	}
	w := &World{cfg: c, nursery: newNursery()}
	chain := []string{"web", "orders", lastService}
	at, err := freePorts(2 * len(chain))
	for i := 0; i < len(chain) && err == nil; i++ {
		s := &service{name: chain[i], proxy: chain[i] + "-1", work: time.Duration(1+i) * time.Millisecond, dir: c.Dir}
		if i+1 < len(chain) {
			s.next = chain[i+1]
		}
		s.inbound, s.outbound = at[2*i], at[2*i+1]
		if s.listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0))); err == nil {
			w.services = append(w.services, s)
		}
	}
	if err != nil {
		w.Stop()
		return nil, err
	}
	w.load = newLoader(w.services[0].inbound.String())
	return w, nil
}

// Mesh returns the mesh.yaml of the world, for the control plane.
func (w *World) Mesh() (string, error) {
	at := map[string]addresses{}
	for _, s := range w.services {
		at[s.name] = s.addresses()
	}
	return fill(meshText, at)
}

// Start starts all processes and returns when requests go through all of them, or when ctx ends or one has died.
func (w *World) Start(ctx context.Context) error {
	for _, s := range w.services {
		if err := s.startSidecar(w.nursery, w.cfg); err != nil {
			return err
		}
		if err := s.startToy(w.nursery, w.cfg.Meshtapd); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- w.ready(ctx) }()
	select {
	case err := <-ready:
		return err
	case c := <-w.nursery.deaths:
		cancel()
		<-ready //nolint:errcheck // what it says is of no interest any more
		return c.death()
	}
}

// ready waits for each service in turn, those that are called before those that call them: so that no caller's circuit
// opens because the start takes a moment.
func (w *World) ready(ctx context.Context) error {
	for _, s := range slices.Backward(w.services) {
		if err := w.load.wait(ctx, s.name, s.inbound.String(), lastService); err != nil {
			return err
		}
	}
	return nil
}

// Died waits until a process ends that should go on, and says why it did; nil where ctx ends first.
func (w *World) Died(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case c := <-w.nursery.deaths:
		return c.death()
	}
}

// Load calls the first service rate times per second until ctx ends, and returns what it saw.
func (w *World) Load(ctx context.Context, rate int) Load {
	w.load.run(ctx, rate)
	return w.load.seen()
}

// URL is where the first service is called.
func (w *World) URL() string { return "http://" + w.services[0].inbound.String() + "/orders/1" }

// Proxies returns the sidecars.
func (w *World) Proxies() (out []cli.Proxy) {
	for _, s := range w.services {
		out = append(out, cli.Proxy{Name: s.proxy, Service: s.name, Admin: s.admin()})
	}
	return out
}

// Stop ends all processes and waits for their end.
func (w *World) Stop() {
	term(w.nursery.children, stopTime)
	for _, s := range w.services {
		s.close()
	}
	w.nursery.close()
}

func (w *World) find(name string) *service {
	for _, s := range w.services {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (w *World) names() (out []string) {
	for _, s := range w.services {
		out = append(out, s.name)
	}
	return out
}

// FindMeshtap returns the path of the sidecar's binary: beside this one, or in PATH.
func FindMeshtap(beside string) (string, error) {
	path := filepath.Join(filepath.Dir(beside), "meshtap")
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
		return path, nil
	}
	inPath, err := exec.LookPath("meshtap")
	if err != nil {
		return "", fmt.Errorf("the binary meshtap, which the sidecars are, is neither at %s nor in PATH", path)
	}
	return filepath.Abs(inPath)
}
