// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/meshtap/meshtap/test/bench/peer"
)

// The program does the job that it is compared by, over each wire.
func TestJob(t *testing.T) {
	t.Parallel()
	for _, w := range []peer.Wire{{}, {Down2: true}, {Up2: true}, {Down2: true, Up2: true}, {Down2: true, Up2: true, GRPC: true},
		{Down2: true, Up2: true, GRPC: true, Streaming: true}, {Down2: true, TLS: true},
	} {
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			t.Parallel()
			job(t, w)
		})
	}
}

func job(t *testing.T, w peer.Wire) {
	t.Helper()
	var at [4]netip.AddrPort
	var listeners [4]net.Listener
	for i := range at {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at[i], listeners[i] = netip.MustParseAddrPort(l.Addr().String()), l
	}
	for _, l := range listeners[1:] {
		_ = l.Close() // the check listens there
	}
	place := peer.Place{Wire: w, Listen: at[0], Upstreams: [2]netip.AddrPort{at[1], at[2]}, Other: at[3]}
	identity := ""
	if w.TLS {
		place.Dir = t.TempDir()
		identity = place.Identity()
		if err := peer.Issue(identity); err != nil {
			t.Fatal(err)
		}
	}
	s := server(router(cluster(w.Up2, at[1].String(), at[2].String()), cluster(w.Up2, at[3].String())), w.Down2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = serve(s, listeners[0], identity)
	}()
	defer func() { _ = s.Close(); <-done }()
	if err := peer.Check(t.Context(), place); err != nil {
		t.Error(err)
	}
}
