// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"math/bits"

	"github.com/meshtap/meshtap/internal/registry"
	"github.com/meshtap/meshtap/mesh"
)

// LeastRequestType is the type of the policy that prefers hosts with few requests in flight.
const LeastRequestType = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"

// LeastRequest prefers hosts with few requests in flight (Envoy, "Weighted least request").
//
// Where all weights are equal, it compares a few hosts taken at random, or all (FullScan), and picks the one with the
// fewest. Where they differ, it is weighted round robin with weights of the moment,
//
//	weight / (active + 1)^ActiveRequestBias,
//
// and ChoiceCount and FullScan have no say, as in Envoy.
type LeastRequest struct {
	// ChoiceCount is how many hosts are compared, at least 2. The default is 2.
	ChoiceCount uint32
	// ActiveRequestBias is how much requests in flight lower a weight, from 0: not at all, which is round robin. The
	// default is 1.
	ActiveRequestBias float64
	// FullScan compares all hosts.
	FullScan bool
	// BiasKey is a key of the runtime whose value replaces ActiveRequestBias, from the next pick on; "" is none.
	BiasKey string
	bias    mesh.RuntimeKey
}

// WithRuntime returns the policy, as a LeastRequest, with the key that BiasKey names.
func (c LeastRequest) WithRuntime(r mesh.Runtime) any {
	if c.BiasKey != "" {
		c.bias = r.Key(c.BiasKey)
	}
	return c
}

// DefaultLeastRequest returns the policy as it is where nothing is configured.
func DefaultLeastRequest() LeastRequest {
	return LeastRequest{ChoiceCount: 2, ActiveRequestBias: 1}
}

// Validate returns a registry.FieldError for the first field that is out of range. Its paths are those of the typed
// message and of the legacy Cluster.least_request_lb_config alike.
func (c LeastRequest) Validate() error {
	if c.ChoiceCount < 2 {
		return registry.Errorf("choice_count", "is %d; allowed is 2 or more", c.ChoiceCount)
	}
	if !(c.ActiveRequestBias >= 0) || math.IsInf(c.ActiveRequestBias, 1) {
		return registry.Errorf("active_request_bias.default_value", "is %v; allowed is a number from 0 up", c.ActiveRequestBias)
	}
	return nil
}

// BuildLeastRequest is the policy's Builder; config is a LeastRequest.
func BuildLeastRequest(config any, hosts []*Host, seed uint64, prev Picker) Picker {
	c := config.(LeastRequest)
	if p := trivial(hosts); p != nil {
		return p
	}
	switch {
	case !sameWeights(hosts) && c.ActiveRequestBias == 0 && c.bias == nil:
		return BuildRoundRobin(nil, hosts, seed, prev)
	case !sameWeights(hosts):
		d := newDeadlines(hosts, c.ActiveRequestBias, seed)
		d.runtime = c.bias
		return d
	case c.FullScan || uint64(c.ChoiceCount) >= uint64(len(hosts)):
		return leastOfAll(hosts)
	}
	return &leastOfSome{hosts: hosts, choices: int(c.ChoiceCount)}
}

// leastOfSome is the power of choices (Mitzenmacher 2001, "The power of two choices in randomized load balancing").
type leastOfSome struct {
	hosts   []*Host
	choices int
}

// Pick implements Picker. Each host after the first is taken among all but the best so far, so that two choices are two
// hosts: Envoy may take the same one twice, and then picks the busier of two hosts in a quarter of all cases.
func (p *leastOfSome) Pick(r *Request) int {
	others := uint64(len(p.hosts) - 1)
	first, _ := bits.Mul64(r.next(), others+1)
	best := int(first)
	least := p.hosts[best].Active.Load()
	for range p.choices - 1 {
		step, _ := bits.Mul64(r.next(), others)
		i := best + 1 + int(step)
		if i >= len(p.hosts) {
			i -= len(p.hosts)
		}
		if n := p.hosts[i].Active.Load(); n < least {
			best, least = i, n
		}
	}
	return best
}

// leastOfAll compares all hosts.
type leastOfAll []*Host

// Pick implements Picker. Hosts that tie have the same chance: the n-th of them replaces the one found before with
// probability 1/n (reservoir sampling).
func (p leastOfAll) Pick(r *Request) int {
	best, least, ties := 0, p[0].Active.Load(), uint64(1)
	for i := 1; i < len(p); i++ {
		n := p[i].Active.Load()
		if n < least {
			best, least, ties = i, n, 1
			continue
		}
		if n > least {
			continue
		}
		ties++
		if x, _ := bits.Mul64(r.next(), ties); x == 0 {
			best = i
		}
	}
	return best
}
