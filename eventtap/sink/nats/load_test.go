// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/meshtap/meshtap/test/conformance/sink"
)

// TestKilledUnderLoad holds each event once, however the server ends.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		start func(t *testing.T) killable
		batch bool
	}{
		{"shut down", func(t *testing.T) killable { return startBus(t, nil) }, false},
		{"killed", func(t *testing.T) killable { return startProcess(t, server.RANDOM_PORT, t.TempDir()) }, false},
		{"killed, with batches", func(t *testing.T) killable { return startProcess(t, server.RANDOM_PORT, t.TempDir()) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := c.start(t)
			cfg := configAt(b.url())
			cfg.Batch, cfg.Proto, cfg.Create.Duplicates = c.batch, c.batch, 10*time.Minute
			sink.KillUnderLoad(t, sink.Killable{
				Sink: newSink(cfg), Kill: func(*testing.T) { b.stop() }, Revive: b.start, Rounds: 4, Missed: 2000,
				Events: func(t *testing.T) [][]byte { return split(t, cfg, messages(t, b.url(), stream)) },
			})
		})
	}
}

// killable is a server that can be ended and come back on the same port with the same store on disk.
type killable interface {
	url() string
	stop()
	start(t *testing.T)
}
