// SPDX-License-Identifier: Apache-2.0

// Package cloudevents checks events against the CloudEvents specification and its extensions, without its SDK. It is for
// the tests of those who write events.
package cloudevents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/url"
	"regexp"
	"time"
	"unicode"
	"unicode/utf8"
)

var (
	nameForm        = regexp.MustCompile(`^[a-z0-9]{1,20}$`)
	sequenceForm    = regexp.MustCompile(`^[0-9]{20}$`)
	traceparentForm = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
)

// CheckJSON tells what is wrong with an event in the CloudEvents JSON format: against CloudEvents 1.0 sections 2 and 3
// (required attributes, names, types), the JSON format sections 2 and 3, the extensions "sequence", "partitionkey" and
// "distributed tracing", and Meshtap's own promise of one line without characters that a terminal acts on.
func CheckJSON(b []byte) error {
	if err := checkText(b); err != nil {
		return err
	}
	members, err := object(b)
	if err != nil {
		return err
	}
	for _, required := range []string{"specversion", "id", "source", "type"} {
		if _, ok := members[required]; !ok {
			return fmt.Errorf("the attribute %s is missing", required)
		}
	}
	for name, raw := range members {
		if name == "data" {
			if _, err := object(raw); err != nil {
				return fmt.Errorf("data: %w", err)
			}
			continue
		}
		if err := checkAttribute(name, raw); err != nil {
			return fmt.Errorf("%s = %s: %w", name, raw, err)
		}
	}
	return nil
}

func checkText(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	for _, r := range string(b) {
		if unicode.Is(unicode.C, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return fmt.Errorf("raw %U", r)
		}
	}
	return nil
}

// object reads a JSON object whose names are all different.
func object(b []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		if _, twice := members[name.(string)]; twice {
			return nil, fmt.Errorf("the name %s is there twice", name)
		}
		members[name.(string)] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the object")
	}
	return members, nil
}

func checkAttribute(name string, raw json.RawMessage) error {
	if !nameForm.MatchString(name) {
		return errors.New("a name has 1 to 20 of a-z and 0-9")
	}
	if name == "sampledrate" {
		var n int32
		if err := json.Unmarshal(raw, &n); err != nil || n < 1 {
			return errors.New("not an integer above 0")
		}
		return nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return errors.New("not a string")
	}
	if s == "" {
		return errors.New("an attribute is not empty")
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Noncharacter_Code_Point, r) {
			return fmt.Errorf("an attribute does not hold %U", r)
		}
	}
	var ok bool
	switch name {
	case "specversion":
		ok = s == "1.0"
	case "source":
		_, err := url.Parse(s)
		ok = err == nil
	case "dataschema":
		u, err := url.Parse(s)
		ok = err == nil && u.IsAbs()
	case "time":
		_, err := time.Parse(time.RFC3339Nano, s)
		ok = err == nil
	case "datacontenttype":
		_, _, err := mime.ParseMediaType(s)
		ok = err == nil
	case "sequence", "streamseq":
		ok = sequenceForm.MatchString(s)
	case "traceparent":
		ok = traceparentForm.MatchString(s)
	default:
		ok = true
	}
	if !ok {
		return errors.New("not of the attribute's form")
	}
	return nil
}
