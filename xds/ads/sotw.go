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

// Wildcard is the name that stands for all resources of a type.
const Wildcard = "*"

// sotw is the protocol state of the state-of-the-world variant. It does no I/O: it says which request to send next. Its
// owner is the goroutine in Run.
type sotw struct {
	node     *corepb.Node
	nodeOnce bool
	nodeSent bool
	// types are in the order in which they are asked for; byURL finds them.
	types  []*typeState
	byURL  map[string]*typeState
	seed   maphash.Seed
	random func() float64
	lives  lives
}

// typeState is what is known of one type.
type typeState struct {
	url string
	// names are what is asked for; sorted is the same as a list, nil when it has to be made anew.
	names  map[string]struct{}
	sorted []string
	// version is the one accepted last. It outlives streams.
	version string

	// The rest is of one stream. nonce is that of the last response. open says that this response is not answered yet:
	// until it is, the control plane would take a request of this type for a late one and ignore it.
	nonce string
	open  bool
	// lost are names whose resource was let go of on this stream, with how often they were asked for anew: see anew. parted
	// says that the last request left them out, so that the next one is to name them.
	lost   map[string]int
	parted bool
	// dirty says that there is something to send; nack is the error that goes with it.
	dirty bool
	nack  *statuspb.Status
	// sent says that the type was asked for on this stream.
	sent   bool
	recent recent

	// refused is the version of the last NACK, "" after an ACK. A control plane may answer a NACK with the same again;
	// pace and holdUntil keep that from going round and round.
	refused   string
	pace      backoff.Backoff
	holdUntil time.Time
}

func newSotw(cfg Config) *sotw {
	s := &sotw{
		node: cfg.Node, nodeOnce: cfg.NodeOnFirstOnly, byURL: map[string]*typeState{},
		seed: maphash.MakeSeed(), random: cfg.Random,
	}
	for _, url := range cfg.Types {
		t := &typeState{url: url, names: map[string]struct{}{}, pace: newPace()}
		s.types = append(s.types, t)
		s.byURL[url] = t
	}
	return s
}

func (s *sotw) restart() {
	s.nodeSent = false
	for _, t := range s.types {
		t.nonce, t.open, t.nack, t.sent, t.recent = "", false, nil, false, nil
		t.lost, t.parted = nil, false
		t.holdUntil = time.Time{}
		t.dirty = len(t.names) > 0
	}
}

// hold implements half: each response of the state of the world says all that there is.
func (*sotw) hold(string, []string) bool { return false }

// subscribe changes what is asked for. A NACK that is held back goes out with it.
func (s *sotw) subscribe(url string, add, remove []string) {
	t := s.byURL[url]
	if t == nil {
		return
	}
	for _, n := range add {
		t.names[n] = struct{}{}
	}
	for _, n := range remove {
		delete(t.names, n)
		t.lose(n)
		s.lives.set(url, n, 0, time.Time{})
	}
	t.sorted = nil
	t.dirty = true
	t.holdUntil = time.Time{}
}

// maxAnew bounds how often a name is asked for anew, for control planes that do not have the resource and answer each
// request.
const maxAnew = 3

// lose notes that the resource of a name was let go of, although the control plane may take it that we have it.
func (t *typeState) lose(name string) {
	if !t.sent || len(t.lost) >= maxStrays {
		return
	}
	if t.lost == nil {
		t.lost = map[string]int{}
	}
	t.lost[name] = 0
}

// anew returns the names that were taken back and are asked for again. A control plane that sees no change would not send
// their resources once more, and it sees none where both came between two requests, or where it ignored the request without
// them because a response had crossed it. So they are left out of one request and named in the next, until they come.
func (t *typeState) anew() (names []string) {
	for n := range t.lost {
		if _, asked := t.names[n]; asked {
			names = append(names, n)
		}
	}
	return names
}

// came takes the names of a response.
func (t *typeState) came(names []string) {
	for _, n := range names {
		if _, asked := t.names[n]; asked {
			delete(t.lost, n)
		} else if _, all := t.names[Wildcard]; !all {
			t.lose(n)
		}
	}
}

// refresh asks once more for what is asked for already.
func (s *sotw) refresh(url string) {
	if t := s.byURL[url]; t != nil && t.sent {
		t.dirty = true
	}
}

func (s *sotw) empty() proto.Message { return &discoverypb.DiscoveryResponse{} }

func (s *sotw) receive(m proto.Message, now time.Time) (Response, verdict) {
	r := m.(*discoverypb.DiscoveryResponse)
	t := s.byURL[r.GetTypeUrl()]
	switch {
	case t == nil || !t.sent:
		return Response{TypeURL: r.GetTypeUrl()}, stranger
	case t.recent.seen(s.hash(r)):
		return Response{}, duplicate
	}
	t.nonce, t.open = r.GetNonce(), true
	// What was not sent yet goes with the answer to this response.
	t.nack, t.holdUntil = nil, time.Time{}
	out := s.unpack(r, now)
	if len(out.Resources) == 0 && len(out.Absent) == 0 && len(out.Alive) > 0 {
		// Only what has a time to live is in such a response; the others are not left out but unsaid.
		s.ack(t.url, t.nonce, r.GetVersionInfo())
		return out, alive
	}
	return out, fresh
}

// unpack makes an event of a response, and notes how long its resources live.
func (s *sotw) unpack(r *discoverypb.DiscoveryResponse, now time.Time) Response {
	out := Response{
		TypeURL: r.GetTypeUrl(), Version: r.GetVersionInfo(), Nonce: r.GetNonce(),
		ControlPlane: r.GetControlPlane().GetIdentifier(),
		Resources:    make([]Resource, 0, len(r.GetResources())),
		Absent:       absences(r.GetResourceErrors()),
	}
	t := s.byURL[r.GetTypeUrl()]
	names := make([]string, 0, len(r.GetResources()))
	for _, res := range r.GetResources() {
		u, ttl, heartbeat := unwrap(res)
		if u.Name == "" {
			u.Name = resource.Name(u.Bytes)
		}
		names = append(names, u.Name)
		s.lives.set(r.GetTypeUrl(), u.Name, ttl, now)
		if heartbeat {
			out.Alive = append(out.Alive, u.Name)
			continue
		}
		u.Name = ""
		u.Version = "" // in this variant, all resources have the version of the response
		out.Resources = append(out.Resources, u)
		out.Bytes += len(u.Bytes)
	}
	t.came(names)
	return out
}

func (s *sotw) expire(now time.Time) (Expired, time.Duration, bool) { return s.lives.expired(now) }

// hash sums up a response. Servers that give every response the same nonce exist, so the nonce alone does not tell.
func (s *sotw) hash(r *discoverypb.DiscoveryResponse) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	writeAll(&h, r.GetVersionInfo(), r.GetNonce())
	for _, res := range r.GetResources() {
		_ = h.WriteByte(0)
		_, _ = h.Write(res.GetValue())
	}
	for _, e := range r.GetResourceErrors() {
		_ = h.WriteByte(1)
		_, _ = h.WriteString(e.GetResourceName().GetName())
	}
	return h.Sum64()
}

// ack accepts a response. The version counts even if the stream of the response has ended.
func (s *sotw) ack(url, nonce, version string) {
	t := s.byURL[url]
	if t == nil {
		return
	}
	t.version, t.refused = version, ""
	t.pace.Reset()
	if nonce == t.nonce && t.open {
		t.open, t.dirty, t.nack = false, true, nil
	}
}

// refuse answers a response with an error, or adds one to a response that was accepted earlier.
func (s *sotw) refuse(url string, n nack, now time.Time) {
	t := s.byURL[url]
	if t == nil || n.nonce != t.nonce || (n.nonce == "" && !t.open) {
		return
	}
	again := t.open && t.refused != "" && t.refused == n.version
	t.open, t.dirty = false, true
	t.nack = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: n.detail}
	t.refused = n.version
	if again {
		t.holdUntil = now.Add(t.pace.Next(s.random))
	} else {
		t.pace.Reset()
	}
}

func (s *sotw) next(now time.Time) (req proto.Message, wait time.Duration) {
	for _, t := range s.types {
		if !t.dirty || t.open {
			continue
		}
		if hold := t.holdUntil.Sub(now); hold > 0 {
			if wait == 0 || hold < wait {
				wait = hold
			}
			continue
		}
		if len(t.names) == 0 && !t.sent {
			// The first request of a stream without a name would ask for everything.
			t.dirty = false
			continue
		}
		return s.request(t), 0
	}
	return nil, wait
}

func (s *sotw) request(t *typeState) *discoverypb.DiscoveryRequest {
	if t.sorted == nil {
		t.sorted = slices.Sorted(maps.Keys(t.names))
	}
	req := &discoverypb.DiscoveryRequest{
		TypeUrl: t.url, VersionInfo: t.version, ResponseNonce: t.nonce, ResourceNames: t.sorted, ErrorDetail: t.nack,
	}
	if _, all := t.names[Wildcard]; all && len(t.names) == 1 {
		// No name at all means all of them, to old control planes and to new ones.
		req.ResourceNames = nil
	}
	anew := t.anew()
	if t.parted = !t.parted && len(anew) > 0; t.parted {
		req.ResourceNames = slices.DeleteFunc(slices.Clone(t.sorted), func(n string) bool { return slices.Contains(anew, n) })
		for _, n := range anew {
			if t.lost[n]++; t.lost[n] >= maxAnew {
				delete(t.lost, n)
			}
		}
	}
	if !s.nodeSent || !s.nodeOnce {
		req.Node = s.node
		s.nodeSent = true
	}
	t.dirty, t.sent, t.nack, t.holdUntil = t.parted, true, nil, time.Time{}
	return req
}
