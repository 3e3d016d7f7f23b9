// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"hash/maphash"
	"maps"
	"slices"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/meshtap/meshtap/internal/backoff"
	"github.com/meshtap/meshtap/xds/resource"
)

// delta is the protocol state of the incremental variant. Each request is a change of the subscription, the answer to a
// response, or both; nothing waits for an answer to be given first.
type delta struct {
	node     *corepb.Node
	nodeOnce bool
	nodeSent bool
	// types are in the order in which they are asked for; byURL finds them.
	types  []*deltaType
	byURL  map[string]*deltaType
	seed   maphash.Seed
	random func() float64
	lives  lives
}

// deltaType is what is known of one type.
type deltaType struct {
	url string
	// names are what is asked for.
	names map[string]struct{}
	// versions are those of the resources that we hold, by name; "" where we cannot be sure which version it is: it came
	// and was not judged before its stream ended. They outlive streams, and are what a new one begins with. A name must be
	// there for as long as we may hold the resource, or the control plane would not tell us of its removal.
	versions map[string]string

	// The rest is of one stream. sent says that the type was asked for; changes are what the control plane does not know
	// yet of names.
	sent    bool
	changes map[string]change
	// strays are names that came when they were not asked for (any more). The control plane takes it that we hold them.
	strays map[string]struct{}
	// judged are the responses that the owner has not answered yet, by nonce; there are as many as it has been told. last is
	// the nonce of the last response.
	judged map[string]judged
	last   string
	// answers are to be sent, in order.
	answers []deltaAnswer
	recent  recent
	// refused is the content of the response of the last NACK, 0 after an ACK; see typeState.
	refused   uint64
	pace      backoff.Backoff
	holdUntil time.Time
}

// change is a change of a subscription.
type change uint8

const (
	adding change = iota + 1
	removing
	// renewing: the name is to be taken back and asked for once more, so that its resource is sent again.
	renewing
)

// judged is a response before its answer: the version that each of its resources has, and had before.
type judged struct {
	content    uint64
	now, since map[string]string
}

// maxStrays bounds the names that are remembered of resources that nobody asked for.
const maxStrays = 10_000

// deltaAnswer is the answer to a response; err is nil where it is an ACK.
type deltaAnswer struct {
	nonce string
	err   *statuspb.Status
}

func newDelta(cfg Config) *delta {
	d := &delta{
		node: cfg.Node, nodeOnce: cfg.NodeOnFirstOnly, byURL: map[string]*deltaType{},
		seed: maphash.MakeSeed(), random: cfg.Random,
	}
	for _, url := range cfg.Types {
		t := &deltaType{url: url, names: map[string]struct{}{}, versions: map[string]string{}, pace: newPace()}
		t.forget()
		d.types = append(d.types, t)
		d.byURL[url] = t
	}
	return d
}

// forget drops what is of one stream.
func (t *deltaType) forget() {
	t.sent, t.changes, t.judged, t.strays = false, map[string]change{}, map[string]judged{}, map[string]struct{}{}
	t.last, t.answers, t.recent, t.holdUntil = "", nil, nil, time.Time{}
}

// all reports whether all resources of the type are asked for.
func (t *deltaType) all() bool {
	_, all := t.names[Wildcard]
	return all
}

func (t *deltaType) wants(name string) bool {
	_, named := t.names[name]
	return named || t.all()
}

func (d *delta) restart() {
	d.nodeSent = false
	for _, t := range d.types {
		t.forget()
	}
}

func (d *delta) hold(url string, names []string) (late bool) {
	t := d.byURL[url]
	if t == nil {
		return false
	}
	for _, n := range names {
		if _, held := t.versions[n]; !held {
			t.versions[n] = ""
		}
	}
	return t.sent
}

func (d *delta) subscribe(url string, more, less []string) {
	t := d.byURL[url]
	if t == nil {
		return
	}
	for _, n := range more {
		t.names[n] = struct{}{}
		t.note(n, adding)
		if _, stray := t.strays[n]; stray {
			delete(t.strays, n)
			t.changes[n] = renewing
		}
	}
	for _, n := range less {
		delete(t.names, n)
		t.note(n, removing)
	}
	if len(less) == 0 {
		return
	}
	for n := range t.versions {
		if !t.wants(n) {
			delete(t.versions, n)
			d.lives.set(url, n, 0, time.Time{})
		}
	}
}

// note adds a change to those that are not sent yet. The first request of a stream says everything anyway.
func (t *deltaType) note(name string, c change) {
	switch before := t.changes[name]; {
	case !t.sent:
	case c == adding && (before == removing || before == renewing):
		t.changes[name] = renewing
	case c == removing && before == adding:
		delete(t.changes, name)
	default:
		t.changes[name] = c
	}
}

// refresh asks anew for what was asked for and never came.
func (d *delta) refresh(url string) {
	t := d.byURL[url]
	if t == nil || !t.sent {
		return
	}
	for n := range t.names {
		if _, held := t.versions[n]; !held && t.changes[n] == 0 && n != Wildcard {
			t.changes[n] = renewing
		}
	}
}

func (d *delta) empty() proto.Message { return &discoverypb.DeltaDiscoveryResponse{} }

func (d *delta) receive(m proto.Message, now time.Time) (Response, verdict) {
	r := m.(*discoverypb.DeltaDiscoveryResponse)
	t := d.byURL[r.GetTypeUrl()]
	if t == nil || !t.sent {
		return Response{TypeURL: r.GetTypeUrl()}, stranger
	}
	content := d.hash(r)
	if t.recent.seen(content ^ maphash.String(d.seed, r.GetNonce())) {
		return Response{}, duplicate
	}
	j := judged{content, map[string]string{}, map[string]string{}}
	out := d.unpack(t, r, now, j)
	t.judged[r.GetNonce()], t.last = j, r.GetNonce()
	if len(out.Alive) > 0 && len(out.Resources)+len(out.Removed)+len(out.Absent) == 0 {
		d.ack(t.url, r.GetNonce(), "")
		return out, alive
	}
	return out, fresh
}

// unpack makes an event of a response. It notes at once that we may hold what is in it, and that what it removes is gone.
func (d *delta) unpack(t *deltaType, r *discoverypb.DeltaDiscoveryResponse, now time.Time, j judged) Response {
	out := Response{
		TypeURL: t.url, Version: r.GetSystemVersionInfo(), Nonce: r.GetNonce(), Delta: true,
		ControlPlane: r.GetControlPlane().GetIdentifier(),
		Removed:      r.GetRemovedResources(),
		Resources:    make([]Resource, 0, len(r.GetResources())),
		Absent:       absences(r.GetResourceErrors()),
	}
	for _, w := range r.GetResources() {
		res, ttl, heartbeat := fromWrapper(w)
		d.lives.set(t.url, res.Name, ttl, now)
		if _, held := t.versions[res.Name]; heartbeat && !held && t.url == resource.HostType {
			// So a control plane says that there is no such virtual host (Envoy, VHDS).
			for _, name := range append([]string{res.Name}, res.Aliases...) {
				out.Absent = append(out.Absent, Absent{name, "there is no such virtual host"})
			}
			continue
		}
		if heartbeat {
			out.Alive = append(out.Alive, res.Name)
			continue
		}
		if !t.wants(res.Name) && len(t.strays) < maxStrays {
			t.strays[res.Name] = struct{}{}
		}
		if before, held := t.versions[res.Name]; held {
			j.since[res.Name] = before
		}
		j.now[res.Name] = res.Version
		if t.wants(res.Name) {
			t.versions[res.Name] = ""
		}
		out.Resources = append(out.Resources, res)
		out.Bytes += len(res.Bytes)
	}
	for _, n := range out.Removed {
		if _, also := j.now[n]; !also {
			delete(t.versions, n)
		}
		d.lives.set(t.url, n, 0, now)
	}
	return out
}

// hash sums up what a response says, without its nonce.
func (d *delta) hash(r *discoverypb.DeltaDiscoveryResponse) uint64 {
	var h maphash.Hash
	h.SetSeed(d.seed)
	writeAll(&h, r.GetSystemVersionInfo())
	for _, w := range r.GetResources() {
		writeAll(&h, w.GetName(), w.GetVersion())
		_, _ = h.Write(w.GetResource().GetValue())
	}
	writeAll(&h, "removed")
	writeAll(&h, r.GetRemovedResources()...)
	for _, e := range r.GetResourceErrors() {
		writeAll(&h, "error", e.GetResourceName().GetName())
	}
	return h.Sum64()
}

func (d *delta) ack(url, nonce, _ string) {
	t := d.byURL[url]
	if t == nil {
		return
	}
	j, open := t.judged[nonce]
	if !open {
		return
	}
	delete(t.judged, nonce)
	t.settle(j, nil)
	t.refused = 0
	t.pace.Reset()
	t.answers = append(t.answers, deltaAnswer{nonce: nonce})
}

// settle notes which version we hold of each resource of a response. Of the bad ones that is the one before, if any.
func (t *deltaType) settle(j judged, bad []string) {
	for name, version := range j.now {
		switch before, held := j.since[name]; {
		case !t.wants(name):
			delete(t.versions, name)
		case !slices.Contains(bad, name):
			t.versions[name] = version
		case held:
			t.versions[name] = before
		default:
			delete(t.versions, name)
		}
	}
}

func (d *delta) refuse(url string, n nack, now time.Time) {
	t := d.byURL[url]
	if t == nil {
		return
	}
	err := &statuspb.Status{Code: int32(codes.InvalidArgument), Message: n.detail}
	j, open := t.judged[n.nonce]
	switch {
	case open:
		delete(t.judged, n.nonce)
		t.settle(j, n.names)
	case n.nonce != t.last || n.nonce == "":
		return
	default:
		// It was accepted, and could not be put into force: which version we hold now is not known here any more.
		for _, name := range n.names {
			if _, held := t.versions[name]; held {
				t.versions[name] = ""
			}
		}
	}
	t.answers = append(t.answers, deltaAnswer{n.nonce, err})
	if open && t.refused == j.content {
		t.holdUntil = now.Add(t.pace.Next(d.random))
	} else if open {
		t.refused = j.content
		t.pace.Reset()
	}
}

func (d *delta) expire(now time.Time) (Expired, time.Duration, bool) {
	e, wait, ok := d.lives.expired(now)
	for _, n := range e.Names {
		delete(d.byURL[e.TypeURL].versions, n)
	}
	return e, wait, ok
}

func (d *delta) next(now time.Time) (req proto.Message, wait time.Duration) {
	for _, t := range d.types {
		if !t.sent {
			if len(t.names) > 0 {
				return d.first(t), 0
			}
			continue
		}
		answer := deltaAnswer{}
		if len(t.answers) > 0 {
			hold := time.Duration(0)
			if t.answers[0].err != nil {
				hold = t.holdUntil.Sub(now)
			}
			if hold > 0 {
				wait = least(wait, hold)
			} else {
				answer, t.answers = t.answers[0], t.answers[1:]
			}
		}
		if answer.nonce != "" || len(t.changes) > 0 {
			return d.request(t, answer), 0
		}
	}
	return nil, wait
}

// least returns the shorter of two waits, of which 0 is none.
func least(a, b time.Duration) time.Duration {
	if a == 0 || b < a {
		return b
	}
	return a
}

// first is the first request of a type on a stream: everything that is asked for, and everything that is here already.
func (d *delta) first(t *deltaType) *discoverypb.DeltaDiscoveryRequest {
	t.sent = true
	clear(t.changes)
	req := d.with(&discoverypb.DeltaDiscoveryRequest{TypeUrl: t.url})
	if len(t.names) > 1 || !t.all() {
		// No name at all means all of them, to old control planes and to new ones.
		req.ResourceNamesSubscribe = slices.Sorted(maps.Keys(t.names))
	}
	if len(t.versions) > 0 {
		req.InitialResourceVersions = maps.Clone(t.versions)
	}
	return req
}

// request is a later request: an answer, changes of the subscription, or both.
func (d *delta) request(t *deltaType, a deltaAnswer) *discoverypb.DeltaDiscoveryRequest {
	req := d.with(&discoverypb.DeltaDiscoveryRequest{TypeUrl: t.url, ResponseNonce: a.nonce, ErrorDetail: a.err})
	changes := t.changes
	t.changes = map[string]change{}
	for _, n := range slices.Sorted(maps.Keys(changes)) {
		switch changes[n] {
		case adding:
			req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, n)
		case renewing:
			t.changes[n] = adding // with the next request: control planes read the new names of one first
			fallthrough
		case removing:
			req.ResourceNamesUnsubscribe = append(req.ResourceNamesUnsubscribe, n)
		}
	}
	return req
}

// with adds who we are, where that is to be said.
func (d *delta) with(req *discoverypb.DeltaDiscoveryRequest) *discoverypb.DeltaDiscoveryRequest {
	if !d.nodeSent || !d.nodeOnce {
		req.Node, d.nodeSent = d.node, true
	}
	return req
}
