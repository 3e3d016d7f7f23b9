// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

// TestNotes: what is not as it should be, the gravest first.
func TestNotes(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	well := func(change ...func(*proxyStatus)) *proxyStatus {
		p := &proxyStatus{State: "LIVE", xdsJSON: xdsJSON{ControlPlane: "cp", Connected: true, Types: []xdsTypeJSON{{Type: "cluster", State: "synced"}}}}
		for _, f := range change {
			f(p)
		}
		return p
	}
	rejected := func(p *proxyStatus) {
		p.Types[0].State, p.Types[0].Rejected = "rejected", []rejectionJSON{{Name: "pay", Reason: "no such policy"}, {Reason: "and more"}}
	}
	for _, c := range []struct {
		name string
		p    *proxyStatus
		want string
	}{
		{"all is well", well(), ""},
		{"there is no control plane", well(func(p *proxyStatus) { p.xdsJSON = xdsJSON{Since: now} }), ""},
		{"refused", well(rejected), "CDS refused: pay: no such policy|CDS refused: and more"},
		{"refused, and nobody says why", well(func(p *proxyStatus) { p.Types[0].State = "rejected" }), "CDS refused"},
		{"not connected", well(func(p *proxyStatus) { p.Connected = false }), "not connected to the control plane"},
		{"not connected for some time", well(func(p *proxyStatus) { p.Connected, p.Since = false, now.Add(-5*time.Minute) }), "not connected to the control plane for 5m"},
		{"waiting", well(func(p *proxyStatus) { p.Types[0].Warming = []string{"mail for endpoints mail"} }), "CDS waits: mail for endpoints mail"},
		{"a type without a column", well(func(p *proxyStatus) { p.Types[0] = xdsTypeJSON{Type: "extension_config", State: "rejected"} }), "extension_config refused"},
		{"draining", well(func(p *proxyStatus) { p.State = "PRE_INITIALIZING" }), "pre initializing"},
		{"all at once", well(rejected, func(p *proxyStatus) {
			p.State, p.Connected, p.Types[0].Warming = "DRAINING", false, []string{"mail"}
		}), "CDS refused: pay: no such policy|CDS refused: and more|not connected to the control plane|CDS waits: mail|draining"},
	} {
		if got := strings.Join(c.p.notes(now), "|"); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestVersionNumber(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{"c97baee0/0.1.0/Clean/RELEASE/Go-go1.26.8": "0.1.0", "": "", "1.40.0": "1.40.0"} {
		if got := versionNumber(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
