// SPDX-License-Identifier: Apache-2.0

package lb

import "sync/atomic"

// Host is what a policy knows of a host. proxy/upstream's Host embeds it.
//
// Weight, Priority and Health belong to whoever builds sets: they are read by NewSet and by the builders only, never
// while picking, so they may change between two builds under the builder's own lock.
type Host struct {
	// Weight is relative to the other hosts of the same priority; 0 counts as 1.
	Weight uint32
	// Priority 0 is used first.
	Priority uint32
	Health   Health
	// Active is the number of requests in flight. Whoever sends one adds 1 when it got the host from Pick and subtracts
	// it at the end, on every path.
	Active atomic.Int64
}

// Health is a host's health as load balancing sees it, all sources taken together. The zero value is Healthy.
type Health uint8

// The health classes.
const (
	// Healthy hosts take load first.
	Healthy Health = iota
	// Degraded hosts take what the healthy ones of all priorities cannot.
	Degraded
	// Unhealthy hosts take load only in a panic.
	Unhealthy
)

var healthNames = [...]string{"healthy", "degraded", "unhealthy"}

// String returns the class' name.
func (h Health) String() string { return healthNames[h] }

// weight returns the host's weight, at least 1.
func (h *Host) weight() uint64 { return uint64(max(h.Weight, 1)) }

// sameWeights reports whether no host is to get more than another.
func sameWeights(hosts []*Host) bool {
	for _, h := range hosts {
		if h.weight() != hosts[0].weight() {
			return false
		}
	}
	return true
}

// Picker chooses a host for a request. It is safe for concurrent use and does not allocate.
type Picker interface {
	// Pick returns an index into the hosts the picker was built over, or -1 where there is none.
	Pick(r *Request) int
}

// Builder makes a picker of one policy. config is what the policy's Parse, or its Default function, returned. seed
// decides where the picker starts, so that many proxies do not start with the same host. prev is the picker that did
// this job before, nil where there was none: a policy with a position goes on from there.
//
// The picker keeps hosts and does not change it. Building takes time linear in len(hosts).
type Builder func(config any, hosts []*Host, seed uint64, prev Picker) Picker

// Request is what a policy knows of a request. Keep it in the exchange: a pointer to it goes through an interface, so a
// local variable would be allocated for each pick.
type Request struct {
	// Rand is the state of the request's random sequence. Seed it once per request from a good source; each pick moves
	// it on, so that picking again for a retry gives a new choice.
	Rand uint64
	// Hash is what consistent hashing goes by, where HasHash says that there is one. With a hash the priority is chosen
	// by it too, as in Envoy, so that a key stays with its host: set it only for clusters whose policy hashes.
	Hash    uint64
	HasHash bool
}

// next returns the next number of the request's random sequence (SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
func (r *Request) next() uint64 {
	r.Rand += golden
	return mix(r.Rand)
}

// golden is 2^64 divided by the golden ratio, made odd.
const golden = 0x9e3779b97f4a7c15

// mix spreads every bit of x over all bits of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// trivial returns the picker for no host or for one, which needs no policy, and nil for more.
func trivial(hosts []*Host) Picker {
	switch len(hosts) {
	case 0:
		return none{}
	case 1:
		return only{}
	}
	return nil
}

// none picks nothing.
type none struct{}

func (none) Pick(*Request) int { return -1 }

// only picks the one host there is.
type only struct{}

func (only) Pick(*Request) int { return 0 }
