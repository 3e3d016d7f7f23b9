// SPDX-License-Identifier: Apache-2.0

package header

// ID names the fields that the proxy itself looks at, so that it finds them without comparing names again. Other fields
// have the ID None.
type ID uint8

// The fields with an ID.
const (
	None ID = iota
	Host
	Connection
	KeepAlive
	ProxyConnection
	TE
	Trailer
	TransferEncoding
	Upgrade
	ContentLength
	Expect
	ContentType
	Server
	Date
	UserAgent
	RequestID
	ForwardedFor
	ForwardedProto
	EnvoyServiceTime
	ProxyAuthenticate
	ProxyAuthorization
	numIDs
)

var names = [numIDs]string{
	Host:               "host",
	Connection:         "connection",
	KeepAlive:          "keep-alive",
	ProxyConnection:    "proxy-connection",
	TE:                 "te",
	Trailer:            "trailer",
	TransferEncoding:   "transfer-encoding",
	Upgrade:            "upgrade",
	ContentLength:      "content-length",
	Expect:             "expect",
	ContentType:        "content-type",
	Server:             "server",
	Date:               "date",
	UserAgent:          "user-agent",
	RequestID:          "x-request-id",
	ForwardedFor:       "x-forwarded-for",
	ForwardedProto:     "x-forwarded-proto",
	EnvoyServiceTime:   "x-envoy-upstream-service-time",
	ProxyAuthenticate:  "proxy-authenticate",
	ProxyAuthorization: "proxy-authorization",
}

// Name returns the field's lower-case name.
func (id ID) Name() string { return names[id] }

// IDOf returns the ID of a field name in any case, None for the others. It looks at the length first, so most names
// cost one comparison.
func IDOf(name []byte) ID {
	switch len(name) {
	case 2:
		return pick(name, TE)
	case 4:
		if name[0]|0x20 == 'd' {
			return pick(name, Date)
		}
		return pick(name, Host)
	case 6:
		if name[0]|0x20 == 's' {
			return pick(name, Server)
		}
		return pick(name, Expect)
	case 7:
		if name[0]|0x20 == 'u' {
			return pick(name, Upgrade)
		}
		return pick(name, Trailer)
	case 10:
		switch name[0] | 0x20 {
		case 'c':
			return pick(name, Connection)
		case 'u':
			return pick(name, UserAgent)
		}
		return pick(name, KeepAlive)
	case 12:
		if name[0]|0x20 == 'c' {
			return pick(name, ContentType)
		}
		return pick(name, RequestID)
	case 14:
		return pick(name, ContentLength)
	case 15:
		return pick(name, ForwardedFor)
	case 16:
		return pick(name, ProxyConnection)
	case 17:
		if name[0]|0x20 == 't' {
			return pick(name, TransferEncoding)
		}
		return pick(name, ForwardedProto)
	case 18:
		return pick(name, ProxyAuthenticate)
	case 19:
		return pick(name, ProxyAuthorization)
	case 29:
		return pick(name, EnvoyServiceTime)
	}
	return None
}

func pick(name []byte, id ID) ID {
	if EqualFold(name, names[id]) {
		return id
	}
	return None
}

// EqualFold compares a name in any case with a lower-case one of ASCII letters, digits and punctuation.
func EqualFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c-'A' < 26 {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// ValidName reports whether name is a token (RFC 9110 section 5.6.2).
func ValidName[S []byte | string](name S) bool {
	for i := 0; i < len(name); i++ {
		if !IsToken(name[i]) {
			return false
		}
	}
	return len(name) > 0
}

// ValidValue reports whether value may stand in a field (RFC 9110 section 5.5): no control bytes but tab, and no white
// space at its ends.
func ValidValue[S []byte | string](value S) bool {
	for i := 0; i < len(value); i++ {
		if c := value[i]; (c < ' ' && c != '\t') || c == 0x7f {
			return false
		}
	}
	n := len(value)
	return n == 0 || !space(value[0]) && !space(value[n-1])
}

func space(c byte) bool { return c == ' ' || c == '\t' }

// IsToken reports whether c may stand in a token (RFC 9110 section 5.6.2).
func IsToken(c byte) bool { return token[c] }

// token is a table: one load per byte.
var token = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()
