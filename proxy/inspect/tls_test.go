// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// clientHello lets crypto/tls write its ClientHello and returns the bytes on the wire: one record.
func clientHello(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Client(near, c).Handshake() // ends when far is closed
	}()
	head := make([]byte, recordHeader)
	if _, err := io.ReadFull(far, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(far, body); err != nil {
		t.Fatal(err)
	}
	far.Close()
	<-done
	return append(head, body...)
}

// refragment spreads the record over records of at most size bytes.
func refragment(record []byte, size int) []byte {
	var out []byte
	for body := record[recordHeader:]; len(body) > 0; {
		n := min(size, len(body))
		out = append(out, contentHand, record[1], record[2], byte(n>>8), byte(n))
		out = append(out, body[:n]...)
		body = body[n:]
	}
	return out
}

var clients = []struct {
	name string
	c    tls.Config
}{
	{"1.3", tls.Config{ServerName: "a.example.com", NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS13}},
	{"1.2", tls.Config{ServerName: "A.Example.COM", NextProtos: []string{"istio-peer-exchange", "istio"}, MaxVersion: tls.VersionTLS12}},
	{"1.0", tls.Config{ServerName: "old.example", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}},
	{"small curves", tls.Config{ServerName: "b", CurvePreferences: []tls.CurveID{tls.X25519}}},
	{"no sni", tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}},
	{"nothing", tls.Config{InsecureSkipVerify: true}},
	{"many protocols", tls.Config{ServerName: strings.Repeat("x", 63) + ".example", NextProtos: slices.Repeat([]string{"proto-with-a-long-name"}, 40)}},
}

func inspectTLS(p []byte, end bool) (ConnInfo, Verdict) {
	var info ConnInfo
	v := (&tlsInspector{limit: MaxClientHello}).Inspect(p, end, &info)
	return info, v
}

func TestTLSAgreesWithCryptoTLS(t *testing.T) {
	t.Parallel()
	for i := range clients {
		tc := &clients[i]
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			hello := clientHello(t, &tc.c)
			for _, size := range []int{maxRecord, 100, 5, 4, 3, 1} {
				wire := refragment(hello, size)
				// Every cut asks for more; only the whole is enough, whatever follows it.
				for n := 1; n < len(wire); n++ {
					if info, v := inspectTLS(wire[:n], false); v != More || info.Transport != RawBuffer {
						t.Fatalf("records of %d: verdict %d, %+v after %d of %d bytes", size, v, info, n, len(wire))
					}
				}
				for _, after := range [][]byte{nil, {0}, bytes.Repeat([]byte{0xff}, 50)} {
					info, v := inspectTLS(append(wire[:len(wire):len(wire)], after...), false)
					if v != Done || info.Transport != TLS || info.ServerName() != strings.ToLower(tc.c.ServerName) ||
						!slices.Equal(info.ApplicationProtocols(), tc.c.NextProtos) {
						t.Fatalf("records of %d: verdict %d, %+v", size, v, info)
					}
				}
			}
		})
	}
}

func TestTLSTruncatedHello(t *testing.T) {
	t.Parallel()
	hello := clientHello(t, &clients[0].c)
	for n := 1; n < len(hello); n++ {
		info, v := inspectTLS(hello[:n], true)
		if n <= recordHeader {
			if v != Done || info.Transport != RawBuffer {
				t.Fatalf("%d bytes and the end: verdict %d, %+v", n, v, info)
			}
		} else if v != Reject {
			t.Fatalf("%d bytes and the end: verdict %d, want a rejection", n, v)
		}
	}
}

func TestNotTLS(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		bytes string
		// at is how many bytes it takes to know.
		at int
	}{
		{"http", "GET / HTTP/1.1\r\n", 1},
		{"http2", preface, 1},
		{"ssh", "SSH-2.0-x\r\n", 1},
		{"alert record", "\x15\x03\x01\x00\x02\x02\x28", 1},
		{"no version", "\x16\x10\x00\x00\x05", 2},
		{"record too long", "\x16\x03\x01\x40\x01\x01", 5},
		{"record far too long", "\x16\x03\x01\xff", 4},
		{"empty record", "\x16\x03\x01\x00\x00", 5},
		{"server hello", "\x16\x03\x03\x00\x31\x02", 6},
		{"zeroes", "\x00\x00\x00\x00", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for n := 1; n <= len(tc.bytes); n++ {
				info, v := inspectTLS([]byte(tc.bytes[:n]), false)
				if n < tc.at && v != More {
					t.Fatalf("%d bytes: verdict %d, want more", n, v)
				}
				if n >= tc.at && (v != Done || info.Transport != RawBuffer) {
					t.Fatalf("%d bytes: verdict %d, %+v, want raw_buffer", n, v, info)
				}
			}
			only := &tlsInspector{limit: MaxClientHello, onlyTLS: true}
			if v := only.Inspect([]byte(tc.bytes), false, &ConnInfo{}); v != Reject {
				t.Fatalf("verdict %d where only TLS may come, want a rejection", v)
			}
		})
	}
}

// hello builds a ClientHello record around extensions.
func hello(exts ...[]byte) []byte {
	body := make([]byte, 34)
	body = append(body, 0)             // session
	body = append(body, 0, 2, 0x13, 1) // ciphers
	body = append(body, 1, 0)          // compression
	all := bytes.Join(exts, nil)
	body = append(body, byte(len(all)>>8), byte(len(all)))
	return wrap(append(body, all...))
}

func wrap(body []byte) []byte {
	msg := append([]byte{typeClientHello, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
	return refragment(append([]byte{contentHand, majorVersion, 1, 0, 0}, msg...), maxRecord)
}

func ext(typ int, body string) []byte {
	return append([]byte{byte(typ >> 8), byte(typ), byte(len(body) >> 8), byte(len(body))}, body...)
}

func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(list, 0, byte(len(n)>>8), byte(len(n)))
		list = append(list, n...)
	}
	return ext(extServerName, string([]byte{byte(len(list) >> 8), byte(len(list))})+string(list))
}

func alpn(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, byte(len(n))), n...)
	}
	return ext(extALPN, string([]byte{byte(len(list) >> 8), byte(len(list))})+string(list))
}

func TestMalformedHello(t *testing.T) {
	t.Parallel()
	good := hello(sni("a.b"), alpn("h2"))
	if info, v := inspectTLS(good, false); v != Done || info.ServerName() != "a.b" {
		t.Fatalf("the well-formed hello: verdict %d, %+v", v, info)
	}
	for _, tc := range []struct {
		name string
		b    []byte
	}{
		{"two names", hello(sni("a", "b"))},
		{"empty name", hello(sni(""))},
		{"name too long", hello(sni(strings.Repeat("a", 256)))},
		{"NUL in name", hello(sni("a\x00b"))},
		{"space in name", hello(sni("a b"))},
		{"control byte in name", hello(sni("a\x1b[31m"))},
		{"high byte in name", hello(sni("a\x80"))},
		{"dot behind", hello(sni("a."))},
		{"dot in front", hello(sni(".a"))},
		{"other name type", hello(ext(extServerName, "\x00\x04\x01\x00\x01a"))},
		{"name list too short", hello(ext(extServerName, "\x00\x02\x00\x00\x01a"))},
		{"bytes behind the name list", hello(ext(extServerName, "\x00\x04\x00\x00\x01a!"))},
		{"extension twice", hello(sni("a"), sni("b"))},
		{"unknown extension twice", hello(ext(0x7777, ""), ext(0x7777, ""))},
		{"alpn twice", hello(alpn("h2"), alpn("http/1.1"))},
		{"empty alpn list", hello(alpn())},
		{"empty protocol", hello(alpn("h2", ""))},
		{"too many protocols", hello(alpn(slices.Repeat([]string{"x"}, maxALPN+1)...))},
		{"extension cut off", hello([]byte{0, 0, 0, 9, 1})},
		{"half an extension header", hello([]byte{0, 0, 0})},
		{"bytes behind the extensions", wrap(append(good[recordHeader+messageHeader:len(good):len(good)], 0))},
		{"no ciphers", wrap(append(make([]byte, 35), 0, 0, 1, 0, 0, 0))},
		{"odd ciphers", wrap(append(make([]byte, 35), 0, 3, 1, 2, 3, 1, 0, 0, 0))},
		{"no compression", wrap(append(make([]byte, 35), 0, 2, 0x13, 1, 0, 0, 0))},
		{"session too long", wrap(append(append(make([]byte, 34), 33), make([]byte, 60)...))},
		{"short", wrap([]byte{3, 3})},
		{"empty", []byte{contentHand, 3, 1, 0, 4, typeClientHello, 0, 0, 0}},
		{"version 2", []byte{contentHand, 2, 0, 0, 40, typeClientHello}},
		{"other record within", append(refragment(good, 20)[:25:25], 21, 3, 3, 0, 2, 1, 0)},
		{"empty record within", append(refragment(good, 20)[:25:25], contentHand, 3, 3, 0, 0)},
		{"other version within", append(refragment(good, 20)[:25:25], contentHand, 2)},
		{"longer than the limit", []byte{contentHand, 3, 1, 0x40, 0, typeClientHello, 0, 0x40, 0}},
		{"16 MiB", []byte{contentHand, 3, 1, 0x40, 0, typeClientHello, 0xff, 0xff, 0xff}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if info, v := inspectTLS(tc.b, false); v != Reject || info.Transport != RawBuffer || info.ServerName() != "" {
				t.Fatalf("verdict %d, %+v, want a rejection", v, info)
			}
		})
	}
}

// A hello without extensions is how clients before TLS 1.3 may begin.
func TestHelloWithoutExtensions(t *testing.T) {
	t.Parallel()
	info, v := inspectTLS(wrap(append(make([]byte, 35), 0, 2, 0, 0x2f, 1, 0)), false)
	if v != Done || info.Transport != TLS || info.ServerName() != "" {
		t.Fatalf("verdict %d, %+v", v, info)
	}
}

// Whatever comes, the inspector gives up at its limit.
func TestTLSLimit(t *testing.T) {
	t.Parallel()
	// As long as the limit allows, in records of one byte: the headers count too, so the limit comes first.
	big := refragment(hello(sni("a"), ext(21, strings.Repeat("\x00", 4000))), 1)
	for _, limit := range []int{256, 1000, MaxClientHello} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			f := &tlsInspector{limit: limit}
			info := ConnInfo{}
			if v := f.Inspect(big[:limit-1], false, &info); v == Done {
				t.Fatalf("done after %d of %d bytes", limit-1, len(big))
			}
			if v := f.Inspect(big[:limit], false, &info); v != Reject {
				t.Fatalf("verdict %d at the limit, want a rejection", v)
			}
		})
	}
}

// Waiting costs nothing: until the hello is complete the inspector allocates nothing, and then its fragments once, its
// name and its protocols.
func TestTLSAllocations(t *testing.T) {
	whole := hello(sni("name.example"), alpn("h2", "http/1.1"), ext(21, strings.Repeat("\x00", 2000)))
	wire := refragment(whole, 10)
	f := &tlsInspector{limit: MaxClientHello}
	var info ConnInfo
	for _, tc := range []struct {
		name string
		p    []byte
		want float64
	}{
		{"cut in the first record", whole[:100], 0},
		{"cut in a later record", wire[:len(wire)-1], 0},
		{"one record", whole, 3},  // name, protocols, their slice
		{"many records", wire, 4}, // and the bodies
		{"not TLS", []byte("x"), 0},
	} {
		if n := testing.AllocsPerRun(100, func() { f.Inspect(tc.p, false, &info) }); n > tc.want {
			t.Errorf("%s: %v allocations, want at most %v", tc.name, n, tc.want)
		}
	}
}

// oracle is what crypto/tls reads from the same bytes; ok is false where it refuses them.
func oracle(p []byte) (name string, protos []string, ok bool) {
	conn := &replay{r: bytes.NewReader(p)}
	tls.Server(conn, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, protos, ok = h.ServerName, h.SupportedProtos, true
		return nil, io.EOF
	}}).Handshake()
	return name, protos, ok
}

// replay is a connection whose other side sent r and nothing else.
type replay struct {
	net.Conn
	r io.Reader
}

func (c *replay) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *replay) Write(p []byte) (int, error) { return len(p), nil }
func (c *replay) Close() error                { return nil }

// FuzzTLS holds that the inspector neither panics nor looks past its limit, that what it says of a prefix it does not
// take back, and that where it and crypto/tls both accept a hello they read the same from it.
func FuzzTLS(f *testing.F) {
	for i := range clients {
		h := clientHello(f, &clients[i].c)
		f.Add(h)
		f.Add(refragment(h, 7))
	}
	f.Add(hello(sni("a", "b"), alpn("h2")))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{contentHand, 3, 1, 0, 4, typeClientHello, 0, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) == 0 {
			return
		}
		p = p[:min(len(p), MaxClientHello)]
		info, v := inspectTLS(p, false)
		if v == More && len(p) >= MaxClientHello {
			t.Fatal("asks for more at its limit")
		}
		if _, atEnd := inspectTLS(p, true); v == More && atEnd == More || v != More && atEnd != v {
			t.Fatalf("verdict %d, at the end %d", v, atEnd)
		}
		for _, n := range []int{1, 5, 6, len(p) / 2, len(p) - 1} {
			if n < 1 || n > len(p) {
				continue
			}
			early, ev := inspectTLS(p[:n], false)
			if ev != More && (ev != v || early.Transport != info.Transport || early.ServerName() != info.ServerName()) {
				t.Fatalf("%d bytes: verdict %d %+v; all: %d %+v", n, ev, early, v, info)
			}
		}
		name, protos, ok := oracle(p)
		if !ok {
			return
		}
		if v == Done && (info.Transport != TLS || info.ServerName() != strings.ToLower(name) || !slices.Equal(info.ApplicationProtocols(), protos)) {
			t.Fatalf("got %+v; crypto/tls reads %q %q", info, name, protos)
		}
		if v == More {
			t.Fatal("crypto/tls needs no more bytes")
		}
	})
}
