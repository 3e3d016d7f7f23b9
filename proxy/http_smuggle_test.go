// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/meshtap/meshtap/mesh"
)

// httpSmuggles are requests that two parsers may read in two ways. None may be forwarded.
func httpSmuggles() []string {
	var all []string
	post := func(fields, body string) {
		all = append(all, "POST /first HTTP/1.1\r\nHost: a\r\n"+fields+"\r\n"+body)
	}
	const chunks, smuggled = "0\r\n\r\n", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	// Both kinds of framing, in every order and spelling.
	for _, te := range []string{
		"Transfer-Encoding: chunked", "transfer-encoding: Chunked", "Transfer-Encoding:chunked", "Transfer-Encoding:\tchunked", "Transfer-Encoding: chunked ", "TRANSFER-ENCODING: CHUNKED",
	} {
		for _, cl := range []string{"Content-Length: 5", "content-length: 0", fmt.Sprintf("Content-Length: %d", len(chunks+smuggled))} {
			post(te+"\r\n"+cl+"\r\n", chunks+smuggled)
			post(cl+"\r\n"+te+"\r\n", chunks+smuggled)
			post(cl+"\r\nX: y\r\n"+te+"\r\n", chunks+smuggled)
		}
	}
	// Codings that are not exactly chunked.
	for _, te := range []string{
		"xchunked", "chunked, identity", "identity, chunked", "identity", "chunked,chunked", "chunked;q=1", "\"chunked\"", "chunk", "chunkedx", "chunked\x0b", "\x0bchunked", "gzip, chunked",
		"chunked, ", ",chunked", "", "chun ked", "x\tchunked", "cow", "chunked\x00", "\xc4\x8bhunked",
	} {
		post("Transfer-Encoding: "+te+"\r\n", chunks+smuggled)
		post("Transfer-Encoding: "+te+"\r\nContent-Length: 4\r\n", chunks+smuggled)
		post("Transfer-Encoding: chunked\r\nTransfer-Encoding: "+te+"\r\n", chunks+smuggled)
		post("Transfer-Encoding: "+te+"\r\nTransfer-Encoding: chunked\r\n", chunks+smuggled)
		post("Content-Length: 4\r\nTransfer-Encoding: "+te+"\r\n", chunks+smuggled)
		post("Connection: transfer-encoding\r\nTransfer-Encoding: "+te+"\r\n", chunks+smuggled)
		all = append(all, "GET /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "+te+"\r\n\r\n"+chunks+smuggled)
	}
	// Names that some parsers take for the field.
	for _, name := range []string{"Transfer-Encoding ", "Transfer-Encoding\t", " Transfer-Encoding", "\tTransfer-Encoding", "Transfer-Encoding\x00", "Transfer Encoding", "Transfer-Encoding\xff", "\x00Transfer-Encoding", "Transfer-Encoding:\r\n", "(Transfer-Encoding"} {
		post(name+": chunked\r\n", chunks+smuggled)
		post("Content-Length: 3\r\n"+name+": chunked\r\n", chunks+smuggled)
	}
	for _, name := range []string{"Content-Length ", " Content-Length", "Content-Length\t", "Content-Length\x00", "\"Content-Length\"", "Content Length"} {
		post(name+": 5\r\n", smuggled)
	}
	// Lengths that some parsers read otherwise.
	for _, n := range []string{
		"+5", "-5", "0x5", "5, 6", "5 6", "5;", "\"5\"", "5a", "a5", "", " ", "5.0", "5e0", "0b101", "１", "18446744073709551621", "9223372036854775808", "99999999999999999999999", "5\x0b", "5\x00", "5,", ",5", "_5", "5_0",
	} {
		post("Content-Length: "+n+"\r\n", smuggled)
		post("Content-Length: 5\r\nContent-Length: "+n+"\r\n", smuggled)
		post("Connection: content-length\r\nContent-Length: "+n+"\r\n", smuggled)
		post("Content-Length: "+n+"\r\nContent-Length: 5\r\n", smuggled)
	}
	post("Content-Length: 5\r\nContent-Length: 6\r\n", smuggled)
	post("Content-Length: 0\r\nX: y\r\nContent-Length: 5\r\n", smuggled)
	// Line ends and folds.
	for _, eol := range []string{"\n", "\r", "\r\r\n", "\n\r", "\x0b", "\x0c", "\x7f", "\x1e", "\r\n ", "\r\n\t", "\n ", "\x00\r\n"} {
		for _, field := range []string{"Transfer-Encoding: chunked", "Content-Length: 5", "X: y"} {
			post(field+eol+"Z: w\r\n", chunks+smuggled)
			post("A: b"+eol+field+"\r\n", chunks+smuggled)
		}
		all = append(all, "GET /first HTTP/1.1"+eol+"Host: a\r\n\r\n"+smuggled, "GET /first"+eol+" HTTP/1.1\r\nHost: a\r\n\r\n"+smuggled, "GET /first HTTP/1.1\r\nHost: a"+eol+"\r\n"+smuggled)
	}
	// Control bytes, wherever they are.
	for b := byte(0); b < 0x20; b++ {
		if b == '\t' || b == '\n' {
			continue
		}
		c := string([]byte{b})
		post("X: a"+c+"b\r\n", smuggled)
		post("X"+c+"Y: a\r\n", smuggled)
		all = append(all, "GET /fi"+c+"rst HTTP/1.1\r\nHost: a\r\n\r\n"+smuggled)
	}
	// Request lines.
	for _, line := range []string{
		"GET  /first HTTP/1.1", "GET /first  HTTP/1.1", " GET /first HTTP/1.1", "GET /first HTTP/1.1 ", "GET\t/first HTTP/1.1", "GET /first\tHTTP/1.1", "GET /fi rst HTTP/1.1", "GET /first HTTP/1.1x",
		"GET /first HTTP/1.10", "GET /first HTTP/01.1", "GET /first HTTP/1,1", "GET /first http/1.1", "GET /first HTTP/1", "GET /first HTTP/0.9", "GET /first HTTP/1.2", "GET /first", "GET first HTTP/1.1", "GET http:/first HTTP/1.1",
		"GET ftp://a/first HTTP/1.1", "GET http:///first HTTP/1.1", "GET http://u@a/first HTTP/1.1", "GE\x00T /first HTTP/1.1", "GET /fir\x00st HTTP/1.1", "GET /first\xff HTTP/1.1", "GET * HTTP/1.1", "CONNECT /first HTTP/1.1", "G/T /first HTTP/1.1",
		"PRI * HTTP/2.0", "GET /first#x HTTP/1.1", "", "\x00", "GET /first HTTP/1.1\x00",
	} {
		if line != "" {
			all = append(all, line+"\r\nHost: a\r\n\r\n"+smuggled)
		}
	}
	// Hosts.
	for _, host := range []string{"", "a b", "a\r\nHost: a", "a\r\nHost: b", "a/b", "a@b", "a,b\x00", "a:b", "a:99999999", "[::1", "::1]", "a\tb", "\xff", "a#", "a?b", "a\\b", "<a>", "a\"b"} {
		all = append(all, "GET /first HTTP/1.1\r\nHost: "+host+"\r\n\r\n"+smuggled)
	}
	// A body where there is none, and HTTP/1.0 with chunks.
	all = append(all,
		"GET /first HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+chunks+smuggled,
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n"+smuggled,
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n"+chunks+smuggled,
		"POST /first HTTP/1.1\r\nContent-Length: 5\r\n\r\n"+smuggled,
	)
	return all
}

// TestHTTPSmuggling: what two parsers could read in two ways is answered with one refusal and closes the connection;
// nothing of it is forwarded, and nothing behind it is read (F48).
func TestHTTPSmuggling(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hits := make(chan string, 1000)
	r.serve(manager(), []*mesh.Route{prefix("/", to("c"))}, cluster("c", backend(t, func(_ http.ResponseWriter, q *http.Request) { hits <- q.URL.String() })))
	all := httpSmuggles()
	for i, in := range all {
		got := r.raw(in)
		status := ""
		if strings.HasPrefix(got, "HTTP/1.1 ") {
			status = got[9:12]
		}
		switch status {
		case "400", "414", "417", "426", "431", "501", "505":
		default:
			t.Errorf("%q: got %q", in, got)
			continue
		}
		if strings.Count(got, "HTTP/1.1 ") != 1 || !strings.Contains(got, "\r\nconnection: close\r\n") {
			t.Errorf("%q: got %q", in, got)
		}
		if o := r.rec.wait(t, i+1)[i]; o.Flags != mesh.FlagDPE || !strings.HasPrefix(o.Details, "http1.") {
			t.Errorf("%q: %s %s", in, o.Flags, o.Details)
		}
	}
	if n := len(hits); n != 0 {
		t.Errorf("%d requests were forwarded, the first %s", n, <-hits)
	}
	if len(all) < 500 {
		t.Errorf("only %d vectors", len(all))
	}
}

// httpParts are what TestHTTPDifferential builds connections of.
var httpParts = struct{ lines, fields, bodies []string }{
	lines: []string{"GET /a HTTP/1.1", "POST /b HTTP/1.1", "HEAD /c HTTP/1.1", "PUT http://a/d HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /e HTTP/1.0", "DELETE /f HTTP/1.1", "GET /g?h=%0d%0a HTTP/1.1"},
	fields: []string{
		"", "Content-Length: 0\r\n", "Content-Length: 5\r\n", "Content-Length: 05\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: Chunked\r\n", "Connection: close\r\n", "Connection: content-length\r\nContent-Length: 5\r\n",
		"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "X: \x80\xff\r\n", "X:\r\n", "X: a\r\nX: b\r\n", "Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n", "Expect: 100-continue\r\nContent-Length: 5\r\n",
		"Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n", "Upgrade: h2c\r\nConnection: Upgrade\r\n", "TE: trailers\r\nConnection: te\r\n", "Content_Length: 5\r\n", "Transfer_Encoding: chunked\r\n",
	},
	bodies: []string{
		"", "hello", "5\r\nhello\r\n0\r\n\r\n", "5;ext=\"a\"\r\nhello\r\n0\r\n\r\n", "05\r\nhello\r\n00\r\n\r\n", "0\r\nContent-Length: 9\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n", "-5\r\nhello\r\n0\r\n\r\n",
		"0x5\r\nhello\r\n0\r\n\r\n", "\r\n", "5 \r\nhello\r\n0\r\n\r\n",
	},
}

// TestHTTPDifferential sends every combination of lines, fields and bodies, with another request behind, and compares
// three readings: what net/http makes of the client's bytes, what the origin gets, and what the client is answered. The
// origin gets a beginning of what net/http reads, in bytes that are framed beyond doubt, and the client one answer for
// each (F48).
func TestHTTPDifferential(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	var strange []string
	r := newRig(t)
	m := manager()
	m.AcceptHTTP10 = true
	r.serve(m, []*mesh.Route{prefix("/", to("c")), {Match: mesh.RouteMatch{Path: "*"}, Forward: to("c")}}, cluster("c", httpOrigin(t, func(c *net.TCPConn, br *bufio.Reader) {
		for {
			q, err := http.ReadRequest(br)
			if err != nil {
				if err != io.EOF {
					mu.Lock()
					strange = append(strange, err.Error())
					mu.Unlock()
				}
				return
			}
			body, err := io.ReadAll(q.Body)
			if err != nil {
				return // the client had not sent it all
			}
			mu.Lock()
			got = append(got, fmt.Sprintf("%s %s %q", q.Method, q.URL.RequestURI(), body))
			mu.Unlock()
			if q.Method == "HEAD" {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
			} else {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")
			}
		}
	})))
	n := 0
	for _, line := range httpParts.lines {
		for _, field := range httpParts.fields {
			for _, body := range httpParts.bodies {
				n++
				in := line + "\r\nHost: a\r\n" + field + "\r\n" + body + "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
				want := httpReading(in)
				mu.Lock()
				got = nil
				mu.Unlock()
				answer := httpHalf(t, r.addr, in)
				mu.Lock()
				seen := append([]string(nil), got...)
				mu.Unlock()
				if len(seen) > len(want) || strings.Join(seen, "\n") != strings.Join(want[:len(seen)], "\n") {
					t.Errorf("%q\n the origin got %q\n net/http reads %q", in, seen, want)
				}
				if ok := strings.Count(answer, "HTTP/1.1 200 OK\r\n"); ok != len(seen) {
					t.Errorf("%q\n the origin got %q, the client %q", in, seen, answer)
				}
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, s := range strange {
		if s != "unexpected EOF" {
			t.Errorf("the origin could not read what it got: %s", s)
		}
	}
	t.Logf("%d connections", n)
}

// httpReading returns the requests that net/http reads in the bytes of a connection.
func httpReading(in string) (all []string) {
	br := bufio.NewReader(strings.NewReader(in))
	for {
		// RFC 9112 section 2.2 lets a server pass over an empty line before a request, which net/http does not.
		for b, _ := br.Peek(2); string(b) == "\r\n"; b, _ = br.Peek(2) {
			br.Discard(2)
		}
		q, err := http.ReadRequest(br)
		if err != nil {
			return all
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return all
		}
		all = append(all, fmt.Sprintf("%s %s %q", q.Method, q.URL.RequestURI(), body))
		if q.Close {
			return all
		}
	}
}

// httpHalf sends bytes, reads all that comes back, and ends its side once the proxy waits for more than there is.
func httpHalf(t *testing.T, addr, in string) string {
	c, br := httpDial(t, addr)
	defer c.Close()
	io.WriteString(c, in)
	var all bytes.Buffer
	for {
		b, err := br.ReadByte()
		if err != nil {
			return all.String()
		}
		all.WriteByte(b)
		if br.Buffered() == 0 && bytes.Contains(all.Bytes(), []byte("100 Continue")) {
			c.CloseWrite()
		}
	}
}
