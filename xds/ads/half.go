// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"hash/maphash"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshtap/meshtap/internal/backoff"
)

// half is one variant of the protocol without its I/O: it takes responses and says which request to send next. Its owner
// is the goroutine in Run.
type half interface {
	// restart forgets the last stream: everything is to be asked for again.
	restart()
	subscribe(typeURL string, add, remove []string)
	refresh(typeURL string)
	ack(typeURL, nonce, version string)
	refuse(typeURL string, n nack, now time.Time)
	// hold notes resources that are there without having come from here. late says that the stream has begun without them.
	hold(typeURL string, names []string) (late bool)
	// empty returns a message to receive into.
	empty() proto.Message
	// receive takes a response.
	receive(m proto.Message, now time.Time) (Response, verdict)
	// next returns the next request to send, nil where there is none now. Then wait is how long until a held one is due, 0
	// where none is held.
	next(now time.Time) (req proto.Message, wait time.Duration)
	// expire returns the next resources of one type that have outlived their time to live; ok is false where there are none.
	// Then wait is how long until there will be, 0 where nothing has such a time.
	expire(now time.Time) (e Expired, wait time.Duration, ok bool)
}

// nack is the answer to a response that was not accepted as a whole. names are the resources that were refused.
type nack struct {
	nonce, version, detail string
	names                  []string
}

// verdict is what is to become of a response.
type verdict uint8

const (
	// fresh: it is to be judged by the owner.
	fresh verdict = iota
	// stranger: its type was not asked for.
	stranger
	// duplicate: it came before, nonce and all.
	duplicate
	// alive: it only says that resources live on, and is accepted.
	alive
)

// maxRecent is how many responses of a type are remembered to tell duplicates.
const maxRecent = 8

// recent are the hashes of the last responses of a type on a stream, newest last.
type recent []uint64

// seen remembers a response, and reports whether it was there before.
func (r *recent) seen(h uint64) bool {
	for _, old := range *r {
		if old == h {
			return true
		}
	}
	if len(*r) == maxRecent {
		*r = append((*r)[:0], (*r)[1:]...)
	}
	*r = append(*r, h)
	return false
}

// Bounds of the time for which the NACK of a version that was refused already is held back. It must not be long: most
// control planes send nothing new while they wait for an answer.
const (
	nackPaceFloor = 200 * time.Millisecond
	nackPaceBase  = time.Second
	nackPaceMax   = 5 * time.Second
)

func newPace() backoff.Backoff {
	return backoff.Backoff{Base: nackPaceBase, Max: nackPaceMax, Floor: nackPaceFloor}
}

// writeAll adds texts to a hash, each with its end.
func writeAll(h *maphash.Hash, texts ...string) {
	for _, t := range texts {
		_, _ = h.WriteString(t)
		_ = h.WriteByte(0)
	}
}

const wrapperType = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// unwrap takes a resource out of a discovery.Resource, where it is in one. A wrapper without a resource is a sign of life
// of the one that it names. Aliases are other names for the same and are ignored.
func unwrap(res *anypb.Any) (r Resource, ttl time.Duration, heartbeat bool) {
	if res.GetTypeUrl() == wrapperType {
		w := &discoverypb.Resource{}
		if proto.Unmarshal(res.GetValue(), w) == nil {
			return fromWrapper(w)
		}
	}
	return Resource{TypeURL: res.GetTypeUrl(), Bytes: res.GetValue()}, 0, false
}

func fromWrapper(w *discoverypb.Resource) (r Resource, ttl time.Duration, heartbeat bool) {
	if w.GetTtl() != nil {
		ttl = max(w.GetTtl().AsDuration(), 0)
	}
	r = Resource{
		TypeURL: w.GetResource().GetTypeUrl(), Bytes: w.GetResource().GetValue(), Name: w.GetName(), Version: w.GetVersion(),
		Aliases: w.GetAliases(),
	}
	return r, ttl, w.GetResource() == nil
}

func absences(errors []*discoverypb.ResourceError) (out []Absent) {
	for _, e := range errors {
		out = append(out, Absent{e.GetResourceName().GetName(), e.GetErrorDetail().GetMessage()})
	}
	return out
}
