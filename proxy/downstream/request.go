// SPDX-License-Identifier: Apache-2.0

package downstream

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"

	"github.com/meshtap/meshtap/internal/ascii"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/metrics"
)

// admit applies the connection manager's own rules to a request: what it may look like, and what its headers say of who
// sent it. It reports whether the request goes on; if not, it has been answered.
func (st *stream) admit() bool {
	x, cfg := &st.x, st.d.m.cfg
	q := &x.Request
	if cfg.Underscores != mesh.UnderscoresAllow && !st.underscores(cfg.Underscores) {
		return false
	}
	if !st.path() {
		return false
	}
	stripHost(q, cfg, st.d.info.DirectLocal().Port())
	x.Outcome.Authority = q.Authority
	enters := st.origin()
	if cfg.Via != "" {
		q.Header.AddString("via", cfg.Via)
	}
	st.requestID(enters)
	return true
}

// underscores refuses or removes headers whose names hold an underscore, which some servers take for a hyphen.
func (st *stream) underscores(action mesh.Underscores) bool {
	x := &st.x
	found := int64(0)
	x.Request.Header.RemoveFunc(func(name, _ []byte) bool {
		has := bytes.IndexByte(name, '_') >= 0
		if has {
			found++
		}
		return has && action == mesh.UnderscoresDrop
	})
	if found == 0 {
		return true
	}
	number, n := metrics.HTTP2DroppedUnderscores, found
	if action == mesh.UnderscoresReject {
		number, n = metrics.HTTP2RejectedUnderscores, 1
	}
	if x.Request.Protocol == mesh.HTTP2 {
		st.d.m.http2.Stats.Add(x.Worker.Shard, number, n)
	}
	if action == mesh.UnderscoresReject {
		x.Outcome.Flags |= mesh.FlagDPE
		x.Answer(400, "http1.unexpected_underscore", nil)
		st.answer(nil)
		return false
	}
	return true
}

// path gives the request its one canonical path.
func (st *stream) path() bool {
	x, cfg := &st.x, st.d.m.cfg
	q := &x.Request
	if len(q.Path) == 0 || q.Path[0] != '/' {
		return true // CONNECT, or OPTIONS *
	}
	if !cfg.NormalizePath && !cfg.MergeSlashes && cfg.EscapedSlashes == mesh.SlashesKeep {
		return true
	}
	var buf [512]byte
	path, verdict := canonicalPath(buf[:0], q.Path, cfg)
	switch verdict {
	case pathBad:
		st.d.m.numbers.Inc(x.Worker.Shard, metrics.DownstreamRqFailedPathNormalization)
		x.Answer(400, "path_normalization_failed", nil)
		st.answer(nil)
		return false
	case pathRedirect:
		st.d.m.numbers.Inc(x.Worker.Shard, metrics.DownstreamRqRedirectedWithNormalizedPath)
		x.Answer(307, "path_normalization_redirect", nil)
		x.Response.Header.Add("location", path)
		st.answer(nil)
		return false
	}
	if !bytes.Equal(path, q.Path) {
		q.SetPath(path)
		x.Outcome.Path = q.Path
	}
	return true
}

// maxForwards counts a TRACE or OPTIONS request down, and answers the one that is not to go on (RFC 9110 section 7.6.2).
// What TRACE would be answered with may hold secrets, so nobody gets it from here.
func (st *stream) maxForwards() bool {
	q := &st.x.Request
	options := string(q.Method) == "OPTIONS"
	if !options && string(q.Method) != "TRACE" {
		return true
	}
	left, ok := ascii.Decimal(q.Header.Get(hdrMaxForwards), 9)
	switch {
	case !ok:
		return true
	case left > 0:
		var buf [16]byte
		q.Header.Set(hdrMaxForwards, appendUint(buf[:0], uint64(left-1)))
		return true
	}
	status := 501
	if options {
		status = 200
	}
	st.x.Answer(status, "max_forwards_reached", nil)
	st.answer(nil)
	return false
}

const hdrMaxForwards = "max-forwards"

// stripHost removes the port, or a trailing dot, from the authority where the configuration asks for it.
func stripHost(q *codec.Request, cfg *mesh.HTTPManager, local uint16) {
	if !cfg.StripAnyPort && !cfg.StripMatchingPort && !cfg.StripTrailingDot {
		return
	}
	host, port := q.Authority, []byte(nil)
	if i := bytes.LastIndexByte(host, ':'); i > bytes.LastIndexByte(host, ']') {
		host, port = host[:i], host[i:]
	}
	if cfg.StripAnyPort || cfg.StripMatchingPort && portIs(port, local) {
		port = nil
	}
	if cfg.StripTrailingDot && len(host) > 1 && host[len(host)-1] == '.' {
		host = host[:len(host)-1]
	}
	if len(host)+len(port) != len(q.Authority) {
		q.SetAuthority(append(append(make([]byte, 0, 256), host...), port...))
	}
}

func portIs(port []byte, n uint16) bool {
	v := uint(0)
	for _, c := range port[min(1, len(port)):] {
		v = v*10 + uint(c-'0')
	}
	return len(port) > 1 && v == uint(n)
}

// The headers that say who sent a request, and those that only a trusted client may send (Envoy, "HTTP header
// sanitizing").
const (
	hdrForwardedProto = "x-forwarded-proto"
	hdrForwardedPort  = "x-forwarded-port"
	hdrForwardedFor   = "x-forwarded-for"
	hdrExternal       = "x-envoy-external-address"
	hdrInternal       = "x-envoy-internal"
	hdrClientCert     = "x-forwarded-client-cert"
)

// The first group is believed only of internal requests, the second wherever the request does not enter here.
var (
	internalOnly = [...]string{
		hdrInternal, "x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries", "x-envoy-upstream-alt-stat-name",
		"x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-upstream-rq-timeout-alt-response",
		"x-envoy-expected-rq-timeout-ms", "x-envoy-force-trace", "x-envoy-ip-tags", "x-envoy-original-url",
		"x-envoy-hedge-on-per-try-timeout", "x-envoy-retriable-status-codes", "x-envoy-retriable-header-names",
		"x-envoy-upstream-stream-duration-ms",
	}
	insideOnly = [...]string{
		"x-envoy-downstream-service-cluster", "x-envoy-downstream-service-node", "x-envoy-decorator-operation",
		"x-envoy-original-path", "x-envoy-original-host", "x-envoy-is-timeout-retry", "x-envoy-attempt-count",
	}
)

// origin settles who the client is, and tells the next hop. With use_remote_address this proxy is where requests enter:
// what they say of their way so far is believed only as far as trusted hops added it. An internal request is one whose
// only known client has an address that the configuration calls internal; it does not enter here, though it may come here
// first. enters says whether it does.
func (st *stream) origin() (enters bool) {
	x, cfg, info := &st.x, st.d.m.cfg, st.d.info
	l := &x.Request.Header
	scheme := "http"
	if info.TLS() != nil {
		scheme = "https"
	}
	// What a client says of a certificate is never passed on (Envoy's SANITIZE).
	l.Remove(hdrClientCert)
	client, sole := st.client(l)
	internal := sole && isInternal(cfg.InternalAddresses, client)
	enters = cfg.UseRemoteAddress && !internal
	st.sanitize(l, internal, enters)
	if enters && client.IsValid() {
		var buf [64]byte
		l.Set(hdrExternal, client.AppendTo(buf[:0]))
	}
	if cfg.UseRemoteAddress && cfg.XFFTrustedHops == 0 {
		l.SetString(hdrForwardedProto, scheme)
	} else if !l.HasID(header.ForwardedProto) {
		l.AddString(hdrForwardedProto, scheme)
	}
	if len(x.Request.Scheme) == 0 {
		x.Request.Scheme = l.GetID(header.ForwardedProto)
	}
	x.Outcome.Scheme = x.Request.Scheme
	if cfg.AppendXForwardPort && !l.Has(hdrForwardedPort) && info.Local.IsValid() {
		var buf [8]byte
		l.Add(hdrForwardedPort, appendUint(buf[:0], uint64(info.Local.Port())))
	}
	return enters
}

// client takes the client's address from the connection, or from what trusted hops wrote behind it; the zero address where
// that is not told. sole says that nobody before it is named.
func (st *stream) client(l *header.List) (client netip.Addr, sole bool) {
	x, cfg, info := &st.x, st.d.m.cfg, st.d.info
	xff := l.Joined(hdrForwardedFor)
	if !cfg.UseRemoteAddress {
		client, ok := hop(xff, cfg.XFFTrustedHops)
		if ok {
			x.Outcome.Remote = netip.AddrPortFrom(client, 0)
		}
		return client, ok && cfg.XFFTrustedHops == 0 && bytes.IndexByte(xff, ',') < 0
	}
	client = info.Remote.Addr()
	if n := cfg.XFFTrustedHops; n > 0 {
		if a, ok := hop(xff, n-1); ok {
			client = a
		}
	}
	x.Outcome.Remote = netip.AddrPortFrom(client, info.Remote.Port())
	sole = len(xff) == 0
	if !cfg.SkipXFFAppend && info.Remote.IsValid() {
		buf := make([]byte, 0, 128)
		if len(xff) > 0 {
			buf = append(append(buf, xff...), ',')
		}
		l.Set(hdrForwardedFor, info.Remote.Addr().AppendTo(buf))
	}
	return client, sole
}

func isInternal(ranges []netip.Prefix, a netip.Addr) bool {
	return a.IsValid() && slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// sanitize removes what the client may not say (Envoy, "HTTP header sanitizing").
func (st *stream) sanitize(l *header.List, internal, enters bool) {
	if internal {
		l.SetString(hdrInternal, "true")
		return
	}
	if t := st.x.Table; t != nil {
		for _, name := range t.InternalOnlyHeaders {
			l.Remove(name)
		}
	}
	if !l.HasPrefix("x-envoy-") {
		return // which spares most requests the search for each of the names
	}
	for _, name := range internalOnly {
		l.Remove(name)
	}
	if enters {
		for _, name := range insideOnly {
			l.Remove(name)
		}
	}
}

// hop returns the address that stands n places before the last in a list.
func hop(list []byte, n int) (netip.Addr, bool) {
	for ; n > 0; n-- {
		i := bytes.LastIndexByte(list, ',')
		if i < 0 {
			return netip.Addr{}, false
		}
		list = list[:i]
	}
	last := bytes.TrimSpace(list[bytes.LastIndexByte(list, ',')+1:])
	if len(last) == 0 || len(last) > 64 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(string(last))
	return a.Unmap(), err == nil
}

// requestID gives the request an id that is its own on its whole way.
func (st *stream) requestID(enters bool) {
	x, cfg := &st.x, st.d.m.cfg
	l := &x.Request.Header
	id := l.GetID(header.RequestID)
	if cfg.GenerateRequestID && (len(id) == 0 || enters && !cfg.KeepExternalID) {
		var buf [36]byte
		appendUUID(&buf, x.Random(), x.Random())
		l.RemoveID(header.RequestID)
		l.Add("x-request-id", buf[:])
		id = l.GetID(header.RequestID)
	}
	x.Outcome.RequestID = id
}

// appendUUID writes a version 4 UUID (RFC 9562 section 5.4). Its version digit is what Envoy's tracing reads: 4 says that
// the request is not traced.
func appendUUID(dst *[36]byte, a, b uint64) {
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:8], a)
	binary.LittleEndian.PutUint64(raw[8:], b)
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	hex.Encode(dst[0:8], raw[0:4])
	hex.Encode(dst[9:13], raw[4:6])
	hex.Encode(dst[14:18], raw[6:8])
	hex.Encode(dst[19:23], raw[8:10])
	hex.Encode(dst[24:36], raw[10:16])
	dst[8], dst[13], dst[18], dst[23] = '-', '-', '-', '-'
}

func appendUint(dst []byte, n uint64) []byte {
	if n >= 10 {
		dst = appendUint(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}
