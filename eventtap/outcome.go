// SPDX-License-Identifier: Apache-2.0

package eventtap

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unicode/utf8"

	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/grpcwire"
	"github.com/meshtap/meshtap/mesh"
)

// filler makes events of records. Its scratch holds the bytes that an event cannot borrow from the record, until its
// owner empties it.
type filler struct {
	scratch []byte
}

// outcome fills e with everything but its identity from a record that putOutcome wrote.
func (f *filler) outcome(e *event.Event, b []byte) {
	small := b[atSmall : atSmall+numSmall]
	kind := event.Request
	if mesh.OutcomeKind(small[0]) == mesh.OutcomeTCP {
		kind = event.Connection
	}
	e.Reset(kind)
	rest := f.texts(e, b)
	f.numbers(e, b)

	t, n := &e.Texts, &e.Numbers
	t[event.Direction] = word(directions[:], small[1])
	t[event.ProtocolVersion] = word(versions[:], small[2])
	t[event.UpstreamProtocol] = word(versions[:], small[3])
	t[event.FailureSide] = word(sides[:], small[4])
	t[event.CircuitState] = f.text(mesh.CircuitState(small[6]).String())
	n[event.Fallback] = int64(small[7])
	t[event.Method] = word(methodWords, small[8])
	t[event.Scheme] = word(schemeWords, small[9])

	status := n[event.Status]
	if failure := mesh.FailureKind(small[5]); failure != mesh.NoFailure {
		t[event.ErrorType] = f.text(failure.String())
	} else if status >= 500 {
		at := len(f.scratch)
		f.scratch = strconv.AppendInt(f.scratch, status, 10)
		t[event.ErrorType] = f.scratch[at:]
	} else if code := n[event.GRPCStatus]; code >= 0 && grpcwire.HTTPStatus(code) >= 500 {
		if t[event.ErrorType] = f.text(grpcwire.SnakeName(code)); len(t[event.ErrorType]) == 0 {
			t[event.ErrorType] = f.text(grpcwire.SnakeName(grpcwire.Unknown)) // how every client takes it
		}
	}
	if flags := mesh.Flags(binary.LittleEndian.Uint32(b[atFlags:])); flags != 0 {
		at := len(f.scratch)
		f.scratch = flags.Append(f.scratch)
		t[event.ResponseFlags] = f.scratch[at:]
	}
	if a := getAddr(b[atUpstream:]); a.IsValid() {
		t[event.PeerAddress], n[event.PeerPort] = f.addr(a.Addr()), int64(a.Port())
	}
	if a := getAddr(b[atLocal:]); a.IsValid() {
		t[event.LocalAddress], n[event.LocalPort] = f.addr(a.Addr()), int64(a.Port())
	}
	if a := getAddr(b[atClient:]); a.IsValid() {
		t[event.ClientAddress] = f.addr(a.Addr())
	}
	for range small[10] {
		rest = f.try(e.AddItem(), rest)
	}
	e.Subject = f.attribute(t[event.Cluster])
	if e.PartitionKey = e.Subject; len(e.PartitionKey) == 0 {
		e.PartitionKey = f.attribute(t[event.Listener])
	}
	if len(e.PartitionKey) == 0 {
		e.PartitionKey = noKey
	}
}

var (
	noKey      = []byte(event.NoKey)
	directions = [...][]byte{nil, []byte("inbound"), []byte("outbound")}
	versions   = [...][]byte{nil, []byte("1.0"), []byte("1.1"), []byte("2")}
	sides      = [...][]byte{nil, []byte("downstream"), []byte("upstream"), []byte("internal")}
)

// The names of record.go, to be borrowed.
var methodWords, schemeWords = wordsOf(methods[:]), wordsOf(schemes[:])

func wordsOf(names []string) (out [][]byte) {
	for _, s := range names {
		out = append(out, []byte(s))
	}
	return out
}

// word returns a word of a table, or nil where the table does not have it.
func word(table [][]byte, i byte) []byte {
	if int(i) < len(table) {
		return table[i]
	}
	return nil
}

// numbers are the numbers of a record in order. One that is negative is left as Reset made it: 0, or event.Absent.
var numbers = [numNumbers]event.Number{
	1: event.Duration, 2: event.RequestEnd, 3: event.UpstreamStart, 4: event.UpstreamFirst, 5: event.UpstreamEnd,
	6: event.UpstreamTook, 7: event.RequestBodySize, 8: event.ResponseBodySize, 9: event.RequestHeaderSize,
	10: event.ResponseHeaderSize, 11: event.UpstreamSentSize, 12: event.UpstreamReceivedSize, 13: event.GRPCStatus,
	14: event.RequestMessages, 15: event.ResponseMessages,
}

func (f *filler) numbers(e *event.Event, b []byte) {
	le := binary.LittleEndian
	e.Time = int64(le.Uint64(b[atNumbers:]))
	for i := 1; i < numNumbers-1; i++ {
		if v := int64(le.Uint64(b[atNumbers+8*i:])); v >= 0 {
			e.Numbers[numbers[i]] = v
		}
	}
	e.Numbers[event.ConnectionID] = int64(le.Uint64(b[atNumbers+8*(numNumbers-1):]))
	e.Numbers[event.Status] = int64(le.Uint16(b[atStatus:]))
	attempts := int64(le.Uint16(b[atAttempts:]))
	e.Numbers[event.Attempts] = attempts
	e.Numbers[event.ResendCount] = max(attempts-1, 0)
}

// textSlots say where the texts of a record go that go somewhere as they are.
var textSlots = [numTexts]event.Text{
	textListener: event.Listener, textFilterChain: event.FilterChain, textVirtualHost: event.VirtualHost, textRouteName: event.RouteName,
	textRoute: event.Route, textCluster: event.Cluster, textDetails: event.Details, textTransportFailure: event.TransportFailure,
	textTermination: event.Termination, textPipe: event.PeerAddress, textHostname: event.UpstreamHostname,
	textListeners: event.ListenersVersion, textRoutes: event.RoutesVersion, textClusters: event.ClustersVersion,
	textEndpoints: event.EndpointsVersion, textService: event.GRPCService, textMethod: event.GRPCMethod,
}

// texts fills the texts and returns what follows them.
func (f *filler) texts(e *event.Event, b []byte) []byte {
	lens, n := b[atLens:atLens+numTexts], atTexts
	for _, l := range lens {
		n += int(l)
	}
	plain, rest := ascii(b[atTexts:n]), b[n:]
	n = atTexts
	var locality [3][]byte
	for i, l := range lens {
		if l == 0 {
			continue
		}
		s := b[n : n+int(l) : n+int(l)]
		n += int(l)
		if !plain {
			s = f.valid(s)
		}
		switch i {
		case textRegion, textZone, textSubZone:
			locality[i-textRegion] = s
		case textRequestID:
			if isRequestID(s) {
				e.Texts[event.RequestID] = s
			}
		case textTraceParent:
			if isTraceParent(s) {
				e.TraceParent = s
			}
		default:
			e.Texts[textSlots[i]] = s
		}
	}
	e.Texts[event.UpstreamLocality] = f.locality(locality[0], locality[1], locality[2])
	return rest
}

func (f *filler) locality(region, zone, sub []byte) []byte {
	if len(region) == 0 && len(zone) == 0 && len(sub) == 0 {
		return nil
	}
	at := len(f.scratch)
	f.scratch = append(append(f.scratch, region...), '/')
	f.scratch = append(append(f.scratch, zone...), '/')
	f.scratch = append(f.scratch, sub...)
	return f.scratch[at:]
}

// try fills an entry from a written try and returns what follows it.
func (f *filler) try(it *event.Item, b []byte) []byte {
	if a := getAddr(b); a.IsValid() {
		at := len(f.scratch)
		f.scratch = a.AppendTo(f.scratch)
		it.Texts[event.ItemHost] = f.scratch[at:]
	}
	b = b[addrSize:]
	it.Texts[event.ItemFailure] = f.text(mesh.FailureKind(b[0]).String())
	it.Numbers[event.ItemStatus] = int64(binary.LittleEndian.Uint16(b[1:]))
	it.Numbers[event.ItemTook] = int64(binary.LittleEndian.Uint64(b[3:]))
	k := int(b[11])
	if k > 0 {
		it.Texts[event.ItemHost] = f.valid(b[12 : 12+k])
	}
	return b[12+k:]
}

func (f *filler) text(s string) []byte {
	at := len(f.scratch)
	f.scratch = append(f.scratch, s...)
	return f.scratch[at:]
}

func (f *filler) addr(a netip.Addr) []byte {
	at := len(f.scratch)
	f.scratch = a.AppendTo(f.scratch)
	return f.scratch[at:]
}

// valid returns s, as UTF-8. A text that was cut may end in the middle of a character.
func (f *filler) valid(s []byte) []byte {
	if utf8.Valid(s) {
		return s
	}
	at := len(f.scratch)
	f.scratch = event.AppendValid(f.scratch, s)
	return f.scratch[at:]
}

// attribute returns s, as a text that may be an attribute.
func (f *filler) attribute(s []byte) []byte {
	if event.Attribute(s) {
		return s
	}
	at := len(f.scratch)
	f.scratch = event.AppendAttribute(f.scratch, s)
	return f.scratch[at:]
}

func ascii(b []byte) bool {
	var or uint64
	for len(b) >= 8 {
		or |= binary.LittleEndian.Uint64(b)
		b = b[8:]
	}
	for _, c := range b {
		or |= uint64(c)
	}
	return or&0x8080808080808080 == 0
}

// isRequestID tells whether a client's x-request-id may stand in an event: it cannot hold what only looks like an id.
func isRequestID(s []byte) bool {
	for _, c := range s {
		if !idByte[c] {
			return false
		}
	}
	return true
}

// isTraceParent checks the form of W3C Trace Context 3.2: version, trace id, parent id, flags, in lower-case hex.
func isTraceParent(s []byte) bool {
	if len(s) != traceParentLen || s[0] == 'f' && s[1] == 'f' {
		return false
	}
	for i, c := range s {
		if dash := i == 2 || i == 35 || i == 52; dash && c != '-' || !dash && !hexByte[c] {
			return false
		}
	}
	return true
}

// Tables of bytes: ids are random, and so would be the branches of comparisons.
var (
	hexByte = bytesOf("0123456789abcdef")
	idByte  = bytesOf("-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
)

func bytesOf(s string) (t [256]bool) {
	for i := range len(s) {
		t[s[i]] = true
	}
	return t
}
