// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"

	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// retryConditions are the words of retry_on. Envoy takes those of gRPC in the same list.
var retryConditions = map[string]mesh.RetryOn{
	"5xx":                    mesh.RetryOn5xx,
	"gateway-error":          mesh.RetryOnGatewayError,
	"reset":                  mesh.RetryOnReset,
	"reset-before-request":   mesh.RetryOnResetBeforeRequest,
	"connect-failure":        mesh.RetryOnConnectFailure,
	"refused-stream":         mesh.RetryOnRefusedStream,
	"retriable-4xx":          mesh.RetryOnRetriable4xx,
	"retriable-status-codes": mesh.RetryOnRetriableStatusCodes,
	"retriable-headers":      mesh.RetryOnRetriableHeaders,
	"envoy-ratelimited":      mesh.RetryOnEnvoyRateLimited,
	"cancelled":              mesh.RetryOnGRPCCancelled,
	"deadline-exceeded":      mesh.RetryOnGRPCDeadlineExceeded,
	"internal":               mesh.RetryOnGRPCInternal,
	"resource-exhausted":     mesh.RetryOnGRPCResourceExhausted,
	"unavailable":            mesh.RetryOnGRPCUnavailable,
}

func (s *scope) retryPolicy(p *at, m *routev3.RetryPolicy) *mesh.RetryPolicy {
	if m == nil {
		return nil
	}
	r := &mesh.RetryPolicy{
		On:                 s.retryOn(p, m.GetRetryOn()),
		Retries:            int(uint32Or(m.GetNumRetries(), defaultRetries)),
		PerTryTimeout:      s.duration(p, "per_try_timeout", m.GetPerTryTimeout()),
		PerTryIdleTimeout:  s.duration(p, "per_try_idle_timeout", m.GetPerTryIdleTimeout()),
		Headers:            s.headerMatches(p, "retriable_headers", m.GetRetriableHeaders()),
		HostSelectionTries: 1,
	}
	for _, c := range m.GetRetriableStatusCodes() {
		r.StatusCodes = append(r.StatusCodes, int(c))
	}
	s.backOff(p.field("retry_back_off"), r, m.GetRetryBackOff())
	for i, h := range m.GetRetryHostPredicate() {
		hp := p.item("retry_host_predicate", i)
		t := unwrap(h.GetTypedConfig())
		if !isType(t, &previoushostsv3.PreviousHostsPredicate{}) {
			s.errorf(hp.field("typed_config"), "%s", s.unknownType(registry.RetryPredicate, h.GetName(), t.name,
				"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"))
			continue
		}
		if s.message(hp.field("typed_config"), t, &previoushostsv3.PreviousHostsPredicate{}) {
			r.SkipPreviousHosts = true
		}
	}
	if n := m.GetHostSelectionRetryMaxAttempts(); n > 0 {
		r.HostSelectionTries = int(min(n, 1<<16))
	}
	return r
}

// retryOn reads a list of conditions. Envoy skips the words it does not know, so a working configuration may hold some:
// they are reported, with what was probably meant.
func (s *scope) retryOn(p *at, list string) (on mesh.RetryOn) {
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		c, ok := retryConditions[word]
		if !ok && word != "" {
			s.notef(p.field("retry_on"), "%q is not a retry condition here; those are %s", word,
				strings.Join(sortedKeys(retryConditions), ", "))
		}
		on |= c
	}
	return on
}

func (s *scope) backOff(p *at, r *mesh.RetryPolicy, m *routev3.RetryPolicy_RetryBackOff) {
	r.BackOffBase = max(s.durationOr(p, "base_interval", m.GetBaseInterval(), defaultRetryBackOff), time.Millisecond)
	r.BackOffMax = s.durationOr(p, "max_interval", m.GetMaxInterval(), 10*r.BackOffBase)
	if r.BackOffMax < time.Millisecond {
		r.BackOffMax = time.Millisecond
	}
	if r.BackOffMax < r.BackOffBase {
		s.errorf(p.field("max_interval"), "must not be less than base_interval (%v)", r.BackOffBase)
	}
}

func addRetryFields(t *protofields.Table) {
	t.Add(&routev3.RetryPolicy{},
		protofields.Honour("retry_on", "num_retries", "per_try_timeout", "per_try_idle_timeout", "retry_host_predicate",
			"host_selection_retry_max_attempts", "retriable_status_codes", "retry_back_off", "retriable_headers"),
		protofields.Refuse("the priority of a retry is the load balancer's", "retry_priority"),
		protofields.Refuse("retry options plug-ins are not supported", "retry_options_predicates"),
		protofields.Refuse("back-off by answer headers is not supported; use retry_back_off", "rate_limited_retry_back_off"),
		protofields.Refuse("retries by request headers are not supported; use two routes", "retriable_request_headers"),
		protofields.Refuse("a retry goes to the cluster of the first attempt", "refresh_cluster_on_retry"))
	t.Add(&routev3.RetryPolicy_RetryHostPredicate{}, protofields.Honour("name", "typed_config"))
	t.Add(&routev3.RetryPolicy_RetryBackOff{}, protofields.Honour("base_interval", "max_interval"))
	t.Add(&previoushostsv3.PreviousHostsPredicate{})
}
