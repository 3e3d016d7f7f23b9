// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// failer is what ends a test or a script.
type failer interface{ Fatalf(string, ...any) }

// testBus is an event bus in this process, with a stream as the tap makes it.
type testBus struct {
	url    string
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	dir    string
}

// busTime bounds what the bus is waited for.
const busTime = 30 * time.Second

// newBus starts a bus; a token that is not "" has to be given to it.
func newBus(t failer, token string) *testBus {
	b := &testBus{}
	if err := b.open(token); err != nil {
		b.close()
		t.Fatalf("the bus: %v", err)
	}
	return b
}

func (b *testBus) open(token string) (err error) {
	if b.dir, err = os.MkdirTemp("", "bus"); err != nil {
		return err
	}
	b.server, err = server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: b.dir, NoSigs: true, NoLog: true, Authorization: token,
	})
	if err != nil {
		return err
	}
	b.server.Start()
	if !b.server.ReadyForConnections(busTime) {
		return fmt.Errorf("it does not start")
	}
	b.url = b.server.ClientURL()
	if b.conn, err = nats.Connect(b.url, nats.Token(token)); err != nil {
		return err
	}
	if b.js, err = jetstream.New(b.conn); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), busTime)
	defer cancel()
	_, err = b.js.CreateStream(ctx, jetstream.StreamConfig{Name: "MESHTAP", Subjects: []string{"meshtap.events.>"}, Storage: jetstream.MemoryStorage})
	return err
}

func (b *testBus) publish(t failer, data []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), busTime)
	defer cancel()
	if _, err := b.js.Publish(ctx, "meshtap.events.outcome", data); err != nil {
		t.Fatalf("the bus: %v", err)
	}
}

func (b *testBus) close() {
	if b.conn != nil {
		b.conn.Close()
	}
	if b.server != nil {
		b.server.Shutdown()
		b.server.WaitForShutdown()
	}
	os.RemoveAll(b.dir)
}
