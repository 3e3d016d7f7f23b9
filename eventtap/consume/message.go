// SPDX-License-Identifier: Apache-2.0

package consume

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/meshtap/meshtap/eventtap/event"
)

// Source brings the messages of a bus, a file or a proxy.
type Source interface {
	// Read calls each for one message after the other until ctx ends, each fails, or there is nothing more, which is never
	// where the source follows. It returns the error of ctx, of each or of the source, and nil at the end.
	Read(ctx context.Context, each func(*Message) error) error
	// Close disconnects. Read must not run any more.
	Close() error
}

// Message is one message of a bus, with one event or a batch of them.
type Message struct {
	// Seq is its number in the stream, and Stored when it was put there; 0 where the bus does not say.
	Seq    uint64
	Stored time.Time
	// Type is the media type that it is labelled with, "" where it is not.
	Type string
	// Data is the reader's own.
	Data []byte
	// Done says that it was handled, so that the bus need not deliver it again. It is nil where the bus does not ask; any
	// goroutine may call it, once.
	Done func()
}

// Event is an event as it came, decoded and as JSON.
type Event struct {
	*event.Event
	// Raw is the JSON form; nil where the event came as protobuf.
	Raw []byte
	// Verdict is what the event is to a Consumer's State; Stateless where it has none.
	Verdict Verdict
	// Counts is the word that counts of the thing that the event is about, which Moved makes another than the event's; nil
	// without a State, or where none counts.
	Counts *Word
}

// JSON returns the event in the CloudEvents JSON format.
func (e *Event) JSON() []byte {
	if e.Raw != nil {
		return e.Raw
	}
	return e.AppendJSON(nil)
}

// DecodeLine reads one event in JSON. It keeps line.
func DecodeLine(line []byte) (Event, error) {
	e := Event{Event: new(event.Event), Raw: line}
	return e, e.DecodeJSON(line)
}

// Decode calls each for the events of a message, one or a batch, in JSON or protobuf. What cannot be read is passed to bad,
// and the events behind it are read on. The events borrow the message's bytes.
func Decode(m *Message, each func(Event), bad func(error)) {
	parts, err := event.Split(m.mediaType(), m.Data)
	if err != nil {
		bad(err)
		return
	}
	for _, b := range parts {
		e := Event{Event: new(event.Event)}
		if bytes.HasPrefix(b, []byte("{")) {
			e.Raw = b
		}
		if err := e.Decode(b); err != nil {
			bad(err)
			continue
		}
		each(e)
	}
}

// mediaType is that of the label, or, without one that is about events, of what the bytes look like.
func (m *Message) mediaType() string {
	switch {
	case strings.HasPrefix(m.Type, "application/cloudevents"):
		return m.Type
	case bytes.HasPrefix(m.Data, []byte("{")):
		return event.TypeJSON
	case bytes.HasPrefix(m.Data, []byte("[")):
		return event.TypeJSONBatch
	}
	return event.TypeProto
}

// Join makes one event in the JSON format of a message in the binary content mode: its attributes, without the prefix that
// the binding puts before their names, and its data, which is JSON.
func Join(attributes map[string]string, data []byte) ([]byte, error) {
	members := make(map[string]any, len(attributes)+1)
	for name, v := range attributes {
		members[name] = v
		if name == "sampledrate" { // the one that is a number
			members[name] = json.Number(v)
		}
	}
	if len(data) > 0 {
		members["data"] = json.RawMessage(data)
	}
	return json.Marshal(members)
}

// Structure makes a message with these attributes, if there are any, one in the structured content mode.
func (m *Message) Structure(attributes map[string]string) error {
	if len(attributes) == 0 {
		return nil
	}
	b, err := Join(attributes, m.Data)
	if err == nil {
		m.Type, m.Data = event.TypeJSON, b
	}
	return err
}
