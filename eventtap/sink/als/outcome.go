// SPDX-License-Identifier: Apache-2.0

package als

import (
	"net/netip"
	"strings"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/als"
	"github.com/meshtap/meshtap/mesh"
)

// kindOf is the kind of entry that an event becomes.
func kindOf(k event.Kind) als.Kind {
	if k == event.Request {
		return als.HTTP
	}
	return als.TCP
}

// outcome is the memory for one.
type outcome struct{ mesh.Outcome }

// of returns what an event tells, as an outcome; of one that is about neither a request nor a connection, its time alone.
func (o *outcome) of(e *event.Event) *mesh.Outcome {
	t, n := &e.Texts, &e.Numbers
	o.Outcome = mesh.Outcome{
		Start: e.Time, Duration: -1, RequestEnd: -1, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1,
	}
	if e.Kind != event.Request && e.Kind != event.Connection {
		return &o.Outcome
	}
	o.Duration, o.RequestEnd, o.UpstreamStart = n[event.Duration], n[event.RequestEnd], n[event.UpstreamStart]
	o.UpstreamFirst, o.UpstreamEnd = n[event.UpstreamFirst], n[event.UpstreamEnd]
	o.Remote, o.Local = addrPort(t[event.ClientAddress], 0), addrPort(t[event.LocalAddress], n[event.LocalPort])
	o.Upstream.IP = addrPort(t[event.PeerAddress], n[event.PeerPort])
	o.Protocol = protocol(t[event.ProtocolVersion])
	o.Method, o.Scheme, o.RequestID = t[event.Method], t[event.Scheme], t[event.RequestID]
	o.Cluster, o.RouteName = string(t[event.Cluster]), string(t[event.RouteName])
	o.Status, o.Attempts, o.Flags = int(n[event.Status]), int(n[event.Attempts]), flags(string(t[event.ResponseFlags]))
	o.Details, o.TransportFailure, o.Termination = string(t[event.Details]), string(t[event.TransportFailure]), string(t[event.Termination])
	o.BytesReceived, o.BytesSent = n[event.RequestBodySize], n[event.ResponseBodySize]
	o.RequestHeaderBytes, o.AnswerHeaderBytes = n[event.RequestHeaderSize], n[event.ResponseHeaderSize]
	o.UpstreamBytesSent, o.UpstreamBytesGotten = n[event.UpstreamSentSize], n[event.UpstreamReceivedSize]
	return &o.Outcome
}

// addrPort is an address that is not valid where the event has none.
func addrPort(ip []byte, port int64) netip.AddrPort {
	a, err := netip.ParseAddr(string(ip))
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(port))
}

func protocol(version []byte) mesh.Protocol {
	switch string(version) {
	case "1.0":
		return mesh.HTTP10
	case "1.1":
		return mesh.HTTP11
	case "2":
		return mesh.HTTP2
	}
	return mesh.ProtocolNone
}

func flags(names string) (f mesh.Flags) {
	for name := range strings.SplitSeq(names, ",") {
		flag, _ := mesh.ParseFlag(name)
		f |= flag
	}
	return f
}
