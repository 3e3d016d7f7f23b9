// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"bytes"
	"cmp"
	"strconv"

	"github.com/meshtap/meshtap/eventtap/event"
)

// Resolve says whose word counts where several proxies tell of the same thing.
type Resolve uint8

const (
	// PerWriter keeps the newest word of each proxy: a circuit of one proxy says nothing about that of another.
	PerWriter Resolve = iota
	// LastWriter keeps one word: of the newest of each proxy, that with the latest time, and of two at the same time that
	// of the greater source.
	LastWriter
	// Both keeps the newest word of each proxy, as PerWriter does, and says where they differ.
	Both
)

// Verdict is what an event is to a State.
type Verdict uint8

const (
	// Stateless: the event is not about a state, such as a request.
	Stateless Verdict = iota
	// Newer: it is the newest word, and counts.
	Newer
	// Stale: a newer word came before it, or the same one.
	Stale
	// Conflict: it is the newest word of its proxy, and another proxy's says something else. Only Both says this.
	Conflict
)

// maxKeys bounds the things that a State knows of; beyond it, it begins anew.
const maxKeys = 64 << 10

// State knows the newest word about each thing that events tell the state of: circuits, ejections and health by cluster and
// host, configuration by its kind, and the proxies' own life. Of one proxy, the later boot and in it the greater sequence
// is newer; proxies among each other are resolved as Resolve says. In whatever order events come, and however often, the
// end is the same. One goroutine uses it.
type State struct {
	resolve Resolve
	keys    map[string]map[string]word // by thing and writer
	n       int
	key     []byte
}

// word is the newest that a proxy said of a thing.
type word struct {
	boot  string
	start uint64 // of the boot, in seconds
	seq   uint64
	time  int64
	value string
}

// NewState returns a State that knows nothing.
func NewState(r Resolve) *State {
	return &State{resolve: r, keys: map[string]map[string]word{}}
}

// Take takes note of an event and says what it is.
func (s *State) Take(e *event.Event) Verdict {
	if s.key = stateKey(s.key[:0], e); len(s.key) == 0 {
		return Stateless
	}
	writers := s.keys[string(s.key)]
	if writers == nil {
		writers = map[string]word{}
		s.keys[string(s.key)] = writers
	}
	source, w := string(e.Source), wordOf(e)
	old, known := writers[source]
	if known && old.compare(w) >= 0 {
		return Stale
	}
	if !known {
		if s.n++; s.n > maxKeys {
			clear(s.keys)
			s.keys[string(s.key)], s.n = writers, 1
			clear(writers)
		}
	}
	writers[source] = w
	for other, o := range writers {
		switch {
		case other == source:
		case s.resolve == LastWriter && cmp.Or(cmp.Compare(o.time, w.time), cmp.Compare(other, source)) > 0:
			return Stale
		case s.resolve == Both && o.value != w.value:
			return Conflict
		}
	}
	return Newer
}

// stateKey names the thing that an event tells the state of, without its proxy; nothing where it tells of none.
func stateKey(dst []byte, e *event.Event) []byte {
	var parts [3][]byte
	switch e.Kind {
	case event.Circuit, event.Ejection:
		parts = [3][]byte{e.Texts[event.Cluster], e.Texts[event.Host]}
	case event.Health:
		parts = [3][]byte{e.Texts[event.Cluster], e.Texts[event.Host], e.Texts[event.Origin]}
	case event.Config:
		parts = [3][]byte{e.Texts[event.Resource], e.Texts[event.Cluster]}
	case event.Lifecycle:
	default:
		return dst
	}
	dst = append(dst, byte(e.Kind))
	for _, p := range parts {
		dst = append(append(dst, 0), p...)
	}
	return dst
}

func wordOf(e *event.Event) word {
	boot := string(e.BootID)
	var start uint64
	if len(boot) > 8 { // it ends in the time of the start
		start, _ = strconv.ParseUint(boot[len(boot)-8:], 16, 64)
	}
	value := bytes.Join([][]byte{e.Texts[event.To], e.Texts[event.Result], e.Texts[event.Version], e.Texts[event.Phase],
		strconv.AppendInt(nil, e.Numbers[event.Ejected], 10)}, []byte{0})
	return word{boot, start, e.Sequence, e.Time, string(value)}
}

// compare compares two words of one proxy.
func (w word) compare(v word) int {
	return cmp.Or(cmp.Compare(w.start, v.start), cmp.Compare(w.boot, v.boot), cmp.Compare(w.seq, v.seq))
}
