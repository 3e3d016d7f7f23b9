// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meshtap/meshtap/proxy/codec"
)

// FuzzRequestHead holds what the server takes for a request against two others: what it takes, x/net's Framer takes too,
// and what goes to a server of HTTP/1.1 is the same request there, as net/http reads it. So no request means two things.
func FuzzRequestHead(f *testing.F) {
	for _, fields := range []string{
		":method\x00GET\x00:scheme\x00http\x00:path\x00/\x00:authority\x00a",
		":method\x00POST\x00:scheme\x00https\x00:path\x00/a?b=c\x00:authority\x00a:80\x00content-length\x003\x00cookie\x00a=b\x00cookie\x00c=d",
		":method\x00GET\x00:scheme\x00http\x00:path\x00/\x00host\x00a\x00te\x00trailers\x00x-a\x00 b",
		":method\x00CONNECT\x00:authority\x00a:443",
		":method\x00OPTIONS\x00:scheme\x00http\x00:path\x00*\x00:authority\x00[::1]:80\x00Transfer-Encoding\x00chunked",
		":method\x00GET\x00:scheme\x00http\x00:path\x00/a b\x00:authority\x00a\r\nx: y",
	} {
		f.Add(fields, true)
		f.Add(fields, false)
	}
	f.Fuzz(func(t *testing.T, fields string, end bool) {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		parts := strings.Split(fields, "\x00")
		for i := 0; i+1 < len(parts); i += 2 {
			enc.WriteField(hpack.HeaderField{Name: parts[i], Value: parts[i+1]})
		}
		cfg := Defaults()
		var d decoder
		d.init(defaultTable)
		s := section{dec: &d, cfg: &cfg}
		var q codec.Request
		bad, err := s.request(block.Bytes(), &q, end)
		if err != nil {
			t.Fatalf("x/net's encoding: %v", err)
		}
		if bad != nil {
			return
		}
		netTakes(t, block.Bytes())
		sameInHTTP1(t, &q)
	})
}

// netTakes checks that x/net's Framer takes a block for a good request, too.
func netTakes(t *testing.T, block []byte) {
	if len(block) > 16<<10 || len(block) == 0 {
		return
	}
	var wire bytes.Buffer
	fr := http2.NewFramer(&wire, &wire)
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fr.MaxHeaderListSize = 1 << 20
	f, err := fr.ReadFrame()
	if err != nil {
		t.Fatalf("x/net refuses what we take: %v", err)
	}
	for _, hf := range f.(*http2.MetaHeadersFrame).RegularFields() {
		if !httpguts.ValidHeaderFieldName(hf.Name) || !httpguts.ValidHeaderFieldValue(hf.Value) {
			t.Fatalf("x/net does not know the field %q: %q", hf.Name, hf.Value)
		}
	}
}

// sameInHTTP1 writes a request as HTTP/1.1 does and reads it with net/http.
func sameInHTTP1(t *testing.T, q *codec.Request) {
	target := q.Path
	if len(target) == 0 {
		target = q.Authority
	}
	text := string(q.Method) + " " + string(target) + " HTTP/1.1\r\nhost: " + string(q.Authority) + "\r\n"
	if q.Length == codec.Unknown {
		text += "transfer-encoding: chunked\r\n"
	}
	text = string(q.Header.AppendHTTP1([]byte(text))) + "\r\n"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		if strings.Contains(err.Error(), "malformed") || strings.Contains(err.Error(), "invalid") {
			// net/http also parses the target as a URL, which is none of a codec's business.
			if strings.Contains(err.Error(), "parse") || strings.Contains(err.Error(), "Host") || strings.Contains(err.Error(), "method") {
				return
			}
		}
		t.Fatalf("%q: %v", text, err)
	}
	if r.Method != string(q.Method) || r.RequestURI != string(target) {
		t.Fatalf("%q: %q %q", text, r.Method, r.RequestURI)
	}
	n := 0
	for _, v := range r.Header {
		n += len(v)
	}
	// net/http keeps Content-Length apart only where it is overruled.
	if want := q.Header.Len(); n != want {
		t.Fatalf("%q: %d fields, want %d", text, n, want)
	}
	if (q.Length == codec.Unknown) != (len(r.TransferEncoding) == 1) || q.Length > 0 && r.ContentLength != q.Length {
		t.Fatalf("%q: length %d, %v", text, r.ContentLength, r.TransferEncoding)
	}
}
