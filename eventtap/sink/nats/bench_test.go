// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/hub"
	"github.com/meshtap/meshtap/internal/stats"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// BenchmarkEvent is what an event costs this whole process, from Observe to the stream's acknowledgement, in processor
// time. The server is another process.
func BenchmarkEvent(b *testing.B) {
	url := startProcess(b, server.RANDOM_PORT, b.TempDir()).url()
	for i, c := range []struct {
		name         string
		proto, batch bool
		hub          bool
	}{
		{name: "protobuf in batches", proto: true, batch: true},
		{name: "protobuf in batches and hub", proto: true, batch: true, hub: true},
		{name: "json in batches", batch: true},
		{name: "protobuf", proto: true},
		{name: "json"},
	} {
		b.Run(c.name, func(b *testing.B) {
			cfg := configAt(url)
			cfg.Stream, cfg.Prefix, cfg.Proto, cfg.Batch = fmt.Sprint("BENCH", i), fmt.Sprint("bench", i), c.proto, c.batch
			benchmark(b, cfg, c.hub)
		})
	}
}

func benchmark(b *testing.B, cfg Config, withHub bool) {
	const burst = 3072
	s := &counted{Sink: newSink(cfg), reached: make(chan struct{}, 1)}
	deps := eventtap.Deps{Log: zap.NewNop(), Stats: stats.NewRegistry(stats.Options{}), Random: rand.Reader,
		Builders: map[string]eventtap.SinkBuilder{"nats": func(any, eventtap.SinkDeps) (eventtap.Sink, error) { return s, nil }}}
	if withHub {
		deps.Local = []eventtap.LocalSink{{Name: eventtap.HubName, Sink: hub.New(1 << 20)}}
	}
	tap, err := eventtap.New(eventtap.Config{Memory: eventtap.DefaultMemory, Sinks: []eventtap.SinkConfig{{Name: "bus", TypeURL: "nats"}}}, deps)
	if err != nil {
		b.Fatal(err)
	}
	o := sink.Outcome("outbound|80||payments.shop.svc.cluster.local", 1)
	o.Listener, o.VirtualHost, o.RouteName, o.Details = "0.0.0.0_80", "payments:80", "default", "via_upstream"
	o.RequestID = []byte("3f2b8c9a-1d2e-4f5a-8b7c-9d0e1f2a3b4c")
	send := func() {
		s.expect.Store(burst)
		for range burst {
			tap.Observe(o)
		}
		<-s.reached
	}
	send()
	before, n := cpu(b), 0
	for b.Loop() {
		send()
		n += burst
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(n), "cpu-ns/event")
	b.ReportMetric(0, "ns/op")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = tap.Close(ctx)
}

// counted says when as many events as expected are acknowledged.
type counted struct {
	*Sink
	expect  atomic.Int64
	reached chan struct{}
}

func (c *counted) Send(ctx context.Context, b *eventtap.Batch, done func(error)) {
	n := int64(len(b.Events))
	c.Sink.Send(ctx, b, func(err error) {
		done(err)
		if err == nil && c.expect.Add(-n) == 0 {
			c.reached <- struct{}{}
		}
	})
}

// cpu returns the processor time of this process, in nanoseconds.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
