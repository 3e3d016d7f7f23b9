// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"

	"github.com/meshtap/meshtap/internal/ascii"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
)

// refusal says what is wrong with a message. One that is malformed (RFC 9113 section 8.1.1) has its stream reset, others
// are answered.
type refusal struct {
	codec.ProtocolError
	malformed bool
}

func malformed(code string) *refusal {
	return &refusal{codec.ProtocolError{Status: 400, Code: code}, true}
}

func refuse(status int, code string) *refusal {
	return &refusal{codec.ProtocolError{Status: status, Code: code}, false}
}

// The refusals. Those that HTTP/1.1 has too have the same names there.
var (
	errFieldName      = malformed("bad_field_name")
	errFieldValue     = malformed("bad_field_value")
	errPseudo         = malformed("unexpected_pseudo_header")
	errPseudoOrder    = malformed("pseudo_header_behind_fields")
	errPseudoTwice    = malformed("pseudo_header_repeated")
	errPseudoMissing  = malformed("pseudo_header_missing")
	errHop            = malformed("connection_specific_field")
	errHostTwice      = malformed("host_repeated")
	errHostDiffers    = malformed("host_and_authority_differ")
	errMethod         = malformed("bad_method")
	errPath           = malformed("bad_path")
	errProtocol       = malformed("extended_connect_not_allowed")
	errLength         = malformed("bad_content_length")
	errLengthTwice    = malformed("content_length_repeated")
	errLengthBody     = malformed("content_length_and_body_differ")
	errConnectBody    = malformed("connect_with_body")
	errStatus         = malformed("bad_status")
	errInterimEnd     = malformed("interim_answer_with_end")
	errDataFirst      = malformed("data_before_head")
	errTrailersOpen   = malformed("trailers_without_end")
	errHeadLarge      = refuse(431, "head_too_large")
	errManyFields     = refuse(431, "too_many_fields")
	errValueLarge     = refuse(431, "field_value_too_large")
	errTargetLong     = refuse(414, "request_target_too_long")
	errTarget         = refuse(400, "bad_request_target")
	errScheme         = refuse(400, "scheme_not_supported")
	errHostMissing    = refuse(400, "host_missing")
	errHost           = refuse(400, "bad_host")
	errExpect         = refuse(417, "expectation_not_supported")
	errTrailers       = refuse(431, "trailers_too_large")
	errInterims       = refuse(502, "too_many_interim_answers")
	errNoConnect      = &codec.ProtocolError{Status: 502, Code: "extended_connect_not_supported"}
	errCompression    = connError(CompressionError, "header block cannot be read")
	errContinuations  = connError(EnhanceYourCalm, "too many CONTINUATION frames")
	errBlockTooLarge  = connError(EnhanceYourCalm, "header block too large")
	errBlockInterrupt = connError(ProtocolError, "another frame inside a header block")
)

// section reads one header section. It belongs to the connection's turn.
type section struct {
	dec *decoder
	cfg *Config

	f                 field
	limit, most, size int // of the section's bytes; fields counts against most
	fields            int
	seen              uint16 // pseudo-header fields, by class
	any               bool   // a field that is none was there
	bad               *refusal
	cookie            []byte
	host              []byte
	hosts             int
	length            int64 // -1 where there is none
	status            int
}

// begin prepares for a section within these limits.
func (s *section) begin(limit, most int) {
	s.limit, s.most, s.size, s.fields, s.seen, s.any, s.bad = limit, most, 0, 0, 0, false, nil
	s.cookie, s.host, s.hosts, s.length, s.status = s.cookie[:0], s.host[:0], 0, -1, 0
	s.dec.begin()
}

// next reads on to the next field that counts. The block is read to its end also when its section was refused: the table
// must not fall behind.
func (s *section) next(p []byte) (rest []byte, ok bool, err error) {
	for len(p) > 0 {
		var got bool
		if p, got, ok = s.dec.next(p, &s.f); !ok {
			return nil, false, errCompression
		}
		if !got || s.bad != nil {
			continue
		}
		if s.check(&s.f); s.bad == nil {
			return p, true, nil
		}
	}
	return nil, false, nil
}

// check applies what holds for all fields.
func (s *section) check(f *field) {
	s.size += f.size()
	if !f.class.isPseudo() {
		s.fields++
		s.any = true
	}
	switch {
	case s.size > s.limit:
		s.bad = errHeadLarge
	case s.fields > s.most:
		s.bad = errManyFields
	case f.class == badName:
		s.bad = errFieldName
	case f.badValue:
		s.bad = errFieldValue
	case f.class == hopByHop, f.class == fieldTE && !header.EqualFold(f.value(), "trailers"):
		s.bad = errHop
	case f.class.isPseudo() && s.any:
		s.bad = errPseudoOrder
	case f.class.isPseudo() && s.seen&(1<<f.class) != 0:
		s.bad = errPseudoTwice
	case f.class == pseudoPath && len(f.value()) > s.cfg.TargetBytes:
		s.bad = errTargetLong
	case len(f.value()) > s.cfg.ValueBytes:
		s.bad = errValueLarge
	}
	if f.class.isPseudo() {
		s.seen |= 1 << f.class
	}
}

func (s *section) has(c class) bool { return s.seen&(1<<c) != 0 }

// wire is the bytes of all names and values.
func (s *section) wire() int { return s.size - 32*(s.fields+pseudoCount(s.seen)) }

func pseudoCount(seen uint16) (n int) {
	for ; seen != 0; seen &= seen - 1 {
		n++
	}
	return n
}

// skip reads a block whose fields nobody wants.
func (s *section) skip(p []byte) error {
	s.begin(0, 0)
	s.bad = errHeadLarge
	_, _, err := s.next(p)
	return err
}

// contentLength takes a Content-Length field.
func (s *section) contentLength(l *header.List) {
	n, ok := ascii.Decimal(s.f.value(), 18)
	switch {
	case s.length >= 0:
		s.bad = errLengthTwice
	case !ok:
		s.bad = errLength
	default:
		s.length = n
		l.AddLine(s.f.id, s.f.line, s.f.n)
	}
}

// request reads a request's head into q; end says that no body follows.
func (s *section) request(p []byte, q *codec.Request, end bool) (*refusal, error) {
	s.begin(s.cfg.HeadBytes, s.cfg.Fields)
	var protocol []byte
	for {
		rest, ok, err := s.next(p)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		p = rest
		f := &s.f
		switch f.class {
		case pseudoMethod:
			q.Method = q.Header.Hold(f.value())
		case pseudoScheme:
			q.Scheme = q.Header.Hold(f.value())
		case pseudoAuthority:
			q.Authority = q.Header.Hold(f.value())
		case pseudoPath:
			q.Path = q.Header.Hold(f.value())
		case pseudoProtocol:
			protocol = q.Header.Hold(f.value())
		case pseudoStatus, unknownPseudo:
			s.bad = errPseudo
		case fieldHost:
			s.hosts++
			s.host = append(s.host[:0], f.value()...)
		case fieldLength:
			s.contentLength(&q.Header)
		case fieldExpect:
			if q.Expect = true; !header.EqualFold(f.value(), "100-continue") {
				s.bad = errExpect
			}
		case fieldCookie:
			s.addCookie()
		case fieldTrailer:
		default:
			q.Header.AddLine(f.id, f.line, f.n)
		}
	}
	q.Protocol, q.HeadBytes = mesh.HTTP2, s.wire()
	if s.bad == nil {
		s.bad = s.control(q, protocol)
	}
	if s.bad == nil {
		s.bad = s.frame(q, end)
	}
	if len(s.cookie) > 0 {
		q.Header.Add("cookie", s.cookie)
	}
	return s.bad, nil
}

// addCookie joins the crumbs of a cookie (RFC 9113 section 8.2.3).
func (s *section) addCookie() {
	if len(s.cookie) > 0 {
		s.cookie = append(s.cookie, "; "...)
	}
	if s.cookie = append(s.cookie, s.f.value()...); len(s.cookie) > s.cfg.ValueBytes {
		s.bad = errValueLarge
	}
}

// control checks the control data (RFC 9113 sections 8.3.1 and 8.5, RFC 8441 section 4).
func (s *section) control(q *codec.Request, protocol []byte) *refusal {
	if !s.has(pseudoMethod) {
		return errPseudoMissing
	}
	if len(q.Method) > 32 || !header.ValidName(q.Method) {
		return errMethod
	}
	connect := string(q.Method) == "CONNECT"
	switch {
	case connect && !s.has(pseudoProtocol):
		if s.has(pseudoScheme) || s.has(pseudoPath) {
			return errPseudo
		}
		if !s.has(pseudoAuthority) {
			return errPseudoMissing
		}
	case !s.has(pseudoScheme) || !s.has(pseudoPath):
		return errPseudoMissing
	case s.has(pseudoProtocol) && (!connect || !s.has(pseudoAuthority) || !s.cfg.ExtendedConnect || !header.ValidName(protocol)):
		return errProtocol
	default:
		if r := checkPath(q); r != nil {
			return r
		}
	}
	if r := s.authority(q); r != nil {
		return r
	}
	if connect {
		if len(protocol) == 0 {
			if bytes.IndexByte(q.Authority, ':') < 0 {
				return errTarget
			}
			return nil
		}
		// To everything above, this is what an Upgrade of HTTP/1.1 is.
		q.Method, q.Upgrade = q.Method[:copy(q.Method, "GET")], protocol
	}
	return nil
}

// checkPath holds scheme and path to what a request target of HTTP/1.1 can be.
func checkPath(q *codec.Request) *refusal {
	switch {
	case !header.EqualFold(q.Scheme, "http") && !header.EqualFold(q.Scheme, "https"):
		return errScheme
	case len(q.Path) == 0:
		return errPath
	case !codec.ValidTarget(q.Path):
		return errTarget
	case q.Path[0] == '/', len(q.Path) == 1 && q.Path[0] == '*' && string(q.Method) == "OPTIONS":
		return nil
	}
	return errPath
}

// authority settles whom the request is for. The host field leaves the list: it says nothing that Authority does not.
func (s *section) authority(q *codec.Request) *refusal {
	switch {
	case s.hosts > 1:
		return errHostTwice
	case s.hosts == 1 && !s.has(pseudoAuthority):
		q.Authority = q.Header.Hold(s.host)
	case s.hosts == 1 && !bytes.EqualFold(q.Authority, s.host):
		return errHostDiffers
	}
	if len(q.Authority) == 0 {
		return errHostMissing
	}
	if !codec.ValidHost(q.Authority) {
		return errHost
	}
	return nil
}

// frame finds the length of a request's body.
func (s *section) frame(q *codec.Request, end bool) *refusal {
	switch {
	case string(q.Method) == "CONNECT" || len(q.Upgrade) > 0:
		// What follows is not the request's (RFC 9110 section 9.3.6).
		if s.length >= 0 {
			return errConnectBody
		}
	case end && s.length > 0:
		return errLengthBody
	case end:
	case s.length >= 0:
		q.Length = s.length
	default:
		q.Length = codec.Unknown
	}
	return nil
}

// response reads the head of an answer to a request with this method into r.
func (s *section) response(p []byte, r *codec.Response) (*refusal, error) {
	r.Reset()
	s.begin(s.cfg.HeadBytes, s.cfg.Fields)
	for {
		rest, ok, err := s.next(p)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		p = rest
		f := &s.f
		switch f.class {
		case pseudoStatus:
			n, ok := ascii.Decimal(f.value(), 3)
			if r.Status = int(n); !ok || n < 100 || n > 599 || n == 101 || len(f.value()) != 3 {
				s.bad = errStatus
			}
		case unknownPseudo, pseudoMethod, pseudoScheme, pseudoAuthority, pseudoPath, pseudoProtocol:
			s.bad = errPseudo
		case fieldLength:
			s.contentLength(&r.Header)
		case fieldTrailer, fieldTE:
		default:
			r.Header.AddLine(f.id, f.line, f.n)
		}
	}
	r.Protocol, r.HeadBytes = mesh.HTTP2, s.wire()
	if s.bad == nil && !s.has(pseudoStatus) {
		s.bad = errPseudoMissing
	}
	return s.bad, nil
}

// trailers reads a trailer section into l.
func (s *section) trailers(p []byte, l *header.List) (*refusal, error) {
	l.Reset()
	s.begin(s.cfg.TrailerBytes, s.cfg.Trailers)
	for {
		rest, ok, err := s.next(p)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		p = rest
		if s.f.class.isPseudo() {
			s.bad = errPseudo
			continue
		}
		l.AddLine(s.f.id, s.f.line, s.f.n)
	}
	if s.bad != nil && !s.bad.malformed {
		s.bad = errTrailers
	}
	codec.DropFromTrailers(l)
	return s.bad, nil
}

// trim gives back what a large section needed.
func (s *section) trim() {
	if cap(s.cookie) > 4<<10 {
		s.cookie = nil
	}
	s.dec.trim()
}
