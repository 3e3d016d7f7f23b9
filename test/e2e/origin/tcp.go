// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TCP is a server that speaks first, "hello from name", and then sends each line back behind its name.
type TCP struct {
	addr netip.AddrPort
	ln   net.Listener
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu; nil once closed
}

// StartTCP runs a server on a free loopback port until the test ends.
func StartTCP(tb testing.TB, name string) *TCP {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return ServeTCP(tb, ln, name)
}

// ServeTCP is StartTCP on a socket of the caller's.
func ServeTCP(tb testing.TB, ln net.Listener, name string) *TCP {
	s := &TCP{addr: netip.MustParseAddrPort(ln.Addr().String()), ln: ln, conns: map[net.Conn]struct{}{}}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.serve(c, name)
		}
	})
	tb.Cleanup(s.close)
	return s
}

// ServeTLS is ServeTCP behind TLS, with this certificate.
func ServeTLS(tb testing.TB, ln net.Listener, name string, cert tls.Certificate) *TCP {
	return ServeTCP(tb, &tlsListener{ln, &tls.Config{Certificates: []tls.Certificate{cert}}}, name)
}

type tlsListener struct {
	net.Listener
	config *tls.Config
}

func (l *tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(c, l.config), nil
}

// Addr returns the address.
func (s *TCP) Addr() netip.AddrPort { return s.addr }

func (s *TCP) serve(c net.Conn, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		c.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Go(func() {
		echo(c, bufio.NewReadWriter(bufio.NewReader(c), nil), "hello from "+name+"\n", name)
		c.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	})
}

func (s *TCP) close() {
	s.ln.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// Certificate makes a certificate for a name that signs itself, with its Leaf.
func Certificate(tb testing.TB, name string) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
