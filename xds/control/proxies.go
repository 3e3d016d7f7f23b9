// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"slices"
	"time"
)

// Proxy is a stream of a proxy, and what it said of its configuration.
type Proxy struct {
	ID      string `json:"id"`
	Service string `json:"service"`
	// Known is false where the mesh has no such service: the proxy gets nothing then.
	Known   bool      `json:"known"`
	Address string    `json:"address"`
	Variant string    `json:"variant"` // sotw or delta
	Since   time.Time `json:"since"`
	// Stopped is why the last rollout did not come to its end, "" where it did.
	Stopped string `json:"stopped,omitempty"`
	Types   []Type `json:"types"`
}

// Type is the state of one type on a stream.
type Type struct {
	// Type is CDS, EDS, RDS or LDS.
	Type string `json:"type"`
	// State is "synced", "stale" while an answer is waited for, "rejected", or "never" where nothing was asked for.
	State string `json:"state"`
	// Sent and Acked are versions, "" where there is none.
	Sent    string    `json:"sent,omitempty"`
	Acked   string    `json:"acked,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Updated time.Time `json:"updated,omitzero"`
}

// Proxies returns the proxies that are connected, in the order of their services and ids.
func (s *Server) Proxies() []Proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Proxy{}
	for _, v := range s.views {
		v.mu.Lock()
		for st := range v.streams {
			p := st.proxy()
			p.Known = s.mesh.Services[v.node.Service] != nil
			out = append(out, p)
		}
		v.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Proxy) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID), a.Since.Compare(b.Since))
	})
	return out
}

// proxy is called with the view's mu held.
func (s *stream) proxy() Proxy {
	p := Proxy{
		ID: s.view.node.ID, Service: s.view.node.Service, Address: s.address, Variant: "sotw", Since: s.since, Stopped: s.view.stopped,
	}
	if s.delta {
		p.Variant = "delta"
	}
	for _, url := range typeURLs {
		t := s.types[url]
		out := Type{Type: short(url), Sent: t.sentVersion, Acked: t.ackedVersion, Reason: t.detail, Updated: t.at, State: "synced"}
		switch {
		case t.sentVersion == "":
			out.State = "never"
		case t.refused:
			out.State = "rejected"
		case !t.confirmed:
			out.State = "stale"
		}
		p.Types = append(p.Types, out)
	}
	return p
}
