// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/meshtap/meshtap/xds/graph"
)

// link is how the stream to the control plane stands. It belongs to the loop.
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
	// Dynamic says that there is a control plane to be connected to; Connected that the stream is open, or not, since
	// Since. Target is the address of the last stream, ControlPlane how the control plane calls itself.
	Dynamic, Connected   bool
	Since                time.Time
	Target, ControlPlane string
	// Degraded says why what is in force may not be what the control plane wants, "" where there is no reason to think so.
	Degraded string
	// Types are the types of resources; Warming what was accepted and waits.
	Types   []graph.TypeStatus
	Warming []graph.Warming
	Ignored graph.Counts
}

// errEnded is what questions get when there is no loop to answer.
var errEnded = errors.New("xds: the manager does not run")

// Status returns how the configuration stands. It waits for the loop, and fails when ctx ends before it answers.
func (m *Manager) Status(ctx context.Context) (Status, error) {
	var out Status
	err := m.ask(ctx, func() { out = m.status() })
	return out, err
}

func (m *Manager) status() Status {
	out := Status{
		Dynamic: m.deps.Stream != nil, Connected: m.link.connected, Since: m.link.since, Target: m.link.target,
		ControlPlane: m.link.controlPlane, Types: m.graph.Types(), Warming: m.graph.Held(), Ignored: m.graph.Counts(),
	}
	select {
	case <-m.ready:
		out.Ready = true
	default:
	}
	out.Degraded = degraded(out, m.link.err)
	return out
}

// degraded joins all reasons.
func degraded(s Status, err error) string {
	var why []string
	if s.Dynamic && !s.Connected {
		lost := "not connected to the control plane since " + s.Since.UTC().Format(time.RFC3339)
		if err != nil {
			lost += ": " + err.Error()
		}
		why = append(why, lost)
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
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}
