// SPDX-License-Identifier: Apache-2.0

package h1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
)

func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

func code(err error) string {
	var p *codec.ProtocolError
	if errors.As(err, &p) {
		return p.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// TestRequestRefused holds one case for each doubt; the clause says where the rule is written.
func TestRequestRefused(t *testing.T) {
	t.Parallel()
	cases := []struct {
		clause, name, in, want string
	}{
		{"RFC 9112 2.2", "bare LF ends the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", "bad_request_line"},
		{"RFC 9112 2.2", "bare LF ends a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", "bad_field_value"},
		{"RFC 9112 2.2", "bare CR in a value", "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "bad_field_value"},
		{"RFC 9112 2.2", "white space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "obsolete_line_folding"},
		{"RFC 9112 3", "two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3", "tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_method"},
		{"RFC 9112 3", "space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3", "no version", "GET /\r\nHost: a\r\n\r\n", "bad_request_line"},
		{"RFC 9112 2.3", "lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", "bad_request_line"},
		{"RFC 9112 2.3", "unknown minor version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "http_version_not_supported"},
		{"RFC 9112 2.3", "major version 2", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "http_version_not_supported"},
		{"RFC 9110 2.5", "HTTP/1.0 not accepted", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "http_1_0_not_accepted"},
		{"RFC 9110 7.6.1", "more connection options than anybody needs", "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("x,", 60) + "\r\nConnection: a,b,c,d,e\r\n\r\n", "too_many_connection_options"},
		{"RFC 9110 9.1", "method is not a token", "G{}T / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_method"},
		{"RFC 9110 7.1", "fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3.2", "byte above ASCII in the target", "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3.2", "DEL in the target", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3.2", "relative target", "GET index.html HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3.2", "unknown scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3.2.4", "asterisk with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3.2.3", "CONNECT with a path", "CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3.2.3", "CONNECT without a port", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_target"},
		{"RFC 9112 3.2", "no Host", "GET / HTTP/1.1\r\n\r\n", "host_missing"},
		{"RFC 9112 3.2", "empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "host_missing"},
		{"RFC 9112 3.2", "two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "host_repeated"},
		{"RFC 9110 4.2.4", "userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "bad_host"},
		{"RFC 3986 3.2", "path in Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "bad_host"},
		{"RFC 3986 3.2.3", "port is not a number", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "bad_host"},
		{"RFC 3986 3.2.2", "open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "bad_host"},
		{"RFC 9112 5.1", "space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", "bad_field_name"},
		{"RFC 9112 5.1", "empty name", "GET / HTTP/1.1\r\n: a\r\n\r\n", "bad_field_name"},
		{"RFC 9112 5.1", "no colon", "GET / HTTP/1.1\r\nHost a\r\n\r\n", "bad_field_name"},
		{"RFC 9112 5.2", "obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", "obsolete_line_folding"},
		{"RFC 9110 5.5", "NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n", "bad_field_value"},
		{"RFC 9110 5.5", "DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", "bad_field_value"},
		{"RFC 9110 5.5", "control byte behind a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: aaaa\tbbbbbbbbbb\x01\r\n\r\n", "bad_field_value"},
		{"RFC 9112 6.1", "length and coding", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "content_length_with_transfer_encoding"},
		{"RFC 9112 6.1", "coding and length", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "content_length_with_transfer_encoding"},
		{"RFC 9112 6.1", "coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer_encoding_in_http_1_0"},
		{"RFC 9112 6.1", "chunked is not all", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer_coding_not_supported"},
		{"RFC 9112 6.1", "chunked with a parameter", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n", "transfer_coding_not_chunked"},
		{"RFC 9112 6.1", "identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "transfer_coding_not_chunked"},
		{"RFC 9112 6.1", "chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer_encoding_repeated"},
		{"RFC 9112 6.1", "vertical tab in the coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", "bad_field_value"},
		{"RFC 9110 8.6", "two equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "content_length_repeated"},
		{"RFC 9110 8.6", "a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", "bad_content_length"},
		{"RFC 9110 8.6", "signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", "bad_content_length"},
		{"RFC 9110 8.6", "negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "bad_content_length"},
		{"RFC 9110 8.6", "hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", "bad_content_length"},
		{"RFC 9110 8.6", "empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", "bad_content_length"},
		{"RFC 9110 8.6", "length beyond 18 digits", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000000000\r\n\r\n", "bad_content_length"},
		{"RFC 9110 10.1.1", "unknown expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", "expectation_not_supported"},
		{"RFC 9110 9.3.6", "CONNECT with a body", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "connect_with_body"},
		{"limit", "long target", "GET /" + strings.Repeat("a", 9<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", "request_target_too_long"},
		{"limit", "long value", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 17<<10) + "\r\n\r\n", "field_value_too_large"},
		{"limit", "many fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: a\r\n", 100) + "\r\n", "too_many_fields"},
		{"limit", "large head", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: "+strings.Repeat("a", 16000)+"\r\n", 4) + "\r\n", "head_too_large"},
		{"limit", "large head that never ends", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: "+strings.Repeat("a", 16000)+"\r\n", 4), "head_too_large"},
		{"early", "TLS on a plain port", "\x16\x03\x01", "bad_request_line"},
		{"early", "a line that never ends", strings.Repeat("A", 9<<10), "request_target_too_long"},
	}
	for _, c := range cases {
		t.Run(c.clause+" "+c.name, func(t *testing.T) {
			t.Parallel()
			var q codec.Request
			lim := Defaults()
			lim.HTTP10 = strings.Contains(c.name, "coding in HTTP/1.0")
			size, _, err := parseRequest([]byte(c.in), &q, &lim)
			if got := code(err); got != c.want || size != 0 {
				t.Errorf("size %d, error %q, want %q", size, got, c.want)
			}
		})
	}
}

// TestRequestAccepted shows what is read and what of it goes on to the upstream.
func TestRequestAccepted(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, in, want string
		check          func(*codec.Request) string
	}{
		{
			"plain", "GET /a?b=c HTTP/1.1\nHost: x\nAccept: */*\n\n",
			"GET /a?b=c HTTP/1.1\nHost: x\nAccept: */*\n\n",
			func(q *codec.Request) string {
				return fmt.Sprintf("%s %s %s %s %s", q.Method, q.Authority, q.PathOnly(), q.Query(), q.Protocol)
			},
		},
		{"odd white space is written anew", "GET / HTTP/1.1\nHost:x\nA: \t b \t\n\n", "GET / HTTP/1.1\nHost: x\nA: b\n\n", nil},
		{"hop-by-hop fields end here", "GET / HTTP/1.1\nHost: x\nConnection: keep-alive, X-A\nKeep-Alive: timeout=5\nX-A: 1\nTE: trailers\nTrailer: a\nProxy-Connection: close\nX-B: 2\n\n", "GET / HTTP/1.1\nHost: x\nX-B: 2\n\n", nil},
		{"nominated before it is named", "GET / HTTP/1.1\nX-A: 1\nHost: x\nConnection: x-a\nConnection: close\nX-B: 2\n\n", "GET / HTTP/1.1\nHost: x\nX-B: 2\n\n", nil},
		{"Host and Content-Length cannot be nominated", "POST / HTTP/1.1\nHost: x\nContent-Length: 2\nConnection: host, content-length\n\n", "POST / HTTP/1.1\nHost: x\nContent-Length: 2\n\n", nil},
		{"absolute form wins over Host", "GET http://y/p HTTP/1.1\nHost: x\n\n", "GET /p HTTP/1.1\nhost: y\n\n", nil},
		{"absolute form without a path", "GET http://y?q HTTP/1.1\nHost: y\n\n", "GET /?q HTTP/1.1\nHost: y\n\n", nil},
		{"asterisk", "OPTIONS * HTTP/1.1\nHost: x\n\n", "OPTIONS * HTTP/1.1\ncontent-length: 0\nHost: x\n\n", nil},
		{"CONNECT", "CONNECT y:443 HTTP/1.1\nHost: y:443\n\n", "CONNECT y:443 HTTP/1.1\nHost: y:443\n\n", nil},
		{"chunked", "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: ChunKed\n\n", "POST / HTTP/1.1\ntransfer-encoding: chunked\nHost: x\n\n", nil},
		{"Expect ends here", "POST / HTTP/1.1\nHost: x\nExpect: 100-Continue\nContent-Length: 1\n\n", "POST / HTTP/1.1\nHost: x\nContent-Length: 1\n\n", func(q *codec.Request) string { return fmt.Sprint(q.Expect) }},
		{"upgrade", "GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n\n", "GET / HTTP/1.1\nconnection: upgrade\nupgrade: websocket\nHost: x\n\n", nil},
		{"Upgrade without Connection is dropped", "GET / HTTP/1.1\nHost: x\nUpgrade: websocket\n\n", "GET / HTTP/1.1\nHost: x\n\n", nil},
		{"h2c is passed over", "GET / HTTP/1.1\nHost: x\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk\n\n", "GET / HTTP/1.1\nHost: x\n\n", nil},
		{"an upgrade with a body is passed over", "POST / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: foo\nContent-Length: 1\n\n", "POST / HTTP/1.1\nHost: x\nContent-Length: 1\n\n", nil},
		{"HTTP/1.0", "GET / HTTP/1.0\n\n", "GET / HTTP/1.1\nhost: default\n\n", func(q *codec.Request) string { return fmt.Sprint(q.Protocol == mesh.HTTP10) }},
		{"IPv6 host", "GET / HTTP/1.1\nHost: [::1]:80\n\n", "GET / HTTP/1.1\nHost: [::1]:80\n\n", nil},
		{"obs-text in a value", "GET / HTTP/1.1\nHost: x\nX: \xc3\xa4\n\n", "GET / HTTP/1.1\nHost: x\nX: \xc3\xa4\n\n", nil},
	}
	wants := map[string]string{"plain": "GET x /a b=c HTTP/1.1", "Expect ends here": "true", "HTTP/1.0": "true"}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var q codec.Request
			lim := Defaults()
			lim.HTTP10, lim.DefaultHost = true, "default"
			in := crlf(c.in)
			size, _, err := parseRequest(append(in, "next"...), &q, &lim)
			if err != nil || size != len(in) {
				t.Fatalf("size %d of %d, error %v", size, len(in), err)
			}
			if got, want := string(appendRequest(nil, &q)), string(crlf(c.want)); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if c.check != nil && c.check(&q) != wants[c.name] {
				t.Errorf("got %q, want %q", c.check(&q), wants[c.name])
			}
			// The same head, a byte more at a time, is not complete until its last byte and never refused.
			for n := range len(in) {
				if size, _, err := parseRequest(in[:n], &q, &lim); size != 0 || err != nil {
					t.Fatalf("first %d bytes: size %d, error %v", n, size, err)
				}
			}
		})
	}
}

func TestResponse(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, ask string
		switching bool
		in, want  string
	}{
		{"length", "", false, "HTTP/1.1 200 OK\nContent-Length: 5\n\n", "200 length 5 keep"},
		{"no reason, no space", "", false, "HTTP/1.1 200\nContent-Length: 0\n\n", "200 length 0 keep"},
		{"chunked", "", false, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", "200 chunked keep"},
		{"chunked and close", "", false, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nConnection: close\n\n", "200 chunked close"},
		{"to the end", "", false, "HTTP/1.1 200 OK\n\n", "200 to-close keep"},
		{"HTTP/1.0", "", false, "HTTP/1.0 200 OK\nContent-Length: 5\n\n", "200 length 5 close"},
		{"HTTP/1.0 keep-alive", "", false, "HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 5\n\n", "200 length 5 keep"},
		{"HEAD", "HEAD", false, "HTTP/1.1 200 OK\nContent-Length: 5\n\n", "200 none keep"},
		{"304", "", false, "HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n", "304 none keep"},
		{"204 with a length", "", false, "HTTP/1.1 204 No Content\nContent-Length: 5\n\n", "204 none keep"},
		{"100", "", false, "HTTP/1.1 100 Continue\n\n", "100 none keep"},
		{"101 asked for", "", true, "HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: websocket\n\n", "101 to-close keep"},
		{"101 not asked for", "", false, "HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: x\n\n", "unexpected_101"},
		{"CONNECT", "CONNECT", true, "HTTP/1.1 200 OK\nContent-Length: 5\n\n", "200 to-close keep"},
		{"CONNECT refused", "CONNECT", true, "HTTP/1.1 403 Forbidden\nContent-Length: 5\n\n", "403 length 5 keep"},
		{"length and coding", "", false, "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", "content_length_with_transfer_encoding"},
		{"two lengths", "", false, "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\n", "content_length_repeated"},
		{"coding in HTTP/1.0", "", false, "HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n", "transfer_encoding_in_http_1_0"},
		{"not HTTP", "", false, "SSH-2.0-OpenSSH_9.2\n\n", "bad_status_line"},
		{"status of two digits", "", false, "HTTP/1.1 20 OK\n\n", "bad_status_line"},
		{"status out of range", "", false, "HTTP/1.1 999 OK\n\n", "bad_status_line"},
		{"folded", "", false, "HTTP/1.1 200 OK\nA: b\n c\n\n", "obsolete_line_folding"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var r codec.Response
			lim := Defaults()
			in := crlf(c.in)
			size, f, err := parseResponse(in, &r, &lim, c.ask, c.switching)
			got := code(err)
			if err == nil {
				got = fmt.Sprintf("%d %s", r.Status, [...]string{"none", "length", "chunked", "to-close"}[f.body])
				if f.body == byLength {
					got += fmt.Sprintf(" %d", r.Length)
				}
				got += map[bool]string{true: " close", false: " keep"}[f.close]
				if size != len(in) {
					t.Errorf("size %d of %d", size, len(in))
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// decodeAll feeds in to a decoder in pieces of step bytes and returns the data and what is behind the body.
func decodeAll(t testing.TB, in []byte, step int) (data, rest []byte, ended bool, d *decoder, err error) {
	lim := Defaults()
	d = &decoder{}
	d.begin(byChunks, 0)
	var pool bytebuf.Pool
	for len(in) > 0 && !d.ended {
		n := min(step, len(in))
		b := pool.Get()
		b.Hi += copy(b.Free(), in[:n])
		in = in[n:]
		p, err := d.take(b, &lim)
		if err != nil {
			return data, nil, false, d, err
		}
		data = append(data, p.Bytes()...)
		if b.Len() > 0 && !d.ended {
			t.Fatalf("%d bytes left over in mid-body", b.Len())
		}
		rest = append(rest, b.Bytes()...)
		pool.Put(b)
	}
	return data, append(rest, in...), d.ended, d, nil
}

func TestChunks(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, in, data, rest, want string
	}{
		{"two chunks", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET", "hello world", "GET", ""},
		{"upper-case size with zeros", "00A\r\n0123456789\r\n0\r\n\r\n", "0123456789", "", ""},
		{"extension", "1;a=b;c=\"d e\"\r\nx\r\n0;last\r\n\r\n", "x", "", ""},
		{"trailers", "1\r\nx\r\n0\r\nA: b\r\nHost: evil\r\n\r\nrest", "x", "rest", ""},
		{"empty size", "\r\n", "", "", "bad_chunk_size"},
		{"sign", "+1\r\nx\r\n", "", "", "bad_chunk_size"},
		{"prefix", "0x1\r\nx\r\n", "", "", "bad_chunk_size"},
		{"space behind the size", "1 \r\nx\r\n", "", "", "bad_chunk_size"},
		{"bare LF", "1\nx\r\n", "", "", "bad_chunk_size"},
		{"bare LF in an extension", "1;a\nx\r\n", "", "", "bad_chunk_size"},
		{"CR without LF", "1\rx", "", "", "bad_chunk_size"},
		{"data longer than its size", "1\r\nxy\r\n", "x", "", "bad_chunk_end"},
		{"bare LF behind the data", "1\r\nx\n", "x", "", "bad_chunk_end"},
		{"size of 16 digits", "1000000000000000\r\n", "", "", "bad_chunk_size"},
		{"long extension", "1;" + strings.Repeat("a", 300) + "\r\n", "", "", "chunk_extension_too_large"},
		{"trailer without a colon", "0\r\nabc\r\n\r\n", "", "", "bad_field_name"},
		{"long trailers", "0\r\n" + strings.Repeat("A: "+strings.Repeat("b", 500)+"\r\n", 20) + "\r\n", "", "", "trailers_too_large"},
		{"many trailers", "0\r\n" + strings.Repeat("A: b\r\n", 21) + "\r\n", "", "", "too_many_fields"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for step := 1; step <= len(c.in); step++ {
				data, rest, ended, d, err := decodeAll(t, []byte(c.in), step)
				if code(err) != c.want {
					t.Fatalf("step %d: error %q, want %q", step, code(err), c.want)
				}
				if err != nil {
					continue
				}
				if string(data) != c.data || string(rest) != c.rest || !ended {
					t.Fatalf("step %d: data %q rest %q ended %v", step, data, rest, ended)
				}
				if c.name == "trailers" && (d.list.Len() != 1 || string(d.list.Get("a")) != "b") {
					t.Fatalf("step %d: trailers %v", step, d.list)
				}
			}
		})
	}
}

// FuzzRequest holds the parser against net/http: what we accept, it accepts, and both see the same message in the same
// bytes. It does not hold the other way round: we are stricter.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nA: b\r\n\r\nrest",
		"GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nX: 1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		lim := Defaults()
		var q codec.Request
		size, _, err := parseRequest(in, &q, &lim)
		if err != nil || size == 0 {
			return
		}
		body, rest, ok := ourBody(t, &q, in[size:])
		if !ok {
			return
		}
		br := bufio.NewReader(bytes.NewReader(in))
		hr, err := http.ReadRequest(br)
		if err != nil {
			if harmlessToRefuse(err) {
				return
			}
			t.Fatalf("we accept %q, net/http does not: %v", in, err)
		}
		theirs, err := io.ReadAll(hr.Body)
		if err != nil {
			t.Fatalf("we read the body of %q, net/http does not: %v", in, err)
		}
		left, _ := io.ReadAll(br)
		if hr.Method != string(q.Method) || !bytes.Equal(theirs, body) || !bytes.Equal(left, rest) {
			t.Fatalf("%q: method %q/%q body %q/%q rest %q/%q", in, q.Method, hr.Method, body, theirs, rest, left)
		}
		if hr.Host != string(q.Authority) && hr.Method != "CONNECT" {
			t.Fatalf("%q: authority %q, net/http %q", in, q.Authority, hr.Host)
		}
		// What we send on is a message that we would accept, with the same meaning.
		out := appendRequest(nil, &q)
		var again codec.Request
		n, _, err := parseRequest(out, &again, &lim)
		if err != nil || n != len(out) {
			t.Fatalf("%q is forwarded as %q: size %d, error %v", in, out, n, err)
		}
		if again.Length != q.Length || !bytes.Equal(again.Authority, q.Authority) || !bytes.Equal(again.Path, q.Path) {
			t.Fatalf("%q changed its meaning as %q", in, out)
		}
	})
}

// harmlessToRefuse are refusals of net/http that do not touch the framing: it parses the target as a URL.
func harmlessToRefuse(err error) bool {
	s := err.Error()
	return strings.Contains(s, "parse ") || strings.Contains(s, "invalid URL") || strings.Contains(s, "missing form") ||
		strings.Contains(s, "malformed Host")
}

func ourBody(t *testing.T, q *codec.Request, in []byte) (body, rest []byte, ok bool) {
	switch {
	case q.Length == codec.Unknown:
		data, rest, ended, _, err := decodeAll(t, in, 1+len(in))
		return data, rest, ended && err == nil
	case int64(len(in)) < q.Length:
		return nil, nil, false
	}
	return in[:q.Length], in[q.Length:], true
}

// FuzzResponse: no panic, and what is passed on is read the same way again.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		lim := Defaults()
		var r codec.Response
		size, fr, err := parseResponse(in, &r, &lim, "", false)
		if err != nil || size == 0 {
			return
		}
		out := appendResponse(nil, &r, answer{chunked: r.Length == codec.Unknown}, mesh.HTTP11)
		var again codec.Response
		n, fr2, err := parseResponse(out, &again, &lim, "", false)
		if err != nil || n != len(out) || again.Status != r.Status || again.Length != r.Length {
			t.Fatalf("%q is passed on as %q: size %d, length %d/%d, error %v", in, out, n, r.Length, again.Length, err)
		}
		if fr.body == byLength && fr2.body != byLength {
			t.Fatalf("%q changed its framing as %q", in, out)
		}
	})
}

// FuzzChunks: the same data in whatever pieces the body comes.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n6;x\r\n world\r\n0\r\nA: b\r\n\r\nGET"), 3)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		if step <= 0 || len(in) > 20000 {
			return
		}
		d1, r1, e1, _, err1 := decodeAll(t, bytes.Clone(in), len(in)+1)
		d2, r2, e2, _, err2 := decodeAll(t, bytes.Clone(in), step)
		if code(err1) != code(err2) || e1 != e2 || err1 == nil && (!bytes.Equal(d1, d2) || !bytes.Equal(r1, r2)) {
			t.Fatalf("%q by %d: %q %q %v %v, at once: %q %q %v %v", in, step, d2, r2, e2, err2, d1, r1, e1, err1)
		}
	})
}
