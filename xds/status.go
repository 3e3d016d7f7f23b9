// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/meshtap/meshtap/xds/graph"
	"github.com/meshtap/meshtap/xds/resource"
)

// link is how a source stands. It belongs to the loop.
type link struct {
	connected    bool
	since        time.Time
	target       string
	controlPlane string
	err          error
}

func (l *link) up(now time.Time, target string) {
	l.connected, l.since, l.target, l.err = true, now, target, nil
}

// down keeps the time at which the stream was lost over the tries that follow.
func (l *link) down(now time.Time, err error) {
	if l.connected || l.since.IsZero() {
		l.since = now
	}
	l.connected, l.err = false, err
}

// Status is how the configuration stands.
type Status struct {
	// Ready says that start-up is over.
	Ready bool
	// Dynamic says that there is a source to be connected to; Connected that all of them are there since Since, or that one
	// of them is not. Target and ControlPlane are those of the first of Sources.
	Dynamic, Connected   bool
	Since                time.Time
	Target, ControlPlane string
	// Sources are all that run: the aggregated stream first, then the others, sorted.
	Sources []SourceStatus
	// Saved is when what is in force was saved to the disk, where a source has not answered since the start; else the zero time.
	Saved time.Time
	// Held says that an older configuration is held by hand, and which; "" where none is.
	Held string
	// Degraded says why what is in force may not be what the control plane wants, "" where there is no reason to think so.
	Degraded string
	// Types are the types of resources, and Warming what was accepted and waits. Source is in both as in SourceStatus.
	Types   []graph.TypeStatus
	Warming []graph.Warming
	Ignored graph.Counts
}

// SourceStatus is how one source stands.
type SourceStatus struct {
	// Source says for a person where resources come from, such as "ADS (DELTA_GRPC xds_cluster)" or "file /etc/lds.yaml".
	Source string
	// Connected says that the stream is open, or the file watched, or not, since Since.
	Connected bool
	Since     time.Time
	// Target is the address of the last stream, ControlPlane how the control plane calls itself.
	Target, ControlPlane string
	// Err says why nothing comes, or why the last that came could not be read; "" where all is well.
	Err string
	// Saved is when what is in force of the source was saved to the disk, the zero time where it has answered.
	Saved time.Time
}

// ErrEnded is what questions get when there is no loop to answer.
var ErrEnded = errors.New("xds: the manager does not run")

// Status returns how the configuration stands. It waits for the loop, and fails when ctx ends before it answers.
func (m *Manager) Status(ctx context.Context) (Status, error) {
	var out Status
	err := m.ask(ctx, func() { out = m.status() })
	return out, err
}

func (m *Manager) status() Status {
	out := Status{
		Dynamic: len(m.feeds) > 0, Connected: len(m.feeds) > 0,
		Types: append(m.graph.Types(), m.layerStatus()...), Warming: m.graph.Held(), Ignored: m.graph.Counts(),
	}
	for _, id := range slices.Sorted(maps.Keys(m.feeds)) {
		f := m.feeds[id]
		s := SourceStatus{
			Source: m.describe(id), Connected: f.link.connected, Since: f.link.since, Target: f.link.target, ControlPlane: f.link.controlPlane,
		}
		if f.link.err != nil {
			s.Err = f.link.err.Error()
		}
		s.Saved = m.savedAt(id)
		if !s.Saved.IsZero() {
			out.Saved = s.Saved
		}
		out.add(s)
	}
	for i := range out.Types {
		out.Types[i].Source = m.describe(out.Types[i].Source)
	}
	for i := range out.Warming {
		out.Warming[i].Source = m.describe(out.Warming[i].Source)
	}
	select {
	case <-m.ready:
		out.Ready = true
	default:
	}
	out.Held = m.history.heldText()
	out.Degraded = degraded(out)
	return out
}

// add adds a source, and what it means for all of them.
func (s *Status) add(src SourceStatus) {
	if len(s.Sources) == 0 {
		s.Target, s.ControlPlane = src.Target, src.ControlPlane
	}
	s.Sources = append(s.Sources, src)
	switch {
	case len(s.Sources) == 1, s.Connected && !src.Connected:
		s.Since = src.Since
	case s.Connected == src.Connected && src.Connected && src.Since.After(s.Since),
		!src.Connected && src.Since.Before(s.Since):
		s.Since = src.Since
	}
	s.Connected = s.Connected && src.Connected
}

// describe says for a person which source an ID is.
func (m *Manager) describe(id string) string {
	if f := m.feeds[id]; id != "" && f != nil {
		return f.src.String()
	}
	if src, known := m.sources[id]; known {
		return src.String()
	}
	switch ads := m.cfg.ADS; {
	case m.feeds[id] == nil:
		return ""
	case ads.Variant != resource.ADS:
		return "ADS (" + ads.String() + ")"
	default:
		return "ADS"
	}
}

// degraded joins all reasons.
func degraded(s Status) string {
	var why []string
	for i, src := range s.Sources {
		name := src.Source
		if i == 0 && strings.HasPrefix(name, "ADS") {
			name = "the control plane"
		}
		switch {
		case !src.Connected:
			lost := "not connected to " + name + " since " + src.Since.UTC().Format(time.RFC3339)
			if src.Err != "" {
				lost += ": " + src.Err
			}
			why = append(why, lost)
		case src.Err != "":
			why = append(why, name+" could not be read: "+src.Err)
		}
	}
	if s.Held != "" {
		why = append(why, s.Held)
	}
	if !s.Saved.IsZero() {
		why = append(why, "what is in force was saved at "+s.Saved.UTC().Format(time.RFC3339)+", since its source has not answered")
	}
	for _, t := range s.Types {
		if t.Nack != "" {
			why = append(why, fmt.Sprintf("the last %v update was refused: %s", t.Kind, t.Nack))
		}
	}
	return strings.Join(why, "; ")
}

// ask runs f in the loop and waits for it.
func (m *Manager) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case m.asks <- func() { f(); close(done) }:
	case <-m.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}
