// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/meshtap/meshtap/eventtap/event"
)

// Event is an event as it came, decoded and as JSON.
type Event struct {
	*event.Event
	// Raw is the JSON form; nil where the event came as protobuf.
	Raw []byte
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
	e := Event{new(event.Event), line}
	return e, e.DecodeJSON(line)
}

// maxBatch bounds the events of one message.
const maxBatch = 4096

var errBatch = errors.New("event: not a batch of events")

// Decode calls each for the events of a message, one or a batch, in JSON or protobuf. An event that cannot be read is
// passed to bad, and those behind it are read on where that is possible. The events borrow the message's bytes.
func Decode(m *Message, each func(Event), bad func(error)) {
	one := func(e Event, err error) {
		if err != nil {
			bad(err)
			return
		}
		each(e)
	}
	switch m.mediaType() {
	case event.TypeJSON:
		one(DecodeLine(m.Data))
	case event.TypeProto:
		e := Event{Event: new(event.Event)}
		one(e, e.DecodeProto(m.Data))
	case event.TypeJSONBatch:
		var list []json.RawMessage
		if err := json.Unmarshal(m.Data, &list); err != nil || len(list) > maxBatch {
			bad(errBatch)
			return
		}
		for _, raw := range list {
			one(DecodeLine(raw))
		}
	default:
		decodeProtoBatch(m.Data, one)
	}
}

// decodeProtoBatch reads an io.cloudevents.v1.CloudEventBatch: its field 1 is the events.
func decodeProtoBatch(b []byte, one func(Event, error)) {
	for n := 0; len(b) > 0; n++ {
		num, typ, tag := protowire.ConsumeTag(b)
		if n == maxBatch || tag < 0 || num != 1 || typ != protowire.BytesType {
			one(Event{}, errBatch)
			return
		}
		body, size := protowire.ConsumeBytes(b[tag:])
		if size < 0 {
			one(Event{}, errBatch)
			return
		}
		e := Event{Event: new(event.Event)}
		one(e, e.DecodeProto(body))
		b = b[tag+size:]
	}
}

// mediaType is that of the label, or, without one, of what the bytes look like.
func (m *Message) mediaType() string {
	switch m.Type {
	case event.TypeJSON, event.TypeProto, event.TypeJSONBatch, event.TypeProtoBatch:
		return m.Type
	}
	switch {
	case bytes.HasPrefix(m.Data, []byte("{")):
		return event.TypeJSON
	case bytes.HasPrefix(m.Data, []byte("[")):
		return event.TypeJSONBatch
	}
	return event.TypeProto
}
