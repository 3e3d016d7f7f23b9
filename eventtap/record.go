// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"encoding/binary"
	"net/netip"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
)

// The layout of an outcome in a ring: numbers at fixed places, then the lengths of the texts, then the texts, then the
// tries. There are no pointers in it, so the collector has nothing to look at. put and get must agree; nothing else
// knows the layout.
const (
	atNumbers  = 0
	numNumbers = 17
	atFlags    = atNumbers + 8*numNumbers
	atStatus   = atFlags + 4
	atAttempts = atStatus + 2
	atSmall    = atAttempts + 2
	numSmall   = 11
	atAddrs    = atSmall + numSmall
	addrSize   = 1 + 16 + 2 // kind, address, port
	atUpstream = atAddrs
	atLocal    = atUpstream + addrSize
	atClient   = atLocal + addrSize
	atLens     = atClient + addrSize
	atTexts    = atLens + numTexts
)

// The texts of a record.
const (
	textListener = iota
	textFilterChain
	textVirtualHost
	textRouteName
	textRoute
	textCluster
	textDetails
	textTransportFailure
	textTermination
	textPipe
	textHostname
	textRegion
	textZone
	textSubZone
	textListeners
	textRoutes
	textClusters
	textEndpoints
	textRequestID // written by the client
	textTraceParent
	textService // of gRPC, written by the client and known to the upstream
	textMethod
	numTexts
)

// limits bound the texts, in bytes. With every byte escaped, as six in JSON, an event stays below event.MaxSize; a test
// holds that.
var limits = [numTexts]uint8{
	textListener:         80,
	textFilterChain:      80,
	textVirtualHost:      80,
	textRouteName:        80,
	textRoute:            192,
	textCluster:          160,
	textDetails:          96,
	textTransportFailure: 128,
	textTermination:      96,
	textPipe:             108,
	textHostname:         128,
	textRegion:           32,
	textZone:             32,
	textSubZone:          32,
	textListeners:        64,
	textRoutes:           64,
	textClusters:         64,
	textEndpoints:        64,
	textRequestID:        maxRequestID,
	textTraceParent:      traceParentLen,
	textService:          maxService,
	textMethod:           maxMethod,
}

const (
	traceParentLen = 55 // W3C Trace Context 3.2.2
	maxRequestID   = 64
	maxService     = 80
	maxMethod      = 64
	maxTryPipe     = 64
	trySize        = addrSize + 1 + 2 + 8 + 1 + maxTryPipe
	maxTexts       = 1843 // the sum of limits

	// maxRecord is the size of the largest outcome.
	maxRecord = atTexts + maxTexts + event.MaxItems*trySize
)

// putOutcome writes o to b, which has maxRecord bytes, and returns how many it took. trace is the traceparent header.
// The client's address is written only as the network, and only where it is asked for.
func putOutcome(b []byte, o *mesh.Outcome, trace []byte, clientNetwork bool) int {
	_ = b[maxRecord-1]
	le := binary.LittleEndian
	for i, v := range [numNumbers]int64{
		o.Start, o.Duration, o.RequestEnd, o.UpstreamStart, o.UpstreamFirst, o.UpstreamEnd, o.UpstreamTook, o.BytesReceived,
		o.BytesSent, o.RequestHeaderBytes, o.AnswerHeaderBytes, o.UpstreamBytesSent, o.UpstreamBytesGotten, grpcStatus(o),
		o.RequestMessages, o.ResponseMessages, int64(o.ConnectionID),
	} {
		le.PutUint64(b[atNumbers+8*i:], uint64(v))
	}
	le.PutUint32(b[atFlags:], uint32(o.Flags))
	le.PutUint16(b[atStatus:], uint16(o.Status))
	le.PutUint16(b[atAttempts:], uint16(min(o.Attempts, 1<<16-1)))
	fallback := byte(0)
	if o.Fallback {
		fallback = 1
	}
	tries := min(len(o.Tries), event.MaxItems)
	for i, v := range [numSmall]byte{
		byte(o.Kind), byte(o.Direction), byte(o.Protocol), byte(o.UpstreamProtocol), byte(o.Side), byte(o.Failure),
		byte(o.Circuit), fallback, methodCode(o.Method), schemeCode(o.Scheme), byte(tries),
	} {
		b[atSmall+i] = v
	}
	putAddr(b[atUpstream:], o.Upstream.IP)
	putAddr(b[atLocal:], o.Local)
	b[atClient] = noAddr
	if clientNetwork {
		putAddr(b[atClient:], network(o.Remote))
	}
	n := putTexts(b, o, trace)
	for i := range tries {
		n = putTry(b, n, &o.Tries[i])
	}
	return n
}

func putTexts(b []byte, o *mesh.Outcome, trace []byte) int {
	n := atTexts
	for i, s := range [numTexts]string{
		textListener: o.Listener, textFilterChain: o.FilterChain, textVirtualHost: o.VirtualHost, textRouteName: o.RouteName,
		textRoute: o.RouteTemplate, textCluster: o.Cluster, textDetails: o.Details, textTransportFailure: o.TransportFailure,
		textTermination: o.Termination, textPipe: o.Upstream.Pipe, textHostname: o.UpstreamHostname,
		textRegion: o.UpstreamLocality.Region, textZone: o.UpstreamLocality.Zone, textSubZone: o.UpstreamLocality.SubZone,
		textListeners: o.Versions.Listeners, textRoutes: o.Versions.Routes, textClusters: o.Versions.Clusters,
		textEndpoints: o.EndpointVersion,
	} {
		k := min(len(s), int(limits[i]))
		if k > 0 {
			copy(b[n:n+k], s)
		}
		b[atLens+i] = byte(k)
		n += k
	}
	if k := len(o.RequestID); k <= maxRequestID {
		b[atLens+textRequestID] = byte(k)
		n += copy(b[n:], o.RequestID)
	}
	if len(trace) == traceParentLen {
		b[atLens+textTraceParent] = traceParentLen
		n += copy(b[n:], trace)
	}
	service, method := grpcNames(o)
	b[atLens+textService], b[atLens+textMethod] = byte(len(service)), byte(len(method))
	n += copy(b[n:], service)
	return n + copy(b[n:], method)
}

// grpcStatus is the grpc-status of a request of gRPC that has one, otherwise event.Absent.
func grpcStatus(o *mesh.Outcome) int64 {
	if !o.GRPC {
		return event.Absent
	}
	return o.GRPCStatus
}

// grpcNames returns the service and the method of a call, if an upstream knows them: its answer does not say that it does
// not. What a client makes up may be anything, and stays out of events like all that it sends.
func grpcNames(o *mesh.Outcome) (service, method []byte) {
	if !o.GRPC || o.GRPCStatus < 0 || o.GRPCStatus == grpcwire.Unimplemented || o.UpstreamTook < 0 || o.Failure != mesh.NoFailure {
		return nil, nil
	}
	service, method, ok := grpcwire.Names(o.Path)
	if !ok || len(service) > maxService || len(method) > maxMethod || !isName(service, '.') || !isName(method, '_') {
		return nil, nil
	}
	return service, method
}

// isName reports whether s is made of letters, digits, underscores and one character more.
func isName(s []byte, more byte) bool {
	for _, c := range s {
		if c != '_' && c != more && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// The kinds of a written address.
const (
	noAddr = iota
	addr4
	addr6
)

func putAddr(b []byte, a netip.AddrPort) {
	ip := a.Addr()
	switch {
	case !ip.IsValid():
		b[0] = noAddr
		return
	case ip.Is4() || ip.Is4In6():
		b[0] = addr4
	default:
		b[0] = addr6
	}
	raw := ip.As16()
	copy(b[1:17], raw[:])
	binary.LittleEndian.PutUint16(b[17:], a.Port())
}

func getAddr(b []byte) netip.AddrPort {
	if b[0] == noAddr {
		return netip.AddrPort{}
	}
	ip := netip.AddrFrom16([16]byte(b[1:17]))
	if b[0] == addr4 {
		ip = ip.Unmap()
	}
	return netip.AddrPortFrom(ip, binary.LittleEndian.Uint16(b[17:]))
}

// network cuts an address to what it tells of a client: /24 or /48, without the port.
func network(a netip.AddrPort) netip.AddrPort {
	ip, bits := a.Addr().Unmap(), 48
	if ip.Is4() {
		bits = 24
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr(), 0)
}

func putTry(b []byte, n int, t *mesh.Try) int {
	putAddr(b[n:], t.Upstream.IP)
	n += addrSize
	b[n] = byte(t.Failure)
	binary.LittleEndian.PutUint16(b[n+1:], uint16(t.Status))
	binary.LittleEndian.PutUint64(b[n+3:], uint64(max(t.Took, 0)))
	n += 11
	k := copy(b[n+1:n+1+maxTryPipe], t.Upstream.Pipe)
	b[n] = byte(k)
	return n + 1 + k
}

// methods are those of RFC 9110 section 9 and RFC 5789; others are told as "_OTHER", as OpenTelemetry does.
var methods = [...]string{"", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER"}

func methodCode(m []byte) byte {
	for i := range methods {
		if methods[i] == string(m) {
			return byte(i)
		}
	}
	return byte(len(methods) - 1)
}

// schemes are those that an event tells; another is left out.
var schemes = [...]string{"", "http", "https"}

func schemeCode(s []byte) byte {
	for i := range schemes {
		if schemes[i] == string(s) {
			return byte(i)
		}
	}
	return 0
}
