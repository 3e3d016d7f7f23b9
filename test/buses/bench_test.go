// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/sink/kafka"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// BenchmarkKafka is what an event costs this process, from Observe to the acknowledgement of a broker in another process,
// one event per record: run it with MESHTAP_BUSES=<the folder of make buses> and -tags buses -bench Kafka -run ^$.
func BenchmarkKafka(b *testing.B) {
	k := startKafka(b)
	for _, c := range []struct {
		name       string
		structured bool
		proto      bool
		inFlight   int
	}{{"binary", false, false, 8}, {"structured", true, false, 8}, {"protobuf", true, true, 8}, {"protobuf, 4 in flight", true, true, 4}} {
		b.Run(c.name, func(b *testing.B) {
			cfg := kafkaConfig(k.addr, fmt.Sprintf("bench-%v-%v-%d", c.structured, c.proto, c.inFlight))
			cfg.Structured, cfg.Proto, cfg.InFlight = c.structured, c.proto, c.inFlight
			const burst = 10000
			s := &counted{Sink: kafka.New(cfg, deps(b)), reached: make(chan struct{}, 1)}
			tap := sink.NewTap(b, 64<<20, s)
			o := sink.Outcome("outbound|80||payments.shop.svc.cluster.local", 1)
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
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(0, "ns/op")
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = tap.Close(ctx)
		})
	}
}

// counted says when as many events as expected are acknowledged.
type counted struct {
	*kafka.Sink
	expect  atomic.Int64
	reached chan struct{}
}

// Send sends.
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
