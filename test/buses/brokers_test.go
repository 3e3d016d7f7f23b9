// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsclient "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/sink/kafka"
	"github.com/meshtap/meshtap/eventtap/sink/nats"
	"github.com/meshtap/meshtap/eventtap/sink/rabbitmq"
)

// natsServer makes this test binary a NATS server: its port and the folder of its store.
const natsServer = "MESHTAP_TEST_NATS_SERVER"

// TestServerProcess is that server.
func TestServerProcess(t *testing.T) {
	port, dir, ok := strings.Cut(os.Getenv(natsServer), " ")
	if !ok {
		t.Skip("it is only for tests that run it as a process of its own")
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: n, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	srv.WaitForShutdown() // which a signal is
}

func natsBehindRelay(t *testing.T) *broker {
	p := freePorts(t, 2)
	s := start(t, &server{
		addr: "127.0.0.1:" + p[0],
		args: []string{"env", fmt.Sprintf("%s=%s %s", natsServer, p[0], t.TempDir()), os.Args[0], "-test.run=^TestServerProcess$"},
		ready: func(addr string) error {
			c, err := natsclient.Connect("nats://" + addr)
			if err != nil {
				return err
			}
			defer c.Close()
			js, err := jetstream.New(c)
			if err == nil {
				_, err = js.AccountInfo(context.Background())
			}
			return err
		},
	})
	r := startRelay(t, p[1], s.addr)
	return &broker{
		server: s, relay: r, dedupe: true, eventBytes: 700,
		sink: func(t *testing.T, name string) eventtap.Sink {
			return nats.New(nats.Config{URLs: []string{"nats://" + r.addr()}, Stream: name, Prefix: name, InFlight: 4, AckTimeout: 10 * time.Second,
				Create: &nats.Create{MaxBytes: 1 << 28, Replicas: 1, Duplicates: time.Hour}}, deps(t))
		},
		events: func(t *testing.T, name string) [][]byte { return stored(t, s.addr, name) },
	}
}

// stored reads a stream from its beginning to its end.
func stored(t *testing.T, addr, stream string) (out [][]byte) {
	t.Helper()
	c, err := natsclient.Connect("nats://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := reader.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Stop()
	for range s.CachedInfo().State.Msgs {
		m, err := in.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m.Data())
	}
	return out
}

func kafkaBehindRelay(t *testing.T) *broker {
	p := freePorts(t, 3)
	at := "127.0.0.1:" + p[0]
	r := startRelay(t, p[2], at)
	s := kafkaOn(t, p[0], p[1], p[2])
	return &broker{
		server: s, relay: r, dedupe: true, eventBytes: 100, // it is compressed
		sink: func(t *testing.T, name string) eventtap.Sink {
			return kafka.New(kafkaConfig(r.addr(), name), deps(t))
		},
		events: func(t *testing.T, name string) [][]byte { return values(t, r.addr(), name) },
	}
}

func rabbitBehindRelay(t *testing.T) *broker {
	n := startRabbit(t, "")
	r := startRelay(t, freePorts(t, 1)[0], n.addr)
	config := func(t *testing.T, name string) rabbitmq.Config {
		cfg := n.config(t, name)
		cfg.Servers[0].Address, cfg.Structured = r.addr(), true
		cfg.Declare.Classic = true // see TestRabbitMQ
		return cfg
	}
	return &broker{
		server: n.server, relay: r, eventBytes: 700,
		sink:   func(t *testing.T, name string) eventtap.Sink { return rabbitmq.New(config(t, name), deps(t)) },
		events: func(t *testing.T, name string) [][]byte { return events(t, n.take(t, name)) },
	}
}
