// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	breakerv1 "github.com/meshtap/meshtap/api/meshtap/breaker/v1"
	endpointsv1 "github.com/meshtap/meshtap/api/meshtap/endpoints/v1"
	fallbackv1 "github.com/meshtap/meshtap/api/meshtap/fallback/v1"
	"github.com/meshtap/meshtap/internal/protofields"
	"github.com/meshtap/meshtap/mesh"
)

// Defaults of Meshtap's own circuit breaker.
const (
	breakerWindow    = 10 * time.Second
	breakerMinVolume = 20
	breakerOpenFor   = 5 * time.Second
	breakerProbes    = 1
)

// maxFallbackBody bounds the body of a fallback's response, in bytes.
const maxFallbackBody = 4096

// ownMessage opens one of Meshtap's own extensions. Wrapped in a TypedStruct, the same configuration loads in Envoy.
func (s *scope) ownMessage(p *at, a *anypb.Any, m proto.Message) bool {
	t := unwrap(a)
	if !isType(t, m) {
		s.errorf(p, "has type %s; it must be %s", t.name, m.ProtoReflect().Descriptor().FullName())
		return false
	}
	return s.message(p, t, m)
}

func (s *scope) breaker(p *at, a *anypb.Any) *mesh.Breaker {
	m := &breakerv1.Breaker{}
	if !s.ownMessage(p, a, m) {
		return nil
	}
	b := &mesh.Breaker{
		Window:              s.positive(p, "window", m.GetWindow(), breakerWindow),
		MinVolume:           uint32Or(m.GetMinVolume(), breakerMinVolume),
		ConsecutiveFailures: m.GetConsecutiveFailures(),
		ErrorRate:           s.rate(p, "error_rate", m.GetErrorRate()),
		SlowRate:            s.rate(p, "slow_rate", m.GetSlowRate()),
		SlowAfter:           s.duration(p, "slow_after", m.GetSlowAfter()),
		OpenFor:             s.positive(p, "open_for", m.GetOpenFor(), breakerOpenFor),
		Probes:              s.atLeastOne(p, "probes", uint32Or(m.GetProbes(), breakerProbes)),
		ProbeSuccesses:      s.atLeastOne(p, "probe_successes", uint32Or(m.GetProbeSuccesses(), breakerProbes)),
		PerHost:             m.GetPerHost(),
	}
	switch {
	case b.SlowRate > 0 && b.SlowAfter == 0:
		s.errorf(p.field("slow_after"), "is required where slow_rate is set")
	case b.SlowRate == 0 && b.SlowAfter > 0:
		s.errorf(p.field("slow_rate"), "is required where slow_after is set")
	case b.ErrorRate == 0 && b.SlowRate == 0 && b.ConsecutiveFailures == 0:
		s.errorf(p, "never opens: set consecutive_failures, error_rate or slow_rate")
	}
	for i, r := range m.GetFailureStatus() {
		rp := p.item("failure_status", i)
		if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
			s.errorf(rp, "must be a range with 100 <= start < end <= 600")
		}
		b.FailureStatus = append(b.FailureStatus, mesh.StatusRange{Start: int(r.GetStart()), End: int(r.GetEnd())})
	}
	if b.FailureStatus == nil {
		b.FailureStatus = []mesh.StatusRange{{Start: 500, End: 600}}
	}
	return b
}

func (s *scope) ownEndpoints(p *at, c *mesh.Cluster, a *anypb.Any) {
	m := &endpointsv1.Endpoints{}
	if !s.ownMessage(p, a, m) {
		return
	}
	if c.Discovery != mesh.EDS {
		s.errorf(p, "is for clusters of type EDS")
	}
	if m.GetKeepLast() == nil {
		s.errorf(p.field("keep_last"), isRequired)
		return
	}
	c.KeepLast = s.positive(p, "keep_last", m.GetKeepLast(), 0)
}

func (s *scope) positive(p *at, field string, d *durationpb.Duration, def time.Duration) time.Duration {
	v := s.durationOr(p, field, d, def)
	if v == 0 {
		s.errorf(p.field(field), "must be more than 0")
	}
	return v
}

func (s *scope) rate(p *at, field string, v float64) float64 {
	if !(v >= 0 && v <= 1) { // also NaN
		s.errorf(p.field(field), "must be a share between 0 and 1, such as 0.5")
		return 0
	}
	return v
}

func (s *scope) atLeastOne(p *at, field string, v uint32) uint32 {
	if v == 0 {
		s.errorf(p.field(field), "must be at least 1")
	}
	return v
}

var fallbackReasons = map[fallbackv1.Fallback_Reason]mesh.FallbackOn{
	fallbackv1.Fallback_OPEN_CIRCUIT:    mesh.FallbackOnOpenCircuit,
	fallbackv1.Fallback_NO_HEALTHY_HOST: mesh.FallbackOnNoHealthyHost,
	fallbackv1.Fallback_OVERFLOW:        mesh.FallbackOnOverflow,
	fallbackv1.Fallback_CONNECT_FAILURE: mesh.FallbackOnConnectFailure,
}

func (s *scope) fallback(p *at, a *anypb.Any) *mesh.Fallback {
	m := &fallbackv1.Fallback{}
	if !s.ownMessage(p, a, m) {
		return nil
	}
	f := &mesh.Fallback{}
	for i, r := range m.GetOn() {
		on, ok := fallbackReasons[r]
		if !ok {
			s.errorf(p.item("on", i), "%s is no reason; those are OPEN_CIRCUIT, NO_HEALTHY_HOST, OVERFLOW, "+
				"CONNECT_FAILURE", r)
		}
		f.On |= on
	}
	if len(m.GetOn()) == 0 {
		s.errorf(p.field("on"), "must have at least 1 item")
	}
	switch x := m.GetAction().(type) {
	case *fallbackv1.Fallback_Cluster:
		f.Cluster = x.Cluster
		if x.Cluster == "" {
			s.errorf(p.field("cluster"), "must not be empty")
		}
		s.clusters = append(s.clusters, x.Cluster)
	case *fallbackv1.Fallback_Response:
		s.fallbackResponse(p.field("response"), f, x.Response)
	default:
		s.errorf(p, "one of cluster, response is required")
	}
	return f
}

func (s *scope) fallbackResponse(p *at, f *mesh.Fallback, m *fallbackv1.Response) {
	if st := m.GetStatus(); st < 200 || st > 599 {
		s.errorf(p.field("status"), "must be at least 200 and at most 599")
	}
	if n := len(m.GetBody()); n > maxFallbackBody {
		s.errorf(p.field("body"), "has %d bytes, of which %d are allowed", n, maxFallbackBody)
	}
	f.Response = &mesh.DirectResponse{Status: int(m.GetStatus()), Body: []byte(m.GetBody())}
	for i, h := range m.GetHeaders() {
		hp := p.item("headers", i)
		name := strings.ToLower(h.GetName())
		if !validName(name) || fixed(name) {
			s.errorf(hp.field("name"), "%q is not the name of an answer's header", h.GetName())
		}
		if strings.ContainsAny(h.GetValue(), "\x00\r\n") {
			s.errorf(hp.field("value"), controlCharacters)
		}
		f.Headers = append(f.Headers, mesh.HeaderAdd{
			Name: name, Literal: h.GetValue(), Value: mesh.Format{{Text: h.GetValue()}},
		})
	}
}

// validName says whether a header name is a token (RFC 9110 section 5.6.2) in lower case.
func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_|~`", c) >= 0) {
			return false
		}
	}
	return name != ""
}

func addOwnFields(t *protofields.Table) {
	t.Add(&breakerv1.Breaker{}, protofields.Honour("window", "min_volume", "consecutive_failures", "error_rate",
		"slow_rate", "slow_after", "open_for", "probes", "probe_successes", "failure_status", "per_host"))
	t.Add(&breakerv1.StatusRange{}, protofields.Honour("start", "end"))
	t.Add(&endpointsv1.Endpoints{}, protofields.Honour("keep_last"))
	t.Add(&fallbackv1.Fallback{}, protofields.Honour("on", "cluster", "response"))
	t.Add(&fallbackv1.Response{}, protofields.Honour("status", "body", "headers"))
	t.Add(&fallbackv1.Header{}, protofields.Honour("name", "value"))
}
