// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"cmp"
	"fmt"
	"time"

	"github.com/meshtap/meshtap/internal/sourcekey"
	"github.com/meshtap/meshtap/mesh"
)

// Waits that the configuration does not set. missingTimeout is how long a route table waits for a cluster that no
// response has brought yet, for control planes that send routes first. releaseTimeout is how long a removed cluster
// outlives its removal for the routes in force that name it.
const (
	missingTimeout = 5 * time.Second
	releaseTimeout = 15 * time.Second
)

// wait is something that is waited for, with a bound.
type wait struct {
	reason waitReason
	name   string
	// after is how long the wait is, 0 for ever. It is of waits for an answer.
	after time.Duration
	// timer is 0 while the wait does not run.
	timer TimerID
	// One of these is what the wait is about.
	kind   mesh.ResourceKind
	entry  *entry
	source *source
	part   *part
	set    *collection
}

type waitReason uint8

const (
	// waitFirst: the first response of a type that is asked for as a whole.
	waitFirst waitReason = iota
	// waitEndpoints, waitLookup and waitTable: the first answer of an EDS resource, a look-up, an RDS resource.
	waitEndpoints
	waitLookup
	waitTable
	// waitMissing: a cluster that a route table names and nobody has sent.
	waitMissing
	// waitRelease: the routes in force let go of a removed cluster.
	waitRelease
	// waitPart: the first answer of a secret, or of the configuration of a filter.
	waitPart
	// waitSet: the first response of a type that is used in sets, from one source.
	waitSet
	// waitDemand: a virtual host that a request needs.
	waitDemand
	// waitKeep: a cluster goes on with the endpoints it had before they were taken away.
	waitKeep
)

func compareWaits(a, b *wait) int {
	if c := cmp.Compare(a.reason, b.reason); c != 0 {
		return c
	}
	if c := cmp.Compare(a.kind, b.kind); c != 0 {
		return c
	}
	return cmp.Compare(a.name, b.name)
}

func (m *Machine) bound(w *wait) time.Duration {
	switch w.reason {
	case waitMissing:
		return missingTimeout
	case waitRelease:
		return releaseTimeout
	case waitDemand:
		return demandTimeout
	default:
		return w.after
	}
}

// patience returns how long an answer is waited for.
func patience[K comparable](own map[K]time.Duration, key K, otherwise time.Duration) time.Duration {
	if d, ok := own[key]; ok {
		return d
	}
	return otherwise
}

// from returns the source that can end a wait.
func (m *Machine) from(w *wait) string {
	switch w.reason {
	case waitEndpoints, waitTable, waitPart, waitSet, waitDemand:
		return sourcekey.Source(w.name)
	case waitFirst:
		return m.kinds[w.kind].source
	default:
		return m.kinds[mesh.KindCluster].source
	}
}

// runs reports whether the time of a wait counts now.
func (m *Machine) runs(w *wait) bool {
	return m.connected[m.from(w)] || !m.ready || w.reason == waitFirst || w.reason == waitLookup || w.reason == waitDemand || w.reason == waitKeep
}

func (m *Machine) startWait(w *wait) *wait {
	m.waiting[w] = struct{}{}
	if m.runs(w) {
		m.startTimer(w)
	}
	return w
}

// endWait ends the wait that *at points to, if any.
func (m *Machine) endWait(at **wait) {
	if w := *at; w != nil {
		m.stopTimer(w)
		delete(m.waiting, w)
		*at = nil
	}
}

func (m *Machine) startTimer(w *wait) {
	after := m.bound(w)
	if after == 0 || w.timer != 0 {
		return
	}
	m.lastTimer++
	w.timer = m.lastTimer
	m.timers[w.timer] = w
	m.do(StartTimer{w.timer, after})
}

func (m *Machine) stopTimer(w *wait) {
	if w.timer != 0 {
		m.do(StopTimer{w.timer})
		delete(m.timers, w.timer)
		w.timer = 0
	}
}

// fire ends the wait of a timer that ran out: what is there goes into force.
func (m *Machine) fire(id TimerID) {
	w := m.timers[id]
	if w == nil {
		return
	}
	delete(m.timers, id)
	delete(m.waiting, w)
	w.timer = 0
	m.dirty = true
	after := m.bound(w)
	switch w.reason {
	case waitFirst:
		k := &m.kinds[w.kind]
		k.wait, k.gaveUp = nil, true
		m.timeout(w.kind, "", fmt.Sprintf("no answer from the control plane within %v; starting without", after))
	case waitEndpoints:
		m.do(Refresh{mesh.KindEndpoints, m.from(w)})
		m.giveUpSource(w.source, fmt.Sprintf("no endpoints %q within %v", sourcekey.Name(w.name), after))
	case waitLookup:
		m.giveUpSource(w.source, fmt.Sprintf("no answer to the first look-up within %v", after))
	case waitTable:
		w.entry.wait, w.entry.gaveUp = nil, true
		m.do(Refresh{mesh.KindRouteTable, m.from(w)})
		m.timeout(mesh.KindRouteTable, w.name,
			fmt.Sprintf("not sent within %v; listeners that want it go into service and answer 404", after))
	case waitPart:
		w.part.wait = nil
		m.do(Refresh{w.kind, m.from(w)})
		m.giveUpPart(w.kind, w.name, fmt.Sprintf("not sent within %v", after))
	case waitDemand:
		m.settleDemand(w.name, "")
	case waitKeep:
		w.entry.keep = nil
		m.hand(w.entry)
		m.timeout(mesh.KindCluster, w.name, fmt.Sprintf("no endpoints for %v; those it had are given up", after))
	case waitSet:
		w.set.wait, w.set.gaveUp = nil, true
		m.do(Refresh{w.kind, m.from(w)})
		m.timeout(w.kind, "", fmt.Sprintf("nothing was sent within %v; what wants them goes into service without", after))
	case waitMissing:
		w.entry.wait, w.entry.gaveUp = nil, true
		m.timeout(mesh.KindCluster, w.name,
			fmt.Sprintf("not sent within %v of being named; routes to it answer 503", after))
	case waitRelease:
		w.entry.wait, w.entry.gaveUp = nil, true
		m.timeout(mesh.KindCluster, w.name,
			fmt.Sprintf("removed, and still named %v later; routes to it answer 503", after))
	}
}

// timeout tells observers that a wait ran out.
func (m *Machine) timeout(kind mesh.ResourceKind, name, reason string) {
	m.do(Notify{mesh.NoticeConfigTimeout, mesh.ConfigNotice{
		Kind: kind, Version: m.kinds[kind].version,
		Errors: []mesh.Rejection{{Kind: kind, Name: sourcekey.Shown(name), Reason: reason}},
	}})
}
