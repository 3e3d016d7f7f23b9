// SPDX-License-Identifier: Apache-2.0

package grpcweb

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/filter"
	"github.com/meshtap/meshtap/proxy/header"
)

// pass passes a body through a stage in pieces of so many bytes.
func pass(s filter.Stage, body []byte, size int, trailers *header.List) (out []byte, err error) {
	for {
		n := min(size, len(body))
		end := n == len(body)
		var t *header.List
		if end {
			t = trailers
		}
		p, err := s.Piece(bytebuf.Of(bytes.Clone(body[:n])), end, t)
		if err != nil {
			return out, err
		}
		out = append(out, p.Bytes()...)
		if end {
			return out, nil
		}
		body = body[n:]
	}
}

func TestDecoder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want, refused string }{
		{"one message", "AAAAAARwaW5n", "\x00\x00\x00\x00\x04ping", ""},
		{"padding", "aGk=", "hi", ""},
		{"much padding", "aA==", "h", ""},
		{"padding inside", "aA==aGk=aGkh", "hhihi!", ""},
		{"empty", "", "", ""},
		{"another length", "aGkhA", "", badSize},
		{"no base64", "aG*h", "", badData},
		{"a line break", "aG\nk", "", badData},
		{"padding in front", "=aGk", "", badData},
		{"three paddings", "a===", "", badData},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for size := 1; size <= len(c.in)+1; size++ {
				got, err := pass(&decoder{}, []byte(c.in), size, nil)
				refused := ""
				if err != nil {
					refused = err.(*mesh.Failure).Reply.Details
				}
				if refused != c.refused || err == nil && string(got) != c.want {
					t.Errorf("in pieces of %d bytes: %q, %q, want %q, %q", size, got, refused, c.want, c.refused)
				}
			}
		})
	}
}

// FuzzDecoder: what comes in pieces is read like what comes at once, and what package base64 reads as a whole is read.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("AAAAAARwaW5n"), uint8(1))
	f.Add([]byte("aA==aGk="), uint8(3))
	f.Add([]byte("aG\r\nk="), uint8(2))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		once, err := pass(&decoder{}, in, len(in), nil)
		parts, perr := pass(&decoder{}, in, int(size)+1, nil)
		if (err == nil) != (perr == nil) || err == nil && !bytes.Equal(once, parts) {
			t.Fatalf("%q: %q, %v at once, %q, %v in pieces", in, once, err, parts, perr)
		}
		want, werr := base64.StdEncoding.DecodeString(string(in))
		if werr == nil && !bytes.ContainsAny(in, "\r\n") && (err != nil || !bytes.Equal(once, want)) {
			t.Fatalf("%q is read as %q, %v, want %q", in, once, err, want)
		}
	})
}

func trailersOf(fields ...string) *header.List {
	l := &header.List{}
	for i := 0; i < len(fields); i += 2 {
		l.AddString(fields[i], fields[i+1])
	}
	return l
}

// message is a message in its frame.
func message(text string) string {
	return string(grpcwire.AppendHead(nil, 0, len(text))) + text
}

// TestEncoder compares with what Envoy 1.40 makes of the same answers.
func TestEncoder(t *testing.T) {
	t.Parallel()
	two := message("w") + message("orld!!")
	for _, c := range []struct {
		name, body string
		text       bool
		trailers   *header.List
		want       string
	}{
		{"binary", message("hello"), false, trailersOf("Grpc-Status", "0", "X-Up", "1"), message("hello") + "\x80\x00\x00\x00\x17grpc-status:0\r\nx-up:1\r\n"},
		{"binary without trailers", message("hello"), false, nil, message("hello")},
		{"binary without a body", "", false, trailersOf("grpc-status", "5", "grpc-message", "a%20b"), "\x80\x00\x00\x00\x23grpc-status:5\r\ngrpc-message:a%20b\r\n"},
		{"text", message("hello"), true, trailersOf("grpc-status", "0", "x-up", "1"), "AAAAAAVoZWxsbw==gAAAABdncnBjLXN0YXR1czowDQp4LXVwOjENCg=="},
		{"each message by itself", message("hello") + two, true, trailersOf("grpc-status", "0"), "AAAAAAVoZWxsbw==AAAAAAF3AAAAAAZvcmxkISE=gAAAAA9ncnBjLXN0YXR1czowDQo="},
		{"text without trailers", message("hello"), true, nil, "AAAAAAVoZWxsbw=="},
		{"a message that breaks off", message("hello")[:7], true, nil, base64.StdEncoding.EncodeToString([]byte(message("hello")[:7]))},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for size := 1; size <= len(c.body)+1; size++ {
				told := 0
				e := &encoder{text: c.text, ended: func(*header.List) { told++ }}
				got, err := pass(e, []byte(c.body), size, c.trailers)
				if err != nil || string(got) != c.want {
					t.Errorf("in pieces of %d bytes: %q, %v, want %q", size, got, err, c.want)
				}
				if (c.trailers != nil) != (told == 1) || e.Trailers(c.trailers) != nil {
					t.Errorf("the trailers were told %d times", told)
				}
			}
		})
	}
}

// FuzzEncoder: base64 comes out that stands for what went in, however it is cut.
func FuzzEncoder(f *testing.F) {
	f.Add([]byte(message("hello")+message("")), uint8(2))
	f.Add([]byte(strings.Repeat(message("ab"), 5)), uint8(7))
	f.Add([]byte{0x80, 1, 2}, uint8(0))
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		e := &encoder{text: true, ended: func(*header.List) {}}
		out, err := pass(e, body, int(size)+1, nil)
		if err != nil {
			t.Fatal(err)
		}
		back, err := pass(&decoder{}, out, len(out), nil)
		if err != nil || !bytes.Equal(back, body) {
			t.Fatalf("%q became %q, and that %q, %v", body, out, back, err)
		}
	})
}
