// SPDX-License-Identifier: Apache-2.0

package mesh

// Runtime gives keys of the runtime (Envoy's layered_runtime): named values that can change while what names them stays
// in force.
type Runtime interface {
	// Key returns the key with a name. It may be asked for before it has a value, and after.
	Key(name string) RuntimeKey
}

// RuntimeKey reads the value that a key has now. Its methods may be called from any goroutine and for each request; they
// allocate nothing. Each takes what counts where the key has no value, or one of another type.
type RuntimeKey interface {
	// Fraction reads a share. A whole number is one of percent, as in Envoy. The denominator is never 0 unless it was given.
	Fraction(numerator, denominator uint32) (uint32, uint32)
	Integer(otherwise uint64) uint64
	Double(otherwise float64) float64
	Bool(otherwise bool) bool
}

// RuntimeValues reads keys that no configuration names, those of Envoy's own. It is for what looks at them when they change,
// and not with each request.
type RuntimeValues interface {
	// Generation is another number after each change.
	Generation() uint64
	Integer(name string, otherwise uint64) uint64
	Double(name string, otherwise float64) float64
}
