// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"net/netip"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/meshtap/meshtap/mesh"
)

// maxCombinations bounds the combinations of criteria that the chains of a listener may name. The lists of a match
// multiply, so a short message could ask for very many.
const maxCombinations = 1 << 20

func (s *scope) chainMatch(p *at, m *listenerv3.FilterChainMatch) mesh.ChainMatch {
	if m == nil {
		return mesh.ChainMatch{}
	}
	out := mesh.ChainMatch{
		DestinationPort:      uint16(min(m.GetDestinationPort().GetValue(), 65535)),
		DestinationPrefixes:  s.prefixes(p, "prefix_ranges", m.GetPrefixRanges()),
		ServerNames:          lower(m.GetServerNames()),
		TransportProtocol:    m.GetTransportProtocol(),
		ApplicationProtocols: m.GetApplicationProtocols(),
		DirectSourcePrefixes: s.prefixes(p, "direct_source_prefix_ranges", m.GetDirectSourcePrefixRanges()),
		SourcePrefixes:       s.prefixes(p, "source_prefix_ranges", m.GetSourcePrefixRanges()),
	}
	switch m.GetSourceType() {
	case listenerv3.FilterChainMatch_SAME_IP_OR_LOOPBACK:
		out.SourceType = mesh.SourceLocal
	case listenerv3.FilterChainMatch_EXTERNAL:
		out.SourceType = mesh.SourceExternal
	}
	for _, port := range m.GetSourcePorts() {
		out.SourcePorts = append(out.SourcePorts, uint16(min(port, 65535)))
	}
	for i, name := range out.ServerNames {
		if rest := strings.TrimPrefix(name, "*."); strings.Contains(rest, "*") || rest == "" && name != "" {
			s.errorf(p.item("server_names", i), "%q: a * may stand for whole labels at the front only, as in *.example.com", name)
		}
	}
	return out
}

// combination is one way to match a chain. Two chains with an equal one would match the same connections.
type combination struct {
	port                        uint16
	destination, direct, source netip.Prefix
	name, transport, protocol   string
	sourceType                  mesh.SourceType
	sourcePort                  uint16
}

// chainMatches maps every combination of a listener to the index of its chain.
type chainMatches map[combination]int

// add notes the combinations of a chain's match and reports those that are taken.
func (c chainMatches) add(s *scope, p *at, index int, m mesh.ChainMatch) {
	n := 1
	for _, l := range []int{
		len(m.DestinationPrefixes), len(m.DirectSourcePrefixes), len(m.SourcePrefixes), len(m.ServerNames),
		len(m.ApplicationProtocols), len(m.SourcePorts),
	} {
		if n *= max(l, 1); len(c)+n > maxCombinations {
			s.errorf(p, "the lists of the listener's matches multiply to more than %d combinations", maxCombinations)
			return
		}
	}
	for key := range combinations(m) {
		if other, taken := c[key]; taken && other == index {
			s.errorf(p, "holds a value twice")
			return
		} else if taken {
			s.errorf(p, "matches the same connections as filter_chains[%d]; Envoy refuses that, too", other)
			return
		}
		c[key] = index
	}
}

// combinations yields the product of a match's lists; an empty list stands for "any", which is the zero value.
func combinations(m mesh.ChainMatch) func(yield func(combination) bool) {
	return func(yield func(combination) bool) {
		key := combination{port: m.DestinationPort, transport: m.TransportProtocol, sourceType: m.SourceType}
		for _, key.destination = range orAny(m.DestinationPrefixes) {
			for _, key.direct = range orAny(m.DirectSourcePrefixes) {
				for _, key.source = range orAny(m.SourcePrefixes) {
					for _, key.name = range orAny(m.ServerNames) {
						for _, key.protocol = range orAny(m.ApplicationProtocols) {
							for _, key.sourcePort = range orAny(m.SourcePorts) {
								if !yield(key) {
									return
								}
							}
						}
					}
				}
			}
		}
	}
}

func orAny[T any](list []T) []T {
	if len(list) == 0 {
		return make([]T, 1)
	}
	return list
}
