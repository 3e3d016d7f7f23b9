// SPDX-License-Identifier: Apache-2.0

package circuit

import (
	"math/bits"
	"time"

	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
)

// The back-off where a policy has none: Envoy's upstream.base_retry_backoff_ms, and its ratio of the longest to the
// first interval.
const (
	defaultBackOff = 25 * time.Millisecond
	backOffRatio   = 10
)

// Why an attempt is not repeated. Where it is, Decision.Reason is the name of the condition, as in x-envoy-retry-on.
const (
	// ReasonNotRetriable: no condition of the policy holds, or there is no policy.
	ReasonNotRetriable = "not_retriable"
	// ReasonCommitted: the client has a part of the answer already.
	ReasonCommitted = "committed"
	// ReasonNotReplayable: a part of the request is gone.
	ReasonNotReplayable = "not_replayable"
	// ReasonRetryLimit: the policy's number of retries is used up; Envoy counts upstream_rq_retry_limit_exceeded and
	// sets the flag URX.
	ReasonRetryLimit = "limit_exceeded"
	// ReasonRetryOverflow: the cluster has no room for a retry; Envoy counts upstream_rq_retry_overflow and sets the
	// flag UO.
	ReasonRetryOverflow = "overflow"
)

// ReasonTurnedOff: the runtime says that this part of the retries is not to be made.
const ReasonTurnedOff = "turned_off"

// Decision says what follows a failed attempt.
type Decision struct {
	Retry bool
	// Wait is how long to wait before the next attempt.
	Wait   time.Duration
	Reason string
}

// Plan decides about the attempts of one request (Envoy's RetryState; gRFC A44 is gRPC's reading of the same policy).
// It belongs to the goroutine that makes them, and is not copied once it is in use.
type Plan struct {
	policy    *mesh.RetryPolicy
	resources *Resources
	// retries are those that were decided on.
	retries int
	// holds says that one of resources' Retries is taken for the retry under way.
	holds bool
	// renewed says that Renew has been used.
	renewed bool
}

// NewPlan returns the plan of a request. policy may be nil, which never retries. resources, of the cluster and the
// priority of the request, admit each retry; nil admits all. Close must be called in the end.
func NewPlan(policy *mesh.RetryPolicy, resources *Resources) Plan {
	return Plan{policy: policy, resources: resources}
}

// Retries returns the number of retries that Next decided on.
func (p *Plan) Retries() int { return p.retries }

// Next decides after an attempt that failed, or whose answer is one that the policy may want to repeat. A retry counts
// against the policy and the cluster from here until the next call of Next or Close. rnd is random.
//
// The policy decides, and not how far the request got: under "reset", a request that the upstream may have acted on is
// repeated too, as in Envoy.
func (p *Plan) Next(a *Attempt, rnd uint64) Decision {
	p.Close()
	if p.policy == nil {
		return Decision{Reason: ReasonNotRetriable}
	}
	condition := p.condition(a)
	switch {
	case condition == "":
		return Decision{Reason: ReasonNotRetriable}
	case a.Committed:
		return Decision{Reason: ReasonCommitted}
	case !a.Replayable:
		return Decision{Reason: ReasonNotReplayable}
	case p.retries >= p.policy.Retries:
		return Decision{Reason: ReasonRetryLimit}
	case p.resources != nil && rnd%100 < uint64(p.resources.refuse.Load()):
		return Decision{Reason: ReasonTurnedOff}
	case p.resources != nil && !p.resources.Acquire(Retries):
		return Decision{Reason: ReasonRetryOverflow}
	}
	p.holds = p.resources != nil
	p.retries++
	// All of the interval is left to chance, so that requests that failed together do not come back together.
	wait, _ := bits.Mul64(rnd, uint64(interval(p.policy, p.base(), p.retries)))
	return Decision{Retry: true, Wait: time.Duration(wait), Reason: condition}
}

// Close ends the plan. It may be called at any time and more than once.
func (p *Plan) Close() {
	if p.holds {
		p.holds = false
		p.resources.Release(Retries)
	}
}

// Renew reports whether a request that failed on a stale connection is to be sent again at once on another one. It
// stands outside the policy: pooled connections are closed by the upstream at any time, and a request that met such a
// close has not been tried yet in any sense that a policy means. Envoy leaves this to policies, and answers 503 UC
// where there is none.
//
// It allows this once for each request, when nothing of an answer came, and only where it cannot repeat an effect:
//   - the request never left (RetryAlways) when the connection closed, or
//   - the connection was a used one that closed without a byte (RetryIfReused) and the request is idempotent. Such a
//     close nearly always means that the upstream did not see the request, but a proxy must not take that chance with a
//     request that is not idempotent (RFC 9110 section 9.2.2).
func (p *Plan) Renew(a *Attempt) bool {
	if p.renewed || a.Committed || a.Status != 0 || !a.Replayable {
		return false
	}
	switch a.Failure.Kind {
	case mesh.UpstreamClosed, mesh.UpstreamReset:
	default:
		return false
	}
	switch a.Failure.Retry {
	case mesh.RetryAlways:
		// A reset stream is not a stale connection: the upstream refused it (see condition), perhaps for being busy.
		p.renewed = a.Failure.Kind == mesh.UpstreamClosed
	case mesh.RetryIfReused:
		p.renewed = a.Idempotent
	}
	return p.renewed
}

// condition returns the name of the policy's first condition that holds, or "".
func (p *Plan) condition(a *Attempt) string {
	on := p.policy.On
	if a.Failure.Kind != mesh.NoFailure {
		return nameOf(on & failureConditions(a))
	}
	if a.Status == 0 {
		return ""
	}
	// An answer with this header comes from a proxy that was told to slow down, so nothing but its own condition counts.
	if a.Answer != nil && a.Answer.Matches(&rateLimited) {
		return nameOf(on & mesh.RetryOnEnvoyRateLimited)
	}
	if held := on & statusConditions(a); held != 0 {
		return nameOf(held)
	}
	if on&mesh.RetryOnRetriableStatusCodes != 0 {
		for _, status := range p.policy.StatusCodes {
			if status == a.Status {
				return nameOf(mesh.RetryOnRetriableStatusCodes)
			}
		}
	}
	if on&mesh.RetryOnRetriableHeaders != 0 && a.Answer != nil {
		for i := range p.policy.Headers {
			if a.Answer.Matches(&p.policy.Headers[i]) {
				return nameOf(mesh.RetryOnRetriableHeaders)
			}
		}
	}
	return ""
}

// rateLimited matches answers that Envoy's rate limit filter refused. It is never changed.
var rateLimited = mesh.HeaderMatch{Name: "x-envoy-ratelimited", Kind: mesh.HeaderPresent, Present: true}

// failureConditions returns the conditions that a failure meets. Those that are not the upstream's, or that end the
// whole request, meet none: an overflow, an open circuit, no healthy host, the request's timeout, the client.
func failureConditions(a *Attempt) mesh.RetryOn {
	var on mesh.RetryOn
	switch a.Failure.Kind {
	case mesh.ConnectFailure, mesh.ConnectTimeout:
		on = mesh.RetryOnConnectFailure
	case mesh.UpstreamReset:
		// A reset of a stream that the upstream did not process is HTTP/2's REFUSED_STREAM (RFC 9113 section 8.7).
		if a.Failure.Retry == mesh.RetryAlways {
			on = mesh.RetryOnRefusedStream
		}
	case mesh.UpstreamClosed, mesh.UpstreamProtocolError, mesh.PerTryTimeout, mesh.MaxDuration, mesh.LocalReset:
	default:
		return 0
	}
	if !a.Sent {
		on |= mesh.RetryOnResetBeforeRequest
	}
	if a.IsGRPC && a.Status == 0 && a.Failure.Kind != mesh.PerTryTimeout && a.Failure.Kind != mesh.MaxDuration {
		on |= mesh.RetryOnGRPCUnavailable // which is what the client would be told; docs/adr/0013-unavailable.md
	}
	return on | mesh.RetryOnReset | mesh.RetryOn5xx | mesh.RetryOnGatewayError
}

// statusConditions returns the conditions that an answer meets by its status and grpc-status alone.
func statusConditions(a *Attempt) mesh.RetryOn {
	var on mesh.RetryOn
	switch {
	case a.Status >= 502 && a.Status <= 504:
		on = mesh.RetryOn5xx | mesh.RetryOnGatewayError
	case a.Status >= 500 && a.Status <= 599:
		on = mesh.RetryOn5xx
	case a.Status == 409:
		on = mesh.RetryOnRetriable4xx
	}
	if !a.HasGRPC {
		return on
	}
	switch a.GRPC {
	case grpcwire.Cancelled:
		on |= mesh.RetryOnGRPCCancelled
	case grpcwire.DeadlineExceeded:
		on |= mesh.RetryOnGRPCDeadlineExceeded
	case grpcwire.ResourceExhausted:
		on |= mesh.RetryOnGRPCResourceExhausted
	case grpcwire.Internal:
		on |= mesh.RetryOnGRPCInternal
	case grpcwire.Unavailable:
		on |= mesh.RetryOnGRPCUnavailable
	}
	return on
}

// base returns the longest wait before the first retry where the policy does not say.
func (p *Plan) base() time.Duration {
	if p.resources != nil {
		if d := p.resources.backOff.Load(); d > 0 {
			return time.Duration(d)
		}
	}
	return defaultBackOff
}

// interval returns the longest wait before the n-th retry, n >= 1. It doubles from the base to the maximum, as Envoy's
// JitteredExponentialBackOffStrategy does: 25, 50, 100, 200, 250 ms. (Its documentation says 25, 75, 175, 250.)
func interval(p *mesh.RetryPolicy, base time.Duration, n int) time.Duration {
	longest := p.BackOffMax
	if p.BackOffBase > 0 {
		base = p.BackOffBase
	}
	if longest <= 0 {
		longest = backOffRatio * base
	}
	for ; n > 1 && base < longest; n-- {
		base *= 2
	}
	return min(base, longest)
}
