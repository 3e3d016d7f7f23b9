// SPDX-License-Identifier: Apache-2.0

package circuit

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/meshtap/meshtap/mesh"
)

// httpConditions are those of x-envoy-retry-on; the others are those of x-envoy-retry-grpc-on. A policy's retry_on
// takes both.
const httpConditions = mesh.RetryOn5xx | mesh.RetryOnGatewayError | mesh.RetryOnReset | mesh.RetryOnResetBeforeRequest |
	mesh.RetryOnConnectFailure | mesh.RetryOnRefusedStream | mesh.RetryOnRetriable4xx |
	mesh.RetryOnRetriableStatusCodes | mesh.RetryOnRetriableHeaders | mesh.RetryOnEnvoyRateLimited

// retryOnNames are Envoy's names, the more telling one first where an attempt meets several conditions.
var retryOnNames = [...]struct {
	name string
	on   mesh.RetryOn
}{
	{"connect-failure", mesh.RetryOnConnectFailure},
	{"refused-stream", mesh.RetryOnRefusedStream},
	{"reset-before-request", mesh.RetryOnResetBeforeRequest},
	{"reset", mesh.RetryOnReset},
	{"gateway-error", mesh.RetryOnGatewayError},
	{"5xx", mesh.RetryOn5xx},
	{"retriable-4xx", mesh.RetryOnRetriable4xx},
	{"retriable-status-codes", mesh.RetryOnRetriableStatusCodes},
	{"retriable-headers", mesh.RetryOnRetriableHeaders},
	{"envoy-ratelimited", mesh.RetryOnEnvoyRateLimited},
	{"cancelled", mesh.RetryOnGRPCCancelled},
	{"deadline-exceeded", mesh.RetryOnGRPCDeadlineExceeded},
	{"internal", mesh.RetryOnGRPCInternal},
	{"resource-exhausted", mesh.RetryOnGRPCResourceExhausted},
	{"unavailable", mesh.RetryOnGRPCUnavailable},
}

// nameOf returns the name of the first condition in on, or "".
func nameOf(on mesh.RetryOn) string {
	for _, c := range retryOnNames[:] {
		if on&c.on != 0 {
			return c.name
		}
	}
	return ""
}

// ParseRetryOn reads the retry_on of a policy: names of conditions with commas between them. It also returns the names
// that are not known here, which Envoy ignores, so that the caller can report them.
func ParseRetryOn(s string) (on mesh.RetryOn, unknown []string) {
	return parseRetryOn(s, math.MaxUint32)
}

func parseRetryOn(s string, known mesh.RetryOn) (on mesh.RetryOn, unknown []string) {
next:
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		for _, c := range retryOnNames[:] {
			if c.name == name && c.on&known != 0 {
				on |= c.on
				continue next
			}
		}
		unknown = append(unknown, name)
	}
	return on, unknown
}

// RetryHeaders are the values of request headers that change a retry policy; "" where a header is not there. Whether
// the client is trusted to send them is for the caller.
type RetryHeaders struct {
	// On and GRPCOn are x-envoy-retry-on and x-envoy-retry-grpc-on.
	On, GRPCOn string
	// MaxRetries is x-envoy-max-retries.
	MaxRetries string
	// StatusCodes and HeaderNames are x-envoy-retriable-status-codes and x-envoy-retriable-header-names.
	StatusCodes, HeaderNames string
}

// Merge returns the policy for a request with these headers, by Envoy's rules: conditions, status codes and headers are
// added to the policy's, the number of retries replaces it. What cannot be read is ignored. Without a policy there is one
// with a single retry, if a header names a condition. Where nothing changes, it is policy itself, and nothing is
// allocated.
func (h *RetryHeaders) Merge(policy *mesh.RetryPolicy) *mesh.RetryPolicy {
	if *h == (RetryHeaders{}) || policy == nil && h.On == "" && h.GRPCOn == "" {
		return policy
	}
	p := mesh.RetryPolicy{Retries: 1}
	if policy != nil {
		p = *policy
	}
	on, _ := parseRetryOn(h.On, httpConditions)
	grpcOn, _ := parseRetryOn(h.GRPCOn, ^httpConditions)
	p.On |= on | grpcOn
	if n, err := strconv.ParseUint(strings.TrimSpace(h.MaxRetries), 10, 64); err == nil {
		p.Retries = int(min(n, math.MaxInt32))
	}
	// Clipped, so that appending leaves the policy's own memory alone.
	p.StatusCodes, p.Headers = slices.Clip(p.StatusCodes), slices.Clip(p.Headers)
	for code := range strings.SplitSeq(h.StatusCodes, ",") {
		if n, err := strconv.ParseUint(strings.TrimSpace(code), 10, 31); err == nil {
			p.StatusCodes = append(p.StatusCodes, int(n))
		}
	}
	for name := range strings.SplitSeq(h.HeaderNames, ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			p.Headers = append(p.Headers, mesh.HeaderMatch{Name: name, Kind: mesh.HeaderPresent, Present: true})
		}
	}
	return &p
}
