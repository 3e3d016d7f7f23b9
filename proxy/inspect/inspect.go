// SPDX-License-Identifier: Apache-2.0

// Package inspect holds the listener filters: they find out where a new connection was going and what it is about to
// speak, so that a filter chain can be chosen. They peek at the first bytes and never consume them.
//
// The package does no waiting: proxy/listener peeks, asks Filters, and comes back when there are more bytes or the time
// is over. The bytes come from strangers; each parser has a bound and a fuzz target.
package inspect

import (
	"net/netip"

	"github.com/meshtap/meshtap/mesh"
)

// ConnInfo is what is known of a connection before its filter chain sees the first byte. It belongs to proxy/listener
// until the chain has it, lives as long as the connection, and does not change from then on.
type ConnInfo struct {
	// ID counts the connections of this process, from 1.
	ID uint64
	// Accepted is when the connection was taken (of mono.Now). Deadlines for a complete request head count from here.
	Accepted int64
	// Remote is the client, Local what the client connected to: for a redirected connection the original destination.
	// Both are the zero value on unix sockets.
	Remote, Local netip.AddrPort
	// Direct are the addresses of the socket itself where they differ from Remote and Local, nil where they do not:
	// Redirect sets it, DirectRemote and DirectLocal read it.
	Direct *Direct
	// Hello is what the client's first bytes and the handshake showed, nil where they showed nothing, as on most plain
	// connections. Greet makes it; ServerName, ApplicationProtocols, TLS and ALPN read it.
	Hello *Hello
	// Owner is the listener's side of the connection. It is set before a chain sees the connection.
	Owner Owner
	// Transport is TLS, or RawBuffer where nothing was found.
	Transport Transport
}

// Direct are the addresses of a socket whose connection was going elsewhere.
type Direct struct{ Remote, Local netip.AddrPort }

// Hello is what a client said of the connection before its filter chain sees the first byte. It does not change from then
// on.
type Hello struct {
	// ServerName is the SNI in lower case, "" where there is none.
	ServerName string
	// ApplicationProtocols are what the client offers by ALPN, in its order, or what its first bytes show: one of
	// "http/1.0", "http/1.1" and "h2c".
	ApplicationProtocols []string
	// TLS is what the handshake settled, nil on plain connections.
	TLS *mesh.TLSInfo
}

// Redirect says that netfilter sent the connection here, which was going to another address.
func (i *ConnInfo) Redirect(to netip.AddrPort) {
	i.Direct = &Direct{Remote: i.DirectRemote(), Local: i.DirectLocal()}
	i.Local = to
}

// Redirected reports whether netfilter sent the connection here, so that Local is not DirectLocal.
func (i *ConnInfo) Redirected() bool { return i.Direct != nil }

// DirectRemote returns the remote address of the socket itself.
func (i *ConnInfo) DirectRemote() netip.AddrPort {
	if i.Direct != nil {
		return i.Direct.Remote
	}
	return i.Remote
}

// DirectLocal returns the local address of the socket itself.
func (i *ConnInfo) DirectLocal() netip.AddrPort {
	if i.Direct != nil {
		return i.Direct.Local
	}
	return i.Local
}

// Greet returns Hello to be filled in; it makes one where there is none.
func (i *ConnInfo) Greet() *Hello {
	if i.Hello == nil {
		i.Hello = &Hello{}
	}
	return i.Hello
}

// ServerName returns that of Hello, "" without one.
func (i *ConnInfo) ServerName() string {
	if i.Hello == nil {
		return ""
	}
	return i.Hello.ServerName
}

// ApplicationProtocols returns those of Hello, nil without one.
func (i *ConnInfo) ApplicationProtocols() []string {
	if i.Hello == nil {
		return nil
	}
	return i.Hello.ApplicationProtocols
}

// TLS returns what the handshake settled, nil on plain connections.
func (i *ConnInfo) TLS() *mesh.TLSInfo {
	if i.Hello == nil {
		return nil
	}
	return i.Hello.TLS
}

// ALPN returns the application protocol that the handshake settled, "" for none.
func (i *ConnInfo) ALPN() string {
	if t := i.TLS(); t != nil {
		return t.ALPN
	}
	return ""
}

// Owner is what a filter chain may ask of the listener while it serves a connection.
type Owner interface {
	// Draining reports whether the connection is to end soon: HTTP/1 answers with "Connection: close", HTTP/2 sends
	// GOAWAY, an idle connection may be closed. When it turns true, the handler's Ready is called.
	Draining() bool
}

// Transport is a transport protocol.
type Transport uint8

// The transport protocols.
const (
	RawBuffer Transport = iota
	TLS
)

// String returns the name by which filter chains match it.
func (t Transport) String() string {
	if t == TLS {
		return "tls"
	}
	return "raw_buffer"
}

// Verdict is what a listener filter says of the bytes so far.
type Verdict uint8

// The verdicts.
const (
	// Done lets the next filter look.
	Done Verdict = iota
	// More waits for more bytes.
	More
	// Reject closes the connection.
	Reject
	// Missing closes it, too: the configuration of a filter has not come.
	Missing
)

// Peeker is a listener filter that looks at the first bytes.
type Peeker interface {
	// Inspect looks at all bytes that have come so far, at least one. With end, no more will come. It writes what it
	// finds to info. It must not keep peeked, and must not answer More at the end or with Limit bytes.
	Inspect(peeked []byte, end bool, info *ConnInfo) Verdict
	// Limit is the most bytes that it needs to see.
	Limit() int
}

// Opener is a listener filter that asks the socket alone.
type Opener interface {
	Open(fd int, info *ConnInfo)
}

// Filter is a listener filter. Exactly one of its fields is set.
type Filter struct {
	Peeker Peeker
	Opener Opener
}

// Build makes a filter of what its Parse returned.
type Build func(config any) Filter

// Filters are the listener filters of one listener, in order. They keep no state of a connection.
type Filters struct {
	steps []step
	limit int
}

type step struct {
	Filter
	// discovered makes the filter in place of it, where it is not nil.
	discovered *discovered
	off        *mesh.ListenerPredicate
}

// Compile makes the filters of a listener. builds is keyed by type URL. configs gives the configurations that come by
// themselves; it may be nil where none does.
func Compile(fs []mesh.ListenerFilter, builds map[string]Build, configs Configs) (*Filters, error) {
	out := &Filters{}
	for i, f := range fs {
		if f.Disabled {
			continue
		}
		if f.Discovery != nil {
			d, err := newDiscovered(placeOf(i), f.Discovery, builds, configs)
			if err != nil {
				return nil, err
			}
			out.steps = append(out.steps, step{discovered: d, off: f.DisabledOn})
			out.limit = max(out.limit, MaxClientHello) // whatever comes
			continue
		}
		build := builds[f.TypeURL]
		if build == nil {
			return nil, unknown(placeOf(i), f.TypeURL)
		}
		out.add(build(f.Config), f.DisabledOn)
	}
	return out, nil
}

// WithOriginalDst returns the filters with one that finds the original destination at the end, unless one is there.
func (f *Filters) WithOriginalDst() *Filters {
	if f.FindsOriginalDst() {
		return f
	}
	out := &Filters{steps: f.steps[:len(f.steps):len(f.steps)], limit: f.limit}
	out.add(Filter{Opener: originalDst{}}, nil)
	return out
}

// FindsOriginalDst reports whether one of the filters finds the original destination, or may do so.
func (f *Filters) FindsOriginalDst() bool {
	for _, s := range f.steps {
		if _, ok := s.Opener.(originalDst); ok || s.discovered != nil && s.discovered.redirect {
			return true
		}
	}
	return false
}

func (f *Filters) add(x Filter, off *mesh.ListenerPredicate) {
	f.steps = append(f.steps, step{Filter: x, off: off})
	if x.Peeker != nil {
		f.limit = max(f.limit, x.Peeker.Limit())
	}
}

// Limit is the most bytes that any of the filters needs to see; 0 where none looks at bytes.
func (f *Filters) Limit() int { return f.limit }

// Run asks the filters from *at on, and moves *at over those that are done. peeked is all that has come, which may be
// nothing; with end, no more will come. Done means that all filters are done.
func (f *Filters) Run(at *int32, fd int, peeked []byte, end bool, info *ConnInfo) Verdict {
	for ; int(*at) < len(f.steps); *at++ {
		s := &f.steps[*at]
		if s.off != nil && matches(s.off, info.Local.Port()) {
			continue
		}
		x := s.Filter
		if s.discovered != nil {
			var ok bool
			if x, ok = s.discovered.filter(); !ok {
				return Missing
			}
		}
		if x.Opener != nil {
			x.Opener.Open(fd, info)
			continue
		}
		if len(peeked) == 0 {
			return More
		}
		if v := x.Peeker.Inspect(peeked[:min(len(peeked), x.Peeker.Limit())], end, info); v != Done {
			return v
		}
	}
	return Done
}

// matches evaluates a predicate on the destination port, as Envoy's ListenerFilterChainMatchPredicate is defined.
func matches(p *mesh.ListenerPredicate, port uint16) bool {
	switch {
	case p.Any:
		return true
	case p.Not != nil:
		return !matches(p.Not, port)
	case p.PortEnd != 0:
		return p.PortStart <= int(port) && int(port) < p.PortEnd
	case len(p.Or) > 0:
		for _, q := range p.Or {
			if matches(q, port) {
				return true
			}
		}
		return false
	}
	for _, q := range p.And {
		if !matches(q, port) {
			return false
		}
	}
	return len(p.And) > 0
}
