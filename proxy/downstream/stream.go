// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"cmp"
	"runtime/debug"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/exchange"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/route"
	"github.com/meshtap/meshtap/proxy/socket"
)

// open makes the stream the worker's, and fills in what is known before the request is looked at.
func (st *stream) open(w *socket.Worker, d *link, s codec.ServerStream, client exchange.Client) (previous socket.Owner) {
	m, info, x := d.m, d.info, &st.x
	st.d, st.stopped, st.upgraded = d, len(m.filters), false
	x.Stream, x.Client, x.Downstream, x.Manager, x.Info = s, client, st, m.cfg, info
	st.live = m.state()
	o := &x.Outcome
	o.Listener, o.FilterChain, o.Direction, o.StatPrefix = m.listener.Name, m.chain.Name, m.listener.Direction, m.cfg.StatPrefix
	o.Remote, o.Local, o.DirectRemote = info.Remote, info.Local, info.DirectRemote()
	o.ConnectionID, o.ServerName, o.TLS = info.ID, info.ServerName(), info.TLS()
	o.Protocol = x.Request.Protocol
	o.Versions = st.live.Versions()
	m.numbers.Begin(w.Shard, x.Request.Protocol)
	return w.Own(x)
}

// run serves the request.
func (st *stream) run() {
	x, m := &st.x, st.d.m
	q := &x.Request
	st.asked()
	x.SetIdle(m.cfg.StreamIdleTimeout)
	x.After(exchange.MaxDeadline, m.cfg.MaxStreamDuration)
	x.After(exchange.ReadDeadline, m.cfg.RequestTimeout)
	if n := m.cfg.MaxRequestsPerConnection; n > 0 && st.number >= n {
		m.numbers.Inc(x.Worker.Shard, metrics.DownstreamCxMaxRequestsReached)
		x.Stream.CloseAfter()
	}
	if st.d.tooOld() {
		m.numbers.Inc(x.Worker.Shard, metrics.DownstreamCxMaxDurationReached)
		x.Stream.CloseAfter()
	}
	t := m.table(st.live, q)
	st.tell(t)
	if !st.admit() {
		return
	}
	if m.scopeKey != nil { // as in Envoy, the headers count as they go on
		t = m.table(st.live, q)
		st.tell(t)
	}
	if t != nil {
		x.Match = t.Routes.Match(q, x.RouteRandom)
		if err := st.demand(); err != nil {
			cmp.Or(m.routing(), m.router).Fail(&st.call, x, st.live, err)
			return
		}
		st.nameRoute()
	}
	if !st.upgrade() || !st.maxForwards() {
		return
	}
	var body []byte
	if st.stopped, body = m.filters.Request(x); st.stopped < len(m.filters) {
		st.answer(body)
		return
	}
	if r := m.routing(); r != nil {
		r.Serve(&st.call, x, st.live)
		return
	}
	x.Outcome.Flags |= mesh.FlagNFCF
	x.Answer(500, "missing_filter_config", nil)
	st.answer(nil)
}

// asked tells the Outcome what was asked for.
func (st *stream) asked() {
	x := &st.x
	q, o := &x.Request, &x.Outcome
	o.Method, o.Authority, o.Path, o.RequestHeaderBytes = q.Method, q.Authority, q.Path, int64(q.HeadBytes)
	x.IsGRPC = len(q.Path) > 0 && route.IsGRPC(q)
}

// tell notes the table of the request; nil where there is none.
func (st *stream) tell(t *Table) {
	x := &st.x
	x.Table, x.Outcome.RouteTable = nil, ""
	if t != nil {
		x.Table, x.RouteRandom = t.Config, x.Random()
		x.Outcome.RouteTable = t.Config.Name
	}
}

// nameRoute tells the Outcome what was matched, in the configuration's words.
func (st *stream) nameRoute() {
	o, match := &st.x.Outcome, &st.x.Match
	o.Policy = mesh.TapPolicy(st.x.Table, match.Host, match.Route)
	if match.Host != nil {
		o.VirtualHost = match.Host.Name
	}
	if r := match.Route; r != nil {
		o.RouteName = r.Name
		if o.RouteTemplate = r.Match.Path; r.Match.Kind == mesh.PathRegex {
			o.RouteTemplate = r.Match.Regex.String()
		}
	}
}

// upgrade refuses an upgrade that neither the route nor the manager allows, as Envoy does, and says whether to go on.
func (st *stream) upgrade() bool {
	x := &st.x
	want := lower(x.Request.Upgrade)
	if string(x.Request.Method) == "CONNECT" {
		want = "connect"
	}
	if want == "" {
		return true
	}
	allowed, known := st.d.m.upgrades[want]
	if r := x.Match.Route; r != nil && r.Forward != nil {
		for _, u := range r.Forward.Upgrades {
			if u.Type == want {
				allowed, known = u.Enabled, true
			}
		}
	}
	if allowed {
		// Counted here, as in Envoy, whatever the upstream says to it.
		st.upgraded = true
		st.d.m.numbers.Inc(x.Worker.Shard, metrics.DownstreamCxUpgradesTotal)
		st.d.m.numbers.Inc(x.Worker.Shard, metrics.DownstreamCxUpgradesActive)
		return true
	}
	if known {
		st.d.m.numbers.Inc(x.Worker.Shard, metrics.DownstreamRqWsOnNonWsRoute)
	}
	x.Answer(403, "upgrade_failed", nil)
	st.answer(nil)
	return false
}

func lower(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	var buf [64]byte
	if len(b) > len(buf) {
		return "unknown"
	}
	for i, c := range b {
		if c-'A' < 26 {
			c |= 0x20
		}
		buf[i] = c
	}
	return string(buf[:len(b)])
}

// answer sends an answer of our own that is in x.Response.
func (st *stream) answer(body []byte) {
	x := &st.x
	_, _, _ = x.Stream.Body().Buffered() // a body that is here whole need not end the connection
	if err := x.SendLocal(body); err != nil {
		x.Outcome.Failure, x.Outcome.Side = mesh.DownstreamClosed, mesh.SideDownstream
		x.Outcome.Flags |= mesh.FlagDC
	}
}

// BeforeAnswer implements exchange.Downstream.
func (st *stream) BeforeAnswer(x *exchange.Exchange) {
	m := st.d.m
	m.filters.Response(x, st.stopped)
	r := &x.Response
	if st.d.draining() {
		m.numbers.Inc(x.Worker.Shard, metrics.DownstreamCxDrainClose)
		x.Stream.CloseAfter()
	}
	l := &r.Header
	switch m.cfg.ServerHeader {
	case mesh.ServerOverwrite:
		l.RemoveID(header.Server)
		l.AddString("server", m.cfg.ServerName)
	case mesh.ServerAppendIfAbsent:
		if !l.HasID(header.Server) {
			l.AddString("server", m.cfg.ServerName)
		}
	}
	if !l.HasID(header.Date) {
		l.AddString("date", m.clock.date())
	}
	if m.cfg.Via != "" {
		l.AddString("via", m.cfg.Via)
	}
	if m.cfg.RequestIDInAnswer {
		if id := x.Outcome.RequestID; len(id) > 0 {
			l.Set("x-request-id", id)
		}
	}
}

// close ends the request: one Outcome, whatever came of it. broken says that the answer was cut off.
func (st *stream) close(broken bool) {
	x, m := &st.x, st.d.m
	o := &x.Outcome
	o.Duration = mono.Now() - x.Start
	if x.Stream.Started() {
		o.AnswerHeaderBytes = int64(x.Response.Header.Size())
	}
	shard := x.Worker.Shard
	if broken && o.Failure != mesh.DownstreamClosed {
		m.numbers.Inc(shard, metrics.DownstreamRqTxReset)
	}
	if st.upgraded {
		m.numbers.Dec(shard, metrics.DownstreamCxUpgradesActive)
	}
	m.numbers.Add(shard, metrics.DownstreamCxRxBytesTotal, o.RequestHeaderBytes+o.BytesReceived)
	m.numbers.Add(shard, metrics.DownstreamCxTxBytesTotal, x.Stream.Sent())
	x.SettleGRPC()
	m.filters.End(x)
	st.observe()
}

// observe tells the observers of the Outcome, with which the exchange is at an end.
func (st *stream) observe() {
	x, m := &st.x, st.d.m
	o := &x.Outcome
	metrics.ObserveHTTP(m.numbers, x.Cluster, o)
	m.logs.Observe(o)
	for _, l := range m.deps.Observers {
		l.Observe(o)
	}
	st.d, st.live = nil, nil
	x.Stream, x.Client, x.Downstream, x.Info, x.Cluster = nil, nil, nil, nil, nil
}

// panicked answers for a request whose handling broke an invariant. Only this request is lost.
func (st *stream) panicked(r any) {
	d := st.d
	d.m.deps.Log.Error("a request's handling panicked; it was answered with 500 and its connection closed",
		zap.String("listener", d.m.listener.Name), zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
	x := &st.x
	x.Stream.Abort(false)
	o := &x.Outcome
	o.Failure, o.Side = mesh.InternalError, mesh.SideInternal
	if !x.Stream.Started() {
		x.Answer(500, "internal_error", nil)
		x.Outcome.Status = 500
		_ = x.Stream.Head(x.Worker, &x.Response, bytebuf.Piece{}, true) // the connection closes either way
	}
}
