// SPDX-License-Identifier: Apache-2.0

package inspect

import "strings"

// MaxClientHello is the most bytes that the TLS inspector looks at, record headers included; Envoy has the same bound.
const MaxClientHello = 16 << 10

// maxALPN bounds the protocols a client may offer. Clients offer two or three; a hello of MaxClientHello could hold 8,000.
const maxALPN = 128

// tlsInspector finds the SNI and the ALPN list in a ClientHello (RFC 8446 4.1.2), which may be spread over any number of
// records and segments.
//
// A connection is TLS once its first six bytes can be nothing else: a handshake record that begins with a ClientHello.
// Until then the first byte that does not fit makes it raw_buffer. From then on a mistake closes the connection: to
// pass a hello that only we cannot read to a chain for plain text would let a client choose its chain. Envoy does that
// unless close_connection_on_client_hello_parsing_errors is set.
type tlsInspector struct {
	limit int
	// onlyTLS closes what is not TLS.
	onlyTLS bool
}

// Limit implements Peeker.
func (t *tlsInspector) Limit() int { return t.limit }

// Inspect implements Peeker.
func (t *tlsInspector) Inspect(peeked []byte, end bool, info *ConnInfo) Verdict {
	switch beginsTLS(peeked) {
	case no:
		if t.onlyTLS {
			return Reject
		}
		info.Transport = RawBuffer
		return Done
	case perhaps:
		if !end {
			return More
		}
		// Fewer than six bytes, and no more to come: a hello it is not.
		if t.onlyTLS {
			return Reject
		}
		info.Transport = RawBuffer
		return Done
	}
	msg, state := reassemble(peeked, t.limit)
	switch {
	case state == no, state == perhaps && (end || len(peeked) >= t.limit):
		return Reject
	case state == perhaps:
		return More
	}
	name, alpn, ok := parseHello(msg)
	if !ok {
		return Reject
	}
	hello := info.Greet()
	info.Transport, hello.ServerName = TLS, name
	if len(alpn) > 0 {
		hello.ApplicationProtocols = alpn
	}
	return Done
}

// answer is what can be said of bytes that may not be all.
type answer uint8

const (
	perhaps answer = iota
	yes
	no
)

const (
	recordHeader    = 5
	maxRecord       = 1 << 14 // RFC 8446 5.1
	contentHand     = 22      // handshake
	majorVersion    = 3
	messageHeader   = 4
	typeClientHello = 1
)

// beginsTLS reports whether p begins with a handshake record that begins with a ClientHello. The minor version is not
// looked at, as RFC 8446 5.1 asks. A major version that is not 3 is no reason to call it plain text, since some stacks
// (crypto/tls) accept it up to 15; record refuses it.
func beginsTLS(p []byte) answer {
	for i, b := range p[:min(len(p), recordHeader+1)] {
		var fits bool
		switch i {
		case 0:
			fits = b == contentHand
		case 1:
			fits = b < 0x10
		case 2:
			fits = true
		case 3:
			fits = b <= maxRecord>>8
		case 4:
			n := int(p[3])<<8 | int(b)
			fits = n > 0 && n <= maxRecord
		case 5:
			fits = b == typeClientHello
		}
		if !fits {
			return no
		}
	}
	if len(p) <= recordHeader {
		return perhaps
	}
	return yes
}

// reassemble returns the first handshake message of p without the record headers, once it is complete. It answers no
// where the records are not as they must be, or the message does not fit into limit. Only a message in several records
// is copied, and only when it is complete.
func reassemble(p []byte, limit int) (msg []byte, state answer) {
	var head [messageHeader]byte
	have, need := 0, 0
	for pos := 0; pos < len(p); {
		body, next, state := record(p, pos)
		if state != yes {
			return nil, state
		}
		if have < messageHeader {
			copy(head[have:], body)
		}
		have += len(body)
		if need == 0 && have >= messageHeader {
			need = messageHeader + (int(head[1])<<16 | int(head[2])<<8 | int(head[3]))
			if need > limit-recordHeader {
				return nil, no
			}
		}
		if need > 0 && have >= need {
			if pos == 0 {
				return body[:need], yes
			}
			return gather(p, need), yes
		}
		pos = next
	}
	return nil, perhaps
}

// record returns what has come of the body of the record at p[pos:], and where the next one begins. Between the records
// of one message there may be no others (RFC 8446 5.1).
func record(p []byte, pos int) (body []byte, next int, state answer) {
	h := p[pos:]
	if h[0] != contentHand || len(h) > 1 && h[1] != majorVersion {
		return nil, 0, no
	}
	if len(h) < recordHeader {
		return nil, 0, perhaps
	}
	n := int(h[3])<<8 | int(h[4])
	if n == 0 || n > maxRecord {
		return nil, 0, no
	}
	return h[recordHeader:min(len(h), recordHeader+n)], pos + recordHeader + n, yes
}

// gather copies the first need bytes of the records' bodies together. reassemble has seen that they are there.
func gather(p []byte, need int) []byte {
	msg := make([]byte, 0, need)
	for pos := 0; len(msg) < need; {
		body, next, _ := record(p, pos)
		msg = append(msg, body[:min(len(body), need-len(msg))]...)
		pos = next
	}
	return msg
}

// The extensions that are looked at.
const (
	extServerName = 0
	extALPN       = 16
)

// parseHello reads a ClientHello message. ok is false where it is malformed, names an extension twice, or holds an SNI
// or ALPN list that a TLS stack would refuse.
func parseHello(msg []byte) (name string, alpn []string, ok bool) {
	r := reader(msg[messageHeader:])
	if !r.skip(2 + 32) { // legacy_version, random
		return "", nil, false
	}
	session, ok1 := r.vec8()
	ciphers, ok2 := r.vec16()
	compression, ok3 := r.vec8()
	if !ok1 || !ok2 || !ok3 || len(session) > 32 || len(ciphers) < 2 || len(ciphers)%2 != 0 || len(compression) == 0 {
		return "", nil, false
	}
	if len(r) == 0 { // before TLS 1.3 the extensions may be absent
		return "", nil, true
	}
	exts, ok := r.vec16()
	if !ok || len(r) != 0 {
		return "", nil, false
	}
	var seen [1 << 16 / 64]uint64
	for len(exts) > 0 {
		typ, ok1 := exts.u16()
		body, ok2 := exts.vec16()
		if !ok1 || !ok2 || seen[typ/64]&(1<<(typ%64)) != 0 {
			return "", nil, false
		}
		seen[typ/64] |= 1 << (typ % 64)
		ok := true
		switch typ {
		case extServerName:
			name, ok = serverName(body)
		case extALPN:
			alpn, ok = protocols(body)
		}
		if !ok {
			return "", nil, false
		}
	}
	return name, alpn, true
}

// serverName reads the server_name extension: exactly one host name (RFC 6066 3), of visible ASCII, without a dot at
// either end, in lower case.
func serverName(r reader) (string, bool) {
	list, ok := r.vec16()
	if !ok || len(r) != 0 {
		return "", false
	}
	typ, ok1 := list.u8()
	host, ok2 := list.vec16()
	if !ok1 || !ok2 || typ != 0 || len(list) != 0 || len(host) == 0 || len(host) > 255 {
		return "", false
	}
	for _, b := range host {
		if b <= ' ' || b > '~' {
			return "", false
		}
	}
	if host[0] == '.' || host[len(host)-1] == '.' {
		return "", false
	}
	return strings.ToLower(string(host)), true
}

// protocols reads the ALPN extension (RFC 7301 3.1).
func protocols(r reader) ([]string, bool) {
	list, ok := r.vec16()
	if !ok || len(r) != 0 || len(list) == 0 {
		return nil, false
	}
	n := 0
	for rest := list; len(rest) > 0; n++ {
		p, ok := rest.vec8()
		if !ok || len(p) == 0 || n == maxALPN {
			return nil, false
		}
	}
	all := string(list) // one allocation for all names
	out := make([]string, 0, n)
	for len(all) > 0 {
		end := 1 + int(all[0])
		out = append(out, all[1:end])
		all = all[end:]
	}
	return out, true
}

// reader takes TLS's vectors off the front of a message.
type reader []byte

func (r *reader) skip(n int) bool {
	_, ok := r.take(n)
	return ok
}

func (r *reader) take(n int) (reader, bool) {
	if len(*r) < n {
		return nil, false
	}
	b := (*r)[:n]
	*r = (*r)[n:]
	return b, true
}

func (r *reader) u8() (int, bool) {
	b, ok := r.take(1)
	if !ok {
		return 0, false
	}
	return int(b[0]), true
}

func (r *reader) u16() (int, bool) {
	b, ok := r.take(2)
	if !ok {
		return 0, false
	}
	return int(b[0])<<8 | int(b[1]), true
}

func (r *reader) vec8() (reader, bool) {
	n, ok := r.u8()
	if !ok {
		return nil, false
	}
	return r.take(n)
}

func (r *reader) vec16() (reader, bool) {
	n, ok := r.u16()
	if !ok {
		return nil, false
	}
	return r.take(n)
}
