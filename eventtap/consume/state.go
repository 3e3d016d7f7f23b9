// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"cmp"
	"slices"
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

// Rule chooses among the newest words of several proxies about one thing: it returns the index of that which counts, or -1
// where they are in conflict. It gets one word of each proxy, in the order of their sources, and must go by nothing else;
// then the end is the same in whatever order events came. It must not keep the words, nor change them.
type Rule func(words []Word) int

// Verdict is what an event is to a State.
type Verdict uint8

const (
	// Stateless: the event is not about a state, such as a request.
	Stateless Verdict = iota
	// Newer: it is the newest word, and counts.
	Newer
	// Stale: a newer word came before it, or the same one, or what counts is another proxy's word, as before.
	Stale
	// Conflict: it is the newest word of its proxy, and another proxy's says something else. Only Both and a Rule say this.
	Conflict
	// Moved: another proxy's word counts from now on, which did not before. LastWriter says this where a proxy's clock went
	// back.
	Moved
)

// maxKeys bounds the words that a State knows; beyond it, it begins anew.
const maxKeys = 64 << 10

// State knows the newest word about each thing that events tell the state of: circuits, ejections and health by cluster and
// host, configuration by its kind, and the proxies' own life. Of one proxy, the later boot and in it the greater sequence
// is newer; proxies among each other are resolved as Resolve, or a Rule, says. In whatever order events come, and however
// often, the end is the same. One goroutine uses it.
type State struct {
	both bool
	rule Rule // nil where each proxy has a word of its own
	keys map[string]*thing
	n    int // words
	key  []byte
}

// thing is what proxies have words about.
type thing struct {
	words  []Word // one of each source, in their order
	counts string // the source whose word counts; "" where none does, or no rule chooses
}

// Word is the newest that a proxy said of a thing.
type Word struct {
	Kind         event.Kind
	Source, Boot string
	Sequence     uint64
	Time         int64 // of the event, in nanoseconds since 1970
	Said
	start uint64 // of the boot, in seconds
}

// Said is what a word says: To of a circuit and of health, Ejected of an ejection, Result and Version of a configuration,
// Phase of a proxy's life.
type Said struct {
	To, Result, Version, Phase string
	Ejected                    bool
}

// NewState returns a State that knows nothing.
func NewState(r Resolve) *State {
	s := &State{keys: map[string]*thing{}, both: r == Both}
	if r == LastWriter {
		s.rule = lastWriter
	}
	return s
}

// NewStateBy returns a State that knows nothing, and resolves the words of several proxies by a rule of its user.
func NewStateBy(rule Rule) *State {
	return &State{keys: map[string]*thing{}, rule: rule}
}

func lastWriter(words []Word) int {
	last := 0
	for i := range words {
		if words[i].Time >= words[last].Time { // they are in the order of sources
			last = i
		}
	}
	return last
}

// Take takes note of an event and says what it is.
func (s *State) Take(e *event.Event) Verdict {
	if s.key = stateKey(s.key[:0], e); len(s.key) == 0 {
		return Stateless
	}
	t := s.keys[string(s.key)]
	if t == nil {
		t = &thing{}
		s.keys[string(s.key)] = t
	}
	w := wordOf(e)
	at, known := t.find(w.Source)
	switch {
	case known && t.words[at].compare(&w) >= 0:
		return Stale
	case known:
		t.words[at] = w
	default:
		if s.n++; s.n > maxKeys {
			clear(s.keys)
			s.n, *t, at = 1, thing{}, 0
			s.keys[string(s.key)] = t
		}
		t.words = slices.Insert(t.words, at, w)
	}
	switch {
	case s.rule != nil:
		return t.choose(s.rule, w.Source)
	case s.both && slices.ContainsFunc(t.words, func(o Word) bool { return o.Said != w.Said }):
		return Conflict
	}
	return Newer
}

// Counts returns the word that counts of the thing that an event is about: that of the event's own proxy, where each has its
// own. It is false where none counts: nothing is known, or the rule saw a conflict.
func (s *State) Counts(e *event.Event) (Word, bool) {
	s.key = stateKey(s.key[:0], e)
	t := s.keys[string(s.key)]
	if t == nil {
		return Word{}, false
	}
	source := t.counts
	if s.rule == nil {
		source = string(e.Source)
	}
	at, known := t.find(source)
	if !known {
		return Word{}, false
	}
	return t.words[at], true
}

func (t *thing) find(source string) (at int, known bool) {
	return slices.BinarySearchFunc(t.words, source, func(w Word, s string) int { return cmp.Compare(w.Source, s) })
}

// choose has the rule choose, and says what that makes of the word that came last.
func (t *thing) choose(rule Rule, source string) Verdict {
	before := t.counts
	i := rule(t.words)
	if i < 0 {
		t.counts = ""
		return Conflict
	}
	t.counts = t.words[i].Source
	switch t.counts {
	case source:
		return Newer
	case before:
		return Stale
	}
	return Moved
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

func wordOf(e *event.Event) Word {
	w := Word{Kind: e.Kind, Source: string(e.Source), Boot: string(e.BootID), Sequence: e.Sequence, Time: e.Time, Said: Said{
		To: string(e.Texts[event.To]), Result: string(e.Texts[event.Result]), Version: string(e.Texts[event.Version]),
		Phase: string(e.Texts[event.Phase]), Ejected: e.Numbers[event.Ejected] != 0}}
	if n := len(w.Boot); n > 8 { // it ends in the time of the start
		w.start, _ = strconv.ParseUint(w.Boot[n-8:], 16, 64)
	}
	return w
}

// compare compares two words of one proxy.
func (w *Word) compare(v *Word) int {
	return cmp.Or(cmp.Compare(w.start, v.start), cmp.Compare(w.Boot, v.Boot), cmp.Compare(w.Sequence, v.Sequence))
}
