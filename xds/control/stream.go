// SPDX-License-Identifier: Apache-2.0

package control

import (
	"slices"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// stream is one ADS stream of a proxy. All but the first group is guarded by the mu of its view.
type stream struct {
	// Immutable.
	address string
	delta   bool
	since   time.Time
	view    *view // nil until the first request

	types map[string]*typeState
}

// typeState is what a stream was sent of a type, and what the proxy said of it.
type typeState struct {
	// nonce is that of the last response; confirmed and refused are what the proxy said of it, sent is its version, and
	// names what it answers where that is asked for by name.
	nonce       string
	confirmed   bool
	refused     bool
	sent        uint64
	sentVersion string
	names       []string
	gone        []string // of a delta response

	acked        uint64
	ackedVersion string
	// covered are the names that acknowledged responses answered.
	covered map[string]bool
	// rejected is the version of the last NACK, detail its reason; 0 and "" after an ACK.
	rejected uint64
	detail   string
	at       time.Time // of the last ACK or NACK
}

func newStream(address string, delta bool, now time.Time) *stream {
	s := &stream{address: address, delta: delta, since: now, types: map[string]*typeState{}}
	for _, t := range typeURLs {
		s.types[t] = &typeState{covered: map[string]bool{}}
	}
	return s
}

// has says whether a proxy has confirmed what is expected.
func (t *typeState) has(w expectation, wildcard bool) bool {
	if t.acked < w.version {
		return false
	}
	return wildcard || !slices.ContainsFunc(w.names, func(n string) bool { return !t.covered[n] })
}

// answer is what a request says of the response before it.
type answer struct {
	nonce, version, detail string
	rejected               bool
}

// answered takes the answer to a response. It reports whether it was one: requests with the same nonce may also change the
// subscription. A proxy may reject what it acknowledged before, where it could not put it into force.
func (t *typeState) answered(a answer, isDelta bool, now time.Time) bool {
	if a.nonce == "" || a.nonce != t.nonce {
		return false
	}
	if a.rejected {
		t.refused, t.rejected, t.detail, t.at = true, t.sent, clean(a.detail), now
		return true
	}
	// With another version than that of the response, state of the world only asks for other names.
	if t.confirmed || t.refused || !isDelta && a.version != t.sentVersion {
		return false
	}
	t.confirmed, t.at = true, now
	t.acked, t.ackedVersion, t.rejected, t.detail = t.sent, t.sentVersion, 0, ""
	if !isDelta { // the response answered the whole subscription
		clear(t.covered)
	}
	for _, n := range t.names {
		t.covered[n] = true
	}
	for _, n := range t.gone {
		delete(t.covered, n)
	}
	return true
}

// response remembers what is sent.
func (s *stream) response(req *discoverypb.DiscoveryRequest, resp *discoverypb.DiscoveryResponse) {
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	if t := s.types[resp.GetTypeUrl()]; t != nil {
		t.nonce, t.confirmed, t.refused, t.names = resp.GetNonce(), false, false, req.GetResourceNames()
		t.sentVersion, t.sent = resp.GetVersionInfo(), s.view.number(resp.GetVersionInfo())
	}
}

func (s *stream) deltaResponse(resp *discoverypb.DeltaDiscoveryResponse) {
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	t := s.types[resp.GetTypeUrl()]
	if t == nil {
		return
	}
	t.nonce, t.confirmed, t.refused, t.gone, t.names = resp.GetNonce(), false, false, resp.GetRemovedResources(), nil
	t.sentVersion, t.sent = resp.GetSystemVersionInfo(), s.view.number(resp.GetSystemVersionInfo())
	for _, r := range resp.GetResources() {
		t.names = append(t.names, r.GetName())
	}
}
