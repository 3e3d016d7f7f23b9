// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
)

// bus is a NATS server in this process that can be killed and come back on the same port with the same store.
type bus struct {
	opts server.Options
	srv  *server.Server
}

// startBus starts a server on a free port of the loopback.
func startBus(t *testing.T, change func(*server.Options)) *bus {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b := &bus{opts: server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
	}}
	if change != nil {
		change(&b.opts)
	}
	b.start(t)
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bus) start(t *testing.T) {
	t.Helper()
	opts := b.opts // the server changes what it is given
	srv, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	b.srv = srv
}

func (b *bus) stop() {
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
}

func (b *bus) url() string { return b.srv.ClientURL() }

// connect returns a connection of the test's own.
func (b *bus) connect(t *testing.T, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	return connect(t, b.url(), opts...)
}

func connect(t *testing.T, url string, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// message is what a stream holds.
type message struct {
	subject string
	header  nats.Header
	body    []byte
}

// messages reads a stream from its beginning to its end.
func (b *bus) messages(t *testing.T, stream string, opts ...nats.Option) []message {
	t.Helper()
	return messages(t, b.url(), stream, opts...)
}

func messages(t *testing.T, url, stream string, opts ...nats.Option) (out []message) {
	t.Helper()
	nc, js := connect(t, url, opts...)
	defer nc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	want := s.CachedInfo().State.Msgs
	for uint64(len(out)) < want {
		batch, err := c.Fetch(min(500, int(want)-len(out)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			out = append(out, message{m.Subject(), m.Headers(), m.Data()})
		}
		if batch.Error() != nil {
			t.Fatal(batch.Error())
		}
	}
	return out
}

const stream = "EVENTS"

// config is that of a sink that creates its stream.
func (b *bus) config() Config { return configAt(b.url()) }

func configAt(url string) Config {
	return Config{
		URLs: []string{url}, Stream: stream, Prefix: defaultPrefix, InFlight: defaultInFlight, AckTimeout: 2 * time.Second,
		Create: &Create{MaxBytes: 1 << 28, Replicas: 1, Duplicates: defaultDuplicates},
	}
}

func newSink(c Config) *Sink {
	return New(c, eventtap.SinkDeps{Log: zap.NewNop(), Random: func() float64 { return 0.5 }})
}
