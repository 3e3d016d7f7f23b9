// SPDX-License-Identifier: Apache-2.0

package ads

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Poll is how to ask over REST, as Envoy does: POST of a DiscoveryRequest as JSON, again and again.
type Poll struct {
	// Path is that of the requests, such as "/v3/discovery:clusters".
	Path string
	// Delay is the time between two requests; up to a second is added, so that proxies do not ask at the same moment.
	Delay time.Duration
	// Timeout bounds one request.
	Timeout time.Duration
	// Host is the Host header.
	Host string
}

// pollJitter bounds what is added to Poll.Delay, as in Envoy.
const pollJitter = time.Second

// poller makes streams of polls: what is sent is the request that is made from then on, what is received is each answer
// that differs from the one before. A request that fails ends the stream, so that the Client's back-off goes for it.
func poller(cfg Config) opener {
	return func(ctx context.Context, t Target) (stream, func(), error) {
		d := net.Dialer{Timeout: connectTimeout}
		tr := &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, t.Network, t.Address)
			},
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialSecure(ctx, d, cfg, t)
			},
			MaxIdleConns:    1,
			IdleConnTimeout: time.Minute,
		}
		p := &polls{ctx: ctx, cfg: cfg, changed: make(chan struct{}, 1)}
		p.client = &http.Client{Transport: tr, Timeout: cfg.Poll.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}
		return p, tr.CloseIdleConnections, nil
	}
}

// dialSecure opens a connection and makes its TLS.
func dialSecure(ctx context.Context, d net.Dialer, cfg Config, t Target) (net.Conn, error) {
	config, err := cfg.Secure(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := d.DialContext(ctx, t.Network, t.Address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := handshake(ctx, raw, t, config, protocolPoll)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

// polls is a stream that is none.
type polls struct {
	ctx     context.Context
	cfg     Config
	client  *http.Client
	changed chan struct{} // capacity 1: there is something to ask at once

	mu sync.Mutex
	// req is the request, and asks counts how often its names have changed; guarded by mu.
	req  *discoverypb.DiscoveryRequest
	asks int

	// Owned by the goroutine that receives. last is the last answer, told its asks, n the number of answers that were new.
	last []byte
	told int
	n    int
}

// SendMsg sets the request. Other names are asked for at once.
func (p *polls) SendMsg(m any) error {
	r := proto.CloneOf(m.(*discoverypb.DiscoveryRequest))
	r.ResponseNonce, r.ErrorDetail = "", nil // there is no stream that they could be of
	p.mu.Lock()
	now := p.req == nil || !slices.Equal(p.req.GetResourceNames(), r.GetResourceNames())
	p.req = r
	if now {
		p.asks++
	}
	p.mu.Unlock()
	if now {
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
	return nil
}

// RecvMsg asks until there is something new.
func (p *polls) RecvMsg(m any) error {
	for {
		if err := p.wait(); err != nil {
			return err
		}
		req, asks := p.request()
		body, err := p.ask(req)
		if err != nil {
			return fmt.Errorf("ads: POST %s: %w", p.cfg.Poll.Path, err)
		}
		if body == nil || bytes.Equal(body, p.last) && p.told == asks {
			continue
		}
		r := m.(*discoverypb.DiscoveryResponse)
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, r); err != nil {
			return fmt.Errorf("ads: POST %s: the answer is no DiscoveryResponse: %w", p.cfg.Poll.Path, err)
		}
		p.last, p.told = body, asks
		p.n++
		r.Nonce = "poll-" + strconv.Itoa(p.n)
		if r.GetTypeUrl() == "" {
			r.TypeUrl = req.GetTypeUrl()
		}
		return nil
	}
}

// request returns the next request. Of names that were not asked for before, nothing is here: a server that compares versions
// would say that nothing has changed. What was asked for before this stream is not known here, and the version is of that.
func (p *polls) request() (req *discoverypb.DiscoveryRequest, asks int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told == p.asks {
		return p.req, p.asks
	}
	req = proto.CloneOf(p.req)
	req.VersionInfo = ""
	return req, p.asks
}

// wait returns when it is time to ask.
func (p *polls) wait() error {
	var next <-chan time.Time
	if p.n > 0 || p.last != nil {
		next = time.After(p.cfg.Poll.Delay + time.Duration(p.cfg.Random()*float64(pollJitter)))
	}
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-p.changed:
	case <-next:
	}
	return nil
}

// ask makes one request. The answer is nil where nothing has changed.
func (p *polls) ask(req *discoverypb.DiscoveryRequest) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(req)
	if err != nil {
		return nil, err
	}
	scheme := "http://"
	if p.cfg.Secure != nil {
		scheme = "https://"
	}
	r, err := http.NewRequestWithContext(p.ctx, http.MethodPost, scheme+p.cfg.Poll.Host+p.cfg.Poll.Path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "meshtap")
	answer, err := p.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, int64(p.cfg.MaxResponseBytes)+1))
	switch {
	case err != nil:
		return nil, err
	case answer.StatusCode == http.StatusNotModified:
		p.last = orEmpty(p.last)
		return nil, nil
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the answer is %s", answer.Status)
	case len(body) > p.cfg.MaxResponseBytes:
		return nil, fmt.Errorf("the answer has more than the %d bytes allowed", p.cfg.MaxResponseBytes)
	}
	return orEmpty(body), nil
}

// orEmpty is b, but not nil.
func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
