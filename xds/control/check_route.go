// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// retryWords are the conditions of retry.on; statuses brings its own.
var retryWords = []string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream", "retriable-4xx",
	"envoy-ratelimited", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

// fallbackWords are the reasons of fallback.on, as they stand in mesh.yaml.
var fallbackWords = []string{"open_circuit", "no_healthy_host", "overflow", "connect_failure"}

// policyWords are the load balancing policies.
var policyWords = []string{"round_robin", "least_request", "random"}

func (c *checker) route(path, own string, r *Route) {
	c.match(join(path, "match"), &r.Match)
	at := path
	if r.To != "" {
		at = join(path, "to")
	}
	to := c.known(at, r.target(own))
	if to != nil {
		c.split(join(path, "split"), r.target(own), to, r.Split)
	}
	if r.Retry != nil {
		c.retry(join(path, "retry"), r.Retry)
	}
	if r.Fallback != nil {
		c.fallback(join(path, "fallback"), r.target(own), r.Fallback)
	}
}

func (c *checker) match(path string, m *Match) {
	c.exclusive(path, "path", m.Path != "", "prefix", m.Prefix != "")
	c.exclusive(path, "path", m.Path != "", "regex", m.Regex != "")
	c.exclusive(path, "prefix", m.Prefix != "", "regex", m.Regex != "")
	for field, v := range map[string]string{"path": m.Path, "prefix": m.Prefix} {
		if v != "" && (v[0] != '/' || strings.ContainsAny(v, "?#")) {
			c.fail(join(path, field), label(join(path, field))+" must begin with / and hold no query", "")
		}
	}
	if m.Regex != "" {
		c.regex(join(path, "regex"), m.Regex)
	}
	for i, method := range m.Methods {
		at := fmt.Sprintf("%s.methods[%d]", path, i)
		if !methodName.MatchString(method) {
			c.fail(at, fmt.Sprintf("%q is not a method, such as GET", method), "")
		}
	}
	for i := range m.Headers {
		c.header(fmt.Sprintf("%s.headers[%d]", path, i), &m.Headers[i])
	}
}

func (c *checker) header(path string, h *HeaderMatch) {
	c.required(join(path, "name"), h.Name != "")
	if h.Name != "" {
		c.headerName(join(path, "name"), h.Name)
	}
	tests := 0
	for _, set := range []bool{h.Exact != "", h.Prefix != "", h.Regex != "", h.Present != nil} {
		if set {
			tests++
		}
	}
	if tests != 1 && !c.hurt[path] {
		c.fail(path, fmt.Sprintf("%s must have one of exact, prefix, regex and present", label(path)), "")
	}
	if h.Regex != "" {
		c.regex(join(path, "regex"), h.Regex)
	}
}

func (c *checker) headerName(path, name string) {
	if !headerName.MatchString(strings.ToLower(name)) {
		c.fail(path, fmt.Sprintf("%q is not the name of a header", name), "")
	}
}

func (c *checker) split(path, name string, to *Service, shares []Share) {
	var versions []string
	for _, e := range to.Endpoints {
		if e.Version != "" && !slices.Contains(versions, e.Version) {
			versions = append(versions, e.Version)
		}
	}
	var sum uint64
	seen := map[string]bool{}
	for i, s := range shares {
		at := fmt.Sprintf("%s[%d]", path, i)
		c.required(join(at, "version"), s.Version != "")
		c.required(join(at, "weight"), s.Weight != nil)
		if s.Version != "" && !slices.Contains(versions, s.Version) {
			msg := fmt.Sprintf("no endpoint of service %q has version %q", name, s.Version)
			c.fail(join(at, "version"), msg, didYouMean(s.Version, versions))
		}
		if seen[s.Version] {
			c.fail(join(at, "version"), fmt.Sprintf("version %q has a share already", s.Version), "")
		}
		seen[s.Version] = true
		if s.Weight != nil {
			sum += uint64(*s.Weight)
		}
	}
	if len(shares) > 0 && sum == 0 || sum > math.MaxUint32 {
		c.fail(path, fmt.Sprintf("the weights of %s must add up to 1 at least and to %d at most", label(path), uint32(math.MaxUint32)), "")
	}
}

func (c *checker) retry(path string, r *Retry) {
	c.required(join(path, "on"), len(r.On)+len(r.Statuses) > 0)
	for i, word := range r.On {
		c.word(fmt.Sprintf("%s.on[%d]", path, i), word, retryWords...)
	}
	for i, status := range r.Statuses {
		if status < 100 || status > 599 {
			at := fmt.Sprintf("%s.statuses[%d]", path, i)
			c.fail(at, fmt.Sprintf("%s must be a status from 100 to 599", label(at)), "")
		}
	}
	c.positive(join(path, "retries"), r.Retries)
	c.positive(join(path, "per_try_timeout"), r.PerTryTimeout)
	c.positive(join(path, "backoff"), r.BackOff)
	c.positive(join(path, "max_backoff"), r.MaxBackOff)
	if base := r.backOff(); r.MaxBackOff != 0 && r.MaxBackOff < base {
		c.fail(join(path, "max_backoff"), fmt.Sprintf("retry.max_backoff must not be less than backoff (%s)", time.Duration(base)), "")
	}
}

// maxFallbackBody bounds the body of a fixed answer, in bytes, as the proxy does.
const maxFallbackBody = 4096

func (c *checker) fallback(path, target string, f *Fallback) {
	for i, word := range f.On {
		c.word(fmt.Sprintf("%s.on[%d]", path, i), word, fallbackWords...)
	}
	c.exclusive(path, "to", f.To != "", "status", f.Status != 0)
	switch {
	case f.To == target:
		c.fail(join(path, "to"), "the fallback is the very service that it stands for", "")
	case f.To != "":
		c.known(join(path, "to"), f.To)
	case f.Status == 0 && !c.hurt[path]:
		c.fail(path, "fallback needs to, the service that answers, or status, for a fixed answer", "")
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		c.fail(join(path, "status"), "fallback.status must be from 200 to 599", "")
	}
	if f.To != "" && (f.Body != "" || len(f.Headers) > 0) {
		c.fail(join(path, "to"), "body and headers belong to a fixed answer, with status", "")
	}
	if len(f.Body) > maxFallbackBody {
		c.fail(join(path, "body"), fmt.Sprintf("fallback.body has %d bytes, of which %d are allowed", len(f.Body), maxFallbackBody), "")
	}
	for _, name := range slices.Sorted(maps.Keys(f.Headers)) {
		at := join(join(path, "headers"), name)
		c.headerName(at, name)
		if strings.EqualFold(name, "host") {
			c.fail(at, "host is not a header of an answer", "")
		}
		if strings.ContainsAny(f.Headers[name], "\x00\r\n") {
			c.fail(at, fmt.Sprintf("header %q must hold no line breaks", name), "")
		}
	}
}

func (c *checker) policy(path string, p *Policy) {
	if p.LB != "" {
		c.word(join(path, "lb"), p.LB, policyWords...)
	}
	c.positive(join(path, "connect_timeout"), p.ConnectTimeout)
	if l := p.Limits; l != nil {
		at := join(path, "limits")
		c.exclusive(at, "retries", l.Retries != nil, "retry_budget", l.RetryBudget != nil)
		c.positive(join(at, "connections_per_endpoint"), l.ConnectionsPerEndpoint)
	}
	if o := p.Outlier; o != nil {
		at := join(path, "outlier")
		c.positive(join(at, "interval"), o.Interval)
		c.positive(join(at, "ejection"), o.Ejection)
		if (o.Consecutive5xx == nil || *o.Consecutive5xx == 0) && (o.ConsecutiveGateway == nil || *o.ConsecutiveGateway == 0) && !c.hurt[at] {
			c.fail(at, "outlier never ejects: set consecutive_5xx or consecutive_gateway", "")
		}
	}
	if p.Breaker != nil {
		c.breaker(join(path, "breaker"), p.Breaker)
	}
}

func (c *checker) breaker(path string, b *Breaker) {
	c.positive(join(path, "window"), b.Window)
	c.positive(join(path, "open_for"), b.OpenFor)
	c.positive(join(path, "probes"), b.Probes)
	c.positive(join(path, "probe_successes"), b.ProbeSuccesses)
	switch {
	case c.hurt[path]:
	case b.SlowRate > 0 && b.SlowAfter == 0:
		c.fail(path, "slow_after is required where slow_rate is set: it says what is slow", "")
	case b.SlowRate == 0 && b.SlowAfter > 0:
		c.fail(join(path, "slow_after"), "slow_rate is required where slow_after is set", "")
	case b.ErrorRate == 0 && b.SlowRate == 0 && b.ConsecutiveFailures == 0:
		c.fail(path, "breaker never opens: set consecutive_failures, error_rate or slow_rate", "")
	}
}
