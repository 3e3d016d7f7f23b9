// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/cmd/meshtapd/bus"
	"github.com/meshtap/meshtap/cmd/meshtapd/local"
	"github.com/meshtap/meshtap/internal/login"
	"github.com/meshtap/meshtap/xds/control"
)

// busTime bounds a question to the bus.
const busTime = 2 * time.Second

// planeConfig is how a control plane is run.
type planeConfig struct {
	// File is the mesh.yaml.
	File string
	// Listen is where proxies connect, and Admin where people ask; both as local.Listen has them, "" for no Admin.
	Listen, Admin string
	// TLS are the files for proxies to connect over TLS, all "" for plain text.
	TLS login.TLS
	// Bus is the event bus that runs beside it; nil where there is none.
	Bus *bus.Bus
	Log *zap.Logger
}

// plane is a control plane with the file that it serves and its administration.
type plane struct {
	planeConfig
	source      *control.Source
	server      *control.Server
	proxies     net.Listener
	adminSocket net.Listener // nil where there is none
}

// openPlane reads the mesh and binds the addresses. The plane must be run.
func openPlane(ctx context.Context, c planeConfig) (*plane, error) {
	p := &plane{planeConfig: c}
	source, mesh, err := control.Open(c.File, c.Log)
	if err != nil {
		return nil, err
	}
	cfg := control.Config{Log: c.Log}
	if c.TLS.CertificateFile != "" {
		if cfg.TLS, err = openIdentity(c.TLS, c.Log); err != nil {
			return nil, err
		}
	}
	p.source, p.server = source, control.New(mesh, cfg)
	if p.proxies, err = local.Listen(ctx, c.Listen, true); err == nil && c.Admin != "" {
		p.adminSocket, err = local.Listen(ctx, c.Admin, false)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	p.warn()
	return p, nil
}

// warn says what protects the control plane where others can reach it.
func (p *plane) warn() {
	a, ok := p.proxies.Addr().(*net.TCPAddr)
	switch {
	case !ok || a.IP.IsLoopback():
	case p.TLS.CertificateFile == "":
		p.Log.Warn("the control plane can be reached from other machines, without encryption and without asking who calls", zap.Stringer("address", a))
	case p.TLS.CAFile == "":
		p.Log.Warn("the control plane can be reached from other machines, without asking who calls", zap.Stringer("address", a))
	}
}

func (p *plane) close() {
	for _, ln := range []net.Listener{p.proxies, p.adminSocket} {
		if ln != nil {
			ln.Close()
		}
	}
}

// run serves until ctx ends, or until a part of it cannot go on.
func (p *plane) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i, part := range []func() error{
		func() error { return p.source.Run(ctx, p.server.Set) },
		func() error { return p.server.Serve(ctx, p.proxies) },
		func() error {
			if p.adminSocket == nil {
				<-ctx.Done()
				return nil
			}
			return local.Serve(ctx, p.adminSocket, p.handle)
		},
	} {
		wg.Go(func() {
			defer cancel()
			errs[i] = part()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// handle answers the requests of the administration.
func (p *plane) handle(ctx *fasthttp.RequestCtx) {
	if !ctx.IsGet() && !ctx.IsHead() {
		local.Fail(ctx, fasthttp.StatusMethodNotAllowed, "everything here is read with GET")
		return
	}
	switch string(ctx.Path()) {
	case "/ready":
		ctx.SetBodyString("LIVE\n")
	case "/proxies":
		local.JSON(ctx, map[string]any{"proxies": p.server.Proxies()})
	case "/mesh":
		local.JSON(ctx, p.source.Status())
	case "/bus":
		p.busInfo(ctx)
	case "/stats":
		ctx.SetContentType("text/plain; charset=utf-8")
		ctx.SetBodyString(p.stats())
	default:
		local.Fail(ctx, fasthttp.StatusNotFound, "there are /proxies, /mesh, /bus, /stats and /ready")
	}
}

func (p *plane) busInfo(ctx *fasthttp.RequestCtx) {
	if p.Bus == nil {
		local.Fail(ctx, fasthttp.StatusNotFound, "there is no bus in this process")
		return
	}
	info, err := p.askBus()
	if err != nil {
		local.Fail(ctx, fasthttp.StatusServiceUnavailable, err.Error())
		return
	}
	local.JSON(ctx, info)
}

// askBus asks the bus for its state. A fasthttp.RequestCtx is no context for it: whoever waits for its end races with the
// end of the server.
func (p *plane) askBus() (bus.Info, error) {
	ctx, cancel := context.WithTimeout(context.Background(), busTime)
	defer cancel()
	return p.Bus.Info(ctx)
}

// stats are gauges, one in a line as Envoy writes them.
func (p *plane) stats() string {
	var b strings.Builder
	proxies := p.server.Proxies()
	states := map[string]int{}
	for _, proxy := range proxies {
		for _, t := range proxy.Types {
			states[t.State]++
		}
	}
	fmt.Fprintf(&b, "control.proxies: %d\n", len(proxies))
	for _, s := range []string{"synced", "stale", "rejected"} {
		fmt.Fprintf(&b, "control.types.%s: %d\n", s, states[s])
	}
	valid := 1
	if p.source.Status().Problem != "" {
		valid = 0
	}
	fmt.Fprintf(&b, "control.mesh.valid: %d\n", valid)
	if p.Bus != nil {
		if info, err := p.askBus(); err == nil {
			fmt.Fprintf(&b, "bus.messages: %d\nbus.bytes: %d\nbus.clients: %d\n", info.Messages, info.Bytes, info.Clients)
		}
	}
	return b.String()
}
