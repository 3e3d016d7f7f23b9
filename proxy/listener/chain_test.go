// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
)

var rewrite = flag.Bool("rewrite", false, "write what the cases in testdata give as what they should give")

// TestMatchCases runs the archives in testdata/match. "chains" has a chain per line: its name and its match, as in
// "web port=80 sni=*.example.com,foo"; a line that begins with "default" is the default chain. "connections" has one
// connection per line. "want" has the chain of each, or the error.
func TestMatchCases(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/match/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			part := map[string]*txtar.File{}
			for i := range ar.Files {
				part[ar.Files[i].Name] = &ar.Files[i]
			}
			if part["chains"] == nil || part["connections"] == nil || part["want"] == nil {
				t.Fatal("want the files chains, connections and want")
			}
			got := runMatch(t, lines(part["chains"]), lines(part["connections"]))
			if *rewrite {
				part["want"].Data = []byte(got)
				if err := os.WriteFile(f, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if want := string(part["want"].Data); got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

func lines(f *txtar.File) []string {
	var out []string
	for l := range strings.Lines(string(f.Data)) {
		if l = strings.TrimSpace(l); l != "" && l[0] != '#' {
			out = append(out, l)
		}
	}
	return out
}

func runMatch(t *testing.T, chains, conns []string) string {
	l := &mesh.Listener{Name: "l"}
	for _, c := range chains {
		if fc := parseChain(t, c); fc.Name == "default" {
			l.DefaultChain = fc
		} else {
			l.Chains = append(l.Chains, fc)
		}
	}
	m, err := NewMatcher(l)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	var b strings.Builder
	for _, c := range conns {
		fmt.Fprintf(&b, "%s => %s\n", c, chainName(m.Match(parseConn(t, c))))
	}
	return b.String()
}

func chainName(fc *mesh.FilterChain) string {
	if fc == nil {
		return "none"
	}
	return fc.Name
}

func parseChain(t *testing.T, line string) *mesh.FilterChain {
	t.Helper()
	words := strings.Fields(line)
	fc := &mesh.FilterChain{Name: strings.Trim(words[0], `"`)}
	m := &fc.Match
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		vs := strings.Split(v, ",")
		switch k {
		case "port":
			m.DestinationPort = parsePort(t, v)
		case "dst":
			m.DestinationPrefixes = parsePrefixes(vs)
		case "sni":
			m.ServerNames = vs
		case "transport":
			m.TransportProtocol = v
		case "alpn":
			m.ApplicationProtocols = vs
		case "direct":
			m.DirectSourcePrefixes = parsePrefixes(vs)
		case "type":
			m.SourceType = map[string]mesh.SourceType{"local": mesh.SourceLocal, "external": mesh.SourceExternal}[v]
		case "src":
			m.SourcePrefixes = parsePrefixes(vs)
		case "sport":
			for _, p := range vs {
				m.SourcePorts = append(m.SourcePorts, parsePort(t, p))
			}
		default:
			t.Fatalf("unknown criterion %q", w)
		}
	}
	return fc
}

func parseConn(t *testing.T, line string) *inspect.ConnInfo {
	t.Helper()
	info := &inspect.ConnInfo{}
	if !strings.HasPrefix(line, "unix") {
		info.Local, info.Remote = netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("192.0.2.1:40000")
	}
	for _, w := range strings.Fields(strings.TrimPrefix(line, "unix")) {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "dst":
			info.Local = netip.MustParseAddrPort(v)
		case "src":
			info.Remote = netip.MustParseAddrPort(v)
		case "direct":
			info.Direct = &inspect.Direct{Remote: netip.MustParseAddrPort(v), Local: info.Local}
		case "sni":
			info.Greet().ServerName, info.Transport = v, inspect.TLS
		case "alpn":
			info.Greet().ApplicationProtocols = strings.Split(v, ",")
		case "transport":
			if info.Transport = inspect.TLS; v != "tls" {
				info.Transport = inspect.RawBuffer
			}
			if info.Transport.String() != v {
				t.Fatalf("unknown transport %q", v)
			}
		default:
			t.Fatalf("unknown property %q", w)
		}
	}
	return info
}

func parsePort(t *testing.T, s string) uint16 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(n)
}

func parsePrefixes(vs []string) []netip.Prefix {
	var out []netip.Prefix
	for _, v := range vs {
		out = append(out, netip.MustParsePrefix(v))
	}
	return out
}

func TestTooManyCombinations(t *testing.T) {
	t.Parallel()
	fc := &mesh.FilterChain{Name: "big"}
	for i := range 600 {
		fc.Match.ServerNames = append(fc.Match.ServerNames, fmt.Sprintf("s%d.example", i))
		fc.Match.SourcePorts = append(fc.Match.SourcePorts, uint16(i+1))
	}
	_, err := NewMatcher(&mesh.Listener{Chains: []*mesh.FilterChain{fc}})
	if err == nil || !strings.Contains(err.Error(), "more than 262144 combinations") {
		t.Fatalf("got %v", err)
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	l := &mesh.Listener{Chains: []*mesh.FilterChain{
		parseChain(t, "a port=80 dst=10.0.0.0/8 sni=*.example.com transport=tls alpn=h2 type=external src=192.0.2.0/24 sport=40000"),
		parseChain(t, "b"),
	}}
	m, err := NewMatcher(l)
	if err != nil {
		t.Fatal(err)
	}
	info := parseConn(t, "sni=www.a.example.com alpn=http/1.1,h2")
	if got := m.Match(info); got != l.Chains[0] {
		t.Fatalf("got %s", chainName(got))
	}
	if n := testing.AllocsPerRun(100, func() { m.Match(info) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// naive prunes the chains criterion by criterion, as Envoy's documentation puts it: those that match the connection most
// specifically go on to the next step. rank is 0 for a chain that does not match, else higher where it is more specific.
func naive(l *mesh.Listener, info *inspect.ConnInfo) *mesh.FilterChain {
	left := slices.Clone(l.Chains)
	for _, rank := range []func(*mesh.ChainMatch) int{
		func(m *mesh.ChainMatch) int {
			return rankValues(m.DestinationPort != 0, m.DestinationPort == info.Local.Port())
		},
		func(m *mesh.ChainMatch) int { return rankPrefixes(m.DestinationPrefixes, info.Local.Addr()) },
		func(m *mesh.ChainMatch) int { return rankNames(m.ServerNames, info.ServerName()) },
		func(m *mesh.ChainMatch) int {
			return rankValues(m.TransportProtocol != "", m.TransportProtocol == info.Transport.String())
		},
		func(m *mesh.ChainMatch) int { return rankALPN(m.ApplicationProtocols, info.ApplicationProtocols()) },
		func(m *mesh.ChainMatch) int { return rankPrefixes(m.DirectSourcePrefixes, info.DirectRemote().Addr()) },
		func(m *mesh.ChainMatch) int {
			local := info.Remote.Addr().String() == "127.0.0.1" || info.Remote.Addr() == info.Local.Addr()
			return rankValues(m.SourceType != mesh.SourceAny, (m.SourceType == mesh.SourceLocal) == local)
		},
		func(m *mesh.ChainMatch) int { return rankPrefixes(m.SourcePrefixes, info.Remote.Addr()) },
		func(m *mesh.ChainMatch) int {
			return rankValues(len(m.SourcePorts) > 0, slices.Contains(m.SourcePorts, info.Remote.Port()))
		},
	} {
		best := 1
		for _, fc := range left {
			best = max(best, rank(&fc.Match))
		}
		left = slices.DeleteFunc(left, func(fc *mesh.FilterChain) bool { return rank(&fc.Match) != best })
	}
	if len(left) == 0 {
		return l.DefaultChain
	}
	return left[0]
}

func rankValues(named, matches bool) int {
	switch {
	case !named:
		return 1
	case matches:
		return 2
	}
	return 0
}

func rankPrefixes(ps []netip.Prefix, ip netip.Addr) int {
	if len(ps) == 0 {
		return 1
	}
	best := 0
	for _, p := range ps {
		if p.Contains(ip) {
			best = max(best, p.Bits()+2)
		}
	}
	return best
}

func rankNames(names []string, sni string) int {
	if len(names) == 0 {
		return 1
	}
	best := 0
	for _, n := range names {
		if suffix, wild := strings.CutPrefix(n, "*"); wild && len(sni) > len(suffix) && strings.HasSuffix(sni, suffix) {
			best = max(best, 2+len(suffix))
		} else if n == sni {
			best = 1000
		}
	}
	return best
}

func rankALPN(mine, offered []string) int {
	if len(mine) == 0 {
		return 1
	}
	for i, p := range offered {
		if slices.Contains(mine, p) {
			return 1000 - i
		}
	}
	return 0
}

// The matcher agrees with the naive one on random chains, and refuses exactly those sets of chains of which two can match
// the same connection in the same way.
func TestMatchAgreesWithNaive(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 11))
	matched, refused := 0, 0
	for round := range 1000 {
		l := &mesh.Listener{}
		for i := range 1 + r.IntN(6) {
			l.Chains = append(l.Chains, &mesh.FilterChain{Name: fmt.Sprint("c", i), Match: randomMatch(r)})
		}
		if r.IntN(2) == 0 {
			l.DefaultChain = &mesh.FilterChain{Name: "default"}
		}
		m, err := NewMatcher(l)
		if overlap := overlaps(l.Chains); (err != nil) != overlap {
			t.Fatalf("round %d: error %v, the chains overlap: %v", round, err, overlap)
		}
		if err != nil {
			refused++
			continue
		}
		for range 30 {
			info := randomConn(r)
			got, want := m.Match(info), naive(l, info)
			if got != want {
				t.Fatalf("round %d: got %s, want %s for %+v", round, chainName(got), chainName(want), info)
			}
			if got != nil && got != l.DefaultChain {
				matched++
			}
		}
	}
	if matched < 1000 || refused < 20 {
		t.Fatalf("only %d matches and %d refusals: the test says little", matched, refused)
	}
}

var (
	somePrefixes = []string{"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "127.0.0.0/8"}
	someNames    = []string{"a.example.com", "b.example.com", "*.example.com", "*.com", "com"}
	someALPN     = []string{"h2", "http/1.1", "istio"}
	someAddrs    = []string{"10.1.1.1", "10.1.2.3", "10.9.9.9", "127.0.0.1", "192.0.2.1"}
)

func some[T any](r *rand.Rand, from []T) []T {
	var out []T
	for _, x := range from {
		if r.IntN(4) == 0 {
			out = append(out, x)
		}
	}
	return out
}

func maybe[T any](r *rand.Rand, xs ...T) (x T) {
	if r.IntN(3) > 0 {
		return x
	}
	return xs[r.IntN(len(xs))]
}

func randomMatch(r *rand.Rand) (m mesh.ChainMatch) {
	m.DestinationPort = maybe(r, uint16(80), 443)
	m.TransportProtocol = maybe(r, "tls", "raw_buffer")
	m.SourceType = maybe(r, mesh.SourceLocal, mesh.SourceExternal)
	if r.IntN(2) == 0 {
		m.DestinationPrefixes = parsePrefixes(some(r, somePrefixes))
	}
	if r.IntN(2) == 0 {
		m.ServerNames = some(r, someNames)
	}
	if r.IntN(3) == 0 {
		m.ApplicationProtocols = some(r, someALPN)
	}
	if r.IntN(4) == 0 {
		m.DirectSourcePrefixes = parsePrefixes(some(r, somePrefixes))
	}
	if r.IntN(4) == 0 {
		m.SourcePrefixes = parsePrefixes(some(r, somePrefixes))
	}
	if r.IntN(4) == 0 {
		m.SourcePorts = some(r, []uint16{1000, 2000})
	}
	return m
}

func randomConn(r *rand.Rand) *inspect.ConnInfo {
	addr := func(ports ...uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(someAddrs[r.IntN(len(someAddrs))]), ports[r.IntN(len(ports))])
	}
	info := &inspect.ConnInfo{Local: addr(80, 443, 8080), Remote: addr(1000, 2000, 3000), Direct: &inspect.Direct{Remote: addr(1)}, Hello: &inspect.Hello{}}
	if r.IntN(2) == 0 {
		info.Transport = inspect.TLS
		info.Hello.ServerName = []string{"", "a.example.com", "b.example.com", "c.example.com", "x.y.example.com", "org.com", "com", "org"}[r.IntN(8)]
	}
	p := some(r, someALPN)
	r.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
	info.Hello.ApplicationProtocols = p
	return info
}

// overlaps reports whether two chains have a value in common for every criterion.
func overlaps(chains []*mesh.FilterChain) bool {
	for i, a := range chains {
		for _, b := range chains[:i] {
			x, y := &a.Match, &b.Match
			if x.DestinationPort == y.DestinationPort && x.TransportProtocol == y.TransportProtocol && x.SourceType == y.SourceType &&
				share(x.DestinationPrefixes, y.DestinationPrefixes) && share(x.ServerNames, y.ServerNames) &&
				share(x.ApplicationProtocols, y.ApplicationProtocols) && share(x.DirectSourcePrefixes, y.DirectSourcePrefixes) &&
				share(x.SourcePrefixes, y.SourcePrefixes) && share(x.SourcePorts, y.SourcePorts) {
				return true
			}
		}
	}
	return false
}

func share[T comparable](a, b []T) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return slices.ContainsFunc(a, func(x T) bool { return slices.Contains(b, x) })
}
