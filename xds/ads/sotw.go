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

	"github.com/meshtap/meshtap/internal/backoff"
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
	// dirty says that there is something to send; nack is the error that goes with it.
	dirty bool
	nack  *statuspb.Status
	// sent says that the type was asked for on this stream.
	sent bool
	// recent are the hashes of the last responses, newest last.
	recent []uint64

	// refused is the version of the last NACK, "" after an ACK. A control plane may answer a NACK with the same again;
	// pace and holdUntil keep that from going round and round.
	refused   string
	pace      backoff.Backoff
	holdUntil time.Time
}

// maxRecent is how many responses of a type are remembered to tell duplicates.
const maxRecent = 8

// Bounds of the time for which the NACK of a version that was refused already is held back. It must not be long: most
// control planes send nothing new while they wait for an answer.
const (
	nackPaceFloor = 200 * time.Millisecond
	nackPaceBase  = time.Second
	nackPaceMax   = 5 * time.Second
)

func newSotw(cfg Config) *sotw {
	s := &sotw{
		node: cfg.Node, nodeOnce: cfg.NodeOnFirstOnly, byURL: map[string]*typeState{},
		seed: maphash.MakeSeed(), random: cfg.Random,
	}
	for _, url := range cfg.Types {
		t := &typeState{url: url, names: map[string]struct{}{}}
		t.pace = backoff.Backoff{Base: nackPaceBase, Max: nackPaceMax, Floor: nackPaceFloor}
		s.types = append(s.types, t)
		s.byURL[url] = t
	}
	return s
}

// restart forgets the last stream: everything is to be asked for again.
func (s *sotw) restart() {
	s.nodeSent = false
	for _, t := range s.types {
		t.nonce, t.open, t.nack, t.sent, t.recent = "", false, nil, false, nil
		t.holdUntil = time.Time{}
		t.dirty = len(t.names) > 0
	}
}

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
	}
	t.sorted = nil
	t.dirty = true
	t.holdUntil = time.Time{}
}

// refresh asks once more for what is asked for already.
func (s *sotw) refresh(url string) {
	if t := s.byURL[url]; t != nil && t.sent {
		t.dirty = true
	}
}

// receive takes a response. It is to be ignored unless its type is known, and it is fresh: not the same as one before it,
// nonce and all.
func (s *sotw) receive(r *discoverypb.DiscoveryResponse) (known, fresh bool) {
	t := s.byURL[r.GetTypeUrl()]
	if t == nil || !t.sent {
		return false, false
	}
	h := s.hash(r)
	if slices.Contains(t.recent, h) {
		return true, false
	}
	if len(t.recent) == maxRecent {
		t.recent = slices.Delete(t.recent, 0, 1)
	}
	t.recent = append(t.recent, h)
	t.nonce, t.open = r.GetNonce(), true
	// What was not sent yet goes with the answer to this response.
	t.nack, t.holdUntil = nil, time.Time{}
	return true, true
}

// hash sums up a response. Servers that give every response the same nonce exist, so the nonce alone does not tell.
func (s *sotw) hash(r *discoverypb.DiscoveryResponse) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.WriteString(r.GetVersionInfo())
	_ = h.WriteByte(0)
	_, _ = h.WriteString(r.GetNonce())
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
func (s *sotw) refuse(url, nonce, version, detail string, now time.Time) {
	t := s.byURL[url]
	if t == nil || nonce != t.nonce || (nonce == "" && !t.open) {
		return
	}
	again := t.open && t.refused != "" && t.refused == version
	t.open, t.dirty = false, true
	t.nack = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: detail}
	t.refused = version
	if again {
		t.holdUntil = now.Add(t.pace.Next(s.random))
	} else {
		t.pace.Reset()
	}
}

// next returns the next request to send, nil where there is none now. Then wait is how long until a held one is due, 0
// where none is held.
func (s *sotw) next(now time.Time) (req *discoverypb.DiscoveryRequest, wait time.Duration) {
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
	if !s.nodeSent || !s.nodeOnce {
		req.Node = s.node
		s.nodeSent = true
	}
	t.dirty, t.sent, t.nack, t.holdUntil = false, true, nil, time.Time{}
	return req
}
