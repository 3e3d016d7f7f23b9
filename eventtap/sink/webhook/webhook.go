// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/meshtap/meshtap/eventtap"
	"github.com/meshtap/meshtap/eventtap/event"
	"github.com/meshtap/meshtap/internal/cloudevent"
	"github.com/meshtap/meshtap/internal/login"
)

// Mode is how events are laid out in requests.
type Mode string

// The modes.
const (
	Batched    Mode = "batched"
	Structured Mode = "structured"
	Binary     Mode = "binary"
)

// Config is where and how a Sink posts.
type Config struct {
	Target Target
	// DeadLetter is where refused events go; its Address is "" where they go nowhere.
	DeadLetter Target
	Mode       Mode
	Proto      bool
	// KeyFile and TokenFile are "" where there is no signature, and no token.
	KeyFile, TokenFile string
	TLS                *login.TLS
	Timeout            time.Duration
	MaxRetryAfter      time.Duration
}

// Target is a URL in parts: where to connect, host:port, what to say in Host, and the path with its query.
type Target struct {
	Address, Host, Path string
	Secure              bool
}

const (
	dialTimeout = 5 * time.Second
	// maxAnswer bounds the body of an answer, of which nothing is used but the beginning, in a log.
	maxAnswer = 16 << 10
	// maxHead bounds the head of an answer.
	maxHead = 16 << 10
	// idle is how long a connection is kept for the next request.
	idle = 10 * time.Second
)

// Sink posts to a server. Its methods are called by one goroutine; it has no other.
type Sink struct {
	cfg   Config
	split *cloudevent.Splitter
	now   func() time.Time

	target, dead *fasthttp.HostClient
	body         []byte
	notBefore    time.Time // what the last answer said of when to come again
}

// New returns a sink that is not open.
func New(c Config) *Sink {
	return &Sink{cfg: c, split: cloudevent.NewSplitter("ce-"), now: time.Now}
}

// Caps returns what the sink promises.
func (s *Sink) Caps() eventtap.Caps {
	c := eventtap.Caps{InFlight: 1}
	if s.cfg.Proto {
		c.Encoding = eventtap.Proto
	}
	return c
}

// Open reads the files that are needed, so that one that is missing is an error now. Connections are made as they are
// needed, and end with ctx.
func (s *Sink) Open(ctx context.Context) error {
	if _, err := s.keys(); err != nil {
		return err
	}
	if _, err := s.token(); err != nil {
		return err
	}
	if _, err := s.cfg.TLS.Client(""); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	s.target = s.client(ctx, s.cfg.Target)
	if s.cfg.DeadLetter.Address != "" {
		s.dead = s.client(ctx, s.cfg.DeadLetter)
	}
	return nil
}

// client returns a client of one server that repeats nothing and follows no redirect.
func (s *Sink) client(ctx context.Context, t Target) *fasthttp.HostClient {
	return &fasthttp.HostClient{
		Addr: t.Address, Name: "meshtap", MaxConns: 1, MaxIdleConnDuration: idle, MaxResponseBodySize: maxAnswer,
		ReadBufferSize:            maxHead,
		MaxIdemponentCallAttempts: 1, RetryIfErr: func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
		DialTimeout: func(_ string, timeout time.Duration) (net.Conn, error) {
			if timeout <= 0 || timeout > dialTimeout {
				timeout = dialTimeout
			}
			return s.cfg.TLS.Dial(ctx, t.Address, t.Secure, timeout)
		},
	}
}

// Send posts the batch and waits for the answers.
func (s *Sink) Send(ctx context.Context, b *eventtap.Batch, done func(error)) {
	r := &round{s: s, ctx: ctx, b: b}
	err := s.wait(ctx)
	if err == nil {
		err = r.all()
	}
	if err == nil && len(r.refused) > 0 {
		if err = r.bury(); err == nil {
			err = &eventtap.RefusedError{Events: r.refused, Err: r.why}
		}
	}
	done(err)
}

// wait waits until the time that the last answer named.
func (s *Sink) wait(ctx context.Context) error {
	d := s.notBefore.Sub(s.now())
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// round is one Send.
type round struct {
	s       *Sink
	ctx     context.Context
	b       *eventtap.Batch
	refused []int
	why     error
}

// all posts what is not sent yet.
func (r *round) all() error {
	var left []int
	for i := range r.b.Events {
		if !r.b.Events[i].Sent {
			left = append(left, i)
		}
	}
	if r.s.cfg.Mode == Batched {
		return r.some(left)
	}
	for _, i := range left {
		if err := r.some([]int{i}); err != nil {
			return err
		}
	}
	return nil
}

// some posts events in one request, and in halves where the server refuses them together.
func (r *round) some(events []int) error {
	if len(events) == 0 {
		return nil
	}
	err := r.s.post(r.b, events)
	var no *refusal
	switch {
	case err == nil:
		for _, i := range events {
			r.b.Events[i].Sent = true
		}
	case errors.As(err, &no) && len(events) == 1:
		r.refused, r.why = append(r.refused, events[0]), err
	case errors.As(err, &no):
		half := len(events) / 2
		if err := r.some(events[:half]); err != nil {
			return err
		}
		return r.some(events[half:])
	default:
		return err
	}
	return nil
}

// bury posts what was refused to the dead letters.
func (r *round) bury() error {
	if r.s.dead == nil {
		return nil
	}
	for _, i := range r.refused {
		err := r.s.postDead(&r.b.Events[i], r.why)
		var no *refusal
		if errors.As(err, &no) {
			r.why = fmt.Errorf("%w; the dead letters refused it too: %w", r.why, err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// post posts some events of a batch.
func (s *Sink) post(b *eventtap.Batch, events []int) error {
	req := fasthttp.AcquireRequest()
	defer fasthttp.ReleaseRequest(req)
	e := &b.Events[events[0]]
	id := string(e.ID)
	switch {
	case s.cfg.Mode == Batched:
		s.fillBatch(req, b, events)
		id += "+" + strconv.Itoa(len(events))
	case s.cfg.Mode == Binary:
		if err := s.fillBinary(req, e); err != nil {
			return &refusal{err}
		}
	default:
		s.fillWhole(req, e)
	}
	return s.do(s.target, s.cfg.Target, req, id)
}

func (s *Sink) postDead(e *eventtap.Event, why error) error {
	req := fasthttp.AcquireRequest()
	defer fasthttp.ReleaseRequest(req)
	s.fillWhole(req, e)
	req.Header.Set("meshtap-refused", why.Error())
	return s.do(s.dead, s.cfg.DeadLetter, req, string(e.ID))
}

func (s *Sink) fillWhole(req *fasthttp.Request, e *eventtap.Event) {
	typ := event.TypeJSON
	if s.cfg.Proto {
		typ = event.TypeProto
	}
	req.Header.SetContentType(typ)
	req.SetBodyRaw(e.Body)
}

func (s *Sink) fillBatch(req *fasthttp.Request, b *eventtap.Batch, events []int) {
	s.body = s.body[:0]
	for n, i := range events {
		body := b.Events[i].Body
		if s.cfg.Proto {
			s.body = append(event.AppendProtoBatchHead(s.body, len(body)), body...)
		} else {
			s.body = append(append(s.body, "[,"[min(n, 1)]), body...)
		}
	}
	typ := event.TypeProtoBatch
	if !s.cfg.Proto {
		s.body, typ = append(s.body, ']'), event.TypeJSONBatch
	}
	req.Header.SetContentType(typ)
	req.SetBodyRaw(s.body)
}

func (s *Sink) fillBinary(req *fasthttp.Request, e *eventtap.Event) error {
	if err := s.split.Split(e.Body); err != nil {
		return err
	}
	for _, a := range s.split.Attributes {
		req.Header.SetBytesV(a.Name, appendHeader(nil, a.Value))
	}
	req.Header.SetContentTypeBytes(s.split.ContentType)
	req.SetBodyRaw(s.split.Data)
	return nil
}

// appendHeader appends an attribute as the HTTP protocol binding says (section 3.1.3.2): what is not printable ASCII, and
// the space, the quote and the percent sign, are written %XX.
func appendHeader(dst, s []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range s {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// do makes a request and judges its answer.
func (s *Sink) do(client *fasthttp.HostClient, t Target, req *fasthttp.Request, id string) error {
	req.Header.SetMethod(http.MethodPost)
	req.SetRequestURI(t.Path)
	req.SetHost(t.Host)
	if err := s.authorize(req, id); err != nil {
		return err
	}
	resp := fasthttp.AcquireResponse()
	defer fasthttp.ReleaseResponse(resp)
	err := client.DoTimeout(req, resp, s.cfg.Timeout)
	if err != nil && !errors.Is(err, fasthttp.ErrBodyTooLarge) { // whose status is there
		if advice := s.cfg.TLS.Advice(err); advice != "" {
			err = fmt.Errorf("%w: %s", err, advice)
		}
		return fmt.Errorf("webhook: %w", err)
	}
	return s.judge(resp)
}

// Close closes the connections.
func (s *Sink) Close(context.Context) error {
	for _, c := range []*fasthttp.HostClient{s.target, s.dead} {
		if c != nil {
			c.CloseIdleConnections()
		}
	}
	s.target, s.dead = nil, nil
	return nil
}

var _ eventtap.Sink = (*Sink)(nil)
