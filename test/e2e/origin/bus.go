// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bus is a NATS server with JetStream in this process, which can be killed and brought back with what it has stored.
type Bus struct {
	tb     testing.TB
	opts   *server.Options
	server *server.Server
}

// hang is how long the server may take to be ready.
const hang = 30 * time.Second

// StartBus runs a server on a free loopback port until the test ends.
func StartBus(tb testing.TB) *Bus {
	tb.Helper()
	b := &Bus{tb: tb, opts: &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: tb.TempDir(), NoLog: true, NoSigs: true,
	}}
	b.Revive()
	b.opts.Port = b.server.Addr().(*net.TCPAddr).Port
	tb.Cleanup(b.Kill)
	return b
}

// Revive starts the server, with what it had stored when it was killed.
func (b *Bus) Revive() {
	b.tb.Helper()
	s, err := server.NewServer(b.opts.Clone())
	if err != nil {
		b.tb.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(hang) {
		b.tb.Fatal("origin: the NATS server does not start")
	}
	b.server = s
}

// Kill ends the server and its connections.
func (b *Bus) Kill() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// URL returns where clients connect.
func (b *Bus) URL() string { return b.server.ClientURL() }

// Connect returns a JetStream client of the server, for as long as the test lasts.
func (b *Bus) Connect() jetstream.JetStream {
	b.tb.Helper()
	c, err := nats.Connect(b.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		b.tb.Fatal(err)
	}
	b.tb.Cleanup(c.Close)
	js, err := jetstream.New(c)
	if err != nil {
		b.tb.Fatal(err)
	}
	return js
}
