// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/registry"
)

// Sink writes events to one bus. Its runner, one goroutine, calls Open, Send and Close, never two at a time.
type Sink interface {
	// Caps says how the sink wants its events and what it promises. It does not change.
	Caps() Caps
	// Open connects. It is called until it succeeds, and again after Send failed with an error that wraps ErrReopen. ctx
	// lasts as long as the sink is used.
	Open(ctx context.Context) error
	// Send writes a batch and calls done once, on any goroutine, now or later: with nil when the bus has taken all of it,
	// with a *RefusedError when the bus will never take some of it and has taken the rest, with any other error when it is
	// to be sent again. The batch is the sink's until then. Send may block, as long as ctx lasts.
	Send(ctx context.Context, b *Batch, done func(error))
	// Close flushes and disconnects. Nothing is sent afterwards but by a new Open.
	Close(ctx context.Context) error
}

// SinkBuilder makes a sink of a configuration that the same row's Parse made.
type SinkBuilder func(config any, deps SinkDeps) (Sink, error)

// SinkDeps is what a sink is given.
type SinkDeps struct {
	Log *zap.Logger
	// Random returns numbers in [0, 1), for jitter. Any goroutine may call it.
	Random func() float64
}

// SinkRow is one sink of the extension table, in the category registry.EventSink.
type SinkRow = registry.Row[SinkBuilder]

// Caps says how a sink wants its events and what it promises.
type Caps struct {
	Encoding Encoding
	// Keyed sinks need Event.Key.
	Keyed bool
	// InFlight is how many batches may be sent and not yet done, 1 to 8. With more than 1, a batch that has to be sent
	// again comes behind those that were sent before its failure was known.
	InFlight int
	// Dedupe says that the bus drops an event whose ID it has seen lately.
	Dedupe bool
}

// Encoding is how a batch's bytes are laid out.
type Encoding uint8

// The encodings. In the separate ones only the events have bodies; in the others the batch has one as well.
const (
	JSON Encoding = iota
	JSONLines
	JSONBatch
	Proto
	ProtoDelimited
	ProtoBatch
)

// separate tells whether each event is a message of its own.
func (e Encoding) separate() bool { return e == JSON || e == Proto }

// MaxBatch is how many events a batch has at most.
const MaxBatch = 128

// Batch is events in order. It belongs to the runner, which lends it to the sink.
type Batch struct {
	Events []Event
	// Body is all events in the sink's encoding, nil where the encoding is a separate one.
	Body []byte
}

// Event is one encoded event.
type Event struct {
	// ID is the CloudEvents id, the same each time the event is sent and on every sink. Where the batch has a body, only
	// the first event's is filled.
	ID []byte
	// Key is the partition key; nil where the sink is not keyed.
	Key  []byte
	Kind event.Kind
	// Sequence is the event's number; 0 for a lost event.
	Sequence uint64
	Body     []byte
	// Sent is the sink's own: an event that is done need not be sent again when the rest of the batch must.
	Sent bool
}

// ID names the batch: it is the same each time the batch is sent, and no other batch has it.
func (b *Batch) ID(dst []byte) []byte {
	dst = append(dst, b.Events[0].ID...)
	return fmt.Appendf(dst, "+%d", len(b.Events))
}

// ErrReopen marks an error after which the sink must be closed and opened again.
var ErrReopen = errors.New("the connection is gone for good")

// RefusedError says which events of a batch the bus will never take, and why. The others count as acknowledged.
type RefusedError struct {
	// Events are indices into the batch, in order, each once.
	Events []int
	Err    error
}

// Error returns the reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%d events were refused: %v", len(e.Events), e.Err)
}

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Err }
