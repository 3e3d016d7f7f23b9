// SPDX-License-Identifier: Apache-2.0

//go:build netns

package netns_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/test/netns"
)

const (
	appUser   = 1000 // whose connections are redirected
	outbound  = 15001
	inbound   = 15006
	podIP     = "10.77.0.1"
	remoteIP  = "10.77.0.2"
	podIP6    = "fd77::1"
	remoteIP6 = "fd77::2"
)

// pair is a pod, in which the proxy runs, and another host.
func pair(t *testing.T) (pod, remote *netns.Namespace) {
	t.Helper()
	pod, remote = netns.New(t, "pod"), netns.New(t, "remote")
	netns.Connect(t, pod, remote, []string{podIP + "/24", podIP6 + "/64"}, []string{remoteIP + "/24", remoteIP6 + "/64"})
	return pod, remote
}

// capture is a listener for redirected connections, as Istio's virtual listeners are.
func capture(name, addr string, fc *mesh.FilterChain) *mesh.Listener {
	return &mesh.Listener{
		Name:           name,
		Address:        mesh.Address{IP: netip.MustParseAddrPort(addr)},
		BindToPort:     true,
		UseOriginalDst: true,
		Filters:        []mesh.ListenerFilter{filter("original_dst.v3.OriginalDst", nil)},
		DefaultChain:   fc,
	}
}

func target(name, addr string, fc *mesh.FilterChain) *mesh.Listener {
	return &mesh.Listener{Name: name, Address: mesh.Address{IP: netip.MustParseAddrPort(addr)}, DefaultChain: fc}
}

func filter(typ string, config any) mesh.ListenerFilter {
	return mesh.ListenerFilter{Extension: mesh.Extension{TypeURL: "envoy.extensions.filters.listener." + typ, Config: config}}
}

func tlsInspector() mesh.ListenerFilter {
	return filter("tls_inspector.v3.TlsInspector", inspect.TLSConfig{MaxBytes: inspect.MaxClientHello})
}

func httpInspector() mesh.ListenerFilter { return filter("http_inspector.v3.HttpInspector", nil) }

func chain(name string) *mesh.FilterChain { return &mesh.FilterChain{Name: name} }

// A request that the application sends anywhere finds the listener of its destination: that of the very address, else
// that of the port, else the one that captures.
func TestOutboundHTTPFindsItsListener(t *testing.T) {
	pod, _ := pair(t)
	for _, v6 := range []bool{false, true} {
		pod.Redirect(netns.Redirect{To: outbound, ExceptUID: 0, IPv6: v6})
	}
	http := func(name, addr string) *mesh.Listener {
		l := target(name, addr, chain(name+" raw"))
		l.Filters, l.FiltersTimeout = []mesh.ListenerFilter{httpInspector()}, time.Hour
		l.Chains = []*mesh.FilterChain{{Name: name + " http", Match: mesh.ChainMatch{ApplicationProtocols: []string{"http/1.1"}}}}
		return l
	}
	p := startProxy(t, pod)
	p.apply(
		capture("out", "0.0.0.0:15001", chain("out")), capture("out6", "[::]:15001", chain("out6")),
		http("exact", remoteIP+":80"), http("wild", "0.0.0.0:80"), http("wild6", "[::]:80"),
	)
	const request = "GET / HTTP/1.1\r\n\r\n"
	for _, tc := range []struct{ name, to, send, want string }{
		{"exact", remoteIP + ":80", request, "exact http"},
		{"wildcard", "10.77.0.9:80", request, "wild http"},
		{"not HTTP", "10.77.0.9:80", "\x00\x01", "wild raw"},
		{"other port", remoteIP + ":81", request, "out"},
		{"ipv6", "[" + remoteIP6 + "]:80", request, "wild6 http"},
		{"ipv6, other port", "[" + remoteIP6 + "]:81", request, "out6"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, pod, appUser, tc.to)
			io.WriteString(c, tc.send)
			wantLine(t, c, fmt.Sprintf("%s %s %d", tc.want, tc.to, len(tc.send)))
		})
	}
}

// TLS is passed through to the server, on the chain that the server name chooses, without a byte being touched.
func TestTLSPassthroughByServerName(t *testing.T) {
	pod, remote := pair(t)
	pod.Redirect(netns.Redirect{To: outbound, ExceptUID: 0})
	cert, pool := certificate(t, "through.example")
	serve(t, remote, remoteIP+":443", func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		if _, err := io.WriteString(s, "secret\n"); err == nil {
			io.Copy(io.Discard, s)
		}
	})
	tlsListener := target("tls", "0.0.0.0:443", nil)
	tlsListener.Filters, tlsListener.FiltersTimeout = []mesh.ListenerFilter{tlsInspector()}, time.Hour
	tlsListener.Chains = []*mesh.FilterChain{
		{Name: passOn, Match: mesh.ChainMatch{ServerNames: []string{"through.example"}}},
		{Name: "other", Match: mesh.ChainMatch{ServerNames: []string{"*.example"}}},
	}
	p := startProxy(t, pod)
	p.apply(capture("out", "0.0.0.0:15001", chain("out")), tlsListener)

	s := tls.Client(dial(t, pod, appUser, remoteIP+":443"), &tls.Config{ServerName: "through.example", RootCAs: pool})
	wantLine(t, s, "secret")
	// Another name is on another chain, which does not speak TLS.
	other := tls.Client(dial(t, pod, appUser, remoteIP+":443"), &tls.Config{ServerName: "other.example", RootCAs: pool})
	if err := other.Handshake(); err == nil {
		t.Error("another server name came through")
	}
	if n := p.hops.Load(); n != 1 {
		t.Errorf("%d connections were passed on, want 1", n)
	}
}

// A server that speaks first is heard, though other ports are inspected. The proxy's own connection is told by its mark.
func TestServerFirstIsNotHeld(t *testing.T) {
	pod, remote := pair(t)
	pod.Redirect(netns.Redirect{To: outbound, ExceptUID: -1, ExceptMark: 1337})
	serve(t, remote, remoteIP+":3306", func(c net.Conn) {
		io.WriteString(c, "mysql\n")
		io.Copy(io.Discard, c)
	})
	out := capture("out", "0.0.0.0:15001", chain(passOn))
	inspectors := []mesh.ListenerFilter{tlsInspector(), httpInspector()}
	for i := range inspectors {
		inspectors[i].DisabledOn = &mesh.ListenerPredicate{PortStart: 3306, PortEnd: 3307}
	}
	out.Filters, out.FiltersTimeout = append(out.Filters, inspectors...), time.Hour
	p := startProxy(t, pod)
	p.mark = 1337
	p.apply(out)
	wantLine(t, dial(t, pod, appUser, remoteIP+":3306"), "mysql")
}

// What comes from elsewhere is redirected with its destination kept, IPv4 and IPv6.
func TestInboundOriginalDestination(t *testing.T) {
	pod, remote := pair(t)
	for _, v6 := range []bool{false, true} {
		pod.Redirect(netns.Redirect{Inbound: true, To: inbound, IPv6: v6})
	}
	in, in6 := capture("in", "0.0.0.0:15006", chain("in")), capture("in6", "[::]:15006", chain("in6"))
	in.Chains = []*mesh.FilterChain{{Name: "app", Match: mesh.ChainMatch{DestinationPort: 8080}}}
	p := startProxy(t, pod)
	p.apply(in, in6)
	for _, tc := range []struct{ to, want string }{
		{podIP + ":8080", "app"},
		{podIP + ":9090", "in"},
		{"[" + podIP6 + "]:8080", "in6"},
	} {
		c := dial(t, remote, 0, tc.to)
		io.WriteString(c, "x")
		wantLine(t, c, fmt.Sprintf("%s %s 1", tc.want, tc.to))
	}
}

// Connections that would go round for ever end within three hops (F76). What the listener knows by itself never goes
// round at all. Where the proxy's own connections come back, each hop races with the guard, and the bound is a matter of
// who gets the processor: without the guard it goes round until a limit is met.
func TestLoopsEnd(t *testing.T) {
	for _, tc := range []struct {
		name string
		// rules redirect, and dial makes the connection that goes round.
		rules   func(pod *netns.Namespace)
		dial    func(t *testing.T, pod, remote *netns.Namespace) net.Conn
		guarded bool
	}{
		{
			name:    "the proxy's own connections are redirected",
			rules:   func(pod *netns.Namespace) { pod.Redirect(netns.Redirect{To: outbound, ExceptUID: -1}) },
			dial:    func(t *testing.T, pod, _ *netns.Namespace) net.Conn { return dial(t, pod, appUser, remoteIP+":80") },
			guarded: true,
		},
		{
			name:  "somebody else's user is excepted",
			rules: func(pod *netns.Namespace) { pod.Redirect(netns.Redirect{To: outbound, ExceptUID: 1337}) },
			dial: func(t *testing.T, pod, _ *netns.Namespace) net.Conn {
				return dial(t, pod, appUser, "[::ffff:"+remoteIP+"]:80")
			},
			guarded: true,
		},
		{
			name:  "a client connects to the capturing port",
			rules: func(*netns.Namespace) {},
			dial:  func(t *testing.T, _, remote *netns.Namespace) net.Conn { return dial(t, remote, 0, podIP+":15001") },
		},
		{
			name:  "a client is redirected on its way to the capturing port",
			rules: func(pod *netns.Namespace) { pod.Redirect(netns.Redirect{Inbound: true, To: outbound}) },
			dial:  func(t *testing.T, _, remote *netns.Namespace) net.Conn { return dial(t, remote, 0, podIP+":15001") },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod, remote := pair(t)
			tc.rules(pod)
			p := startProxy(t, pod)
			p.guarded = tc.guarded
			p.apply(capture("out", "0.0.0.0:15001", chain(passOn)))
			c := tc.dial(t, pod, remote)
			wantEnd(t, c)
			n := p.hops.Load()
			if p.guarded {
				if n < 1 || n > 16 {
					t.Errorf("the connection was passed on %d times", n)
				}
				return // whoever looked second has ended it, with or without an outcome
			}
			if n != 0 {
				t.Errorf("the connection was passed on %d times", n)
			}
			if o := p.waitOutcome(); o.Details != "redirect_loop" || p.loops() != 1 {
				t.Errorf("outcome %+v, %d loops counted", o, p.loops())
			}
		})
	}
}

// certificate makes a certificate for a name, and the pool that trusts it.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
