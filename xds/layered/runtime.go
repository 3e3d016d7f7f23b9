// SPDX-License-Identifier: Apache-2.0

package layered

import (
	"errors"
	"io/fs"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/mesh"
)

// Kind is where the values of a layer come from.
type Kind uint8

// The kinds of layers.
const (
	Static Kind = iota
	Disk
	Admin
	RTDS
)

// Layer is one layer of the configuration.
type Layer struct {
	Name string
	Kind Kind
	// Values are those of a static layer.
	Values map[string]Value
	// Root is the symbolic link of a layer on disk, and Dir the directory that is read: Root with what is below it.
	Root, Dir string
}

// Runtime is the values in force. Its methods may be called from any goroutine.
type Runtime struct {
	now atomic.Pointer[snapshot]

	mu sync.Mutex
	// Guarded by mu.
	layers []Layer
	values []map[string]Value // of each layer; nil is a layer that is not there
	group  *stats.Group       // nil until Publish; then counts is in it
	counts [numLayers]int64
	// links are what the layers on disk were read by, by their root.
	links map[string]fs.FileInfo
	// asked are the keys that a configuration names, by name, for as long as it is there.
	asked map[string]weak.Pointer[key]
	// told are called after each change.
	told []func()
	// isCluster reports whether there is a cluster of this name; nil where nobody knows.
	isCluster func(name string) bool
}

// snapshot is the values at one moment. It does not change.
type snapshot struct {
	generation uint64

	final  map[string]Value
	names  []string
	layers []map[string]Value
}

// New returns a Runtime without layers.
func New() *Runtime {
	r := &Runtime{asked: map[string]weak.Pointer[key]{}, links: map[string]fs.FileInfo{}}
	r.now.Store(&snapshot{})
	return r
}

// Configure sets the layers and reads those that are there already: the static ones and those on disk. The errors are those
// of directories that cannot be read, which leaves their layers out.
func (r *Runtime) Configure(layers []Layer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.layers, r.values = layers, make([]map[string]Value, len(layers))
	var all error
	for i, l := range layers {
		switch l.Kind {
		case Static:
			r.values[i] = l.Values
		case Disk:
			all = errors.Join(all, r.readDisk(i))
		case Admin, RTDS:
			r.values[i] = map[string]Value{}
		}
	}
	r.swap()
	return all
}

// Set replaces the values of a layer, by its place in the configuration.
func (r *Runtime) Set(layer int, values map[string]Value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values[layer] = values
	r.swap()
}

// ErrNoAdmin says that there is no layer to hold what is asked for. The words are Envoy's.
//
//lint:ignore ST1005 it is Envoy's answer to the client
var ErrNoAdmin = errors.New("No admin layer specified")

// ErrFull says that the administration layer holds as much as it may.
var ErrFull = errors.New("too many keys, or too long ones, were set through the administration interface")

// Modify changes values of the administration layer; an empty text takes a value away.
func (r *Runtime) Modify(changes map[string]string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := slices.IndexFunc(r.layers, func(l Layer) bool { return l.Kind == Admin })
	if at < 0 {
		return ErrNoAdmin
	}
	values := maps.Clone(r.values[at])
	for name, text := range changes {
		if delete(values, name); text != "" {
			values[name] = Parse(text)
		}
		if len(values) > maxKeys || len(name)+len(text) > maxText {
			return ErrFull
		}
	}
	r.values[at] = values
	r.swap()
	return nil
}

// swap puts the layers into force. The caller holds mu.
func (r *Runtime) swap() {
	s := &snapshot{generation: r.now.Load().generation + 1, final: map[string]Value{}}
	onDisk := 0
	for i, values := range r.values {
		if values == nil {
			continue
		}
		if r.layers[i].Kind == Disk {
			onDisk++
		}
		s.names, s.layers = append(s.names, r.layers[i].Name), append(s.layers, values)
		maps.Copy(s.final, values)
	}
	r.now.Store(s)
	r.count(loadSuccess)
	if onDisk > 1 { // Envoy takes the second one for the override of the first
		r.count(overrideExists)
	} else {
		r.count(overrideNotExists)
	}
	for _, f := range r.told {
		f()
	}
}

// Told has f called after each change. f must not block, nor call a method that changes something.
func (r *Runtime) Told(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, f)
}

// SetClusters says which clusters there are, so that keys of others are known to be read by nobody. f must not call the
// Runtime.
func (r *Runtime) SetClusters(f func(name string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isCluster = f
}

// Generation implements mesh.RuntimeValues.
func (r *Runtime) Generation() uint64 { return r.now.Load().generation }

// Integer implements mesh.RuntimeValues.
func (r *Runtime) Integer(name string, otherwise uint64) uint64 {
	return (&key{r, name}).Integer(otherwise)
}

// Double implements mesh.RuntimeValues.
func (r *Runtime) Double(name string, otherwise float64) float64 {
	return (&key{r, name}).Double(otherwise)
}

// Entry is a key: its texts by layer, "" where a layer does not have it, and the one that counts.
type Entry struct {
	Layers []string
	Final  string
}

// Dump returns the names of the layers, and all keys.
func (r *Runtime) Dump() (layers []string, entries map[string]Entry) {
	s := r.now.Load()
	entries = make(map[string]Entry, len(s.final))
	for name := range s.final {
		e := Entry{Layers: make([]string, len(s.layers))}
		for i, values := range s.layers {
			e.Layers[i] = values[name].Text
			if e.Layers[i] != "" {
				e.Final = e.Layers[i]
			}
		}
		entries[name] = e
	}
	return s.names, entries
}

// Key implements mesh.Runtime. Keys of one name are the same for as long as one of them is kept.
func (r *Runtime) Key(name string) mesh.RuntimeKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.asked[name].Value()
	if k == nil {
		k = &key{r, name}
		r.asked[name] = weak.Make(k)
		runtime.AddCleanup(k, r.forget, name)
	}
	return k
}

// forget takes a name away whose key nobody has any more, unless it was asked for again.
func (r *Runtime) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked[name].Value() == nil {
		delete(r.asked, name)
	}
}

// key implements mesh.RuntimeKey. Two keys of one name are of equal content, so that what is decoded twice is.
type key struct {
	runtime *Runtime
	name    string
}

func (k *key) value() Value { return k.runtime.now.Load().final[k.name] }

// Fraction implements mesh.RuntimeKey.
func (k *key) Fraction(numerator, denominator uint32) (uint32, uint32) {
	if v := k.value(); v.denominator != 0 {
		return v.numerator, v.denominator
	}
	return numerator, denominator
}

// Integer implements mesh.RuntimeKey.
func (k *key) Integer(otherwise uint64) uint64 {
	if v := k.value(); v.hasInteger {
		return v.integer
	}
	return otherwise
}

// Double implements mesh.RuntimeKey.
func (k *key) Double(otherwise float64) float64 {
	if v := k.value(); v.hasNumber {
		return v.number
	}
	return otherwise
}

// Bool implements mesh.RuntimeKey.
func (k *key) Bool(otherwise bool) bool {
	if v := k.value(); v.hasBoolean {
		return v.boolean
	}
	return otherwise
}

var (
	_ mesh.Runtime       = (*Runtime)(nil)
	_ mesh.RuntimeValues = (*Runtime)(nil)
	_ mesh.RuntimeKey    = (*key)(nil)
)
