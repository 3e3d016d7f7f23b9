// SPDX-License-Identifier: Apache-2.0

// Package exchange holds one request and its answer while they are in flight: what the filters, the route and forward
// work on between downstream, which owns an Exchange and reuses it, and the one Outcome it ends in.
//
// An Exchange belongs to the worker that serves its stream. Nothing here blocks; what waits elsewhere asks it whether
// there is a reason to stop (Interrupted): a deadline that has passed, or a client that has gone.
package exchange

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/meshtap/meshtap/internal/bytebuf"
	"github.com/meshtap/meshtap/internal/mono"
	"github.com/meshtap/meshtap/mesh"
	"github.com/meshtap/meshtap/proxy/codec"
	"github.com/meshtap/meshtap/proxy/header"
	"github.com/meshtap/meshtap/proxy/inspect"
	"github.com/meshtap/meshtap/proxy/metrics"
	"github.com/meshtap/meshtap/proxy/route"
	"github.com/meshtap/meshtap/proxy/socket"
)

// Client is what an exchange asks of the downstream connection.
type Client interface {
	// HungUp reports whether the client has closed its side.
	HungUp() bool
	// WatchHangUp makes a hang-up interrupt the worker; nil ends that.
	WatchHangUp(w *socket.Worker)
}

// Downstream is what an exchange asks of the stream that it came on.
type Downstream interface {
	// BeforeAnswer lets the filters and the connection manager see and change the head of the final answer, and wrap its
	// body.
	BeforeAnswer(x *Exchange)
}

// Exchange is one request and its answer.
type Exchange struct {
	Worker     *socket.Worker
	Stream     codec.ServerStream
	Client     Client
	Downstream Downstream
	Request    codec.Request
	Response   codec.Response
	// Outcome is filled along the way and handed to the observers at the end.
	Outcome mesh.Outcome
	// Manager is the connection manager's configuration, Info what is known of the connection.
	Manager *mesh.HTTPManager
	Info    *inspect.ConnInfo
	// Match is the route in Table, its Route nil where there is none; RouteRandom is the number it was drawn with.
	Table       *mesh.RouteTable
	Match       route.Match
	RouteRandom uint64
	// Cluster is the numbers of the cluster that was tried last, nil where none was.
	Cluster *metrics.Cluster
	// Start is when the first byte of the request was here (mono).
	Start int64
	// Trailers are the trailer fields of the answer as it came, nil where there are none. They are the attempt's until
	// KeepTrailers.
	Trailers *header.List
	// RequestBody is what the request's body is read from, where a filter wraps it; otherwise it is nil. ResponseBody is the
	// same for the answer, from PrepareAnswer on, and never nil there. See package filter.
	RequestBody, ResponseBody codec.Body
	// IsLocal says that the answer is Meshtap's own.
	IsLocal bool
	// IsGRPC says that the client speaks gRPC, so that answers of our own are gRPC's too.
	IsGRPC bool

	limits  [numDeadlines]int64 // mono; 0 for none
	idle    time.Duration       // the stream idle timeout
	timeout time.Duration       // the route's, from the end of the request on
	try     time.Duration       // that of the attempt, likewise
	active  atomic.Int64        // mono: when bytes last moved
	ended   atomic.Int64        // mono: when another worker read the end of the request; 0 once that was seen
	failed  atomic.Pointer[mesh.Failure]
	// ignore says that the client's closing its side does not end the exchange.
	ignore atomic.Bool

	random uint64
	tries  []mesh.Try
	number [20]byte
	kept   header.List // Trailers, once the attempt that they came with has ended
	own    ownBody
	states []any // what filters keep, by their places
}

// Deadline is one of the times at which an exchange may have to end.
type Deadline uint8

// The deadlines.
const (
	// RequestDeadline is the route's timeout.
	RequestDeadline Deadline = iota
	// TryDeadline and TryIdleDeadline are those of one attempt.
	TryDeadline
	TryIdleDeadline
	// TryMaxDeadline is the longest that an attempt may last.
	TryMaxDeadline
	// IdleDeadline is the stream idle timeout; it moves with Touch.
	IdleDeadline
	// MaxDeadline is the longest that a request may last with all its attempts.
	MaxDeadline
	// ReadDeadline is the connection manager's request_timeout, for reading the request.
	ReadDeadline
	numDeadlines
)

var expired = [numDeadlines]mesh.Failure{
	RequestDeadline: {Kind: mesh.RequestTimeout, Side: mesh.SideUpstream},
	TryDeadline:     {Kind: mesh.PerTryTimeout, Side: mesh.SideUpstream},
	TryIdleDeadline: {Kind: mesh.PerTryTimeout, Side: mesh.SideUpstream},
	TryMaxDeadline:  {Kind: mesh.MaxDuration, Side: mesh.SideUpstream},
	IdleDeadline:    {Kind: mesh.StreamIdleTimeout, Side: mesh.SideUpstream},
	MaxDeadline:     {Kind: mesh.MaxDuration, Side: mesh.SideDownstream},
	ReadDeadline:    {Kind: mesh.RequestReadTimeout, Side: mesh.SideDownstream},
}

// Begin makes x ready for a new request on w. random seeds the request's own random numbers.
func (x *Exchange) Begin(w *socket.Worker, start int64, random uint64) {
	x.Request.Reset()
	x.Response.Reset()
	x.Outcome = mesh.Outcome{
		Shard: w.Shard, Start: mono.Wall(start), Headers: x,
		RequestEnd: -1, UpstreamStart: -1, UpstreamFirst: -1, UpstreamEnd: -1, UpstreamTook: -1,
	}
	x.Worker, x.Start, x.random = w, start, random
	x.Table, x.Match, x.Cluster, x.Trailers = nil, route.Match{}, nil, nil
	x.RequestBody, x.ResponseBody, x.own.bytes = nil, nil, nil
	clear(x.states)
	x.IsLocal, x.IsGRPC, x.idle = false, false, 0
	x.limits = [numDeadlines]int64{}
	x.timeout, x.try = 0, 0
	x.ended.Store(0)
	x.failed.Store(nil)
	x.ignore.Store(false)
	x.tries = x.tries[:0]
}

// Since returns the nanoseconds since the exchange began.
func (x *Exchange) Since() int64 { return mono.Now() - x.Start }

// Random returns a random number (splitmix64: Steele, Lea, Flood, OOPSLA 2014).
func (x *Exchange) Random() uint64 {
	x.random += 0x9e3779b97f4a7c15
	z := x.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// SetDeadline sets one deadline to t (mono) and makes the worker mind the earliest of all.
func (x *Exchange) SetDeadline(d Deadline, t int64) {
	x.limits[d] = t
	x.arm()
}

// After sets one deadline to so long from now; 0 clears it.
func (x *Exchange) After(d Deadline, in time.Duration) {
	if in <= 0 {
		x.ClearDeadline(d)
		return
	}
	x.SetDeadline(d, mono.Now()+int64(in))
}

// ClearDeadline removes one deadline. The worker may still be interrupted by it once, for nothing.
func (x *Exchange) ClearDeadline(d Deadline) { x.limits[d] = 0 }

// SetIdle sets the stream idle timeout, which starts anew with each Touch; 0 turns it off.
func (x *Exchange) SetIdle(timeout time.Duration) {
	now := mono.Now()
	x.idle = timeout
	x.active.Store(now)
	if timeout <= 0 {
		x.ClearDeadline(IdleDeadline)
		return
	}
	x.SetDeadline(IdleDeadline, now+int64(timeout))
}

// Touch notes that bytes have moved. Any of the exchange's workers may call it.
func (x *Exchange) Touch() { x.active.Store(mono.Now()) }

func (x *Exchange) arm() {
	next := int64(0)
	for _, t := range x.limits {
		if t != 0 && (next == 0 || t < next) {
			next = t
		}
	}
	x.Worker.SetDeadline(next)
}

// SetTimeout sets the route's timeout, which begins with the end of the request; 0 turns it off.
func (x *Exchange) SetTimeout(t time.Duration) {
	x.timeout = t
	if x.Outcome.RequestEnd >= 0 {
		x.startTimeout(x.Start + x.Outcome.RequestEnd)
	}
}

// SetTryTimeout sets the timeout of the attempt, which begins now or, as in Envoy, with the end of the request where that
// is still to come; 0 turns it off.
func (x *Exchange) SetTryTimeout(t time.Duration) {
	x.try = t
	if x.Outcome.RequestEnd < 0 {
		t = 0
	}
	x.After(TryDeadline, t)
}

// RequestRead notes that the request was read to its end.
func (x *Exchange) RequestRead() { x.requestRead(mono.Now()) }

func (x *Exchange) requestRead(at int64) {
	x.Outcome.RequestEnd = at - x.Start
	x.ClearDeadline(ReadDeadline)
	x.startTimeout(at)
	if x.try > 0 {
		x.SetDeadline(TryDeadline, at+int64(x.try))
	}
}

func (x *Exchange) startTimeout(from int64) {
	if x.timeout > 0 {
		x.SetDeadline(RequestDeadline, from+int64(x.timeout))
	}
}

// ReadElsewhere is RequestRead for another worker than the exchange's own.
func (x *Exchange) ReadElsewhere() {
	x.ended.Store(mono.Now())
	x.Worker.Interrupt()
}

// Settle takes in what another worker noted, once that worker has been joined.
func (x *Exchange) Settle() {
	if at := x.ended.Swap(0); at != 0 && x.Outcome.RequestEnd < 0 {
		x.requestRead(at)
	}
}

// FailElsewhere ends the exchange for a reason that another worker met.
func (x *Exchange) FailElsewhere(f *mesh.Failure) {
	x.failed.CompareAndSwap(nil, f)
	x.Worker.Interrupt()
}

// Interrupted implements socket.Owner: it returns the reason to stop, as a *mesh.Failure, or nil.
func (x *Exchange) Interrupted() error {
	if f := x.failed.Load(); f != nil {
		return f
	}
	if !x.ignore.Load() && x.Client.HungUp() {
		return &mesh.Failure{Kind: mesh.DownstreamClosed, Side: mesh.SideDownstream}
	}
	x.Settle()
	now := mono.Now()
	if d := IdleDeadline; x.limits[d] != 0 && x.limits[d] <= now {
		x.limits[d] = x.active.Load() + int64(x.idle)
	}
	for d, t := range x.limits {
		if t != 0 && t <= now {
			f := expired[d]
			if Deadline(d) == IdleDeadline && x.Outcome.RequestEnd < 0 {
				f.Side = mesh.SideDownstream // it is the client that does not go on
			}
			return &f
		}
	}
	x.arm()
	return nil
}

// WatchClient makes the client's going end what the exchange waits for. A client that had closed its side before its
// request was whole is taken to wait for the answer.
func (x *Exchange) WatchClient() {
	if x.halfCloses() && x.Client.HungUp() {
		x.ignore.Store(true)
		return
	}
	x.Client.WatchHangUp(x.Worker)
}

// IgnoreClient ends WatchClient: a client that closed its side may still be read by, as in a tunnel.
func (x *Exchange) IgnoreClient() {
	if x.halfCloses() {
		x.ignore.Store(true)
		x.Client.WatchHangUp(nil)
	}
}

// halfCloses reports whether a client that has hung up may still read. In HTTP/2 it cannot: its stream was reset, or its
// connection has ended.
func (x *Exchange) halfCloses() bool { return x.Request.Protocol != mesh.HTTP2 }

// Pause waits for d, unless there is a reason to stop.
func (x *Exchange) Pause(d time.Duration) error {
	until := mono.Now() + int64(d)
	t := time.AfterFunc(d, x.Worker.Signal)
	defer t.Stop()
	for mono.Now() < until {
		if err := x.Worker.Sleep(); err != nil {
			return err
		}
	}
	return nil
}

// Keep keeps what a filter needs to know of this request later on. place is the filter's own.
func (x *Exchange) Keep(place int, v any) {
	for len(x.states) <= place {
		x.states = append(x.states, nil)
	}
	x.states[place] = v
}

// Kept returns what Keep kept of this request, nil where that is nothing.
func (x *Exchange) Kept(place int) any {
	if place >= len(x.states) {
		return nil
	}
	return x.states[place]
}

// Body returns what the request's body is read from.
func (x *Exchange) Body() codec.Body {
	if x.RequestBody != nil {
		return x.RequestBody
	}
	return x.Stream.Body()
}

// PrepareAnswer lets the filters and the connection manager have their say on the final answer, whose head is in Response,
// before Send. It returns the body to send, which is body where no filter wraps it.
func (x *Exchange) PrepareAnswer(body codec.Body) codec.Body {
	x.ResponseBody = body
	x.Downstream.BeforeAnswer(x)
	return x.ResponseBody
}

// Send sends the head of the final answer, after PrepareAnswer, with the first bytes of its body; end says that these are
// all.
func (x *Exchange) Send(first bytebuf.Piece, end bool) error {
	x.Outcome.Status = x.Response.Status
	if !codec.Bodiless(x.Request.Method, x.Response.Status) {
		x.Outcome.BytesSent += int64(first.Len())
	}
	return x.Stream.Head(x.Worker, &x.Response, first, end)
}

// SendLocal sends the answer that Answer made, filters included; body is all of its body. A client of gRPC gets it as one
// of gRPC.
func (x *Exchange) SendLocal(body []byte) error {
	if x.IsGRPC {
		x.answerGRPC(body)
		body = nil
	}
	x.own.bytes = body
	first, end, err := x.PrepareAnswer(&x.own).Buffered()
	if err != nil {
		return err
	}
	return x.Send(first, end)
}

// KeepTrailers makes the trailers last as long as the exchange. It is for when the attempt's stream is about to end.
func (x *Exchange) KeepTrailers() {
	if x.Trailers != nil {
		x.kept.CopyFrom(x.Trailers)
		x.Trailers = &x.kept
	}
}

// AddTry records an attempt that failed and will be repeated.
func (x *Exchange) AddTry(t mesh.Try) {
	const most = 16 // later ones are counted in Outcome.Attempts alone
	if len(x.tries) < most {
		x.tries = append(x.tries, t)
		x.Outcome.Tries = x.tries
	}
}

// Answer makes the response Meshtap's own: a status, and a plain text body that the caller sends. details are the
// response code details.
func (x *Exchange) Answer(status int, details string, body []byte) {
	r := &x.Response
	r.Reset()
	r.Status = status
	r.Length = int64(len(body))
	if len(body) > 0 {
		r.Header.Add("content-length", strconv.AppendInt(x.number[:0], r.Length, 10))
		r.Header.AddString("content-type", "text/plain")
	}
	x.IsLocal = true
	x.Outcome.Details = details
}

// RequestHeader implements mesh.Headers. The control data of HTTP/2 have their names with a colon.
func (x *Exchange) RequestHeader(name string) []byte {
	if name != "" && name[0] == ':' {
		switch name {
		case ":method":
			return x.Request.Method
		case ":path":
			return x.Request.Path
		case ":authority":
			return x.Request.Authority
		case ":scheme":
			return x.Request.Scheme
		}
		return nil
	}
	if name == "host" {
		return x.Request.Authority
	}
	return x.Request.Header.Get(name)
}

// ResponseHeader implements mesh.Headers.
func (x *Exchange) ResponseHeader(name string) []byte {
	if name == ":status" {
		if x.Response.Status == 0 {
			return nil
		}
		return strconv.AppendInt(x.number[:0], int64(x.Response.Status), 10)
	}
	return x.Response.Header.Get(name)
}

// ResponseTrailer implements mesh.Headers.
func (x *Exchange) ResponseTrailer(name string) []byte {
	if x.Trailers == nil {
		return nil
	}
	return x.Trailers.Get(name)
}

// JoinedRequest, JoinedResponse and JoinedTrailer are the values of all fields of a name, with commas between them, nil where
// there is no such field. The result is borrowed.
func (x *Exchange) JoinedRequest(name string) []byte { return x.Request.Header.Joined(name) }

// JoinedResponse is JoinedRequest for the answer.
func (x *Exchange) JoinedResponse(name string) []byte { return x.Response.Header.Joined(name) }

// JoinedTrailer is JoinedRequest for the answer's trailers.
func (x *Exchange) JoinedTrailer(name string) []byte {
	if x.Trailers == nil {
		return nil
	}
	return x.Trailers.Joined(name)
}

var (
	_ mesh.Headers = (*Exchange)(nil)
	_ socket.Owner = (*Exchange)(nil)
)
