// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meshtap/meshtap/internal/invariant"
	"github.com/meshtap/meshtap/mesh"
)

// TestHTTP2Allocations: a request whose headers HPACK has in its table allocates nothing, over HTTP/2 on both sides and over
// one of each. See TestHTTPAllocations for what is left over.
func TestHTTP2Allocations(t *testing.T) {
	if invariant.On {
		t.Skip("the race detector and the invariants allocate")
	}
	for _, c := range []struct {
		name           string
		client, server bool // speak HTTP/2
	}{{"HTTP/2 to HTTP/2", true, true}, {"HTTP/2 to HTTP/1.1", true, false}, {"HTTP/1.1 to HTTP/2", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			r, seen := newLean(t)
			origin := httpFixed(t, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n"+string(make([]byte, 1024)))
			if c.server {
				origin = http2Fixed(t)
			}
			up := cluster("c", origin)
			if c.server {
				up.HTTP.Protocol = mesh.UpstreamHTTP2
			}
			r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, up)
			exchange := http1Exchange(t, r.addr)
			if c.client {
				exchange = http2Exchange(t, r.addr)
			}
			if got := allocations(t, seen, exchange); got > 0.02 {
				t.Errorf("%.4f allocations for each request", got)
			}
		})
	}
}

func http1Exchange(t *testing.T, addr string) func() {
	c, _ := httpDial(t, addr)
	out, in := []byte("GET /path HTTP/1.1\r\nHost: service.example\r\nUser-Agent: test/1.0\r\n\r\n"), make([]byte, 64<<10)
	return func() {
		if _, err := c.Write(out); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 1024 || bytes.Index(in[:n], []byte("\r\n\r\n"))+4+1024 != n; {
			k, err := c.Read(in[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
	}
}

// block returns the two forms of a header block: the first time, and from then on.
func block(fields ...string) (first, then []byte) {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	for _, b := range []*[]byte{&first, &then} {
		buf.Reset()
		for i := 0; i < len(fields); i += 2 {
			_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		*b = bytes.Clone(buf.Bytes())
	}
	return first, then
}

func appendFrame(b []byte, typ http2.FrameType, flags http2.Flags, id uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), byte(typ), byte(flags))
	return append(binary.BigEndian.AppendUint32(b, id), payload...)
}

// frameReader reads frames into memory of its own.
type frameReader struct {
	r   *bufio.Reader
	buf []byte
}

func (f *frameReader) next() (typ http2.FrameType, flags http2.Flags, id uint32, payload []byte, err error) {
	head := f.buf[:9]
	if _, err = io.ReadFull(f.r, head); err != nil {
		return
	}
	n := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	typ, flags, id = http2.FrameType(head[3]), http2.Flags(head[4]), binary.BigEndian.Uint32(head[5:])
	payload = f.buf[9 : 9+n]
	_, err = io.ReadFull(f.r, payload)
	return
}

// http2Exchange is a client that asks on one stream after the other.
func http2Exchange(t *testing.T, addr string) func() {
	c, br := httpDial(t, addr)
	first, then := block(":method", "GET", ":scheme", "http", ":authority", "service.example", ":path", "/path", "user-agent", "test/1.0")
	out := appendFrame([]byte(http2.ClientPreface), http2.FrameSettings, 0, 0, nil)
	in := &frameReader{br, make([]byte, 32<<10)}
	id, window := uint32(1), binary.BigEndian.AppendUint32(nil, 1024)
	return func() {
		out = appendFrame(out, http2.FrameWindowUpdate, 0, 0, window)
		out = appendFrame(out, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, id, first)
		first = then
		if _, err := c.Write(out); err != nil {
			t.Fatal(err)
		}
		out = out[:0]
		for {
			typ, flags, of, _, err := in.next()
			switch {
			case err != nil:
				t.Fatal(err)
			case typ == http2.FrameSettings && flags == 0:
				out = appendFrame(out, http2.FrameSettings, http2.FlagSettingsAck, 0, nil)
			case typ == http2.FrameRSTStream || typ == http2.FrameGoAway:
				t.Fatal("the proxy gave up")
			case of == id && flags&http2.FlagDataEndStream != 0 && typ <= http2.FrameHeaders:
				id += 2
				return
			}
		}
	}
}

// http2Fixed is an upstream of HTTP/2 that answers each request with the same kilobyte.
func http2Fixed(t *testing.T) string {
	return httpOrigin(t, func(c *net.TCPConn, br *bufio.Reader) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(br, preface); err != nil {
			return
		}
		first, then := block(":status", "200", "content-type", "text/plain", "content-length", "1024")
		in, body := &frameReader{br, make([]byte, 32<<10)}, make([]byte, 1024)
		out := appendFrame(nil, http2.FrameSettings, 0, 0, nil)
		for {
			typ, flags, id, _, err := in.next()
			if err != nil {
				return
			}
			switch {
			case typ == http2.FrameSettings && flags == 0:
				out = appendFrame(out, http2.FrameSettings, http2.FlagSettingsAck, 0, nil)
			case typ == http2.FrameHeaders:
				out = appendFrame(out, http2.FrameHeaders, http2.FlagHeadersEndHeaders, id, first)
				out = appendFrame(out, http2.FrameData, http2.FlagDataEndStream, id, body)
				first = then
			}
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	})
}
