// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/meshtap/meshtap/discovery"
	"github.com/meshtap/meshtap/mesh"
)

// server is a DNS server on loopback. The first label of a name says what it does with it.
type server struct {
	addr netip.AddrPort

	mu      sync.Mutex
	queries []string // guarded by mu: "udp A good.example."
}

// startServer starts a server. With tcpOnly, datagrams are not answered.
func startServer(t *testing.T, tcpOnly bool) *server {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.addr))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.serveTCP(l) })
	wg.Go(func() { s.serveUDP(udp, tcpOnly) })
	t.Cleanup(func() {
		_ = l.Close()
		_ = udp.Close()
		wg.Wait()
	})
	return s
}

func (s *server) serveUDP(c *net.UDPConn, silent bool) {
	b := make([]byte, 4096)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if silent {
			continue
		}
		for _, m := range s.answer("udp", b[:n]) {
			_, _ = c.WriteToUDPAddrPort(m, from)
		}
	}
}

func (s *server) serveTCP(l *net.TCPListener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err == nil {
			b := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, b); err == nil {
				for _, m := range s.answer("tcp", b) {
					_, _ = c.Write(binary.BigEndian.AppendUint16(nil, uint16(len(m))))
					_, _ = c.Write(m)
				}
			}
		}
		_ = c.Close()
	}
}

func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.queries)
}

// answer returns the messages that answer a query.
func (s *server) answer(network string, query []byte) [][]byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	s.mu.Lock()
	s.queries = append(s.queries, fmt.Sprintf("%s %s %s", network, strings.TrimPrefix(q.Type.String(), "Type"), q.Name))
	s.mu.Unlock()
	r := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true},
		Questions: m.Questions,
	}
	label, _, _ := strings.Cut(q.Name.String(), ".")
	switch label {
	case "silent":
		return nil
	case "nx":
		r.RCode = dnsmessage.RCodeNameError
	case "servfail":
		r.RCode = dnsmessage.RCodeServerFailure
	case "empty":
	case "v4":
		if q.Type == dnsmessage.TypeA {
			r.Answers = addresses(q, 30, 1)
		}
	case "many":
		r.Answers = addresses(q, 30, 1500)
		if network == "udp" {
			r.Answers, r.Truncated = nil, true
		}
	case "alias":
		target := dnsmessage.MustNewName("v4.example.")
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeCNAME, Class: q.Class, TTL: 7}
		r.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: target}}}
		for _, a := range addresses(q, 30, 1) {
			a.Header.Name = target
			r.Answers = append(r.Answers, a)
		}
	case "poison":
		forged := r
		forged.ID++
		forged.Answers = addresses(q, 1, 3)
		r.Answers = addresses(q, 30, 1)
		return [][]byte{pack(forged), pack(r)}
	default:
		r.Answers = addresses(q, 30, 2)
	}
	return [][]byte{pack(r)}
}

func addresses(q dnsmessage.Question, ttl uint32, n int) []dnsmessage.Resource {
	var out []dnsmessage.Resource
	for i := range n {
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: ttl + uint32(i)}
		var body dnsmessage.ResourceBody = &dnsmessage.AResource{A: [4]byte{127, 1, byte(i >> 8), byte(i)}}
		if q.Type == dnsmessage.TypeAAAA {
			body = &dnsmessage.AAAAResource{AAAA: [16]byte{0: 0xfd, 15: byte(i)}}
		}
		out = append(out, dnsmessage.Resource{Header: h, Body: body})
	}
	return out
}

func pack(m dnsmessage.Message) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// look makes one look-up through a Source. Only what is never answered has a short timeout: a busy machine is slow.
func look(t *testing.T, d mesh.DNS, host string, servers ...*server) (answer, *time.Duration) {
	t.Helper()
	timeout := 20 * time.Second
	switch {
	case strings.HasPrefix(host, "silent"):
		timeout = 200 * time.Millisecond
	case len(servers) > 1:
		timeout = 2 * time.Second
	}
	for _, s := range servers {
		d.Resolvers = append(d.Resolvers, s.addr)
	}
	d.NoSearch = true
	s := New(Config{Timeout: timeout}, zap.NewNop())
	return s.resolve(t.Context(), &d, host)
}

func TestLookup(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		dns    mesh.DNS
		host   string
		want   string // addresses, or "!" and a part of the error
		ttl    time.Duration
		asked  string // the types of the queries, sorted, each once
		stream bool
	}{
		{"auto prefers IPv6", mesh.DNS{}, "good.example", "[fd00:: fd00::1]", 30 * time.Second, "udp AAAA", false},
		{"auto falls back to IPv4", mesh.DNS{}, "v4.example", "[127.1.0.0]", 30 * time.Second, "udp A udp AAAA", false},
		{"IPv4 alone", mesh.DNS{Family: mesh.FamilyV4Only}, "good.example", "[127.1.0.0 127.1.0.1]", 30 * time.Second, "udp A", false},
		{"IPv6 alone", mesh.DNS{Family: mesh.FamilyV6Only}, "v4.example", "!no such host", 0, "udp AAAA", false},
		{"IPv4 preferred", mesh.DNS{Family: mesh.FamilyV4Preferred}, "good.example", "[127.1.0.0 127.1.0.1]", 30 * time.Second, "udp A", false},
		{"all", mesh.DNS{Family: mesh.FamilyAll}, "good.example", "[127.1.0.0 127.1.0.1 fd00:: fd00::1]", 30 * time.Second,
			"udp A udp AAAA", false},
		{"no such name", mesh.DNS{Family: mesh.FamilyV4Only}, "nx.example", "!no such host", 0, "udp A", false},
		{"server failure", mesh.DNS{Family: mesh.FamilyV4Only}, "servfail.example", "!server misbehaving", 0, "udp A", false},
		{"no answer", mesh.DNS{Family: mesh.FamilyV4Only}, "silent.example", "!timeout", 0, "udp A", false},
		{"no addresses", mesh.DNS{Family: mesh.FamilyV4Only}, "empty.example", "!no such host", 0, "udp A", false},
		{"alias has the lesser time to live", mesh.DNS{Family: mesh.FamilyV4Only}, "alias.example", "[127.1.0.0]", 7 * time.Second, "udp A", false},
		{"forged answer", mesh.DNS{Family: mesh.FamilyV4Only}, "poison.example", "[127.1.0.0]", 30 * time.Second, "udp A", false},
		{"TCP as configured", mesh.DNS{Family: mesh.FamilyV4Only, UseTCP: true}, "good.example", "[127.1.0.0 127.1.0.1]",
			30 * time.Second, "tcp A", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, tt.stream)
			a, ttl := look(t, tt.dns, tt.host, s)
			if reason, fails := strings.CutPrefix(tt.want, "!"); fails {
				if a.err == nil || !strings.Contains(a.err.Error(), reason) {
					t.Errorf("got %v, error %v, want error %q", a.addresses, a.err, reason)
				}
			} else if got := fmt.Sprint(a.addresses); a.err != nil || got != tt.want {
				t.Errorf("got %v, error %v, want %s", got, a.err, tt.want)
			}
			if tt.ttl != 0 && (ttl == nil || *ttl != tt.ttl) {
				t.Errorf("time to live %v, want %v", ttl, tt.ttl)
			}
			if got := kinds(s.asked()); got != tt.asked {
				t.Errorf("asked for %q, want %q", got, tt.asked)
			}
		})
	}
}

// kinds returns the network and type of queries, sorted, each once.
func kinds(queries []string) string {
	var out []string
	for _, q := range queries {
		out = append(out, q[:strings.LastIndex(q, " ")])
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// TestLookupOfManyAnswers: what does not fit into a datagram comes by TCP, and of 1,500 addresses 1,000 are used.
func TestLookupOfManyAnswers(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a, ttl := look(t, mesh.DNS{Family: mesh.FamilyV4Only}, "many.example", s)
	if a.err != nil || len(a.addresses) != MaxAnswers || ttl == nil || *ttl != 30*time.Second {
		t.Fatalf("%d addresses, time to live %v, error %v", len(a.addresses), ttl, a.err)
	}
	if first, last := a.addresses[0].String(), a.addresses[MaxAnswers-1].String(); first != "127.1.0.0" || last != "127.1.3.231" {
		t.Errorf("addresses %s ... %s are not the first in order", first, last)
	}
	if got := kinds(s.asked()); got != "tcp A udp A" {
		t.Errorf("asked by %q", got)
	}
}

func TestLookupGoesOnToTheNextServer(t *testing.T) {
	t.Parallel()
	dead, good := startServer(t, true), startServer(t, false)
	a, _ := look(t, mesh.DNS{Family: mesh.FamilyV4Only}, "good.example", dead, good)
	if a.err != nil || len(a.addresses) != 2 {
		t.Errorf("got %v, error %v", a.addresses, a.err)
	}
	// That a name does not exist is an answer, and the next server is not asked.
	other := startServer(t, false)
	a, _ = look(t, mesh.DNS{Family: mesh.FamilyV4Only}, "nx.example", good, other)
	var e *net.DNSError
	if !errors.As(a.err, &e) || !e.IsNotFound || len(other.asked()) != 0 {
		t.Errorf("error %v, %d queries to the second server", a.err, len(other.asked()))
	}
}

// TestLookupReadsTheHostsFile: localhost is in /etc/hosts everywhere, and needs no server.
func TestLookupReadsTheHostsFile(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	d := mesh.DNS{Family: mesh.FamilyV4Only, Resolvers: []netip.AddrPort{s.addr}}
	a, ttl := New(Config{}, zap.NewNop()).resolve(t.Context(), &d, "localhost")
	if a.err != nil || !slices.Contains(a.addresses, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("got %v, error %v", a.addresses, a.err)
	}
	if ttl != nil || len(s.asked()) != 0 {
		t.Errorf("time to live %v, queries %v", ttl, s.asked())
	}
}

// TestWatchOnTheWire goes the whole way once.
func TestWatchOnTheWire(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	c := cluster(mesh.DNS{Family: mesh.FamilyV4Only, Resolvers: []netip.AddrPort{s.addr}, NoSearch: true}, "good.example")
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	err := New(Config{}, zap.NewNop()).Watch(ctx, c, func(u discovery.Update) {
		got = append(got, text(u))
		cancel()
	})
	if err != nil || fmt.Sprint(got) != "[127.1.0.0:80 127.1.0.1:80]" {
		t.Errorf("told %v, error %v", got, err)
	}
}

// FuzzTTL reads any bytes as a response; it must not panic, and takes nothing from a response to another query.
func FuzzTTL(f *testing.F) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName("a.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	query := pack(dnsmessage.Message{Header: dnsmessage.Header{ID: 9}, Questions: []dnsmessage.Question{q}})
	good := dnsmessage.Message{Header: dnsmessage.Header{ID: 9, Response: true}, Questions: []dnsmessage.Question{q}, Answers: addresses(q, 5, 3)}
	other := good
	other.ID = 10
	for _, seed := range [][]byte{nil, query, pack(good), pack(other), pack(good)[:40]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		var seen ttls
		seen.read(query, response)
		seen.read(response, query)
		if len(response) > 2 && (response[0] != 0 || response[1] != 9) && seen.least() != nil {
			t.Errorf("took %v from a response with another id", *seen.least())
		}
	})
}
