// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/eventtap/filter"
	"github.com/meshtap/meshtap/mesh"
)

// What stands in a ring before an outcome that putOutcome wrote, or instead of one: for how many it stands, what it is,
// whether sampling must keep it, whether a mask follows, and the length of the partition key, which follows; then the
// mask.
const (
	atWhat    = 4
	atKeep    = 5
	atMasked  = 6
	atPartLen = 7
	metaSize  = 8

	maxPartKey = 64
	maskSize   = 1 + 3*8
	maxMeta    = metaSize + maxPartKey + maskSize
	maxRing    = maxMeta + maxRecord
)

// The kinds of records in a ring of outcomes.
const (
	isOutcome = iota
	isAttempt
)

// meta is what a ring's record says beside the outcome.
type meta struct {
	rate uint32
	keep bool
	mask *Mask  // nil where all is told
	part []byte // the partition key; nil where it follows from the event
	// filter stands beside the record, not in it.
	filter *filter.Filter
}

func putMeta(b []byte, m *meta) int {
	if m.mask == nil && len(m.part) == 0 { // as nearly always: the fields below, in one write
		v := uint64(m.rate)
		if m.keep {
			v |= 1 << (8 * atKeep)
		}
		binary.LittleEndian.PutUint64(b, v)
		return metaSize
	}
	return putWhole(b, m)
}

func putWhole(b []byte, m *meta) int {
	binary.LittleEndian.PutUint32(b, m.rate)
	b[atWhat], b[atKeep], b[atMasked], b[atPartLen] = isOutcome, 0, 0, byte(len(m.part))
	if m.keep {
		b[atKeep] = 1
	}
	n := metaSize + copy(b[metaSize:], m.part)
	if m.mask == nil {
		return n
	}
	b[atMasked] = 1
	b[n] = byte(option(m.mask.Limited, 1) | option(m.mask.Trace, 2) | option(m.mask.Tries, 4))
	for i, v := range [3]uint64{m.mask.Texts, m.mask.Numbers, m.mask.Redacted} {
		binary.LittleEndian.PutUint64(b[n+1+8*i:], v)
	}
	return n + maskSize
}

func option(on bool, v int) int {
	if on {
		return v
	}
	return 0
}

// getMeta returns what putMeta wrote, and what follows it.
func getMeta(b []byte) (m meta, mask Mask, rest []byte) {
	le := binary.LittleEndian
	m = meta{rate: le.Uint32(b), keep: b[atKeep] != 0}
	n := metaSize + int(b[atPartLen])
	if n > metaSize {
		m.part = b[metaSize:n]
	}
	if b[atMasked] != 0 {
		mask = Mask{Limited: b[n]&1 != 0, Trace: b[n]&2 != 0, Tries: b[n]&4 != 0,
			Texts: le.Uint64(b[n+1:]), Numbers: le.Uint64(b[n+9:]), Redacted: le.Uint64(b[n+17:])}
		n += maskSize
	}
	return m, mask, b[n:]
}

// observed fills the batcher's event from a record of a ring.
func (b *batcher) observed(rec []byte) {
	if rec[atWhat] == isAttempt {
		b.attempt(rec)
		return
	}
	m, mask, rest := getMeta(rec)
	e := &b.ev
	b.fill.outcome(e, rest)
	b.rate, b.keep, b.hash = m.rate, m.keep, 0
	if b.set.sample {
		b.hash = sampleHash(e.TraceParent, e.Texts[event.RequestID], uint64(e.Numbers[event.ConnectionID]), e.Time)
	}
	b.partition(e, m.part)
	b.left = b.filter != nil && !b.selected(e)
	b.ring.latest.left = b.left
	if b.left {
		return
	}
	b.causes.note(e, b.seq+1)
	if b.set.wanted[event.Attempt] {
		r := b.ring
		r.latest = latest{seq: b.seq + 1, start: e.Time, key: append(r.latest.key[:0], e.PartitionKey...), mask: mask,
			rate: b.rate, keep: b.keep, hash: b.hash}
	}
	if !mask.isZero() {
		b.fill.scratch = mask.apply(e, b.seed, b.fill.scratch)
	}
}

// selected evaluates the filter of a record. The event has all that it will have, what a mask is going to take away
// included.
func (b *batcher) selected(e *event.Event) bool {
	e.Source, e.BootID = b.source, b.boot
	e.ID = b.fill.id(b.boot, b.seq+1)
	yes, err := b.filter.Match(e)
	if err != nil {
		b.meter.tap.Inc(0, tapFilterErrors)
	}
	return yes
}

// latest is what the attempts that follow an outcome take from it.
type latest struct {
	seq   uint64
	start int64
	key   []byte
	mask  Mask
	rate  uint32
	keep  bool
	hash  uint64
	left  bool // a filter has left it out
}

// partition sets the partition key that the configuration asks for; the cluster, which stands there already, where the
// outcome has none.
func (b *batcher) partition(e *event.Event, part []byte) {
	var key []byte
	switch b.set.cfg.Key.By {
	case KeyByHeader:
		key = b.fill.valid(part)
	case KeyByRoute:
		key = e.Texts[event.Route]
	case KeyBySource:
		key = b.source
	case KeyByTrace:
		if len(e.TraceParent) > 0 {
			key = e.TraceParent[3:35]
		}
	}
	if len(key) > 0 {
		e.PartitionKey = b.fill.attribute(key)
	}
}

// The layout of an attempt in a ring, behind rate and what it is.
const (
	atFinal      = metaSize
	atFailure    = atFinal + 1
	atNumber     = atFailure + 1
	atTryStatus  = atNumber + 2
	atTook       = atTryStatus + 2
	atTryAddr    = atTook + 8
	atTryTexts   = atTryAddr + addrSize
	maxAttempt   = atTryTexts + 4*1 + maxTryPipe + 160 + maxRequestID + 80
	numTryTexts  = 4
	attemptTexts = atTryTexts + numTryTexts
)

// putAttempt writes an attempt of an outcome: one of its tries, or, with i behind them, the last.
func putAttempt(b []byte, o *mesh.Outcome, i int) int {
	try := mesh.Try{Upstream: o.Upstream, Failure: o.Failure, Status: o.Status, Took: max(o.UpstreamTook, 0)}
	number, final := o.Attempts, byte(1)
	if i < len(o.Tries) {
		try, number, final = o.Tries[i], i+1, 0
	}
	le := binary.LittleEndian
	b[atWhat], b[atFinal], b[atFailure] = isAttempt, final, byte(try.Failure)
	le.PutUint16(b[atNumber:], uint16(min(number, 1<<16-1)))
	le.PutUint16(b[atTryStatus:], uint16(try.Status))
	le.PutUint64(b[atTook:], uint64(max(try.Took, 0)))
	putAddr(b[atTryAddr:], try.Upstream.IP)
	id := o.RequestID
	if len(id) > maxRequestID {
		id = nil
	}
	n := attemptTexts
	for j, k := range [numTryTexts]int{
		copy(b[n:n+maxTryPipe], try.Upstream.Pipe), len(o.Cluster), len(id), len(o.RouteName),
	} {
		switch j {
		case 1:
			k = copy(b[n:n+160], o.Cluster)
		case 2:
			k = copy(b[n:n+maxRequestID], id)
		case 3:
			k = copy(b[n:n+80], o.RouteName)
		}
		b[atTryTexts+j] = byte(k)
		n += k
	}
	return n
}

// attempt fills the batcher's event from a record that putAttempt wrote. The outcome's event was the last of its ring.
func (b *batcher) attempt(rec []byte) {
	if b.left = b.ring.latest.left; b.left {
		return
	}
	e, f, le := &b.ev, &b.fill, binary.LittleEndian
	e.Reset(event.Attempt)
	var texts [numTryTexts][]byte
	n := attemptTexts
	for j := range texts {
		k := int(rec[atTryTexts+j])
		texts[j] = f.valid(rec[n : n+k])
		n += k
	}
	of := &b.ring.latest
	e.Time = of.start
	e.Texts[event.OutcomeID] = f.id(b.boot, of.seq)
	e.Numbers[event.AttemptNumber] = int64(le.Uint16(rec[atNumber:]))
	e.Numbers[event.Final] = int64(rec[atFinal])
	e.Texts[event.Failure] = f.text(mesh.FailureKind(rec[atFailure]).String())
	e.Numbers[event.Status] = int64(le.Uint16(rec[atTryStatus:]))
	e.Numbers[event.Took] = int64(le.Uint64(rec[atTook:]))
	if a := getAddr(rec[atTryAddr:]); a.IsValid() {
		at := len(f.scratch)
		f.scratch = a.AppendTo(f.scratch)
		e.Texts[event.Host] = f.scratch[at:]
	} else {
		e.Texts[event.Host] = texts[0]
	}
	e.Texts[event.Cluster], e.Texts[event.RouteName] = texts[1], texts[3]
	if isRequestID(texts[2]) {
		e.Texts[event.RequestID] = texts[2]
	}
	e.Subject = f.attribute(texts[1])
	if e.PartitionKey = of.key; len(e.PartitionKey) == 0 {
		e.PartitionKey = noKey
	}
	b.rate, b.keep, b.hash = of.rate, of.keep, of.hash
	if !of.mask.isZero() {
		mask := of.mask
		mask.Texts |= 1 << event.OutcomeID
		mask.Numbers |= 1<<event.AttemptNumber | 1<<event.Final
		f.scratch = mask.apply(e, b.seed, f.scratch)
	}
}

// causes remember, for each cluster, the outcomes that a notice about it can come from. Its memory is bounded: with too
// many clusters it forgets all of them.
type causes struct {
	of   map[string]*cause
	last *cause // of the latest outcome: the next one often has the same cluster
}

type cause struct {
	cluster             string
	failed              uint64 // the number of the latest outcome that failed
	clusters, endpoints []byte // the versions that served the latest
}

const maxCauses = 1024

// note takes note of an outcome. Only a failure, or the first of a cluster, is worth more than a look.
func (c *causes) note(e *event.Event, seq uint64) {
	cluster := e.Texts[event.Cluster]
	if len(cluster) == 0 {
		return
	}
	x := c.last
	if x == nil || x.cluster != string(cluster) {
		x = c.find(cluster)
		c.last = x
	}
	if e.Failed() {
		x.failed = seq
	}
	if string(x.clusters) != string(e.Texts[event.ClustersVersion]) {
		x.clusters = append(x.clusters[:0], e.Texts[event.ClustersVersion]...)
	}
	if string(x.endpoints) != string(e.Texts[event.EndpointsVersion]) {
		x.endpoints = append(x.endpoints[:0], e.Texts[event.EndpointsVersion]...)
	}
}

// find returns the cause of a cluster, a new one where there is none.
func (c *causes) find(cluster []byte) *cause {
	x := c.of[string(cluster)]
	if x == nil {
		if len(c.of) == maxCauses {
			clear(c.of)
		}
		x = &cause{cluster: string(cluster)}
		c.of[x.cluster] = x
	}
	return x
}

// link tells a notice about a cluster what came before it.
func (c *causes) link(e *event.Event, b *batcher) {
	if e.Kind != event.Circuit && e.Kind != event.Ejection && e.Kind != event.Health {
		return
	}
	x := c.of[string(e.Texts[event.Cluster])]
	if x == nil {
		return
	}
	if x.failed != 0 && e.Kind != event.Health {
		e.Texts[event.OutcomeID] = b.fill.id(b.boot, x.failed)
	}
	e.Texts[event.ClustersVersion], e.Texts[event.EndpointsVersion] = x.clusters, x.endpoints
}

// keyHash returns the hash of an outcome's partition key, which says its ring.
func (s *settings) keyHash(seed maphash.Seed, o *mesh.Outcome, trace, part []byte) uint64 {
	switch s.key {
	case KeyByHeader:
		if len(part) > 0 {
			return maphash.Bytes(seed, part)
		}
	case KeyByRoute:
		if o.RouteTemplate != "" {
			return maphash.String(seed, o.RouteTemplate)
		}
	case KeyBySource:
		return 0
	case KeyByTrace:
		if len(trace) == traceParentLen {
			return maphash.Bytes(seed, trace[3:35])
		}
	}
	if o.Cluster == "" {
		return maphash.String(seed, o.Listener)
	}
	return maphash.String(seed, o.Cluster)
}
