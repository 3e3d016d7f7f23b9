// SPDX-License-Identifier: Apache-2.0

package als

import (
	"crypto/x509"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/meshtap/meshtap/mesh"
)

// Kind is the kind of entries that a message holds, by the field that holds them.
type Kind uint8

// The kinds of entries.
const (
	HTTP Kind = 2
	TCP  Kind = 3
)

// Extra is what an entry has beside what every entry has.
type Extra struct {
	// RequestHeaders, ResponseHeaders and ResponseTrailers are names, in lower case, of fields that are told. Of several
	// with a name the first one is.
	RequestHeaders, ResponseHeaders, ResponseTrailers []string
	// Tags are custom tags.
	Tags []Tag
	// State is a filter state object, a message of the type StateType; nil for none.
	StateKey, StateType string
	State               []byte
}

// Tag is a custom tag: the value of a request's header where Header is not "", else or where there is none Value. One
// that is empty is left out.
type Tag struct {
	Name, Value, Header string
}

// Append appends an entry for an outcome, as one of the log_entry of a message: an HTTPAccessLogEntry or a
// TCPAccessLogEntry of envoy.data.accesslog.v3. Nothing of the outcome is kept.
func Append(dst []byte, kind Kind, o *mesh.Outcome, x *Extra) []byte {
	dst, at := open(dst, 1)
	dst = common(dst, kind, o, x)
	if kind == TCP {
		dst = connection(dst, o)
	} else {
		dst = appendInt(dst, 2, uint64(o.Protocol)) // HTTP10, HTTP11 and HTTP2 have our numbers
		dst = response(request(dst, o, x), o, x)
	}
	return end(dst, at)
}

// The log types of common_properties.
const (
	tcpConnectionEnd = 3
	downstreamEnd    = 6
)

// common appends the AccessLogCommon.
func common(dst []byte, kind Kind, o *mesh.Outcome, x *Extra) []byte {
	dst, at := open(dst, 1)
	dst = appendAddrPort(dst, 2, o.Remote)
	dst = appendAddrPort(dst, 3, o.Local)
	dst = secure(dst, o)
	dst = appendSpan(dst, 5, o.Start)
	dst = appendSpan(dst, 6, o.RequestEnd)
	if kind == HTTP { // of a connection, as in Envoy, they are not told
		dst = times(dst, o)
	}
	dst = appendAddress(dst, 13, o.Upstream)
	dst = appendAddrPort(dst, 14, o.UpstreamLocal)
	dst = appendString(dst, 15, o.Cluster)
	dst = flags(dst, o.Flags)
	dst = appendString(dst, 18, o.TransportFailure)
	dst = appendString(dst, 19, o.RouteName)
	dst = appendAddrPort(dst, 20, o.DirectRemote)
	dst = state(dst, x)
	dst = tags(dst, o, x)
	dst = appendSpan(dst, 23, o.Duration)
	dst = appendInt(dst, 24, uint64(o.Attempts))
	dst = appendString(dst, 25, o.Termination)
	dst = appendBytes(dst, 26, o.RequestID)
	dst = appendString(dst, 28, o.DownstreamTransportFailure)
	dst = appendInt(dst, 31, uint64(o.UpstreamBytesSent))
	dst = appendInt(dst, 32, uint64(o.UpstreamBytesGotten))
	if kind == TCP {
		dst = appendInt(dst, 33, tcpConnectionEnd)
	} else {
		dst = appendInt(dst, 33, downstreamEnd)
	}
	return end(dst, at)
}

// times appends when a request passed what points.
func times(dst []byte, o *mesh.Outcome) []byte {
	dst = appendSpan(dst, 7, o.UpstreamStart)
	if o.UpstreamStart >= 0 && o.RequestEnd >= 0 {
		dst = appendSpan(dst, 8, max(o.UpstreamStart, o.RequestEnd))
	}
	dst = appendSpan(dst, 9, o.UpstreamFirst)
	dst = appendSpan(dst, 10, o.UpstreamEnd)
	return appendSpan(dst, 12, o.Duration)
}

// flagFields are the fields of ResponseFlags.
var flagFields = [...]struct {
	flag  mesh.Flags
	field protowire.Number
}{
	{mesh.FlagLH, 1}, {mesh.FlagUH, 2}, {mesh.FlagUT, 3}, {mesh.FlagLR, 4}, {mesh.FlagUR, 5}, {mesh.FlagUF, 6}, {mesh.FlagUC, 7},
	{mesh.FlagUO, 8}, {mesh.FlagNR, 9}, {mesh.FlagDI, 10}, {mesh.FlagFI, 11}, {mesh.FlagRL, 12}, {mesh.FlagRLSE, 14},
	{mesh.FlagDC, 15}, {mesh.FlagURX, 16}, {mesh.FlagSI, 17}, {mesh.FlagIH, 18}, {mesh.FlagDPE, 19}, {mesh.FlagUMSDR, 20},
	{mesh.FlagNFCF, 22}, {mesh.FlagDT, 23}, {mesh.FlagUPE, 24}, {mesh.FlagNC, 25}, {mesh.FlagOM, 26}, {mesh.FlagDF, 27},
}

func flags(dst []byte, f mesh.Flags) []byte {
	if f == 0 {
		return dst
	}
	dst, at := open(dst, 16)
	for _, x := range flagFields {
		if f&x.flag != 0 {
			dst = appendInt(dst, x.field, 1)
		}
	}
	if f&mesh.FlagUAEX != 0 {
		var reason int
		dst, reason = open(dst, 13)
		dst = end(appendInt(dst, 1, 1), reason) // EXTERNAL_SERVICE
	}
	return endFilled(dst, at, 16)
}

// secure appends the TLSProperties, where there are any.
func secure(dst []byte, o *mesh.Outcome) []byte {
	dst, at := open(dst, 4)
	t := o.TLS
	if t != nil {
		dst = appendInt(dst, 1, tlsVersion(t.Version))
		if id := cipherID(t.Cipher); id != 0 {
			dst = appendNumber(dst, 2, id)
		}
	}
	dst = appendString(dst, 3, o.ServerName)
	if t != nil && t.Peer != nil {
		dst = certificate(dst, 5, t.Peer)
	}
	return endFilled(dst, at, 4)
}

func tlsVersion(v string) uint64 {
	switch v {
	case "TLSv1.2":
		return 3
	case "TLSv1.3":
		return 4
	}
	return 0
}

// cipherID is the IANA number of a cipher suite, by OpenSSL's name; 0 for one that is not known.
func cipherID(name string) uint64 {
	switch name {
	case "TLS_AES_128_GCM_SHA256":
		return 0x1301
	case "TLS_AES_256_GCM_SHA384":
		return 0x1302
	case "TLS_CHACHA20_POLY1305_SHA256":
		return 0x1303
	case "ECDHE-ECDSA-AES128-GCM-SHA256":
		return 0xc02b
	case "ECDHE-ECDSA-AES256-GCM-SHA384":
		return 0xc02c
	case "ECDHE-RSA-AES128-GCM-SHA256":
		return 0xc02f
	case "ECDHE-RSA-AES256-GCM-SHA384":
		return 0xc030
	case "ECDHE-RSA-CHACHA20-POLY1305":
		return 0xcca8
	case "ECDHE-ECDSA-CHACHA20-POLY1305":
		return 0xcca9
	}
	return 0
}

// certificate appends CertificateProperties.
func certificate(dst []byte, field protowire.Number, c *x509.Certificate) []byte {
	dst, at := open(dst, field)
	for _, u := range c.URIs {
		var san int
		dst, san = open(dst, 1)
		dst = end(appendString(dst, 1, u.String()), san)
	}
	for _, name := range c.DNSNames {
		var san int
		dst, san = open(dst, 1)
		dst = end(appendString(dst, 2, name), san)
	}
	dst = appendString(dst, 2, c.Subject.String())
	dst = appendString(dst, 3, c.Issuer.String())
	return end(dst, at)
}

// state appends the filter state object.
func state(dst []byte, x *Extra) []byte {
	if x.State == nil {
		return dst
	}
	dst, at := open(dst, 21)
	dst = appendString(dst, 1, x.StateKey)
	dst, value := open(dst, 2)
	dst = appendString(dst, 1, "type.googleapis.com/"+x.StateType)
	dst = protowire.AppendBytes(protowire.AppendTag(dst, 2, protowire.BytesType), x.State)
	return end(end(dst, value), at)
}

func tags(dst []byte, o *mesh.Outcome, x *Extra) []byte {
	for i := range x.Tags {
		t := &x.Tags[i]
		value := []byte(nil)
		if t.Header != "" && o.Headers != nil {
			value = o.Headers.RequestHeader(t.Header)
		}
		if value == nil {
			value = []byte(t.Value)
		}
		if len(value) > 0 {
			dst = appendPair(dst, 22, t.Name, value)
		}
	}
	return dst
}

// connection appends the ConnectionProperties.
func connection(dst []byte, o *mesh.Outcome) []byte {
	dst, at := open(dst, 2)
	dst = appendInt(appendInt(dst, 1, uint64(o.BytesReceived)), 2, uint64(o.BytesSent))
	return endFilled(dst, at, 2)
}

// request appends the HTTPRequestProperties.
func request(dst []byte, o *mesh.Outcome, x *Extra) []byte {
	dst, at := open(dst, 3)
	dst = appendInt(dst, 1, methodID(o.Method))
	dst = appendBytes(dst, 2, o.Scheme)
	dst = appendBytes(dst, 3, o.Authority)
	path := o.Path
	if o.Headers != nil {
		path = o.Headers.RequestHeader(":path")
	}
	dst = appendBytes(dst, 5, path)
	if o.Headers != nil {
		dst = appendBytes(dst, 6, o.Headers.RequestHeader("user-agent"))
		dst = appendBytes(dst, 7, o.Headers.RequestHeader("referer"))
		dst = appendBytes(dst, 8, o.Headers.RequestHeader("x-forwarded-for"))
	}
	dst = appendBytes(dst, 9, o.RequestID)
	if o.Headers != nil {
		dst = appendBytes(dst, 10, o.Headers.RequestHeader("x-envoy-original-path"))
	}
	dst = appendInt(dst, 11, uint64(o.RequestHeaderBytes))
	dst = appendInt(dst, 12, uint64(o.BytesReceived))
	if o.Headers != nil {
		dst = fields(dst, 13, x.RequestHeaders, o.Headers.RequestHeader)
	}
	dst = appendInt(dst, 15, uint64(o.RequestHeaderBytes))
	return end(dst, at)
}

// methodID is the number of envoy.config.core.v3.RequestMethod.
func methodID(m []byte) uint64 {
	switch string(m) {
	case "GET":
		return 1
	case "HEAD":
		return 2
	case "POST":
		return 3
	case "PUT":
		return 4
	case "DELETE":
		return 5
	case "CONNECT":
		return 6
	case "OPTIONS":
		return 7
	case "TRACE":
		return 8
	case "PATCH":
		return 9
	}
	return 0
}

// response appends the HTTPResponseProperties.
func response(dst []byte, o *mesh.Outcome, x *Extra) []byte {
	dst, at := open(dst, 4)
	if o.Status > 0 {
		dst = appendNumber(dst, 1, uint64(o.Status))
	}
	dst = appendInt(dst, 2, uint64(o.AnswerHeaderBytes))
	dst = appendInt(dst, 3, uint64(o.BytesSent))
	if o.Headers != nil {
		dst = fields(dst, 4, x.ResponseHeaders, o.Headers.ResponseHeader)
		dst = fields(dst, 5, x.ResponseTrailers, o.Headers.ResponseTrailer)
	}
	dst = appendString(dst, 6, o.Details)
	dst = appendInt(dst, 8, uint64(o.AnswerHeaderBytes))
	return end(dst, at)
}

// fields appends those of the named fields that are there.
func fields(dst []byte, field protowire.Number, names []string, value func(string) []byte) []byte {
	for _, name := range names {
		if v := value(name); v != nil {
			dst = appendPair(dst, field, name, v)
		}
	}
	return dst
}
