// SPDX-License-Identifier: Apache-2.0

// Package h1 is the HTTP/1.1 codec (RFC 9110, RFC 9112), for both sides of the proxy. It is strict: a message that two
// parsers could read in two ways is refused and its connection closed, and nothing is forwarded that this package did
// not understand. Heads are parsed in place, bodies are never copied to be framed, and nothing is allocated per message.
//
// parse.go reads heads, body.go finds the end of bodies, encode.go writes; server.go and client.go tie them to the two
// halves of a stream. What a message says of its own hop (Connection, Keep-Alive, TE, Upgrade, Transfer-Encoding ...)
// ends here in both directions.
package h1

import (
	"bytes"

	"github.com/meshtap/meshtap/internal/ascii"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
)

// Limits bound what a peer may send. See Defaults.
type Limits struct {
	// HeadBytes bounds a whole head, Fields the number of its fields, ValueBytes one value, TargetBytes the request
	// target.
	HeadBytes, Fields, ValueBytes, TargetBytes int
	// TrailerBytes and Trailers bound the trailer section.
	TrailerBytes, Trailers int
	// HTTP10 accepts HTTP/1.0 requests. DefaultHost stands in for a host field that such a request lacks.
	HTTP10      bool
	DefaultHost string
}

// Defaults returns the limits that hold where the configuration says nothing.
func Defaults() Limits {
	return Limits{
		HeadBytes: 60 << 10, Fields: 100, ValueBytes: 16 << 10, TargetBytes: 8 << 10,
		TrailerBytes: 8 << 10, Trailers: 20,
	}
}

// chunkExtBytes bounds the extensions of one chunk (RFC 9112 section 7.1.1 asks for a limit).
const chunkExtBytes = 256

// refuse makes a refusal; for an upstream's message the status is not used.
func refuse(status int, code string) *codec.ProtocolError {
	return &codec.ProtocolError{Status: status, Code: code}
}

// The refusals.
var (
	errRequestLine   = refuse(400, "bad_request_line")
	errMethod        = refuse(400, "bad_method")
	errTarget        = refuse(400, "bad_request_target")
	errTargetLong    = refuse(414, "request_target_too_long")
	errVersion       = refuse(505, "http_version_not_supported")
	errVersion10     = refuse(426, "http_1_0_not_accepted")
	errHeadLarge     = refuse(431, "head_too_large")
	errManyFields    = refuse(431, "too_many_fields")
	errValueLarge    = refuse(431, "field_value_too_large")
	errFieldName     = refuse(400, "bad_field_name")
	errFieldValue    = refuse(400, "bad_field_value")
	errFold          = refuse(400, "obsolete_line_folding")
	errHostMissing   = refuse(400, "host_missing")
	errHostTwice     = refuse(400, "host_repeated")
	errHost          = refuse(400, "bad_host")
	errLength        = refuse(400, "bad_content_length")
	errLengthTwice   = refuse(400, "content_length_repeated")
	errLengthCoding  = refuse(400, "content_length_with_transfer_encoding")
	errCoding        = refuse(501, "transfer_coding_not_supported")
	errCodingLast    = refuse(400, "transfer_coding_not_chunked")
	errCodingTwice   = refuse(400, "transfer_encoding_repeated")
	errCodingVersion = refuse(400, "transfer_encoding_in_http_1_0")
	errExpect        = refuse(417, "expectation_not_supported")
	errConnectBody   = refuse(400, "connect_with_body")
	errOptions       = refuse(400, "too_many_connection_options")
	errChunkSize     = refuse(400, "bad_chunk_size")
	errChunkExt      = refuse(400, "chunk_extension_too_large")
	errChunkEnd      = refuse(400, "bad_chunk_end")
	errTrailers      = refuse(431, "trailers_too_large")
	errStatusLine    = refuse(502, "bad_status_line")
	errSwitch        = refuse(502, "unexpected_101")
)

// head is what the fields of one head say about its framing and its hop.
type head struct {
	length    int64 // -1 where there is no Content-Length
	chunked   bool
	close     bool
	keepAlive bool
	upgrade   bool // Connection: upgrade
	hosts     int
	host      span
	proto     span // Upgrade's value
	expect    bool
	nominates bool // Connection names further fields
	options   int  // of Connection
}

// maxOptions bounds the options of Connection fields, each of which is looked for among all fields.
const maxOptions = 64

type span struct{ lo, hi int }

func (s span) in(b []byte) []byte { return b[s.lo:s.hi] }

// parseRequest reads the request head at the start of b into q. It returns the head's size, 0 where the head is not
// complete yet. What frames the body is in q.
func parseRequest(b []byte, q *codec.Request, lim *Limits) (size int, f framing, err error) {
	q.Reset()
	eol := bytes.IndexByte(b, '\n')
	if eol < 0 {
		return 0, f, incompleteLine(b, lim)
	}
	method, target, minor, err := requestLine(b[:eol+1], lim)
	if err != nil {
		return 0, f, err
	}
	var h head
	size, err = fields(b, eol+1, &q.Header, lim, &h)
	if size == 0 || err != nil {
		return 0, f, err
	}
	own := q.Header.Own(b[:size])
	q.HeadBytes = size
	q.Protocol = mesh.HTTP11
	if minor == '0' {
		q.Protocol = mesh.HTTP10
		if !lim.HTTP10 {
			return 0, f, errVersion10
		}
	}
	q.Method = method.in(own)
	if err := frame(q, own, target.in(own), &h, lim); err != nil {
		return 0, f, err
	}
	if h.nominates {
		f.hop = nominated(&q.Header)
	}
	f.close = h.close || minor == '0' && !h.keepAlive
	return size, f, nil
}

// incompleteLine refuses early what cannot become a request line.
func incompleteLine(b []byte, lim *Limits) error {
	if len(b) > 0 && !header.IsToken(b[0]) {
		return errRequestLine
	}
	if len(b) > lim.TargetBytes+64 {
		return errTargetLong
	}
	return nil
}

// requestLine takes "METHOD SP target SP HTTP/1.x CRLF" apart (RFC 9112 section 3).
func requestLine(l []byte, lim *Limits) (method, target span, minor byte, err error) {
	n := len(l)
	if n < len("M / HTTP/1.1\r\n") || l[n-2] != '\r' {
		return method, target, 0, errRequestLine
	}
	l = l[:n-2]
	sp := 0
	for sp < len(l) && header.IsToken(l[sp]) {
		sp++
	}
	if sp == 0 || sp > 32 || sp == len(l) || l[sp] != ' ' {
		return method, target, 0, errMethod
	}
	tail := len(l) - len(" HTTP/1.1")
	if tail <= sp+1 || string(l[tail:tail+6]) != " HTTP/" {
		return method, target, 0, errRequestLine
	}
	if v := string(l[tail+6:]); v != "1.1" && v != "1.0" {
		return method, target, 0, errVersion
	}
	t := l[sp+1 : tail]
	if len(t) > lim.TargetBytes {
		return method, target, 0, errTargetLong
	}
	if !codec.ValidTarget(t) {
		return method, target, 0, errTarget
	}
	return span{0, sp}, span{sp + 1, tail}, l[len(l)-1], nil
}

// parseResponse reads the response head at the start of b into r. It returns the head's size, 0 where the head is not
// complete yet. ask is the request's method where it is HEAD or CONNECT; switching says that it asked to switch protocols.
func parseResponse(b []byte, r *codec.Response, lim *Limits, ask string, switching bool) (size int, f framing, err error) {
	r.Reset()
	eol := bytes.IndexByte(b, '\n')
	if eol < 0 {
		if len(b) > 1024 {
			return 0, f, errStatusLine
		}
		return 0, f, nil
	}
	minor, err := statusLine(b[:eol+1], r)
	if err != nil {
		return 0, f, err
	}
	var h head
	size, err = fields(b, eol+1, &r.Header, lim, &h)
	if size == 0 || err != nil {
		return 0, f, err
	}
	r.Header.Own(b[:size])
	r.HeadBytes = size
	r.Protocol = mesh.HTTP11
	if minor == '0' {
		r.Protocol = mesh.HTTP10
	}
	if h.nominates {
		f.hop = nominated(&r.Header)
	}
	if f.body, err = frameResponse(r, &h, ask, switching, minor); err != nil {
		return 0, f, err
	}
	f.close = h.close || minor == '0' && !h.keepAlive
	return size, f, nil
}

// framing is how a message's body ends, and whether its head says that the connection ends with it.
type framing struct {
	body  bodyMode
	close bool
	// hop names the fields that end at this hop, in the trailer section too. It lives as long as the head.
	hop [][]byte
}

// statusLine takes "HTTP/1.x SP 3DIGIT [SP reason] CRLF" apart (RFC 9112 section 4). The reason is not kept.
func statusLine(l []byte, r *codec.Response) (minor byte, err error) {
	n := len(l)
	if n < len("HTTP/1.1 200\r\n") || l[n-2] != '\r' || string(l[:7]) != "HTTP/1." || l[8] != ' ' {
		return 0, errStatusLine
	}
	if l[7] != '1' && l[7] != '0' || n > 14 && l[12] != ' ' {
		return 0, errStatusLine
	}
	for _, c := range l[9:12] {
		if c-'0' > 9 {
			return 0, errStatusLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || r.Status > 599 {
		return 0, errStatusLine
	}
	if n > 14 && codec.Control(l[13:n-2]) != n-15 {
		return 0, errStatusLine
	}
	return l[7], nil
}

// frameResponse finds the length of a response's body, by the rules of RFC 9112 section 6.3 in their order.
func frameResponse(r *codec.Response, h *head, ask string, switching bool, minor byte) (bodyMode, error) {
	switch {
	case r.Status == 101 || ask == "CONNECT" && r.Status/100 == 2:
		// Only what was asked for.
		if !switching || r.Status == 101 && !h.upgrade {
			return noBody, errSwitch
		}
		r.Switched, r.Upgrade = true, h.proto.in(r.Header.Bytes())
		r.Header.RemoveID(header.ContentLength)
		r.Length = codec.Unknown
		return toClose, nil
	case h.chunked && h.length >= 0:
		return noBody, errLengthCoding
	case h.chunked && minor == '0':
		return noBody, errCodingVersion
	case r.Status < 200 || r.Status == 204:
		r.Header.RemoveID(header.ContentLength)
		return noBody, nil
	case r.Status == 304 || ask == "HEAD":
		return noBody, nil
	case h.chunked:
		r.Length = codec.Unknown
		return byChunks, nil
	case h.length >= 0:
		r.Length = h.length
		return byLength, nil
	}
	r.Length = codec.Unknown
	return toClose, nil
}

// frame finds a request's target, authority and body length.
func frame(q *codec.Request, own, target []byte, h *head, lim *Limits) error {
	// RFC 9112 section 3.2 asks for one valid host field also where the target says the same.
	host := h.host.in(own)
	switch {
	case h.hosts > 1:
		return errHostTwice
	case h.hosts == 0 && q.Protocol == mesh.HTTP11:
		return errHostMissing
	case len(host) > 0 && !codec.ValidHost(host):
		return errHost
	}
	q.Authority = host
	if err := splitTarget(q, target); err != nil {
		return err
	}
	switch {
	case len(q.Authority) > 0:
	case q.Protocol == mesh.HTTP10 && h.hosts == 0 && lim.DefaultHost != "":
		q.Authority, q.HostStale = []byte(lim.DefaultHost), true
	default:
		return errHostMissing
	}
	if q.HostStale && !codec.ValidHost(q.Authority) {
		return errHost
	}
	if h.chunked && h.length >= 0 {
		return errLengthCoding
	}
	if h.chunked && q.Protocol == mesh.HTTP10 {
		return errCodingVersion
	}
	q.Expect = h.expect && q.Protocol == mesh.HTTP11
	switch {
	case h.chunked:
		q.Length = codec.Unknown
	case h.length > 0:
		q.Length = h.length
	}
	// An upgrade may be ignored (RFC 9110 section 7.8), and is where a body comes or is announced with it, or where it
	// asks for h2c, which Java's client puts on every request.
	if proto := h.proto.in(own); h.upgrade && q.Length == 0 && !q.Expect && q.Protocol == mesh.HTTP11 && !header.EqualFold(proto, "h2c") {
		q.Upgrade = proto
	}
	if string(q.Method) == "CONNECT" && (q.Length != 0 || h.length >= 0) {
		return errConnectBody
	}
	return nil
}

// splitTarget sorts the four forms of a request target (RFC 9112 section 3.2).
func splitTarget(q *codec.Request, t []byte) error {
	connect := string(q.Method) == "CONNECT"
	switch {
	case connect:
		// RFC 9110 section 9.3.6: there is no default port.
		port, ok := ascii.Decimal(t[bytes.LastIndexByte(t, ':')+1:], 5)
		if bytes.IndexByte(t, '/') >= 0 || bytes.IndexByte(t, ':') < 0 || !ok || port == 0 || port > 65535 {
			return errTarget
		}
		// RFC 9112 section 3.2.3: the target is the authority.
		q.HostStale = q.HostStale || !bytes.Equal(q.Authority, t)
		q.Authority = t
	case t[0] == '/':
		q.Path = t
	case len(t) == 1 && t[0] == '*' && string(q.Method) == "OPTIONS":
		q.Path = t
	default:
		return absoluteForm(q, t)
	}
	return nil
}

// absoluteForm takes "http://authority/path" apart. A proxy ignores the host field then (RFC 9112 section 3.2.2).
func absoluteForm(q *codec.Request, t []byte) error {
	i := bytes.Index(t, []byte("://"))
	if i < 0 || !header.EqualFold(t[:i], "http") && !header.EqualFold(t[:i], "https") {
		return errTarget
	}
	q.Scheme = t[:i]
	rest := t[i+3:]
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if !bytes.Equal(q.Authority, rest[:end]) {
		q.HostStale = true
	}
	q.Authority, q.Path = rest[:end], rest[end:]
	if len(q.Authority) == 0 {
		return errHost
	}
	if len(q.Path) == 0 && string(q.Method) == "OPTIONS" {
		q.SetPath([]byte{'*'}) // RFC 9112 section 3.2.4: it is about the server as a whole
	} else if len(q.Path) == 0 || q.Path[0] == '?' {
		// RFC 9112 section 3.2.1: an empty path is sent as "/".
		path := append([]byte{'/'}, q.Path...)
		q.SetPath(path)
	}
	return nil
}

// fields reads field lines from p on, to the empty line. It returns the size of the head, 0 where it is not complete.
func fields(b []byte, p int, l *header.List, lim *Limits, h *head) (size int, err error) {
	h.length = -1
	n := 0
	for {
		if len(b)-p < 2 {
			if p > lim.HeadBytes {
				return 0, errHeadLarge
			}
			return 0, partField(b, p)
		}
		if b[p] == '\r' {
			if b[p+1] != '\n' {
				return 0, errFieldName
			}
			if p+2 > lim.HeadBytes {
				return 0, errHeadLarge
			}
			return p + 2, nil
		}
		name := p
		for p < len(b) && header.IsToken(b[p]) {
			p++
		}
		if p == len(b) {
			return 0, partHead(p, lim)
		}
		if b[p] != ':' || p == name {
			return 0, nameError(b[name], p == name)
		}
		nameEnd := p
		p++
		ows := p
		for p < len(b) && (b[p] == ' ' || b[p] == '\t') {
			p++
		}
		value := p
		p += codec.Control(b[p:])
		if len(b)-p < 2 {
			if p < len(b) && b[p] != '\r' {
				return 0, errFieldValue
			}
			return 0, partHead(p, lim)
		}
		if b[p] != '\r' || b[p+1] != '\n' {
			return 0, errFieldValue // NUL, a bare CR or LF, another control byte
		}
		end := p
		for end > value && (b[end-1] == ' ' || b[end-1] == '\t') {
			end--
		}
		p += 2
		if n++; n > lim.Fields {
			return 0, errManyFields
		}
		if end-value > lim.ValueBytes {
			return 0, errValueLarge
		}
		id := header.IDOf(b[name:nameEnd])
		l.Append(id, name, nameEnd, value, end, value == ows+1 && b[ows] == ' ' && end+2 == p)
		if id != header.None {
			if err := h.note(id, b, span{value, end}, l); err != nil {
				return 0, err
			}
		}
	}
}

func partHead(p int, lim *Limits) error {
	if p > lim.HeadBytes {
		return errHeadLarge
	}
	return nil
}

// partField refuses what cannot begin a field line, when no more than one byte of it is here.
func partField(b []byte, p int) error {
	if p < len(b) && b[p] != '\r' && !header.IsToken(b[p]) {
		return nameError(b[p], true)
	}
	return nil
}

func nameError(first byte, empty bool) error {
	if empty && (first == ' ' || first == '\t') {
		return errFold
	}
	return errFieldName
}

// note takes in what a field says about framing or about this hop; those that end at this hop leave the list.
func (h *head) note(id header.ID, b []byte, v span, l *header.List) error {
	val := v.in(b)
	switch id {
	case header.Host:
		h.hosts++
		h.host = v
	case header.ContentLength:
		if h.length >= 0 {
			return errLengthTwice
		}
		n, ok := ascii.Decimal(val, 18)
		if !ok {
			return errLength
		}
		h.length = n
	case header.TransferEncoding:
		if h.chunked {
			return errCodingTwice
		}
		if !header.EqualFold(val, "chunked") {
			return codingError(val)
		}
		h.chunked = true
		l.DropLast()
	case header.Connection:
		h.connection(val)
		if h.options > maxOptions {
			return errOptions
		}
		// It stays until nominated has read it where it names other fields.
		if !h.nominates {
			l.DropLast()
		}
	case header.Upgrade:
		h.proto = v
		l.DropLast()
	case header.Expect:
		if !header.EqualFold(val, "100-continue") {
			return errExpect
		}
		h.expect = true
		l.DropLast()
	case header.KeepAlive, header.ProxyConnection, header.TE, header.Trailer:
		l.DropLast()
	}
	return nil
}

// codingError refuses codings other than chunked alone (RFC 9112 section 6.3): where chunked is not the last, nobody can
// tell how long the body is.
func codingError(val []byte) error {
	if last := val[bytes.LastIndexByte(val, ',')+1:]; header.EqualFold(bytes.Trim(last, " \t"), "chunked") {
		return errCoding
	}
	return errCodingLast
}

// connection reads the options of a Connection field (RFC 9110 section 7.6.1).
func (h *head) connection(val []byte) {
	eachToken(val, func(tok []byte) {
		h.options++
		switch {
		case header.EqualFold(tok, "close"):
			h.close = true
		case header.EqualFold(tok, "keep-alive"):
			h.keepAlive = true
		case header.EqualFold(tok, "upgrade"):
			h.upgrade = true
		case header.EqualFold(tok, "te"):
		case len(tok) > 0:
			h.nominates = true
		}
	})
}

// nominated removes the fields that Connection names, and Connection itself, and returns the names. What frames or
// addresses the message is not for a client to take away.
func nominated(l *header.List) (names [][]byte) {
	l.Values("connection", func(v []byte) bool {
		eachToken(v, func(tok []byte) {
			if id := header.IDOf(tok); id != header.Host && id != header.ContentLength {
				names = append(names, tok)
			}
		})
		return true
	})
	l.RemoveID(header.Connection)
	remove(l, names)
	return names
}

func remove(l *header.List, names [][]byte) {
	for _, n := range names {
		l.Remove(string(bytes.ToLower(n)))
	}
}

// offered reports whether all protocols that an answer switches to, and one at least, are among those asked for (RFC 9110
// section 7.8).
func offered(asked, got []byte) bool {
	some, all := false, true
	eachToken(got, func(g []byte) {
		found := len(g) == 0
		eachToken(asked, func(a []byte) { found = found || bytes.EqualFold(a, g) })
		some, all = some || len(g) > 0, all && found
	})
	return some && all
}

// eachToken calls f for each element of a comma-separated list.
func eachToken(val []byte, f func(tok []byte)) {
	for len(val) > 0 {
		tok := val
		if i := bytes.IndexByte(val, ','); i >= 0 {
			tok, val = val[:i], val[i+1:]
		} else {
			val = nil
		}
		f(bytes.Trim(tok, " \t"))
	}
}
