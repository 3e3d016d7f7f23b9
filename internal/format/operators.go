// SPDX-License-Identifier: Apache-2.0

package format

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/meshtap/meshtap/mesh"
)

// spec is what may stand in an operator.
type spec struct {
	arg     argRule
	length  bool
	example string
	check   func(p *mesh.FormatPart) string
}

type argRule uint8

const (
	argNone argRule = iota
	argOptional
	argRequired
)

var (
	plain    = spec{}
	headerOp = spec{arg: argRequired, length: true, example: `such as (user-agent) or (x-first?x-second)`, check: checkHeader}
	timeOp   = spec{arg: argOptional, check: checkTime}
	maskOp   = spec{arg: argOptional, check: checkMask}
)

// operators is the closed list of what proxy/format evaluates.
var operators = map[string]spec{
	"START_TIME":       timeOp,
	"START_TIME_LOCAL": timeOp,
	"EMIT_TIME":        timeOp,
	"EMIT_TIME_LOCAL":  timeOp,

	"DURATION":             plain,
	"REQUEST_DURATION":     plain,
	"REQUEST_TX_DURATION":  plain,
	"RESPONSE_DURATION":    plain,
	"RESPONSE_TX_DURATION": plain,
	"COMMON_DURATION":      {arg: argRequired, example: "such as (DS_RX_BEG:DS_TX_END:us)", check: checkDuration},

	"BYTES_RECEIVED":               plain,
	"BYTES_SENT":                   plain,
	"REQUEST_HEADERS_BYTES":        plain,
	"RESPONSE_HEADERS_BYTES":       plain,
	"UPSTREAM_WIRE_BYTES_SENT":     plain,
	"UPSTREAM_WIRE_BYTES_RECEIVED": plain,

	"PROTOCOL":                          plain,
	"UPSTREAM_PROTOCOL":                 plain,
	"RESPONSE_CODE":                     plain,
	"RESPONSE_CODE_DETAILS":             {arg: argOptional, check: oneOf("ALLOW_WHITESPACES")},
	"RESPONSE_FLAGS":                    plain,
	"RESPONSE_FLAGS_LONG":               plain,
	"CONNECTION_TERMINATION_DETAILS":    plain,
	"UPSTREAM_TRANSPORT_FAILURE_REASON": plain,
	"GRPC_STATUS":                       {arg: argOptional, check: oneOf("CAMEL_STRING", "SNAKE_STRING", "NUMBER")},
	"GRPC_STATUS_NUMBER":                plain,

	"UPSTREAM_HOST":                        plain,
	"UPSTREAM_HOST_NAME":                   plain,
	"UPSTREAM_HOST_NAME_WITHOUT_PORT":      plain,
	"UPSTREAM_CLUSTER":                     plain,
	"UPSTREAM_CLUSTER_RAW":                 plain,
	"UPSTREAM_LOCAL_ADDRESS":               plain,
	"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":  maskOp,
	"UPSTREAM_LOCAL_PORT":                  plain,
	"UPSTREAM_REMOTE_ADDRESS":              plain,
	"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": maskOp,
	"UPSTREAM_REMOTE_PORT":                 plain,
	"UPSTREAM_REQUEST_ATTEMPT_COUNT":       plain,

	"DOWNSTREAM_REMOTE_ADDRESS":                     plain,
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":        maskOp,
	"DOWNSTREAM_REMOTE_PORT":                        plain,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":              plain,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": maskOp,
	"DOWNSTREAM_DIRECT_REMOTE_PORT":                 plain,
	"DOWNSTREAM_LOCAL_ADDRESS":                      plain,
	"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":         maskOp,
	"DOWNSTREAM_LOCAL_PORT":                         plain,
	"REQUESTED_SERVER_NAME":                         {arg: argOptional, check: checkServerName},

	"DOWNSTREAM_TRANSPORT_FAILURE_REASON": plain,
	"DOWNSTREAM_TLS_VERSION":              plain,
	"DOWNSTREAM_TLS_CIPHER":               plain,
	"DOWNSTREAM_TLS_GROUP":                plain,
	"DOWNSTREAM_PEER_SUBJECT":             plain,
	"DOWNSTREAM_PEER_ISSUER":              plain,
	"DOWNSTREAM_PEER_SERIAL":              plain,
	"DOWNSTREAM_PEER_FINGERPRINT_256":     plain,
	"DOWNSTREAM_PEER_URI_SAN":             plain,
	"DOWNSTREAM_PEER_DNS_SAN":             plain,
	"DOWNSTREAM_PEER_IP_SAN":              plain,
	"DOWNSTREAM_PEER_EMAIL_SAN":           plain,

	"ROUTE_NAME":        plain,
	"FILTER_CHAIN_NAME": plain,
	"CONNECTION_ID":     plain,
	"STREAM_ID":         plain,
	"ACCESS_LOG_TYPE":   plain,
	"HOSTNAME":          plain,

	"REQ":               headerOp,
	"RESP":              headerOp,
	"TRAILER":           headerOp,
	"REQ_WITHOUT_QUERY": headerOp,
	"PATH":              {arg: argOptional, length: true, check: checkPath},
	"QUERY_PARAM":       {arg: argRequired, length: true, example: "such as (page)"},
	"QUERY_PARAMS":      {arg: argOptional, length: true, check: oneOf("ORIG", "DECODED")},

	"FILTER_STATE": {arg: argRequired, length: true, example: "such as (" + GRPCStats + ":PLAIN)", check: checkFilterState},

	// Meshtap's own.
	"MESHTAP_CIRCUIT":  plain,
	"MESHTAP_FALLBACK": plain,
}

// envoyOnly are operators that Envoy 1.40 has and Meshtap does not, so that an error can tell them from typing mistakes.
var envoyOnly = strings.Fields(`
ROUNDTRIP_DURATION DOWNSTREAM_HANDSHAKE_DURATION UPSTREAM_CONNECTION_POOL_READY_DURATION BYTES_RETRANSMITTED
PACKETS_RETRANSMITTED RESPONSE_TRAILERS_BYTES UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HEADER_BYTES_RECEIVED
UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT
DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_HEADER_BYTES_RECEIVED
DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED LOCAL_REPLY_BODY
VIRTUAL_CLUSTER_NAME UNIQUE_ID TRACE_ID SPAN_ID ENVIRONMENT DYNAMIC_METADATA CLUSTER_METADATA UPSTREAM_METADATA
METADATA UPSTREAM_FILTER_STATE CUSTOM_FLAGS COALESCE CEL TYPED_CEL FILE_CONTENT SECRET
UPSTREAM_HOSTS_ATTEMPTED UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT UPSTREAM_HOST_NAMES_ATTEMPTED
UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_IDS_ATTEMPTED
UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID DOWNSTREAM_LOCAL_CLOSE_REASON UPSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_DETECTED_CLOSE_TYPE
DOWNSTREAM_DIRECT_LOCAL_ADDRESS DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_LOCAL_PORT
DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_TLS_SESSION_ID
UPSTREAM_TLS_SESSION_ID UPSTREAM_TLS_CIPHER UPSTREAM_TLS_GROUP UPSTREAM_TLS_VERSION DOWNSTREAM_LOCAL_IP_SAN DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_URI_SAN
DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_OTHERNAME_SAN DOWNSTREAM_PEER_OTHERNAME_SAN DOWNSTREAM_LOCAL_SUBJECT
DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1
DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CERT_V_END
UPSTREAM_PEER_CERT UPSTREAM_PEER_CERT_V_START UPSTREAM_PEER_CERT_V_END UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_ISSUER
UPSTREAM_PEER_URI_SAN UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_IP_SAN UPSTREAM_LOCAL_URI_SAN UPSTREAM_LOCAL_DNS_SAN
UPSTREAM_LOCAL_IP_SAN UPSTREAM_SERVER_NAME TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT`)

// Operators returns the names of all operators, sorted, without aliases.
func Operators() []string {
	var out []string
	for name := range operators {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

// canonical resolves Envoy's long names.
func canonical(name string) string {
	switch name {
	case "REQUEST_HEADER":
		return "REQ"
	case "RESPONSE_HEADER":
		return "RESP"
	case "RESPONSE_TRAILER":
		return "TRAILER"
	}
	return name
}

// unknown is the message for an operator that is not in the list.
func unknown(name string) string {
	if slices.Contains(envoyOnly, name) {
		return fmt.Sprintf("operator %%%s%% of Envoy is not implemented", name)
	}
	if near := nearest(name); len(near) > 0 {
		return fmt.Sprintf("unknown operator %%%s%%; did you mean %s?", name, strings.Join(near, " or "))
	}
	return fmt.Sprintf("unknown operator %%%s%%; Envoy's substitution formatter page lists the names", name)
}

// nearest returns up to three operators that are a few keystrokes away from name, the nearest first, or else those that
// name begins with or is the beginning of.
func nearest(name string) []string {
	const most = 64 // no operator is longer, and the distance costs the product of the lengths
	if len(name) > most {
		return nil
	}
	limit := max(1, len(name)/4)
	byDistance := make([][]string, limit+1)
	var prefixes []string
	for _, op := range Operators() {
		if d := distance(name, op); d <= limit {
			byDistance[d] = append(byDistance[d], op)
		}
		if strings.HasPrefix(op, name) || strings.HasPrefix(name, op) {
			prefixes = append(prefixes, op)
		}
	}
	near := slices.Concat(byDistance...)
	if len(near) == 0 {
		near = prefixes
	}
	return near[:min(3, len(near))]
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

func checkHeader(p *mesh.FormatPart) string {
	main, alt, _ := strings.Cut(strings.ToLower(p.Arg), "?")
	if strings.Contains(alt, "?") {
		return fmt.Sprintf("(%s) names more than two headers", p.Arg)
	}
	for i, name := range []string{main, alt} {
		if name == "" && i == 1 {
			break
		}
		if !headerName(name) {
			return fmt.Sprintf("%q is not a header name", name)
		}
	}
	p.Arg, p.Alt = main, alt
	return ""
}

// headerName reports whether s is a token (RFC 9110 section 5.6.2), with a colon in front for a pseudo-header.
func headerName(s string) bool {
	s = strings.TrimPrefix(s, ":")
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func checkTime(p *mesh.FormatPart) string {
	if err := CheckTime(p.Arg); err != nil {
		return err.Error()
	}
	return ""
}

func checkMask(p *mesh.FormatPart) string {
	if n, err := strconv.Atoi(p.Arg); err != nil || n < 0 || n > 128 {
		return fmt.Sprintf("mask length (%s) is not in 0 ... 32 (IPv4) or 0 ... 128 (IPv6)", p.Arg)
	}
	return ""
}

func oneOf(allowed ...string) func(*mesh.FormatPart) string {
	return func(p *mesh.FormatPart) string { return notIn(p.Arg, allowed...) }
}

func notIn(arg string, allowed ...string) string {
	if slices.Contains(allowed, arg) {
		return ""
	}
	return fmt.Sprintf("argument %q is not one of %s", arg, strings.Join(allowed, ", "))
}

// checkPath splits PATH(X:Y) into Arg and Alt, with their defaults.
func checkPath(p *mesh.FormatPart) string {
	query, source, _ := strings.Cut(p.Arg, ":")
	p.Arg, p.Alt = query, source
	return firstOf(optional(query, "WQ", "NQ"), optional(source, "ORIG_OR_PATH", "PATH", "ORIG"))
}

// GRPCStats is the one filter state that there is: the messages of a gRPC call.
const GRPCStats = "envoy.filters.http.grpc_stats"

// checkFilterState splits FILTER_STATE(KEY:FORM) into Arg and Alt.
func checkFilterState(p *mesh.FormatPart) string {
	key, form, _ := strings.Cut(p.Arg, ":")
	p.Arg, p.Alt = key, form
	return firstOf(notIn(key, GRPCStats), optional(form, "PLAIN", "TYPED"))
}

// checkServerName splits REQUESTED_SERVER_NAME(X:Y) into Arg and Alt.
func checkServerName(p *mesh.FormatPart) string {
	source, host, _ := strings.Cut(p.Arg, ":")
	p.Arg, p.Alt = source, host
	return firstOf(optional(source, "SNI_ONLY", "SNI_FIRST", "HOST_FIRST"), optional(host, "ORIG_OR_HOST", "HOST", "ORIG"))
}

func optional(arg string, allowed ...string) string {
	if arg == "" {
		return ""
	}
	return notIn(arg, allowed...)
}

func firstOf(msgs ...string) string {
	for _, m := range msgs {
		if m != "" {
			return m
		}
	}
	return ""
}

// checkDuration reads COMMON_DURATION(START:END:PRECISION). Only points that an Outcome has are allowed.
func checkDuration(p *mesh.FormatPart) string {
	part := strings.Split(p.Arg, ":")
	if len(part) == 2 {
		part = append(part, "ms")
	}
	if len(part) != 3 {
		return fmt.Sprintf("(%s) is not START:END or START:END:PRECISION", p.Arg)
	}
	points := []string{"DS_RX_BEG", "DS_RX_END", "US_TX_BEG", "US_RX_BEG", "US_RX_END", "DS_TX_END"}
	if msg := firstOf(notIn(part[0], points...), notIn(part[1], points...), notIn(part[2], "ms", "us", "ns")); msg != "" {
		return msg
	}
	p.Arg = strings.Join(part, ":")
	return ""
}
