// SPDX-License-Identifier: Apache-2.0

//go:build buses

package buses

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/meshtap/meshtap/eventtap/consume"
	"github.com/meshtap/meshtap/eventtap/consume/source"
	"github.com/meshtap/meshtap/eventtap/sink/rabbitmq"
	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestReadRabbitMQ reads a queue of a real broker: all of it without a gap, again where nothing was acknowledged, and not
// again where it was, but for what the broker had not looked at when the connection ended.
func TestReadRabbitMQ(t *testing.T) {
	r := startRabbit(t, "")
	for _, structured := range []bool{false, true} {
		queue := map[bool]string{false: "binary", true: "structured"}[structured]
		cfg := r.config(t, queue)
		cfg.Structured = structured
		tap := sink.NewTap(t, 16<<20, rabbitmq.New(cfg, deps(t)))
		const n = 1000
		for i := range n {
			tap.Observe(sink.Outcome("service", i))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := tap.Close(ctx); err != nil {
			t.Fatal(err)
		}
		all := readQueue(t, ctx, r.addr, queue, false, false, n)
		if all.Events != n || all.Missing+all.Unreadable > 0 {
			t.Errorf("%s: %+v", queue, all)
		}
		if taken := readQueue(t, ctx, r.addr, queue, true, true, n); taken.Events != n || taken.Missing > 0 {
			t.Errorf("%s, followed and acknowledged: %+v", queue, taken)
		}
		// What the sink had sent twice may stand behind what was read.
		const onTheWay = 256
		if rest := readQueue(t, ctx, r.addr, queue, false, false, n); rest.Events+rest.Repeated > all.Repeated+onTheWay {
			t.Errorf("%s, after that: %+v, and before %+v", queue, rest, all)
		}
	}
}

// readQueue reads a queue until it is empty, or, where it follows, until it has so many events.
func readQueue(t *testing.T, ctx context.Context, addr, queue string, follow, done bool, n int) consume.Counts {
	t.Helper()
	src, err := source.Open(ctx, "amqp://tap:right@"+addr, source.Options{Queue: queue, Follow: follow})
	if err != nil {
		t.Fatal(err)
	}
	// A broker gives back what was not acknowledged in any order.
	reader := consume.New(src, consume.Options{Patience: 1 << 20})
	for i := 0; !follow || i < n; i++ {
		d, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if done {
			d.Done()
		}
	}
	reader.End()
	if err := src.Close(); err != nil {
		t.Error(err)
	}
	return reader.Counts()
}
