// SPDX-License-Identifier: Apache-2.0

// Package cloudevent takes an event in the CloudEvents JSON format apart, for the binary content mode of the protocol
// bindings: there the attributes travel as headers of the message and the data as its body. It reads what package
// eventtap/event writes, on its way to a bus, and decodes no data.
package cloudevent

import (
	"encoding/json"
	"errors"
)

// Attribute is a context attribute of an event, as text.
type Attribute struct {
	// Name is the prefix and the attribute's name.
	Name  string
	Value []byte
}

// Splitter takes events apart. Its memory is used again by each Split.
type Splitter struct {
	prefix string
	names  map[string]string // with the prefix before them
	// Attributes are those of the last event but datacontenttype, in the order of its members. Their values, and Data, are
	// borrowed from what was split where it needs no unescaping.
	Attributes  []Attribute
	ContentType []byte
	Data        []byte
}

// NewSplitter returns a Splitter that puts a prefix before the names of attributes.
func NewSplitter(prefix string) *Splitter {
	return &Splitter{prefix: prefix, names: map[string]string{}}
}

// maxNames bounds the names that a Splitter keeps.
const maxNames = 64

func (s *Splitter) name(b []byte) string {
	if n, ok := s.names[string(b)]; ok {
		return n
	}
	n := s.prefix + string(b)
	if len(s.names) < maxNames {
		s.names[string(b)] = n
	}
	return n
}

// ErrForm is what Split returns of what is no event.
var ErrForm = errors.New("cloudevent: not an event in the JSON format")

// Split takes an event apart: one JSON object whose members but data are strings, and sampledrate, which is an integer.
func (s *Splitter) Split(b []byte) error {
	s.Attributes, s.ContentType, s.Data = s.Attributes[:0], nil, nil
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return ErrForm
	}
	for i := 1; i < len(b)-1; {
		keyEnd := stringEnd(b, i)
		if keyEnd < 0 || b[keyEnd] != ':' {
			return ErrForm
		}
		key, at := b[i+1:keyEnd-1], keyEnd+1
		end := valueEnd(b, at)
		if end < 0 || b[end] != ',' && end != len(b)-1 {
			return ErrForm
		}
		if err := s.member(key, b[at:end]); err != nil {
			return err
		}
		i = end + 1
	}
	return nil
}

func (s *Splitter) member(key, value []byte) error {
	if string(key) == "data" {
		s.Data = value
		return nil
	}
	text, err := value, error(nil) // an integer as text is how it is written (CloudEvents 1.0, type system)
	if string(key) != "sampledrate" || !isInteger(value) {
		text, err = unquote(value)
	}
	if err != nil {
		return err
	}
	if string(key) == "datacontenttype" {
		s.ContentType = text
		return nil
	}
	s.Attributes = append(s.Attributes, Attribute{s.name(key), text})
	return nil
}

// stringEnd returns the index behind the string that begins at i, or -1. There is always a byte at that index.
func stringEnd(b []byte, i int) int {
	if b[i] != '"' {
		return -1
	}
	for i++; i < len(b)-1; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// valueEnd returns the index behind the value that begins at i, or -1. There is always a byte at that index.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = stringEnd(b, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']', ',':
			if depth == 0 {
				return i
			}
			if b[i] != ',' {
				depth--
			}
		}
		i++
	}
	return -1
}

func unquote(b []byte) ([]byte, error) {
	if len(b) < 2 || b[0] != '"' {
		return nil, ErrForm
	}
	for _, c := range b {
		if c != '\\' {
			continue
		}
		var text string
		if err := json.Unmarshal(b, &text); err != nil {
			return nil, ErrForm
		}
		return []byte(text), nil
	}
	return b[1 : len(b)-1], nil
}

// isInteger tells whether a value is an integer above 0.
func isInteger(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0 && b[0] != '0'
}
