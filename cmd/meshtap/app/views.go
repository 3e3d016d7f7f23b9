// SPDX-License-Identifier: Apache-2.0

package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/eventtap/hub"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/internal/version"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/admin"
	"github.com/meshtap/meshtap/proxy/listener"
	"github.com/meshtap/meshtap/proxy/upstream"
	"github.com/meshtap/meshtap/xds"
	"github.com/meshtap/meshtap/xds/dump"
	"github.com/meshtap/meshtap/xds/graph"
)

// makeAdmin makes the administration server; it listens in Run.
func (a *App) makeAdmin() {
	addr, mode, exposed := a.cfg.Admin.Address, a.cfg.Admin.Mode, true
	if addr == (mesh.Address{}) {
		addr, exposed = a.opt.Admin, false
	}
	if addr == (mesh.Address{}) {
		return
	}
	v := admin.Views{
		Ready: a.ready, ServerInfo: a.serverInfo, Clusters: a.clusters, Listeners: a.listeners,
		ConfigDump: a.configDump, Certificates: a.certificates, InitDump: a.initDump, Runtime: a.runtime, ModifyRuntime: a.modifyRuntime,
		Loggers: a.loggers, SetLogger: a.setLogger,
		DrainListeners: a.drainListeners, HealthCheck: a.unwell.Store, ReopenLogs: a.files.Reopen,
		Quit: func() { a.endWith("quitquitquit") }, Circuits: a.circuits, XDS: a.xds, History: a.history, Rollback: a.rollback, Release: a.release,
		Coverage: a.coverage,
	}
	if a.hub != nil {
		v.Events = a.events
	}
	a.admin = admin.New(admin.Config{Address: addr, Mode: mode, Exposed: exposed, FlushInterval: a.cfg.StatsInterval, Profiles: a.opt.Profiles}, v, admin.Deps{Stats: a.stats, Log: a.log.Named("admin")})
}

func (a *App) startAdmin(ctx context.Context) error {
	if err := a.admin.Start(ctx); err != nil {
		return err
	}
	at := a.admin.Addr().String()
	a.log.Info("administration interface", zap.String("address", at))
	if path := a.opt.AdminAddressPath; path != "" {
		if err := os.WriteFile(path, []byte(at), 0o644); err != nil {
			return fmt.Errorf("--admin-address-path: %w", err)
		}
	}
	return nil
}

// ask is how long a view waits for the configuration manager.
const ask = 2 * time.Second

func (a *App) status() (xds.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ask)
	defer cancel()
	return a.manager.Status(ctx)
}

func (a *App) ready() (admin.State, []string) {
	if a.draining.Load() || a.unwell.Load() {
		return admin.Draining, nil
	}
	s, err := a.status()
	switch {
	case err != nil:
		return admin.PreInitializing, []string{"the configuration manager"}
	case s.Ready && s.Held != "":
		return admin.Live, []string{s.Held}
	case s.Ready && !s.Saved.IsZero():
		return admin.Live, []string{"with the configuration saved at " + s.Saved.UTC().Format(time.RFC3339) + ": its source has not answered since the start"}
	case s.Ready:
		return admin.Live, nil
	}
	var waiting []string
	for _, w := range s.Warming {
		waiting = append(waiting, fmt.Sprintf("%s %q for %s", w.Kind, w.Name, strings.Join(w.For, ", ")))
	}
	for _, t := range s.Types {
		if t.Asked && !t.Responded {
			waiting = append(waiting, fmt.Sprintf("the control plane's first %s response", t.Kind))
		}
	}
	return admin.Initializing, waiting
}

func (a *App) initDump() []admin.Unready {
	s, err := a.status()
	if err != nil || s.Ready {
		return nil
	}
	var out []admin.Unready
	for _, w := range s.Warming {
		out = append(out, admin.Unready{Name: fmt.Sprintf("%s %s", w.Kind, w.Name), Targets: w.For})
	}
	for _, t := range s.Types {
		if t.Asked && !t.Responded {
			out = append(out, admin.Unready{Name: "first response", Targets: []string{fmt.Sprintf("%s from %s", t.Kind, t.Source)}})
		}
	}
	return out
}

func (a *App) serverInfo() *admin.ServerInfo {
	state, _ := a.ready()
	info := &admin.ServerInfo{
		Version: version.Get().String(), State: state, Uptime: time.Since(a.started), Options: a.opt.Info,
		Node: admin.Node{
			ID: a.cfg.Node.ID, Cluster: a.cfg.Node.Cluster, Locality: admin.Locality(a.cfg.Node.Locality),
			Metadata: a.cfg.NodeProto.GetMetadata().AsMap(), UserAgent: a.cfg.NodeProto.GetUserAgentName(),
		},
	}
	for _, e := range a.ext.All() {
		info.Node.Extensions = append(info.Node.Extensions, admin.Extension{Name: e.Name, Category: string(e.Category), TypeURLs: e.TypeURLs})
	}
	return info
}

func (a *App) clusters() iter.Seq[*admin.Cluster] {
	return func(yield func(*admin.Cluster) bool) {
		for _, c := range a.server.Clusters() {
			out := &admin.Cluster{
				Name: c.Config.Name, StatName: cmp.Or(c.Config.StatName, c.Config.Name), AddedViaAPI: !c.Config.Static,
				Limits: c.Limits(), Outlier: c.Config.Outlier != nil,
			}
			for _, h := range c.Hosts() {
				out.Hosts = append(out.Hosts, hostView(h))
			}
			if !yield(out) {
				return
			}
		}
	}
}

func hostView(h *upstream.Host) admin.Host {
	v := h.View(mono.Now())
	return admin.Host{
		Address: v.Address, Hostname: v.Endpoint.Hostname,
		RqTotal: uint64(v.Total), RqSuccess: uint64(v.Success), RqError: uint64(v.Errors),
		CxTotal: uint64(v.Tried), CxConnectFail: uint64(v.Missed), CxActive: int64(v.Connections), RqActive: v.Active,
		Discovered: v.Endpoint.Health, FailedCheck: v.FailedCheck || v.PendingCheck, Ejected: v.Ejected,
		Weight: v.Endpoint.Weight, Priority: v.Group.Priority, Locality: v.Group.Locality, Canary: v.Endpoint.Canary,
	}
}

func (a *App) listeners() []admin.Listener {
	var out []admin.Listener
	for _, s := range a.server.Listeners() {
		l := admin.Listener{Name: s.Listener.Name, Addresses: []mesh.Address{s.Bound}}
		if s.Bound == (mesh.Address{}) {
			l.Addresses = []mesh.Address{s.Listener.Address}
		}
		out = append(out, l)
	}
	return out
}

func (a *App) configDump(q admin.DumpQuery) (func(io.Writer) error, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ask)
	defer cancel()
	in, err := a.manager.Dump(ctx)
	if err != nil {
		return nil, noAnswer(err)
	}
	in.Bootstrap, in.Started = a.cfg.Bootstrap, a.started
	b, err := dump.Render(in, dump.Options{Endpoints: q.EDS, Name: q.Name, Part: q.Resource, Mask: q.Mask, Redactor: a.secret})
	var query *dump.QueryError
	if errors.As(err, &query) {
		return nil, &admin.Error{Status: query.Status, Msg: query.Msg}
	}
	if err != nil {
		return nil, err
	}
	return func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}, nil
}

func noAnswer(err error) error {
	return &admin.Error{Status: 503, Msg: "the configuration manager does not answer: " + err.Error()}
}

func (a *App) coverage() (*admin.Coverage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ask)
	defer cancel()
	in, err := a.manager.Dump(ctx)
	if err != nil {
		return nil, noAnswer(err)
	}
	out := &admin.Coverage{}
	for _, w := range a.cfg.Warnings {
		out.Bootstrap = append(out.Bootstrap, admin.BootstrapNote{File: w.File, Line: w.Line, Path: w.Path, What: w.Message})
	}
	for _, c := range dump.Coverage(&in) {
		r := admin.CoveredResource{Type: c.Kind.String(), Name: c.Name, Source: c.Source, Version: c.Version}
		for _, f := range c.Fields {
			r.Fields = append(r.Fields, admin.CoveredField(f))
		}
		out.Resources = append(out.Resources, r)
	}
	return out, nil
}

func (a *App) loggers() []admin.Logger {
	return []admin.Logger{{Name: "meshtap", Level: levelName(a.level.Level())}}
}

func (a *App) setLogger(_, level string) { a.level.SetLevel(Level(level)) }

// Level returns zap's level for one of Envoy's, info for what is not known.
func Level(name string) zapcore.Level {
	switch name {
	case "trace", "debug":
		return zap.DebugLevel
	case "warning", "warn":
		return zap.WarnLevel
	case "error":
		return zap.ErrorLevel
	case "critical":
		return zap.DPanicLevel
	case "off":
		return zap.FatalLevel
	}
	return zap.InfoLevel
}

func levelName(l zapcore.Level) string {
	switch l {
	case zap.DebugLevel:
		return "debug"
	case zap.WarnLevel:
		return "warning"
	case zap.ErrorLevel:
		return "error"
	case zap.DPanicLevel:
		return "critical"
	case zap.FatalLevel:
		return "off"
	}
	return "info"
}

// drainListeners begins what /drain_listeners asks for.
func (a *App) drainListeners(o admin.DrainOptions) error {
	scope := listener.Scope(listener.All)
	if o.InboundOnly {
		scope = listener.InboundOnly
	}
	if o.Graceful || o.SkipExit {
		a.server.StartDrain(scope) // before the answer, so that who asked can count on it
		a.wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), a.opt.DrainTime)
			defer cancel()
			a.wg.Go(func() {
				select {
				case <-a.ending:
					cancel()
				case <-ctx.Done():
				}
			})
			a.server.Drain(ctx, scope, a.opt.Quiet)
			if !o.SkipExit {
				a.server.StopAccepting(scope)
			}
		})
		return nil
	}
	a.server.StopAccepting(scope)
	return nil
}

func (a *App) events(v url.Values) (func(ctx context.Context, w io.Writer) error, error) {
	q, err := hub.ParseQuery(v)
	if err != nil {
		return nil, &admin.Error{Status: 400, Msg: err.Error()}
	}
	return func(ctx context.Context, w io.Writer) error {
		return a.hub.ServeStream(ctx, w, func() error { return nil }, q)
	}, nil
}

func (a *App) circuits() []admin.Circuit {
	now := mono.Now()
	var out []admin.Circuit
	for _, c := range a.server.Clusters() {
		if b := c.Breaker(); b != nil {
			out = append(out, circuitView(c.Config.Name, "", b.View(now)))
		}
		for _, h := range c.Hosts() {
			if v := h.View(now); v.Circuit != nil {
				out = append(out, circuitView(c.Config.Name, v.Address.String(), *v.Circuit))
			}
		}
	}
	return out
}

func circuitView(cluster, host string, v circuit.View) admin.Circuit {
	c := admin.Circuit{
		Cluster: cluster, Host: host, State: v.State.String(), Reason: v.Reason,
		Requests: v.Requests, Failures: v.Failures, Slow: v.Slow,
	}
	if v.Reason != "" {
		c.Since = mono.Time(v.Since)
	}
	if v.State == mesh.CircuitIsOpen {
		c.NextProbe = mono.Time(v.Until)
	}
	return c
}

func (a *App) xds() *admin.XDS {
	s, err := a.status()
	if err != nil {
		return &admin.XDS{}
	}
	out := &admin.XDS{ControlPlane: controlPlane(s), Connected: s.Connected, Since: s.Since, Saved: s.Saved, Degraded: s.Degraded, Held: s.Held}
	seen := map[mesh.ResourceKind]bool{}
	for _, t := range s.Types {
		v := typeView(t, s)
		if seen[t.Kind] { // of a type that comes from several sources, the others say which one they are
			v.Type += " (" + t.Source + ")"
		}
		seen[t.Kind] = true
		out.Types = append(out.Types, v)
	}
	return out
}

// controlPlane says what the proxy is told its configuration by: the name or the address of the control plane of the one
// stream, or all sources.
func controlPlane(s xds.Status) string {
	if len(s.Sources) == 1 && strings.HasPrefix(s.Sources[0].Source, "ADS") {
		return cmp.Or(s.ControlPlane, s.Target)
	}
	var words []string
	for _, src := range s.Sources {
		if !slices.Contains(words, src.Source) {
			words = append(words, src.Source)
		}
	}
	return strings.Join(words, ", ")
}

func typeView(t graph.TypeStatus, s xds.Status) admin.XDSType {
	v := admin.XDSType{Type: t.Kind.String(), State: "synced", Version: t.Version, Updated: t.At, Resources: t.Resources}
	for _, w := range s.Warming {
		if w.Kind == t.Kind && w.Source == t.Source {
			v.State = "warming"
			v.Warming = append(v.Warming, fmt.Sprintf("%s for %s", w.Name, strings.Join(w.For, ", ")))
		}
	}
	if !t.Responded {
		v.State = "never"
	}
	if t.Nack != "" {
		v.State = "rejected"
		v.Rejected = []admin.Rejection{{Reason: t.Nack}}
	}
	for _, src := range s.Sources {
		// A stream that is away is said by Connected; a file or an answer that cannot be read is a refusal.
		if src.Source == t.Source && src.Connected && src.Err != "" {
			v.State = "rejected"
			v.Rejected = append(v.Rejected, admin.Rejection{Reason: src.Err})
		}
	}
	return v
}
