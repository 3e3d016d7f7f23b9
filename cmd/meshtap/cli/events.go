// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"strings"

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
