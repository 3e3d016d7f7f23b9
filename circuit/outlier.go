// SPDX-License-Identifier: Apache-2.0

package circuit

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/mesh"
)

// The reasons of a mesh.EjectionNotice.
const (
	ReasonConsecutive5xx     = "consecutive_5xx"
	ReasonConsecutiveGateway = "consecutive_gateway_failure"
	ReasonConsecutiveLocal   = "consecutive_local_origin_failure"
	ReasonExpired            = "expired"
	ReasonActiveCheck        = "active_check"
)

// DefaultOutlier returns outlier detection with Envoy's defaults (config.cluster.v3.OutlierDetection). Where
// max_ejection_time is not set, it is the greater of this MaxEjection and BaseEjection.
func DefaultOutlier() mesh.Outlier {
	return mesh.Outlier{
		Consecutive5xx: 5, ConsecutiveGateway: 5, ConsecutiveLocal: 5,
		Enforcing5xx: 100, EnforcingGateway: 0, EnforcingLocal: 100,
		Interval: 10 * time.Second, BaseEjection: 30 * time.Second, MaxEjection: 300 * time.Second,
		MaxEjectionPercent: 10,
		HealthyUnejects:    true,
	}
}

// Outlier ejects hosts of one cluster that fail in a row, and lets them back (Envoy, "Outlier detection"; gRFC A50 has
// the same ejection times, for other detections). An ejection is in force when Report returns; Envoy hands it to its
// main thread first. Success rate and failure percentage are not detected here.
type Outlier struct {
	config atomic.Pointer[mesh.Outlier]

	mu sync.Mutex
	// hosts and ejected are guarded by mu.
	hosts, ejected int
}

// HostState is what outlier detection knows of a host. proxy/upstream's Host embeds it. The zero value is a host that
// has not been added.
type HostState struct {
	// Failures in a row, by kind.
	row5xx, rowGateway, rowLocal atomic.Uint32
	// out is written under the detector's mu.
	out atomic.Bool

	// The rest is guarded by the detector's mu.
	added bool
	// times counts all ejections; backoff multiplies the next one's time.
	times, backoff uint32
	// ejectedAt and length are of the last ejection; unejectedAt is the end of the last one, if wasEjected.
	ejectedAt, length, unejectedAt int64
	wasEjected                     bool
}

// Ejected reports whether the host is ejected, which makes it unhealthy for load balancing.
func (h *HostState) Ejected() bool { return h.out.Load() }

// NewOutlier returns a detector without hosts.
func NewOutlier(config mesh.Outlier) *Outlier {
	o := &Outlier{}
	o.SetConfig(config)
	return o
}

// SetConfig replaces the rules. Rows of failures go on as they are: one that is as long as a lower threshold by now ends
// with the next success, as in Envoy.
func (o *Outlier) SetConfig(config mesh.Outlier) { o.config.Store(&config) }

// Add makes h one of the cluster's hosts, with nothing known of it.
func (o *Outlier) Add(h *HostState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !h.added {
		h.added = true
		o.hosts++
	}
}

// Remove forgets h, which leaves the cluster. An ejected host counts as ejected no more.
func (o *Outlier) Remove(h *HostState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !h.added {
		return
	}
	o.hosts--
	if h.out.Load() {
		o.ejected--
	}
	h.forgetRows()
	h.out.Store(false)
	h.added, h.wasEjected = false, false
	h.times, h.backoff = 0, 0
}

// Active returns the number of hosts that are ejected now: Envoy's gauge outlier_detection.ejections_active.
func (o *Outlier) Active() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ejected
}

// Detection is what came of failures in a row.
type Detection struct {
	// Reason is the kind of failures; Envoy counts ejections_detected_<Reason>.
	Reason string
	// Overflow says that the host stays because too many are ejected already; Envoy counts ejections_overflow, and
	// there is no notice.
	Overflow bool
	// Notice is what to tell. Enforced says whether the host is ejected now.
	Notice mesh.EjectionNotice
}

// Report counts an attempt at h. What it returns is nil nearly always, and otherwise one Detection for each kind of
// failures of which a row is complete; after an enforced one the caller builds the next set. rnd is random.
//
// Failures that say nothing about the host, such as an overflow here or a client that went away, count for nothing.
func (o *Outlier) Report(now int64, h *HostState, a *Attempt, rnd uint64) []Detection {
	var found []Detection
	split := o.config.Load().SplitLocal
	status := a.Judged()
	if status == 0 && a.Failure.Kind == mesh.NoFailure && !split {
		status = 200
	}
	if status != 0 {
		found = o.answered(found, now, h, status, rnd)
	}
	// Whoever answered was reached. An answer that broke off counts for both, in this order.
	if split && (status != 0 || a.Failure.Kind == mesh.NoFailure) {
		clearRow(&h.rowLocal)
	}
	local := localStatus(a.Failure.Kind)
	switch {
	case local == 0:
		return found
	case split:
		return o.count(found, now, h, &h.rowLocal, kindLocal, rnd)
	}
	return o.answered(found, now, h, local, rnd)
}

// localStatus returns the status that a failure that arose here counts as where it is not told apart from what the host
// says (Envoy, DetectorHostMonitorImpl::resultToHttpCode); 0 for failures that say nothing about the host.
func localStatus(k mesh.FailureKind) int {
	switch k {
	case mesh.ConnectFailure, mesh.ConnectTimeout, mesh.UpstreamReset, mesh.UpstreamClosed, mesh.UpstreamProtocolError:
		return 503
	case mesh.RequestTimeout, mesh.PerTryTimeout:
		return 504
	}
	return 0
}

// answered counts a status.
func (o *Outlier) answered(found []Detection, now int64, h *HostState, status int, rnd uint64) []Detection {
	if status < 500 || status > 599 {
		clearRow(&h.row5xx)
		clearRow(&h.rowGateway)
		return found
	}
	if status == 502 || status == 503 || status == 504 {
		found = o.count(found, now, h, &h.rowGateway, kindGateway, rnd)
	} else {
		clearRow(&h.rowGateway)
	}
	return o.count(found, now, h, &h.row5xx, kind5xx, rnd)
}

// clearRow ends a row. It writes only where there is one, so that hosts that answer well share no written cache line.
func clearRow(row *atomic.Uint32) {
	if row.Load() != 0 {
		row.Store(0)
	}
}

// kind is a kind of failures in a row.
type kind uint8

const (
	kind5xx kind = iota
	kindGateway
	kindLocal
)

// rule returns how many of a kind make an outlier, 0 for never, and the chance in percent that it is ejected.
func (o *Outlier) rule(k kind) (reason string, threshold, enforcing uint32) {
	c := o.config.Load()
	switch k {
	case kindGateway:
		return ReasonConsecutiveGateway, c.ConsecutiveGateway, c.EnforcingGateway
	case kindLocal:
		return ReasonConsecutiveLocal, c.ConsecutiveLocal, c.EnforcingLocal
	}
	return ReasonConsecutive5xx, c.Consecutive5xx, c.Enforcing5xx
}

// count counts one failure of a kind. Exactly one caller completes a row.
func (o *Outlier) count(found []Detection, now int64, h *HostState, row *atomic.Uint32, k kind, rnd uint64) []Detection {
	reason, threshold, enforcing := o.rule(k)
	if threshold == 0 || row.Add(1) != threshold {
		return found
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !h.added || h.out.Load() {
		return found
	}
	row.Store(0)
	return append(found, o.detected(now, h, reason, enforcing, rnd))
}

// detected ejects an outlier unless too many are out or chance keeps it in. mu is held.
func (o *Outlier) detected(now int64, h *HostState, reason string, enforcing uint32, rnd uint64) Detection {
	d, c := Detection{Reason: reason}, o.config.Load()
	// As in Envoy, this is not per priority, and the host to be ejected is counted in.
	share := 100 * float64(o.ejected+1) / float64(o.hosts)
	first := c.AlwaysEjectOne && o.ejected == 0
	if share > float64(c.MaxEjectionPercent) && !first {
		d.Overflow = true
		return d
	}
	d.Notice = mesh.EjectionNotice{Ejected: true, Reason: reason, Times: h.times}
	if rnd%100 >= uint64(enforcing) {
		return d
	}
	h.times++
	// The multiplier stops growing when it is past the longest time, so that it also comes down in time.
	if base := c.BaseEjection; time.Duration(h.backoff)*base < c.MaxEjection+base {
		h.backoff++
	}
	jitter, _ := bits.Mul64(rnd, uint64(c.Jitter)+1)
	h.length = int64(min(time.Duration(h.backoff)*c.BaseEjection, c.MaxEjection)) + int64(jitter)
	h.ejectedAt = now
	h.out.Store(true)
	o.ejected++
	d.Notice.Times, d.Notice.For, d.Notice.Enforced = h.times, h.length, true
	return d
}

// Change is a host that came back.
type Change struct {
	// Host is its index in what Tick was given.
	Host   int
	Notice mesh.EjectionNotice
}

// Tick is called every Interval with the cluster's hosts. It lets back those whose time is over, which it returns, and
// lowers the multiplier of those that have been back for an interval.
func (o *Outlier) Tick(now int64, hosts []*HostState) []Change {
	o.mu.Lock()
	defer o.mu.Unlock()
	var back []Change
	for i, h := range hosts {
		switch {
		case !h.added:
		case h.out.Load():
			if now-h.ejectedAt >= h.length {
				back = append(back, Change{i, o.uneject(now, h, ReasonExpired)})
			}
		case h.wasEjected && now-h.unejectedAt >= int64(o.config.Load().Interval) && h.backoff > 0:
			h.backoff--
		}
	}
	return back
}

// CheckPassed reports that an active check of h succeeded, and that active checks find it healthy. It returns true and
// the notice where that lets h back, so that the caller builds the next set.
func (o *Outlier) CheckPassed(now int64, h *HostState) (mesh.EjectionNotice, bool) {
	if !o.config.Load().HealthyUnejects || !h.out.Load() {
		return mesh.EjectionNotice{}, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !h.out.Load() {
		return mesh.EjectionNotice{}, false
	}
	return o.uneject(now, h, ReasonActiveCheck), true
}

// uneject lets h back. mu is held.
func (o *Outlier) uneject(now int64, h *HostState, reason string) mesh.EjectionNotice {
	o.ejected--
	// Rows that are nearly complete must not eject it again on a few failures.
	h.forgetRows()
	h.unejectedAt, h.wasEjected = now, true
	h.out.Store(false)
	return mesh.EjectionNotice{Reason: reason, Times: h.times, For: now - h.ejectedAt, Enforced: true}
}

func (h *HostState) forgetRows() {
	h.row5xx.Store(0)
	h.rowGateway.Store(0)
	h.rowLocal.Store(0)
}
