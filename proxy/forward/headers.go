// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"cmp"
	"strconv"
	"time"

	"github.com/meshtap/meshtap/circuit"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/format"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/route"
)

// timeouts are those of one request, after its headers had their say.
type timeouts struct {
	request, try, tryIdle time.Duration
}

// The request headers by which a client can change what the route says (Envoy's router documents them). Whether it is
// trusted to is the connection manager's business, which removes them otherwise.
const (
	hdrTimeout     = "x-envoy-upstream-rq-timeout-ms"
	hdrTryTimeout  = "x-envoy-upstream-rq-per-try-timeout-ms"
	hdrMaxRetries  = "x-envoy-max-retries"
	hdrRetryOn     = "x-envoy-retry-on"
	hdrRetryGRPC   = "x-envoy-retry-grpc-on"
	hdrRetryCodes  = "x-envoy-retriable-status-codes"
	hdrRetryNames  = "x-envoy-retriable-header-names"
	hdrExpected    = "x-envoy-expected-rq-timeout-ms"
	hdrAttempts    = "x-envoy-attempt-count"
	hdrOriginal    = "x-envoy-original-path"
	hdrOriginHost  = "x-envoy-original-host"
	hdrServiceTime = "x-envoy-upstream-service-time"
	hdrOverloaded  = "x-envoy-overloaded"
	hdrFwdHost     = "x-forwarded-host"
)

// prepare makes the request what goes upstream, sets its deadlines, and returns its retry policy.
func (c *Call) prepare() *mesh.RetryPolicy {
	x, a := c.x, c.action
	policy := a.Retry
	if policy == nil && x.Match.Host != nil {
		policy = x.Match.Host.Retry
	}
	c.timeouts.request = c.routeTimeout()
	if x.Request.Header.HasPrefix("x-envoy-") {
		policy = c.takeHeaders(policy)
	}
	if policy != nil {
		if c.timeouts.try == 0 {
			c.timeouts.try = policy.PerTryTimeout
		}
		c.timeouts.tryIdle = policy.PerTryIdleTimeout
	}
	if t := &c.timeouts; t.request > 0 && t.try >= t.request {
		t.try = 0 // the whole request's timeout comes first
	}
	x.SetTimeout(c.timeouts.request)
	if a.IdleTimeout != nil {
		x.SetIdle(*a.IdleTimeout)
	}
	c.limitDuration()
	c.rewrite()
	c.requestHeaders()
	return policy
}

// takeHeaders applies and removes the headers of the request that change timeouts and retries.
func (c *Call) takeHeaders(policy *mesh.RetryPolicy) *mesh.RetryPolicy {
	l := &c.x.Request.Header
	take := func(name string) string {
		v := string(l.Get(name))
		if v != "" {
			l.Remove(name)
		}
		return v
	}
	if t, ok := millis(take(hdrTimeout)); ok {
		c.timeouts.request = t
	}
	if t, ok := millis(take(hdrTryTimeout)); ok {
		c.timeouts.try = t
	}
	h := circuit.RetryHeaders{
		On: take(hdrRetryOn), GRPCOn: take(hdrRetryGRPC), MaxRetries: take(hdrMaxRetries),
		StatusCodes: take(hdrRetryCodes), HeaderNames: take(hdrRetryNames),
	}
	return h.Merge(policy)
}

func millis(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false // the error would cost an allocation for each request
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return time.Duration(n) * time.Millisecond, err == nil
}

// rewrite replaces path and authority as the route says, as far as that is the same for all attempts.
func (c *Call) rewrite() {
	x := c.x
	q := &x.Request
	if path, ok := x.Match.RewritePath(c.scratch[:0], q.Path); ok {
		if !c.r.opts.SuppressEnvoyHeaders {
			q.Header.Set(hdrOriginal, q.Path)
		}
		q.SetPath(path)
		c.scratch = path
	}
	if c.action.HostRewrite.Kind != mesh.HostAuto {
		c.rewriteHost("")
	}
	x.Outcome.UpstreamPath = q.Path
}

func (c *Call) rewriteHost(hostname string) {
	q := &c.x.Request
	host, by := c.x.Match.RewriteHost(c.scratch[:0], q, c.target, hostname)
	if by == route.HostKept {
		return
	}
	c.scratch = host
	again := hostname != "" && c.x.Outcome.Attempts > 1 // the host is then that of the attempt before
	if by == route.HostByRoute && c.action.AppendXForwardedHost && len(q.Authority) > 0 && !again {
		appendValue(&q.Header, hdrFwdHost, q.Authority)
	}
	if !again && !c.r.opts.SuppressEnvoyHeaders && len(q.Authority) > 0 {
		q.Header.Set(hdrOriginHost, q.Authority)
	}
	q.SetAuthority(host)
}

// requestHeaders removes and adds what the configuration says, from the most specific place to the least, or the other
// way round where the table says so, so that the last word is the right one's.
func (c *Call) requestHeaders() {
	x := c.x
	l := &x.Request.Header
	c.expect(0)
	c.eachOps(func(ops *mesh.HeaderOps) {
		for _, name := range ops.RequestRemove {
			l.Remove(name)
		}
		c.add(l, ops.RequestAdd)
	})
}

// expect tells the upstream how long its answer is waited for, when so much of the request's time is over.
func (c *Call) expect(over time.Duration) {
	t := cmp.Or(c.timeouts.try, c.timeouts.request)
	if t <= 0 {
		return
	}
	if c.timeouts.request > 0 {
		t = max(min(t, c.timeouts.request-over), time.Millisecond)
	}
	c.tellGRPC(t)
	if c.r.opts.SuppressEnvoyHeaders {
		return
	}
	c.scratch = strconv.AppendInt(c.scratch[:0], t.Milliseconds(), 10)
	c.x.Request.Header.Set(hdrExpected, c.scratch)
}

// perAttempt makes the changes that depend on the attempt.
func (c *Call) perAttempt() {
	x := c.x
	if x.Outcome.Attempts > 1 {
		c.expect(time.Duration(x.Since()))
	}
	if c.action.HostRewrite.Kind == mesh.HostAuto {
		if name := c.host.Endpoint().Hostname; name != "" {
			c.rewriteHost(name)
		}
	}
	if x.Match.Host != nil && x.Match.Host.AttemptCountInRequest {
		c.scratch = strconv.AppendInt(c.scratch[:0], int64(x.Outcome.Attempts), 10)
		x.Request.Header.Set(hdrAttempts, c.scratch)
	}
}

// eachOps calls f for the header operations of each place, in the order in which they are to be applied.
func (c *Call) eachOps(f func(*mesh.HeaderOps)) {
	m := &c.x.Match
	var places [4]*mesh.HeaderOps
	n := 0
	put := func(o *mesh.HeaderOps) {
		places[n] = o
		n++
	}
	if c.target != nil {
		put(&c.target.Headers)
	}
	if m.Route != nil {
		put(&m.Route.Headers)
	}
	if m.Host != nil {
		put(&m.Host.Headers)
	}
	if t := c.x.Table; t != nil {
		put(&t.Headers)
	}
	if c.x.Table != nil && c.x.Table.MostSpecificWins {
		for i := n - 1; i >= 0; i-- {
			f(places[i])
		}
		return
	}
	for i := range n {
		f(places[i])
	}
}

// add adds headers to l.
func (c *Call) add(l *header.List, adds []mesh.HeaderAdd) {
	for i := range adds {
		h := &adds[i]
		if h.Value == nil {
			c.scratch = append(c.scratch[:0], h.Literal...)
		} else {
			c.scratch = c.r.env.Append(c.scratch[:0], h.Value, &c.x.Outcome, format.Header)
		}
		if len(c.scratch) == 0 && !h.KeepEmpty {
			continue
		}
		put(l, h.Name, c.scratch, h.Action)
	}
}

func put(l *header.List, name string, value []byte, a mesh.HeaderAction) {
	switch a {
	case mesh.HeaderAppend:
		l.Add(name, value)
	case mesh.HeaderAddIfAbsent:
		if !l.Has(name) {
			l.Add(name, value)
		}
	case mesh.HeaderOverwrite:
		l.Set(name, value)
	case mesh.HeaderOverwriteIfExists:
		if l.Has(name) {
			l.Set(name, value)
		}
	}
}

// appendValue adds value to a list header, behind a comma where there is one.
func appendValue(l *header.List, name string, value []byte) {
	if old := l.Joined(name); old != nil {
		joined := append(append([]byte(nil), old...), ',')
		l.Set(name, append(joined, value...))
		return
	}
	l.Add(name, value)
}

// decorate adds to an answer what the router and the route have to say.
func (c *Call) decorate() {
	x := c.x
	l := &x.Response.Header
	if !x.IsLocal && !x.Response.Switched && !c.r.opts.SuppressEnvoyHeaders {
		c.scratch = strconv.AppendInt(c.scratch[:0], x.Outcome.UpstreamTook/int64(time.Millisecond), 10)
		l.Set(hdrServiceTime, c.scratch)
	}
	if x.Match.Host != nil && x.Match.Host.AttemptCountInResponse && x.Outcome.Attempts > 0 {
		c.scratch = strconv.AppendInt(c.scratch[:0], int64(x.Outcome.Attempts), 10)
		l.Set(hdrAttempts, c.scratch)
	}
	x.Outcome.Status = x.Response.Status // for %RESPONSE_CODE%
	c.eachOps(func(ops *mesh.HeaderOps) {
		for _, name := range ops.ResponseRemove {
			l.Remove(name)
		}
		c.add(l, ops.ResponseAdd)
	})
}
