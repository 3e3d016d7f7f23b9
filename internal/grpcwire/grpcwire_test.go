// SPDX-License-Identifier: Apache-2.0

package grpcwire_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/url"
	"testing"
	"time"

	"github.com/meshtap/meshtap/internal/grpcwire"
)

func TestIsContentType(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc+": true,
		"application/grpc-web": false, "application/grpc;a=b": false, "application/json": false, "": false,
		"Application/grpc": false, // Envoy compares as it is
	} {
		if got := grpcwire.IsContentType([]byte(in)); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		path, service, method string
		ok                    bool
	}{
		{"/p.Svc/Do", "p.Svc", "Do", true},
		{"//p.Svc///Do//?a=/b/c", "p.Svc", "Do", true},
		{"p.Svc/Do", "p.Svc", "Do", true},
		{"/p.Svc", "", "", false}, {"/a/b/c", "", "", false}, {"/", "", "", false}, {"", "", "", false}, {"/a?b/c", "", "", false},
	} {
		s, m, ok := grpcwire.Names([]byte(tt.path))
		if string(s) != tt.service || string(m) != tt.method || ok != tt.ok {
			t.Errorf("%q: %q, %q, %v", tt.path, s, m, ok)
		}
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int64{400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14, 200: 2, 301: 2, 408: 2, 500: 2, 0: 2} {
		if got := grpcwire.OfHTTP(status); got != want {
			t.Errorf("HTTP %d is %d, want %d", status, got, want)
		}
	}
	for code, want := range map[int64]int{-1: 500, 0: 200, 1: 499, 4: 504, 8: 429, 13: 500, 14: 503, 16: 401, 17: 500} {
		if got := grpcwire.HTTPStatus(code); got != want {
			t.Errorf("code %d is HTTP %d, want %d", code, got, want)
		}
	}
	if c, s := grpcwire.CamelName(1), grpcwire.SnakeName(16); c != "Canceled" || s != "UNAUTHENTICATED" {
		t.Errorf("the names are %q and %q", c, s)
	}
	if c, s := grpcwire.CamelName(17), grpcwire.SnakeName(-1); c != "" || s != "" {
		t.Errorf("codes that are not defined have the names %q and %q", c, s)
	}
	for in, want := range map[string]int64{"0": 0, "14": 14, "99": 99, "": -1, "abc": -1, "-1": -1, "99999999999": -1} {
		if got := grpcwire.Status([]byte(in)); got != want {
			t.Errorf("grpc-status %q is %d, want %d", in, got, want)
		}
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "hi there\n": "hi there%0A", "tea % pot~ü": "tea %25 pot%7E%C3%BC", "\x00\x7f": "%00%7F",
	} {
		if got := grpcwire.AppendMessage(nil, []byte(in)); string(got) != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"a%20b": "a b", "%": "%", "%4": "%4", "100%zz": "100%zz", "%c3%BC": "ü"} {
		if got := grpcwire.AppendText(nil, []byte(in)); string(got) != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte("a%20b~"))
	f.Add([]byte{0, 0xff, '%', '4'})
	f.Fuzz(func(t *testing.T, text []byte) {
		m := grpcwire.AppendMessage(nil, text)
		for _, c := range m {
			if c < ' ' || c > '~' {
				t.Fatalf("%q may not stand in a header", m)
			}
		}
		if back := grpcwire.AppendText(nil, m); !bytes.Equal(back, text) {
			t.Fatalf("%q came back as %q", text, back)
		}
		if want, err := url.PathUnescape(string(text)); err == nil {
			if got := grpcwire.AppendText(nil, text); string(got) != want {
				t.Fatalf("%q is read as %q, want %q", text, got, want)
			}
		}
	})
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for in, want := range map[string]time.Duration{
		"500m": 500 * ms, "0m": 0, "1n": ms, "1500u": 2 * ms, "1000u": ms, "5S": 5 * time.Second, "2M": 2 * time.Minute, "1H": time.Hour,
		"99999999S": 99999999 * time.Second, "00000001m": ms,
		"99999999H": math.MaxInt64 / ms * ms,
		"":          -1, "m": -1, "5": -1, "123456789m": -1, "-5m": -1, "+5m": -1, " 5m": -1, "5 m": -1, "5x": -1, "5ms": -1,
	} {
		got, ok := grpcwire.Timeout([]byte(in))
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v, want %v", in, got, ok, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0m", 400 * ms: "400m", 99_999_999 * ms: "99999999m", 100_000_000 * ms: "100000S", 40_000_000 * time.Second: "40000000S",
		100_000_000 * time.Second: "1666666M", 100_000_000 * time.Minute: "1666666H",
	} {
		if got := grpcwire.AppendTimeout(nil, d); string(got) != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func FuzzTimeout(f *testing.F) {
	for _, s := range []string{"500m", "99999999H", "1n", "-1m", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		d, ok := grpcwire.Timeout(v)
		if !ok {
			return
		}
		if d < 0 || d%time.Millisecond != 0 {
			t.Fatalf("%q is %v", v, d)
		}
		again, ok := grpcwire.Timeout(grpcwire.AppendTimeout(nil, d))
		if !ok || again > d || d-again >= d/50+time.Millisecond {
			t.Fatalf("%q is %v, and comes back as %v, %v", v, d, again, ok)
		}
	})
}

// frames returns how many heads of frames are in a body, read at once.
func frames(b []byte) (n int64) {
	for len(b) >= grpcwire.HeadSize && b[0] <= 1 {
		n++
		size := uint64(binary.BigEndian.Uint32(b[1:])) + grpcwire.HeadSize
		b = b[min(size, uint64(len(b))):]
	}
	return n
}

func TestCounter(t *testing.T) {
	t.Parallel()
	body := append(grpcwire.AppendHead(nil, 0, 5), "hello"...)
	body = grpcwire.AppendHead(body, 1, 0)
	body = append(grpcwire.AppendHead(body, 0, 3), "abc"...)
	for size := 1; size <= len(body); size++ {
		var c grpcwire.Counter
		for rest := body; len(rest) > 0; {
			n := min(size, len(rest))
			c.Write(rest[:n])
			rest = rest[n:]
		}
		if c.Messages != 3 {
			t.Errorf("in pieces of %d bytes there are %d messages, want 3", size, c.Messages)
		}
	}
}

func FuzzCounter(f *testing.F) {
	f.Add(append(grpcwire.AppendHead(nil, 0, 2), "ab\x00\x00\x00\x00\x00\x00"...), uint8(1))
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 1, 2}, uint8(3))
	f.Add([]byte{0x80, 0, 0, 0, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		var c grpcwire.Counter
		ends := int64(0)
		for rest := body; len(rest) > 0; {
			piece := rest[:min(int(size)+1, len(rest))]
			for part := piece; len(part) > 0; {
				n, ended := c.Next(part)
				if n < 1 || n > len(part) {
					t.Fatalf("%d of %d bytes were taken", n, len(part))
				}
				if ended {
					ends++
				}
				part = part[n:]
			}
			rest = rest[len(piece):]
		}
		if want := frames(body); c.Messages != want || ends > want || ends < want-1 {
			t.Fatalf("%d messages and %d ends, want %d", c.Messages, ends, want)
		}
	})
}

func TestNothingAllocates(t *testing.T) {
	body := append(grpcwire.AppendHead(nil, 0, 5), "hello"...)
	buf := make([]byte, 0, 64)
	var c grpcwire.Counter
	if n := testing.AllocsPerRun(100, func() {
		c.Write(body)
		_, _ = grpcwire.Timeout([]byte("500m"))
		buf = grpcwire.AppendMessage(grpcwire.AppendTimeout(buf[:0], time.Second), body)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
