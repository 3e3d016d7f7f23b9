// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"mime"
)

// MaxBatch bounds a message that Split takes apart, in bytes.
const MaxBatch = 1 << 20

// Decode reads one event in either encoding, which it tells apart by the first byte; see DecodeProto and DecodeJSON.
func (e *Event) Decode(b []byte) error {
	if len(b) > 0 && b[0] == '{' { // in protobuf the beginning of a group, which proto3 does not have
		return e.DecodeJSON(b)
	}
	return e.DecodeProto(b)
}

// Split returns the events of a message of one of the media types above, in order and not decoded. They are borrowed
// from body.
func Split(mediaType string, body []byte) ([][]byte, error) {
	if len(body) > MaxBatch {
		return nil, fmt.Errorf("event: a message of %d bytes, at most %d are allowed", len(body), MaxBatch)
	}
	base, _, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return nil, fmt.Errorf("event: media type %q: %w", mediaType, err)
	}
	switch base {
	case TypeJSON, TypeProto:
		return [][]byte{body}, nil
	case TypeJSONBatch:
		return splitJSON(body)
	case TypeProtoBatch:
		return splitProto(body)
	}
	return nil, fmt.Errorf("event: media type %q, must be %s, %s, %s or %s", mediaType, TypeJSON, TypeJSONBatch, TypeProto, TypeProtoBatch)
}

func splitJSON(b []byte) (out [][]byte, err error) {
	var r jsonReader
	for r.open(b, '['); r.next(false); {
		out = append(out, r.val)
	}
	if r.bad {
		return nil, errors.New("event: not a JSON batch")
	}
	return out, nil
}

func splitProto(b []byte) (out [][]byte, err error) {
	r := reader{b: b}
	for r.next() {
		if r.tag == tagBatchEvent {
			out = append(out, r.val)
		}
	}
	if r.bad {
		return nil, errors.New("event: not a CloudEventBatch in protobuf")
	}
	return out, nil
}
